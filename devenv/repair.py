"""Gives the internal database a password that opens it again, its data kept: `db.repair-password`. Edge out.

The Secret is made where it is gone; then the role gets the Secret's password through the pod's socket, which asks for
none. Where no release runs the database, a pod of our own does meanwhile. Can be run again at any time.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from devenv import database, databases, lease, look, password, proof, secret, watch
from devenv.apply import MANAGED, database_name, volume_of
from devenv.clients import helm as helming
from devenv.clients.kube import KINDS, Kube, Object
from devenv.clients.postgres import Postgres
from devenv.environment import Environment, Session, reach
from devenv.errors import Failure, Refused, StepFailed
from devenv.model import Desired, Pod, Snapshot
from devenv.report import Screen

Waits = Callable[[str], None]
STUCK = 60.0  # seconds that a container may wait with a reason that does not pass by itself


def repair(environment: Environment, screen: Screen) -> dict[str, Any]:
    """Makes Secret and volume belong together again, restarts what uses them, proves it; a record of what was done."""
    desired = environment.desired
    database.check_internal(desired)
    session = reach(environment, screen, start=False)
    with lease.alone(session.kube, desired, screen):
        seen = look.once(session.kube, desired.namespace)
        claim = volume_of(seen, desired.release)
        if not claim:
            raise Refused(
                "there is no volume, so no password is lost",
                where=f"namespace {desired.namespace}",
                next="inv redeploy   (makes both)",
            )
        with screen.stage("database") as stage:
            made, changed = _mend(session, desired, seen, claim, screen, stage.waits)
            words = ("password made" if made else "password kept", "the database takes it" if changed else "it opens")
            stage.says(", ".join(words))
        objects = _applied(session, desired)
        known = secret.known(session.kube.find(secret.path(desired)))
        restarted = [] if known and not changed else secret.users(objects, database_name(desired.release))
        if restarted:
            _restart(session, screen, desired, objects, restarted)
        if objects:
            proof.prove(desired, session, screen, temporal=database.runs_temporal(desired, objects))
            secret.remember(session.kube, desired)
        else:
            screen.line("no release is deployed: inv redeploy takes volume and password up")
    return {
        "schema": "devenv/db-repair-password/v1",
        "secretMade": made,
        "passwordChanged": changed,
        "restarted": restarted,
    }


def _applied(session: Session, desired: Desired) -> list[Object]:
    there = desired.release in look.releases(session.kube, desired.namespace)
    return database.applied(session, desired) if there else []


def _mend(
    session: Session, desired: Desired, seen: Snapshot, claim: str, screen: Screen, waits: Waits
) -> tuple[bool, bool]:
    """(a password was made, the database was given it)."""
    waits("looking for the password")
    made = not secret.read(session.kube.find(secret.path(desired)))[1]
    user, value = secret.read(secret.make(session.kube, desired))
    screen.secrets.add(value)
    with _database(session, desired, seen, claim, waits) as postgres:
        waits("trying the password")
        if postgres.opens(user, value):
            return made, False
        waits("giving the database its password")
        verifier = password.verifier(value, secrets.token_bytes(16))
        postgres.run(f"ALTER ROLE {databases.identifier(user)} PASSWORD {databases.literal(verifier)};")
        if postgres.opens(user, value) is False:
            raise StepFailed(
                "the database does not open for the password that it was just given",
                where=f"role {user}, pod {postgres.pod}",
                next="inv logs postgresql",
            )
    return made, True


@contextmanager
def _database(session: Session, desired: Desired, seen: Snapshot, claim: str, waits: Waits) -> Iterator[Postgres]:
    """The database in its pod; where no StatefulSet keeps one, in a pod of our own, removed afterwards."""
    kube, name = session.kube, database_name(desired.release)
    keeper = next((one for one in seen.workloads if one.key == f"StatefulSet/{name}"), None)
    if keeper is not None and keeper.wanted > 0:
        pod = secret.pod_of(seen, secret.pod_name(desired))
        if pod is not None and not secret.running(seen, desired):
            # It may wait for a Secret, with up to two minutes from try to try; a new pod sees it at once.
            kube.delete(KINDS[("v1", "Pod")].path(desired.namespace, pod.name))
        yield _answering(session, desired, secret.pod_name(desired), waits)
        return
    own = f"{name}-repair"
    path = KINDS[("v1", "Pod")].path(desired.namespace, own)
    rendered = session.helm.render(desired.release, desired.chart, desired.values.tree(), session.version)
    kube.delete(path)
    _gone(kube, path, waits)
    kube.create(path.rpartition("/")[0], own_pod(helming.objects(rendered, desired.namespace), name, own, claim))
    try:
        yield _answering(session, desired, own, waits)
    finally:
        kube.delete(path)
        _gone(kube, path, waits)


def own_pod(objects: Sequence[Object], name: str, own: str, claim: str) -> Object:
    """A pod like the StatefulSet's, on its volume, that no Service finds."""
    keeper = next(one for one in objects if one["kind"] == "StatefulSet" and one["metadata"]["name"] == name)
    spec = keeper["spec"]["template"]["spec"]
    [volume] = [entry["metadata"]["name"] for entry in keeper["spec"]["volumeClaimTemplates"]]
    data = {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": own, "labels": MANAGED},
        "spec": {**spec, "restartPolicy": "Never", "volumes": [*(spec.get("volumes") or []), data]},
    }


def _gone(kube: Kube, path: str, waits: Waits) -> None:
    while kube.find(path) is not None:
        waits(f"waiting for pod {path.rpartition('/')[2]} to end")
        time.sleep(0.2)


def _answering(session: Session, desired: Desired, name: str, waits: Waits) -> Postgres:
    """Waits until the database in a pod answers. Raises StepFailed with the pod's reason where it does not."""
    postgres = secret.postgres(session, desired, name)
    started, stop = time.monotonic(), threading.Event()
    why = "there is no such pod"
    try:
        for snapshot in look.looks(session.kube, desired.namespace, stop):
            lasted = time.monotonic() - started
            pod = secret.pod_of(snapshot, name)
            why, lost = _state(pod)
            if not why:
                try:
                    postgres.run("SELECT 1;", timeout=20)
                    return postgres
                except Failure as error:
                    why = error.why
            if lasted > desired.timeouts["rollout"] or (lost and lasted > STUCK):
                break
            waits(f"waiting for PostgreSQL: {why}")
    finally:
        stop.set()
    raise StepFailed(
        "PostgreSQL does not start, so its password cannot be set",
        where=f"pod {name} in namespace {desired.namespace}",
        why=why,
        next=f"inv kubectl -- describe pod {name}",
    )


def _state(pod: Pod | None) -> tuple[str, bool]:
    """(what the pod waits for, empty where its container runs; whether that may be for good)."""
    if pod is None:
        return "there is no such pod", False
    if pod.deleting:
        return "the pod of before ends", False
    if pod.unscheduled:
        return pod.unscheduled, True
    for container in pod.containers:
        if container.state != "running":
            why = " ".join(part for part in (container.reason, container.message) if part)
            return why or container.state, container.reason not in ("", "ContainerCreating", "PodInitializing")
    return ("", False) if pod.containers else ("its pod is being started", False)


def _restart(
    session: Session, screen: Screen, desired: Desired, objects: Sequence[Object], restarted: Sequence[str]
) -> None:
    """New pods for what read the old password when it started; a schema Job that failed by it runs again."""
    kube, job = session.kube, databases.schema_job(objects)
    failed = {one.name for one in look.once(kube, desired.namespace).jobs if one.failed}
    if job is not None and job["metadata"]["name"] in failed:
        with screen.stage("schema") as stage:
            stage.says(database.run_schema(kube, desired, job, stage.waits))
    with screen.stage("rollout") as stage:
        secret.restart(kube, desired, restarted)
        watch.follow(kube, watch.goal(desired, objects), lambda: False, stage.waits)
        stage.says(f"{len(restarted)} restarted", ", ".join(restarted))
