"""Knows a cluster again: a context's name may come to mean another cluster. Edge in.

At first use server, CA and the uid of kube-system are remembered for a context, below the state directory; where the
profile pins them (CI, whose memory is empty), the pins count. What differs is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from devenv import paths
from devenv.clients.kube import Denied, Kube, NotThere
from devenv.errors import Refused

NAMES = {"server": "server address", "ca": "certificate authority", "uid": "kube-system uid"}


def of(kube: Kube) -> dict[str, str]:
    """What tells this cluster from others; the uid is left out where it may not be read."""
    found = {"server": kube.server, "ca": _ca(kube.kubeconfig)}
    try:
        found["uid"] = str(kube.get("/api/v1/namespaces/kube-system")["metadata"]["uid"])
    except (Denied, NotThere):
        found["uid"] = ""
    return {key: value for key, value in found.items() if value}


def _ca(kubeconfig: Path) -> str:
    """The SHA-256 of the CA certificate that a private kubeconfig names, or empty."""
    [cluster] = json.loads(kubeconfig.read_text())["clusters"]
    data = cluster["cluster"].get("certificate-authority-data")
    file = cluster["cluster"].get("certificate-authority")
    try:
        content = base64.b64decode(data) if data else Path(file).read_bytes() if file else b""
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(content).hexdigest() if content else ""


def differences(known: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is known of a cluster and is otherwise now, in words; what only one side has says nothing. Pure."""
    return [
        f"{NAMES[key]} was {known[key][:40]}, is {found[key][:40]}"
        for key in NAMES
        if known.get(key) and found.get(key) and known[key] != found[key]
    ]


def check(kube: Kube, pins: Mapping[str, str], memory: Path | None = None) -> None:
    """Compares with the pins, else with what is remembered; remembers at first use. Raises Refused."""
    file = memory or paths.state() / "clusters-seen.json"
    found = of(kube)
    seen = _read(file)
    known = pins or seen.get(kube.context, {})
    different = differences(known, found)
    if different:
        raise Refused(
            f"context {kube.context} is not the cluster that it was",
            where=kube.server,
            why="; ".join(different),
            next=f"if that is meant: remove {kube.context!r} from {file}"
            if not pins
            else "if that is meant: change the profile's clusters",
        )
    if not pins and kube.context not in seen:
        _write(file, {**seen, kube.context: found})


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(file: Path, content: Mapping[str, Mapping[str, str]]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(content, indent=2))
        fresh.replace(file)
    except OSError:
        return
