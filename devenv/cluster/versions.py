"""Which version of each component runs: asked of its program once, then remembered for that file. Edge in.

In: the programs that the cluster was started with. Out: a version, or nothing where it cannot be had.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from devenv import __version__, paths
from devenv.clients import shell
from devenv.cluster import store

ASKED = {
    "etcd": ("devenv-node", "etcd", "--version"),
    "coredns": ("devenv-node", "coredns", "-version"),
    "containerd": ("containerd", "--version"),
}


def of(component: str, programs: Mapping[str, str], kubernetes: str) -> str:
    """The component's version: Kubernetes' own parts have the cluster's, ours has devenv's."""
    if component.startswith("kube"):
        return kubernetes
    program, *words = ASKED.get(component, ("",))
    file = Path(programs.get(program, ""))
    if not program:
        return __version__
    if not file.is_file():
        return ""
    facts = file.stat()
    key, memory = f"{file} {component}", paths.cache() / "programs/versions.json"
    text = store.remember(memory, key, lambda: _told(file, *words), (facts.st_mtime_ns, facts.st_size))
    return parse(text)


def _told(file: Path, *words: str) -> str:
    output = shell.run([file, *words], timeout=20)
    return (output.stdout or output.stderr).partition("\n")[0]


def parse(text: str) -> str:
    """The version in "etcd Version: 3.6.4", "CoreDNS-1.12.4" or "containerd … v2.4.2+unknown", with one v."""
    found = re.search(r"(?<![\d/])v?(\d+\.\d+\.\d+)", text)
    return f"v{found[1]}" if found else ""
