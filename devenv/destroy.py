"""Removes an environment. Edge out.

The release goes; the volume and the password that belongs to it stay, unless the data was to be deleted too. The
namespace stays in any case.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from devenv import charttest, external, lease, look, runlog
from devenv import plan as planning
from devenv.apply import database_name, volume_of
from devenv.clients import helm as helming
from devenv.clients.kube import KINDS, Kube
from devenv.environment import Session
from devenv.errors import Refused, StepFailed
from devenv.model import Desired, Pod, Snapshot
from devenv.report import Screen

Waits = Callable[[str], None]
Told = Callable[[Snapshot], None]
PATIENCE = 180.0  # seconds for pods to end: longer than any grace period of the chart
PROTECTED = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
ENDED = ("Succeeded", "Failed")  # phases


class Result(NamedTuple):
    """What was done; `kept` and `deleted` name the database's volume, or are empty."""

    namespace: str
    release: str
    removed: bool
    kept: str = ""
    deleted: str = ""

    def record(self) -> dict[str, Any]:
        return {"schema": "devenv/destroy/v1", **self._asdict()}


def destroy(desired: Desired, session: Session, screen: Screen, *, delete_data: bool) -> Result:
    """Uninstalls the release and waits until its pods are gone. A release that is not there is no error."""
    if desired.namespace in PROTECTED and delete_data:
        raise Refused(f"no data is deleted in namespace {desired.namespace}", where=f"namespace {desired.namespace}")
    if session.kube.find(f"/api/v1/namespaces/{desired.namespace}") is None:
        screen.line(f"namespace {desired.namespace} is not there: nothing to destroy")
        return Result(desired.namespace, desired.release, removed=False)
    with lease.alone(session.kube, desired, screen):
        return remove(desired, session, screen, delete_data=delete_data)


def remove(desired: Desired, session: Session, screen: Screen, *, delete_data: bool) -> Result:
    """The same for a caller that holds the environment's Lease."""
    seen = look.once(session.kube, desired.namespace)
    told = partial(runlog.saw, screen)
    told(seen)
    with screen.stage("destroy") as stage:
        jobs = _remove_jobs(session.kube, desired, seen)
        _wait_for_pods(session.kube, desired, jobs, stage.waits, told)
        if desired.bundled:
            _stop_clients_first(session.kube, desired, seen, stage.waits, told)
        stage.waits(f"helm uninstalls {desired.release}")
        release = look.releases(session.kube, desired.namespace).get(desired.release)
        there = release is not None
        stays = _stays(session.kube, desired, release.revision) if release and desired.bundled else ""
        left = _left_by_hooks(session.kube, desired, release.revision) if release and not desired.bundled else []
        if there:
            output = session.helm.uninstall(desired.release, desired.timeouts["rollout"])
            if output.code != 0:
                raise helming.failed(output, desired.release, desired.namespace)
        for path in left:
            session.kube.delete(path)
        _wait_for_pods(session.kube, desired, [desired.release], stage.waits, told)
        stage.says(
            f"release {desired.release} removed" if there or jobs else f"release {desired.release} was not there"
        )
    external.tidy(session.kube, desired._replace(external=None))
    if stays:
        screen.line(stays)
    volume = volume_of(seen, desired.release)
    if delete_data:
        _delete_data(session.kube, desired, seen, screen)
        return Result(desired.namespace, desired.release, bool(there or jobs), deleted=volume)
    if volume:
        screen.line(f"volume {volume} and its password are kept: inv redeploy takes them up")
        screen.line("to delete them as well: inv destroy --delete-data", "dim")
    return Result(desired.namespace, desired.release, bool(there or jobs), kept=volume)


def _stays(kube: Kube, desired: Desired, revision: int) -> str:
    manifest = helming.manifest(kube, desired.namespace, desired.release, revision)
    return external.stays(helming.objects(manifest, desired.namespace), desired)


def _left_by_hooks(kube: Kube, desired: Desired, revision: int) -> list[str]:
    """The Pods and Jobs of hooks, such as the chart's tests, which Helm does not remove with its release."""
    hooks = helming.hooks(kube, desired.namespace, desired.release, revision)
    return [KINDS[key[:2]].path(*planning.place(key, desired.namespace)) for key in charttest.leftovers(hooks)]


def forget(kube: Kube, desired: Desired, seen: Snapshot, waits: Callable[[str], None], *, clients: bool) -> None:
    """Ends what remembers a database that is or will be empty: finished schema Jobs, which nobody would run again, and
    with `clients` the programs that work in it; they are stopped, and started again by whoever applies the release."""
    _wait_for_pods(kube, desired, _remove_jobs(kube, desired, seen), waits)
    if clients:
        _stop_clients_first(kube, desired, seen, waits)


def _remove_jobs(kube: Kube, desired: Desired, seen: Snapshot) -> list[str]:
    """Helm keeps the schema Jobs (`resource-policy: keep`), so that no upgrade cuts a migration off. One that still
    runs is told to stop and ends between two steps, while its database is still there."""
    names = [job.name for job in seen.jobs if job.component == "schema" and job.name.startswith(f"{desired.release}-")]
    for name in names:
        kube.delete(KINDS[("batch/v1", "Job")].path(desired.namespace, name))
    return names


def _stop_clients_first(
    kube: Kube, desired: Desired, seen: Snapshot, waits: Waits, told: Told = lambda _: None
) -> None:
    """Backend and Temporal end their work in the database: without it they would sit out their whole grace period."""
    backend = [one for one in seen.workloads if one.key == f"Deployment/{desired.release}"]
    temporal = [one for one in seen.workloads if one.name.startswith(f"{desired.release}-temporal-")]
    for group in (backend, temporal):
        for workload in group:
            path = KINDS[("apps/v1", "Deployment")].path(desired.namespace, workload.name)
            kube.patch(path, {"spec": {"replicas": 0}})
        keys = {workload.key for workload in group}
        _until(kube, desired.namespace, waits, partial(_works_for, keys), told)


def _works_for(owners: set[str], pod: Pod) -> bool:
    return pod.owner in owners and pod.phase not in ENDED


def _wait_for_pods(kube: Kube, desired: Desired, owners: list[str], waits: Waits, told: Told = lambda _: None) -> None:
    """Until no pod is left whose name begins with that of an owner, but those that ended and that nobody deletes."""
    prefixes = tuple(f"{owner}-" for owner in owners)
    if prefixes:
        _until(kube, desired.namespace, waits, partial(_goes, prefixes), told)


def _goes(prefixes: tuple[str, ...], pod: Pod) -> bool:
    return pod.name.startswith(prefixes) and (pod.deleting or pod.phase not in ENDED)


def _until(kube: Kube, namespace: str, waits: Waits, left: Callable[[Pod], bool], told: Told = lambda _: None) -> None:
    """Waits until no pod is `left`. Raises StepFailed."""
    stop = threading.Event()
    deadline = time.monotonic() + PATIENCE
    try:
        for snapshot in look.looks(kube, namespace, stop):
            told(snapshot)
            names = [pod.name for pod in snapshot.pods if left(pod)]
            if not names:
                return
            waits(f"waiting for {len(names)} pods to end: {names[0]}")
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"{len(names)} pods do not end",
                    where=f"pod {names[0]} in namespace {namespace}",
                    why=f"they were asked to {PATIENCE:.0f} s ago",
                    next=f"inv kubectl -- describe pod {names[0]}",
                )
    finally:
        stop.set()


def _delete_data(kube: Kube, desired: Desired, seen: Snapshot, screen: Screen) -> None:
    claim = volume_of(seen, desired.release)
    secret = KINDS[("v1", "Secret")].path(desired.namespace, database_name(desired.release))
    with screen.stage("data") as stage:
        if claim:
            path = KINDS[("v1", "PersistentVolumeClaim")].path(desired.namespace, claim)
            kube.delete(path)
            stage.waits(f"waiting for volume {claim} to be gone")
            _wait_for_claim(kube, desired.namespace, claim)
        kube.delete(secret)
        stage.says(f"volume {claim} and its password deleted" if claim else "there was no data")


def _wait_for_claim(kube: Kube, namespace: str, claim: str) -> None:
    stop = threading.Event()
    try:
        for snapshot in look.looks(kube, namespace, stop):
            if claim not in {entry.name for entry in snapshot.claims}:
                return
    finally:
        stop.set()
