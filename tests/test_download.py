"""Downloads: whole and as pinned, or not at all; from a server that does what servers do."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from devenv.clients import download
from devenv.clients.download import Pinned
from devenv.errors import Failure, InputWrong, Refused, StepFailed
from tests.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 8000  # two megabytes
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For servers that stall: not long. A busy machine may be as slow, so how often it was asked says nothing then."""
    monkeypatch.setattr(download, "PATIENCE", 0.3)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(download, "PAUSE", 0.01)
    with serving(FileServer(CONTENT)) as server:
        yield server


def fetched(files: FileServer, into: Path, **changes: str) -> bytes:
    download.fetch(Pinned(**{"url": files.url, "sha256": SUM, **changes}), into / "file", lambda here, whole: None)
    return (into / "file").read_bytes()


@pytest.mark.parametrize(
    ("does", "requests"),
    [
        (["serves"], 1),
        (["breaks off", "serves"], 2),
        (["breaks off", "503", "503", "breaks off", "503", "serves"], 6),  # not four in a row that brought nothing
        (["503", "429", "serves"], 3),
        (["302", "serves"], 2),
    ],
    ids=str,
)
def test_the_file_comes_whole_from_a_server_that(
    files: FileServer, tmp_path: Path, does: list[str], requests: int
) -> None:
    files.does = does
    assert fetched(files, tmp_path) == CONTENT
    assert len(files.asked) == requests


@pytest.mark.parametrize("does", ["stalls", "drips"])
def test_a_server_that_stalls_is_asked_again(files: FileServer, tmp_path: Path, impatient: None, does: str) -> None:
    files.does = [does, "serves"]
    assert fetched(files, tmp_path) == CONTENT
    assert len(files.asked) > 1


def test_what_broke_off_goes_on_where_it_stopped(files: FileServer, tmp_path: Path) -> None:
    files.does = ["breaks off", "serves"]
    fetched(files, tmp_path)
    assert files.asked[1]["Range"] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("lengths", [True, False], ids=["with lengths", "without"])
def test_a_server_that_cannot_begin_in_the_middle_gives_it_all_again(
    files: FileServer, tmp_path: Path, impatient: None, lengths: bool
) -> None:
    files.ranges, files.lengths = False, lengths
    files.does = ["stalls", "serves"]
    assert fetched(files, tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("404", "404 Not Found"),
        ("403", "403 Forbidden"),
        ("503", "503 Service Unavailable; given up after 4 tries"),
    ],
)
def test_what_does_not_come_is_a_failure_that_says_why(files: FileServer, tmp_path: Path, does: str, why: str) -> None:
    files.does = [does]
    with pytest.raises(StepFailed) as failed:
        fetched(files, tmp_path)
    assert (failed.value.where, failed.value.why) == (files.url, why)


@pytest.mark.parametrize("does", ["stalls", "drips"])
def test_a_server_that_goes_on_stalling_is_given_up(
    files: FileServer, tmp_path: Path, impatient: None, does: str
) -> None:
    files.does = [does]  # ten bytes each time are no way to go on
    with pytest.raises(StepFailed) as failed:
        fetched(files, tmp_path)
    assert failed.value.why.endswith("; given up after 4 tries")
    assert len(files.asked) == 4


def test_nobody_who_answers_is_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(FileServer(b"")) as gone:
        pass
    with pytest.raises(StepFailed, match="could not be downloaded") as failed:
        fetched(gone, tmp_path)
    assert "refused" in failed.value.why


@pytest.mark.parametrize("does", [["tampers"], ["breaks off", "tampers"]], ids=str)
def test_what_is_not_as_pinned_is_refused_and_leaves_no_file(
    files: FileServer, tmp_path: Path, does: list[str]
) -> None:
    files.does = does
    with pytest.raises(Refused, match="not what is pinned") as refused:
        fetched(files, tmp_path)
    assert SUM in refused.value.why
    assert not (tmp_path / "file").exists()


def test_a_file_of_this_machine_will_do(tmp_path: Path) -> None:
    (tmp_path / "shared").write_bytes(CONTENT)
    download.fetch(Pinned((tmp_path / "shared").as_uri(), SUM), tmp_path / "file", lambda here, whole: None)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_how_far_it_is_is_told(files: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    download.fetch(Pinned(files.url, SUM), tmp_path / "file", lambda here, whole: seen.append((here, whole)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(seen) > 1


def test_a_login_goes_to_its_own_host_only_and_into_no_message(files: FileServer, tmp_path: Path) -> None:
    address = files.url.replace("http://", "http://ada:pass%40word@")
    wanted = download.pinned(f"{address}#sha256={SUM}", "X")
    files.does = ["302", "404"]
    with pytest.raises(StepFailed) as failed:
        download.fetch(wanted, tmp_path / "file", lambda here, whole: None)
    assert files.asked[0]["Authorization"] == "Basic " + base64.b64encode(b"ada:pass@word").decode()
    assert "Authorization" not in files.asked[1]
    assert "pass" not in str(failed.value.record())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "programs.whl",
        "https://host/programs.whl",
        "https://host/programs.whl#sha256=abc",
        f"https://host/programs.whl#md5={SUM}",
        f"https://host#sha256={SUM}",
        f"ftp://host/programs.whl#sha256={SUM}",
    ],
)
def test_an_address_without_a_pin_is_wrong(text: str) -> None:
    with pytest.raises(InputWrong) as wrong:
        download.pinned(text, "DEVENV_PROGRAMS_URL")
    assert wrong.value.where == "DEVENV_PROGRAMS_URL"
    assert isinstance(wrong.value, Failure) and "#sha256=" in wrong.value.next
