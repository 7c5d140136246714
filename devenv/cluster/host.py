"""Whether this machine can carry the embedded cluster: one look, one judgement.

In: the directories that will be filled. Out: nothing, or `Refused` with what to do. Reads /proc and /sys only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from devenv.errors import Refused

NEW_CLUSTER_GB = 10
KEPT_CLUSTER_GB = 1
NAMESPACES = ("net", "pid", "mnt", "uts", "ipc")
CONTROLLERS = ("cpu", "memory", "pids", "devices")
OWN_CLUSTER = "./inv redeploy --context CONTEXT   # a cluster of yours"


class Host(NamedTuple):
    """What was seen of this machine."""

    system: str
    root: bool
    namespaces: frozenset[str]
    controllers: frozenset[str]
    free: tuple[tuple[Path, int], ...]  # directory and the bytes that are free there


def look(directories: Iterable[Path], *, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Host:
    """Looks at the machine and changes nothing."""
    return Host(
        system=sys.platform,
        root=hasattr(os, "geteuid") and os.geteuid() == 0,
        namespaces=frozenset(name for name in NAMESPACES if (proc / "self" / "ns" / name).exists()),
        controllers=_controllers(cgroups),
        free=tuple((path, shutil.disk_usage(_existing(path)).free) for path in directories),
    )


def judge(host: Host, least_gb: int) -> None:
    """Raises Refused, with the first reason why no cluster can run here."""
    if not host.system.startswith("linux"):
        raise Refused(
            "the embedded cluster runs on Linux only",
            where=f"this machine ({host.system})",
            why="it is made of the Linux kernel's namespaces and cgroups",
            next=OWN_CLUSTER,
        )
    if not host.root:
        raise Refused(
            "the embedded cluster needs root",
            where="this user",
            why="namespaces, mounts and network interfaces are made for it",
            next=f"sudo ./inv cluster.up, or: {OWN_CLUSTER}",
        )
    missing = [name for name in NAMESPACES if name not in host.namespaces]
    missing += [f"cgroup controller {name}" for name in CONTROLLERS if name not in host.controllers]
    if missing:
        raise Refused(
            "the kernel lacks what a cluster is made of",
            where="this machine" + (" (inside a container?)" if not host.controllers else ""),
            why=f"missing: {', '.join(missing)}",
            next=OWN_CLUSTER,
        )
    for path, free in host.free:
        if free < least_gb * 10**9:
            raise Refused(
                f"the embedded cluster needs {least_gb} GB of free disk",
                where=str(path),
                why=f"{free / 1e9:.1f} GB are free",
                next=f"du -xh --max-depth=2 {path} | sort -h | tail   # and make room",
            )


def _controllers(cgroups: Path) -> frozenset[str]:
    """The controllers that can be had, whichever version of cgroups it is; `devices` is always part of version 2."""
    unified = cgroups / "cgroup.controllers"
    if unified.exists():
        return frozenset(unified.read_text().split()) | {"devices"}
    folders = (path.parent.name for path in cgroups.glob("*/cgroup.procs"))
    return frozenset(name for folder in folders for name in folder.split(","))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
