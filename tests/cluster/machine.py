"""What can be seen on this machine that a cluster may leave behind: one set of lines for each kind of thing.

What belongs to other clusters is left out, as they come and go while tests run side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devenv import paths
from devenv.clients import shell
from devenv.cluster import condition, programs

FOLDERS = ("/run", "/var/lib", "/var/log", "/var/run", "/etc", "/opt", "/usr/local", "/mnt")
SETTINGS = ("net/ipv4", "net/ipv6/conf/all", "net/ipv6/conf/default", "net/netfilter", "net/bridge", "vm", "kernel")
VOLATILE = (
    "random",
    "count",
    "ns_last_pid",
    "stat_refresh",
    "entropy",
    "pty/nr",
    "tainted",
    "usermodehelper",
    "drop_cach",
)


@dataclass(frozen=True)
class Seen:
    """One look: kind of thing → its lines."""

    lines: dict[str, frozenset[str]]

    def beyond(self, before: Seen) -> dict[str, list[str]]:
        """What is here and was not there before, by kind; kinds without such lines are left out."""
        more = {kind: sorted(lines - before.lines[kind]) for kind, lines in self.lines.items()}
        return {kind: lines for kind, lines in more.items() if lines}


def link(own: str) -> str:
    """The name of a cluster's interface on the host (go/node/supervisor/layout.go): FNV-1a of its id."""
    value = 0x811C9DC5
    for byte in own.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"devenv{value:08x}"


def look(name: str) -> Seen:
    """Looks at all of it, for the sake of the cluster of this name."""
    own = condition.directory(name).name
    strangers = _strangers(own)
    kinds = {
        "processes": _processes(own),
        "namespaces": _namespaces(own),
        "mounts": (line.partition(" - ")[0].split(" ", 3)[3] for line in _read("/proc/self/mountinfo").splitlines()),
        "links": os.listdir("/sys/class/net"),  # noqa: PTH208
        "routes": _read("/proc/net/route").splitlines(),
        "nftables": _tables(),
        "iptables": shell.run(["iptables", "-S"]).stdout.splitlines(),
        "cgroups": (folder for folder, _, _ in os.walk("/sys/fs/cgroup")),
        "kernel settings": _settings(),
        "loop devices": _read("/proc/partitions").splitlines(),
        "files": _files(),
    }
    return Seen(
        {
            kind: frozenset(line for line in lines if not any(other in f"{line}/" for other in strangers))
            for kind, lines in kinds.items()
        }
    )


def _strangers(own: str) -> set[str]:
    """Words that name other clusters: ids, as they are written in nft, and their interfaces; and other test runs."""
    ids = {folder.name for folder in paths.runtime().glob("*/")} - {own}
    ids |= {path.name.removeprefix("devenv-") for path in Path("/sys/fs/cgroup").glob("*/devenv-*")} - {own}
    words = {f"/{one}/" for one in ids} | {f"devenv-{one}/" for one in ids} | {link(one) for one in ids}
    return words | {f"devenv_{one.replace('-', '_')} " for one in ids} | {"pytest", "/proc/"}


def _read(path: str | Path) -> str:
    with suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


def _ours(own: str) -> Iterator[Path]:
    """The processes in the cluster's cgroup."""
    for process in Path("/proc").glob("[0-9]*"):
        if f"/devenv-{own}/" in _read(process / "cgroup"):
            yield process


def _processes(own: str) -> Iterator[str]:
    """Those in the cgroup, and those that were started with the cluster's name in a path, wherever they are."""
    for process in _ours(own):
        yield f"{process.name} {_read(process / 'comm').strip()}"
    for process in Path("/proc").glob("[0-9]*"):
        words = _read(process / "cmdline").split("\0")
        if any(f"/{own}/" in word for word in words) and "pytest" not in " ".join(words):
            yield f"{process.name} {words[0]}"


def _namespaces(own: str) -> Iterator[str]:
    """All namespaces that a process of this machine is in, or a file holds, by kind and number."""
    for entry in Path("/proc").glob("[0-9]*/ns/*"):
        if entry.name in ("net", "pid", "mnt", "uts", "ipc"):
            with suppress(OSError):
                if f"/devenv-{own}/" in _read(entry.parents[1] / "cgroup"):
                    yield str(entry.readlink())


def _tables() -> list[str]:
    """Each nftables table with all of its rules, in one line."""
    text = shell.run([programs.path("nft"), "list", "ruleset"]).stdout
    return [" ".join(block.split()) for block in text.split("\n}\n") if block.strip()]


def _settings() -> Iterator[str]:
    for folder in SETTINGS:
        for file in Path("/proc/sys", folder).rglob("*"):
            text = str(file)
            if "/conf/" in text and "/conf/all" not in text and "/conf/default" not in text:
                continue  # an interface's own, which come and go with it
            if "/neigh/" not in text and not any(word in text for word in VOLATILE) and file.is_file():
                yield f"{text.removeprefix('/proc/sys/')} = {_read(file).strip()}"


def _files() -> Iterator[str]:
    """Two levels of where programs keep things, and all of our own two directories."""
    for folder in FOLDERS:
        yield from (str(path) for path in Path(folder).glob("*"))
        yield from (str(path) for path in Path(folder).glob("*/*"))
    for place in (paths.runtime(), paths.state() / "clusters"):
        yield from (str(path) for path in place.rglob("*"))
