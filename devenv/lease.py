"""One writer for each environment: a Lease in its namespace, renewed while a run is at work. Edge out.

A holder is dead when its process on this very machine is gone, or when its Lease has not changed for 15 s on our own
clock (the cluster's clock and the holder's are not asked). Everybody else is waited for, by name.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from devenv.clients.kube import Conflict, Kube, Object
from devenv.errors import Failure, Refused
from devenv.model import Desired
from devenv.report import Screen

API = "/apis/coordination.k8s.io/v1"
RENEW = 5.0  # seconds
DEAD = 15.0  # seconds without a change
ANNOTATION = "devenv/process"

Waits = Callable[[str], None]


class Taken(NamedTuple):
    """How the lease was had: at once, after `waited` for somebody, or `over` from a dead holder (its name)."""

    waited: bool
    over: str


def me() -> str:
    """The holder as people read it: who, where, which process, which run."""
    return f"{_user()}@{socket.gethostname()} pid {os.getpid()} run {uuid.uuid4().hex[:6]}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def process(pid: int) -> str:
    """A process told from all others of this machine: boot, process namespace, pid, start time; empty when gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = str(Path("/proc/self/ns/pid").readlink())
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {space} {pid} {started}"


def is_dead(holder: str) -> bool:
    """Whether a holder's process ran in this process namespace of this boot, and is gone."""
    own, theirs = process(os.getpid()).split(), holder.split()
    if len(own) != 4 or len(theirs) != 4 or own[:2] != theirs[:2]:
        return False
    return process(int(theirs[2])) != holder


@contextmanager
def held(kube: Kube, namespace: str, release: str, waits: Waits, *, wait: bool = True) -> Iterator[Taken]:
    """Holds the environment's Lease during the block. Raises Refused when another has it and `wait` is off."""
    path = f"{API}/namespaces/{namespace}/leases"
    name = f"devenv-{release}"
    holder = me()
    taken = _take(kube, path, name, holder, waits, wait=wait)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(kube, f"{path}/{name}", holder, stop), daemon=True)
    renewing.start()
    try:
        yield taken
    finally:
        stop.set()
        renewing.join(RENEW)
        _give_back(kube, f"{path}/{name}", holder)


@contextmanager
def alone(kube: Kube, desired: Desired, screen: Screen, *, wait: bool = True) -> Iterator[Taken]:
    """Holds the environment's Lease during the block, and says so when somebody else had it."""
    with ExitStack() as stack:
        with screen.stage("lock") as stage:
            taken = stack.enter_context(held(kube, desired.namespace, desired.release, stage.waits, wait=wait))
            if taken.over:
                stage.says(f"taken over: {taken.over} has ended")
            elif taken.waited:
                stage.says("the other run is over")
        yield taken


def _take(kube: Kube, path: str, name: str, holder: str, waits: Waits, *, wait: bool) -> Taken:
    waited, seen, since = False, "", time.monotonic()
    while True:
        lease = kube.find(f"{path}/{name}")
        if lease is None:
            if _try(lambda: kube.create(path, _filled({"metadata": {"name": name}, "spec": {}}, holder))):
                return Taken(waited, "")
            continue
        other = str(lease["spec"].get("holderIdentity") or "")
        dead = is_dead(str((lease["metadata"].get("annotations") or {}).get(ANNOTATION, "")))
        if lease["metadata"]["resourceVersion"] != seen:
            seen, since = lease["metadata"]["resourceVersion"], time.monotonic()
        if not other or dead or time.monotonic() - since >= DEAD:
            if _try(lambda: kube.replace(f"{path}/{name}", _filled(lease, holder))):  # noqa: B023  called at once
                return Taken(waited, other)
            continue
        if not wait:
            raise Refused(
                "another run holds this environment",
                where=f"Lease {name}",
                why=other,
                next="the same command without --no-wait waits for it",
            )
        waited = True
        waits(f"waiting for {other}, who is at work here")
        time.sleep(0.5)


def _filled(lease: Object, holder: str) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": int(DEAD), "acquireTime": now, "renewTime": now}
    meta = {**lease["metadata"], "annotations": {ANNOTATION: process(os.getpid())}}
    return {**lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def _try(write: Callable[[], object]) -> bool:
    try:
        write()
    except Conflict:
        return False
    return True


def _renew(kube: Kube, path: str, holder: str, stop: threading.Event) -> None:
    while not stop.wait(RENEW):
        try:
            lease = kube.find(path)
            if lease is None or lease["spec"].get("holderIdentity") != holder:
                return
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            kube.replace(path, {**lease, "spec": {**lease["spec"], "renewTime": now}})
        except Failure:
            continue


def _give_back(kube: Kube, path: str, holder: str) -> None:
    """Leaves the Lease without a holder; where that fails, it dies of itself."""
    try:
        lease = kube.find(path)
        if lease is not None and lease["spec"].get("holderIdentity") == holder:
            meta = {**lease["metadata"], "annotations": {}}
            kube.replace(path, {**lease, "metadata": meta, "spec": {**lease["spec"], "holderIdentity": ""}})
    except Failure:
        return
