"""How an embedded cluster is: its supervisor's status file, read into records. Reads files below /run and /proc only.

The supervisor holds a lock for as long as it lives, so that a status file without it is history, whatever it says.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from devenv import paths

SCHEMA = "devenv/cluster/v1"
CRASHES = 3  # a component that ended so often while the cluster came up will not come up by waiting


class Component(NamedTuple):
    """One process of the cluster; `pid` as the supervisor sees it, inside."""

    name: str
    state: str
    pid: int
    since: str
    restarts: int
    exit: str
    log: str


class Condition(NamedTuple):
    """What the supervisor last wrote."""

    phase: str  # starting, ready, degraded, stopping
    waiting: str
    server: str
    version: str
    node: str
    mended: tuple[str, ...]
    components: tuple[Component, ...]
    programs: Mapping[str, str]
    simulated: int = 0  # nodes that do not exist

    @property
    def ready(self) -> bool:
        return self.phase == "ready"

    @property
    def crashing(self) -> Component | None:
        """The first component that does not come up however often it is started."""
        return next((part for part in self.components if part.restarts >= CRASHES and part.state != "running"), None)


class Status(NamedTuple):
    """A cluster as `cluster.status` shows it."""

    name: str
    running: bool
    ready: bool
    waiting: str
    kubeconfig: str
    server: str
    version: str
    components: tuple[Mapping[str, Any], ...]
    memory: int  # of all processes, pods included
    disk: int
    images: tuple[str, ...] = ()  # that its containerd has

    def record(self) -> dict[str, Any]:
        """The status as JSON shows it."""
        lists = {"components": [dict(part) for part in self.components], "images": list(self.images)}
        return {"schema": SCHEMA, **self._asdict(), **lists}


def directory(name: str) -> Path:
    """Where the supervisor of this cluster keeps its sockets, lock and status.

    Its last part tells clusters apart on this machine, so that one of the same name in another home is another one.
    """
    own = paths.state()
    if own.is_relative_to(pwd.getpwuid(0).pw_dir):
        return paths.runtime() / name
    return paths.runtime() / f"{name}-{hashlib.sha256(bytes(own)).hexdigest()[:6]}"


def alive(name: str) -> bool:
    """Whether the supervisor lives: whether someone holds its lock."""
    try:
        with (directory(name) / "lock").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read(name: str) -> Condition | None:
    """The status of a supervisor that lives; None when there is none, or none that has said anything yet."""
    if not alive(name):
        return None
    try:
        return parse(json.loads((directory(name) / "status.json").read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def parse(document: Mapping[str, Any]) -> Condition:
    """A status file's content; fields that we do not know are left alone."""
    fields = Component._fields
    return Condition(
        phase=document["phase"],
        waiting=document["waiting"],
        server=document["server"],
        version=document["version"],
        node=document["node"],
        mended=tuple(document.get("mended") or ()),
        components=tuple(Component(**{key: part[key] for key in fields}) for part in document["components"]),
        programs=dict(document["programs"]),
        simulated=int(document.get("simulated") or 0),
    )


def last_lines(path: Path, count: int = 5) -> str:
    """The end of a log, or nothing where there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16384))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-count:])


def described(condition: Condition, supervisor: int, proc: Path = Path("/proc")) -> Iterator[dict[str, Any]]:
    """The components with what only the host can tell: their process ids here, and their share of memory in bytes."""
    here = pids(supervisor, proc)
    for part in condition.components:
        pid = here.get(part.pid, 0) if part.pid else 0
        yield {
            "name": part.name,
            "state": part.state,
            "pid": pid,
            "since": part.since,
            "restarts": part.restarts,
            "memory": memory(proc / str(pid)) if pid else 0,
            "log": part.log,
        }


def memory_of_all(name: str, proc: Path = Path("/proc")) -> int:
    """Bytes of all processes of the cluster: those in its cgroup."""
    mark = f"/devenv-{directory(name).name}/"
    total = 0
    for process in proc.glob("[0-9]*"):
        try:
            inside = mark in (process / "cgroup").read_text()
        except OSError:
            continue
        total += memory(process) if inside else 0
    return total


def pids(supervisor: int, proc: Path = Path("/proc")) -> dict[int, int]:
    """Process ids inside the supervisor's namespace, each with its number on the host."""
    found: dict[int, int] = {}
    try:
        inside = (proc / str(supervisor) / "ns" / "pid").readlink()
    except OSError:
        return found
    for process in proc.glob("[0-9]*"):
        try:
            if (process / "ns" / "pid").readlink() != inside:
                continue
            numbers = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:"))
        except (OSError, StopIteration):
            continue
        found[int(numbers.split()[-1])] = int(process.name)
    return found


def memory(process: Path) -> int:
    """Proportional set size in bytes: what is shared counts once over all who share it."""
    try:
        text = (process / "smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def disk(path: Path) -> int:
    """Bytes on disk below a directory; files that vanish meanwhile do not matter."""
    total, pending = 0, [path]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
            except OSError:
                continue
    return total
