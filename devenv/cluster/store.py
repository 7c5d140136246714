"""A folder of built things under the cache: each is there completely, or not at all.

In: a folder to make and a function that fills it. Out: the folder, made at most once, by one process at a time.
Touches the cache directory only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from devenv.errors import StepFailed
from devenv.report import Note

Waits = Callable[[str], None]

MADE = ".made.json"  # the sizes of the wanted files, written last
SUMS = ".sums.json"  # their SHA-256, looked at only where something is wrong: to read all of it takes a second
UNFINISHED = ".unfinished"
KEEP_DAYS = 30
KEEP_VERSIONS = 4


def digest(*parts: str | bytes) -> str:
    """Twelve hex digits that stand for all the parts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:12]


def sources(folder: Path, suffixes: Sequence[str] = ("go.mod", "go.sum", ".go", ".py")) -> list[str | bytes]:
    """Name and content of each source file below the folder, in order: to be hashed."""
    parts: list[str | bytes] = []
    for name in files(folder, ("__pycache__",)):
        if name.endswith(tuple(suffixes)) and not name.endswith("_test.go"):
            parts += [name, (folder / name).read_bytes()]
    return parts


def files(folder: Path, skip: Collection[str] = ()) -> Iterator[str]:
    """The files below a folder, as paths inside it, in order; folders of the names in `skip` are not entered."""
    start = len(str(folder)) + 1
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skip)
        yield from (f"{place}/{name}"[start:] for name in sorted(names))


def sound(folder: Path, wanted: Iterable[str] = ()) -> bool:
    """Whether the folder was finished, and the wanted files in it are still as they were made."""
    try:
        made = json.loads((folder / MADE).read_text())
        return all((folder / name).is_dir() or (folder / name).stat().st_size == made[name] for name in wanted)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def whole(folder: Path) -> bool:
    """Whether the folder was finished, and every file that was wanted of it is still as it was made."""
    try:
        return sound(folder, json.loads((folder / MADE).read_text()))
    except (OSError, ValueError, TypeError):
        return False


def damaged(folder: Path) -> list[str]:
    """The files whose bytes are not those that were made, though their sizes are: reads all of them.

    What was made before sums were kept counts as whole.
    """
    try:
        sums = dict(json.loads((folder / SUMS).read_text()))
        return [name for name, value in sums.items() if _sum(folder / name) != value]
    except (OSError, ValueError, TypeError):
        return []


def _sum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def records(folder: Path, wanted: Iterable[str]) -> dict[str, str]:
    """The files that say how the wanted ones were made. The sizes last: with them a folder counts as finished."""
    names = sorted(wanted)
    sums = {name: _sum(folder / name) for name in names if (folder / name).is_file()}
    sizes = {name: (folder / name).stat().st_size for name in names}
    return {SUMS: json.dumps(sums), MADE: json.dumps(sizes)}


def make(folder: Path, fill: Callable[[Path], None], *, what: str, waits: Waits, wanted: Sequence[str] = ()) -> Path:
    """The folder, filled by `fill` in a temporary place and renamed when it is complete; `what` names it to people."""
    if sound(folder, wanted):
        os.utime(folder)
        return folder
    with locked(folder.parent / f".{folder.name}.lock", what, waits):
        if sound(folder, wanted):  # another process made it while we waited
            return folder
        if folder.exists():
            waits(Note(f"{what}: the copy in the cache is damaged, it is made anew"))
        unfinished = folder.with_name(folder.name + UNFINISHED)
        _remove(unfinished)
        unfinished.mkdir(parents=True)
        try:
            fill(unfinished)
            _require(unfinished, wanted, what)
            for name, text in records(unfinished, wanted).items():
                (unfinished / name).write_text(text)
            _remove(folder)
            unfinished.rename(folder)
        except BaseException:
            _remove(unfinished)
            raise
    prune(folder.parent)
    return folder


def _require(folder: Path, wanted: Sequence[str], what: str) -> None:
    missing = [name for name in wanted if not (folder / name).exists()]
    if missing:
        raise StepFailed(f"{what} did not bring {', '.join(missing)}", where=str(folder), next="./inv doctor")


@contextmanager
def locked(lock: Path, what: str, waits: Waits) -> Iterator[None]:
    """Holds the lock file; while another process holds it, says which one and what it does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                waits(f"waiting for {file.read().strip() or 'another process'}")
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"process {os.getpid()}, which is at {what}")
        file.flush()
        yield


def prune(place: Path, days: float = KEEP_DAYS, versions: int = KEEP_VERSIONS) -> list[Path]:
    """Removes what nobody asked for in so many days, and the oldest of more versions; returns what went.

    A folder that a running program was started from stays: a cluster still uses it.
    """
    made = [folder for folder in place.iterdir() if (folder / MADE).exists()] if place.is_dir() else []
    made.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    before = time.time() - days * 86400
    seen: dict[str, int] = {}
    old = []
    for folder in made:
        recipe = folder.name.rpartition("-")[0]
        seen[recipe] = seen.get(recipe, 0) + 1
        if folder.stat().st_mtime < before or seen[recipe] > versions:
            old.append(folder)
    running = _running_from() if old else set()
    gone = [folder for folder in old if not any(program.is_relative_to(folder) for program in running)]
    for folder in gone:
        _remove(folder)
        folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
    return gone


def _running_from() -> set[Path]:
    """The files of all running programs that we may see."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/exe"):
        with suppress(OSError):
            found.add(link.readlink())
    return found


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def remember(file: Path, key: str, compute: Callable[[], str], stamp: Sequence[int]) -> str:
    """The text that `compute` gave for `key` when `stamp` was the same as now; computed and kept otherwise."""
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    entry = known.get(key)
    if isinstance(entry, list) and entry[:-1] == list(stamp):
        return str(entry[-1])
    text = compute()
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps({**known, key: [*stamp, text]}))
    fresh.replace(file)
    return text
