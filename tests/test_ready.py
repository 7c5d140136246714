"""Ready-made Go programs: which of the installed wheel, the cache, the address and the compiler is asked, and the wheel."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from devenv.clients import download, shell
from devenv.clients.download import Pinned
from devenv.cluster import programs, ready, store, wheel
from devenv.cluster.gobuild import GoBuild
from devenv.errors import InputWrong, Refused, StepFailed
from devenv.report import Note
from tests.file_server import FileServer, serving
from tests.test_programs import _go, home, module

__all__ = ["home", "module"]  # fixtures


@pytest.fixture(autouse=True)
def one_recipe(home: Path, module: GoBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    """One module of two programs, Go on PATH, and nothing installed."""
    monkeypatch.setattr(programs, "RECIPES", (module,))
    monkeypatch.setattr(programs, "NAMES", module.makes)
    monkeypatch.setattr(ready, "PACKAGE", "devenv_programs")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    _go(home, f"echo compiled >> {home}/compiled")


@pytest.fixture
def made(home: Path) -> wheel.Written:
    """A wheel of those programs; the cache is empty again, and nobody has compiled."""
    written = wheel.write(programs.built(programs.quiet), home / "dist", programs.quiet)
    for folder in programs.place().glob("tiny-*"):
        folder.rename(home / "gone")
    (home / "compiled").unlink()
    return written


def install(made: wheel.Written, home: Path, monkeypatch: pytest.MonkeyPatch, *, by_pip: bool = False) -> Path:
    """Installs the wheel, with the real pip as a team would, or as quickly as can be; where Python finds it."""
    site = home / "site"
    if by_pip:
        argv: list[str | Path] = [sys.executable, "-m", "pip", "install", "--no-index", "--target", site, made.file]
        output = shell.run(argv)
        assert output.code == 0, output.stderr
    else:
        ready._unpack(made.file, site, Pinned("", ""))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, ready.PACKAGE, raising=False)
    return site


def said_at(made: wheel.Written, url: str, monkeypatch: pytest.MonkeyPatch, mode: str = "auto") -> None:
    monkeypatch.setenv("DEVENV_PROGRAMS", mode)
    monkeypatch.setenv("DEVENV_PROGRAMS_URL", f"{url}#sha256={made.sha256}")


@pytest.fixture
def served(made: wheel.Written) -> Iterator[FileServer]:
    with serving(FileServer(made.file.read_bytes())) as files:
        yield files


def compiled(home: Path) -> int:
    """How often the compiler was asked."""
    file = home / "compiled"
    return len(file.read_text().splitlines()) if file.exists() else 0


def first(told: list[str] | None = None) -> Path:
    return programs.ensure(["first"], (told if told is not None else []).append)["first"]


# -- the order ---------------------------------------------------------------------------------------------------------


def test_the_installed_wheel_comes_first(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(made, home, monkeypatch, by_pip=True)
    said_at(made, served.url, monkeypatch)
    found = first()
    assert found.is_relative_to(site) and os.access(found, os.X_OK)
    assert (compiled(home), served.asked) == (0, [])


def test_then_the_cache_then_the_address_and_neither_is_asked_twice(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_at(made, served.url, monkeypatch)
    found = first()
    assert os.access(found, os.X_OK) and "ready-" in str(found)
    assert first() == found
    assert (compiled(home), len(served.asked)) == (0, 1)
    (home / "gone").rename(programs.place() / found.parent.name)
    assert first() == programs.place() / found.parent.name / "first"


def test_without_any_of_them_it_is_compiled(home: Path) -> None:
    first()
    assert compiled(home) == 1


def test_neither_installed_nor_downloaded_needs_a_go(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "bin/go").unlink()
    monkeypatch.setattr(programs, "_off_path", lambda name: None)
    monkeypatch.setenv("PATH", str(home / "bin"))
    said_at(made, served.url, monkeypatch, "download")
    assert first().exists()


def test_build_takes_nobody_elses_programs(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(made, home, monkeypatch)
    said_at(made, served.url, monkeypatch, "build")
    assert first().parent.parent == programs.place()
    assert (compiled(home), served.asked) == (1, [])


def test_the_images_key_is_the_same_before_and_after(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = programs.keys(["first"])
    said_at(made, served.url, monkeypatch)
    first()
    assert programs.keys(["first"]) == before


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("does", ["404", "503", "stalls"])
def test_where_the_address_gives_nothing_auto_compiles_and_says_why(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    served.does = [does]
    said_at(made, served.url, monkeypatch)
    told: list[str] = []
    first(told)
    assert compiled(home) == 1
    (note,) = [line for line in told if isinstance(line, Note)]
    assert note.startswith("compiling tiny: the ready-made programs cannot be had: ") and served.url in note


def test_where_the_address_gives_nothing_download_does_not_compile(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.does = ["404"]
    said_at(made, served.url, monkeypatch, "download")
    with pytest.raises(StepFailed, match="could not be downloaded"):
        first()
    assert compiled(home) == 0


@pytest.mark.parametrize("mode", ["auto", "download"])
def test_tampered_programs_are_refused_and_never_run(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    served.does = ["tampers"]
    said_at(made, served.url, monkeypatch, mode)
    with pytest.raises(Refused, match="not what is pinned"):
        first()
    assert compiled(home) == 0
    assert [folder.name for folder in programs.place().iterdir() if folder.is_dir()] == []


def test_download_without_an_address_is_refused_with_the_variable_to_set(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVENV_PROGRAMS", "download")
    with pytest.raises(Refused) as refused:
        first()
    assert refused.value.why == "DEVENV_PROGRAMS_URL is not set"
    assert compiled(home) == 0


@pytest.mark.parametrize("mode", ["auto", "download"])
def test_a_wheel_of_other_sources_is_not_taken(
    home: Path, made: wheel.Written, served: FileServer, module: GoBuild, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    said_at(made, served.url, monkeypatch, mode)
    (module.folder / "main.go").write_text("package main // newer\n")
    told: list[str] = []
    if mode == "download":
        with pytest.raises(Refused, match="must not be compiled") as refused:
            first(told)
        assert served.url in refused.value.why
    else:
        first(told)
        assert "compiling tiny: the ready-made programs are of other sources than these, or damaged" in told
    assert compiled(home) == (mode == "auto")


def test_an_installed_wheel_of_other_sources_is_not_taken(
    home: Path, made: wheel.Written, module: GoBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(made, home, monkeypatch)
    (module.folder / "main.go").write_text("package main // newer\n")
    told: list[str] = []
    first(told)
    assert compiled(home) == 1
    assert any(isinstance(line, Note) and "other sources" in line for line in told)


def test_a_downloaded_wheel_that_is_damaged_is_downloaded_anew(
    home: Path, made: wheel.Written, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_at(made, served.url, monkeypatch)
    found = first()
    found.write_text("cut")
    told: list[str] = []
    assert first(told) == found and found.read_text() == "built\n"
    assert "the ready-made programs: the copy in the cache is damaged, it is downloaded anew" in told
    assert (compiled(home), len(served.asked)) == (0, 2)


def test_an_address_of_something_else_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FileServer(b"<html>login</html>")) as files:
        sum_ = hashlib.sha256(files.content).hexdigest()
        monkeypatch.setenv("DEVENV_PROGRAMS_URL", f"{files.url}#sha256={sum_}")
        with pytest.raises(Refused, match="no wheel"):
            first()


def test_a_wrong_word_is_told_with_those_that_there_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVENV_PROGRAMS", "downlaod")
    with pytest.raises(InputWrong) as wrong:
        first()
    assert wrong.value.why == "did you mean download?"


# -- the wheel ---------------------------------------------------------------------------------------------------------


def test_the_wheel_is_tagged_for_machines_of_this_kind_and_says_its_sources(made: wheel.Written) -> None:
    name, version, tag = made.file.name.removesuffix(".whl").split("-", 2)
    assert (name, version) == ("devenv_programs", made.version)
    assert tag.startswith("py3-none-manylinux_2_17_") and ".musllinux_1_1_" in tag
    assert made.sha256 == hashlib.sha256(made.file.read_bytes()).hexdigest()
    with zipfile.ZipFile(made.file) as archive:
        fields = Parser().parsestr(archive.read(f"devenv_programs-{version}.dist-info/WHEEL").decode())
    assert [f"py3-none-{one}" for one in tag.removeprefix("py3-none-").split(".")] == fields.get_all("Tag")


def test_the_same_programs_make_the_same_wheel(home: Path) -> None:
    folders = programs.built(programs.quiet)
    one, other = (wheel.write(folders, home / place, programs.quiet) for place in ("a", "b"))
    assert one.sha256 == other.sha256


def test_what_pip_installs_is_what_the_wheels_record_says(
    home: Path, made: wheel.Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(made, home, monkeypatch, by_pip=True)
    (info,) = site.glob("*.dist-info")
    distribution = PathDistribution(info)
    assert (distribution.metadata["Name"], distribution.version) == ("devenv-programs", made.version)
    listed = {str(file): file for file in distribution.files or []}
    assert any(name.endswith("/first") for name in listed)
    for name, file in listed.items():
        if file.hash and not name.endswith((".pyc", "INSTALLER", "REQUESTED", "direct_url.json")):
            digest = hashlib.new(file.hash.mode, (site / name).read_bytes()).digest()
            assert wheel.encoded(digest) == file.hash.value, name


def test_a_wheel_of_programs_that_came_in_one_is_the_same_again(
    home: Path, made: wheel.Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(made, home, monkeypatch)
    _go(home, "exit 1")
    again = wheel.write(programs.built(programs.quiet), home / "again", programs.quiet)
    assert again.sha256 == made.sha256


def test_what_is_typed_next_is_an_address_that_is_understood(made: wheel.Written) -> None:
    _, export = wheel.Built((), made).next
    address = export.partition("='")[2].removesuffix("'")
    assert download.pinned(address, "X").sha256 == made.sha256
    assert "+" not in address  # a blank, to some servers


def test_a_wheel_that_is_cut_short_is_not_left_behind(home: Path, module: GoBuild) -> None:
    [(recipe, folder)] = programs.built(programs.quiet)
    (folder / "second").unlink()
    with pytest.raises(FileNotFoundError):
        wheel.write([(recipe, folder)], home / "dist", programs.quiet)
    assert list((home / "dist").iterdir()) == []


# -- the sums ----------------------------------------------------------------------------------------------------------


def test_bytes_that_changed_in_a_file_of_the_same_size_are_found(home: Path) -> None:
    folder = first().parent
    assert store.damaged(folder) == []
    (folder / "first").write_text("rotten"[: len("built\n")])
    assert store.sound(folder, ["first"])
    assert store.damaged(folder) == ["first"]
    (folder / store.SUMS).unlink()  # as of a cache from before
    assert store.damaged(folder) == []


def test_what_was_damaged_in_the_cache_is_told(home: Path) -> None:
    first().write_text("cut")
    told: list[str] = []
    first(told)
    assert "first, second: the copy in the cache is damaged, it is made anew" in told
    assert isinstance(told[0], Note)
