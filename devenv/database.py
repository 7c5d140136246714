"""The databases of an environment: how they are, made, migrated, emptied; psql. Edge out.

For the internal PostgreSQL. Whatever writes holds the environment's Lease, and can be run again at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from devenv import ask, databases, destroy, lease, look, proof, secret, watch
from devenv.clients import helm as helming
from devenv.clients import shell
from devenv.clients.kube import KINDS, Kube, NotThere, Object
from devenv.clients.postgres import Postgres
from devenv.environment import Environment, Session, connect, reach
from devenv.errors import Refused, StepFailed
from devenv.model import Desired
from devenv.report import Screen

Waits = Callable[[str], None]


def check_internal(desired: Desired) -> None:
    """Raises Refused where the database is not this environment's own."""
    if not (desired.bundled and desired.internal_postgres):
        raise Refused(
            "the database of this environment is not its own",
            where=f"profile {desired.profile}",
            why="db.* works on the internal PostgreSQL only" if desired.bundled else "a chart of your own",
            next="inv redeploy   (its hook makes and migrates an external database), or psql",
        )


def applied(session: Session, desired: Desired) -> list[Object]:
    """The objects of the release as it is. Raises Refused where there is none."""
    release = look.releases(session.kube, desired.namespace).get(desired.release)
    if release is None:
        raise Refused(
            "nothing is deployed here",
            where=f"release {desired.release} in namespace {desired.namespace}",
            next="inv redeploy",
        )
    manifest = helming.manifest(session.kube, desired.namespace, desired.release, release.revision)
    return helming.objects(manifest, desired.namespace)


def running(session: Session, desired: Desired) -> Postgres:
    """The database in its pod. Raises Refused where it does not run."""
    if not secret.running(look.once(session.kube, desired.namespace), desired):
        raise Refused(
            "PostgreSQL does not run here",
            where=f"pod {secret.pod_name(desired)} in namespace {desired.namespace}",
            next="inv status, then inv redeploy",
        )
    return secret.postgres(session, desired)


def _reach(environment: Environment, screen: Screen) -> tuple[Session, list[Object], Postgres]:
    check_internal(environment.desired)
    session = reach(environment, screen, start=False)
    objects = applied(session, environment.desired)
    return session, objects, running(session, environment.desired)


def status(environment: Environment, screen: Screen) -> dict[str, Any]:
    """The databases and the server that holds them, as a record."""
    _, objects, postgres = _reach(environment, screen)
    server, found = databases.seen(postgres.run, databases.of(environment.desired, objects))
    return {
        "schema": "devenv/db-status/v1",
        "namespace": environment.desired.namespace,
        "pod": postgres.pod,
        "server": server.version,
        "connections": {"used": server.used, "max": server.limit},
        "ok": all(database.state == "ok" for database in found),
        "databases": [database.record() for database in found],
    }


def create(environment: Environment, screen: Screen) -> dict[str, Any]:
    """Makes the databases that are missing, marked as this release's."""
    session, objects, postgres = _reach(environment, screen)
    with lease.alone(session.kube, environment.desired, screen), screen.stage("databases") as stage:
        stage.waits("looking at the databases")
        _, found = databases.seen(postgres.run, databases.of(environment.desired, objects))
        missing = [database.wanted for database in found if not database.there]
        if missing:
            postgres.run(databases.creation(missing))
        names = [one.name for one in missing]
        stage.says(f"made {', '.join(names)}" if names else "all there")
    if any(one.requires for one in missing):
        screen.line("their schema: inv db.migrate")
    return {"schema": "devenv/db-create/v1", "made": names}


def migrate(environment: Environment, screen: Screen) -> dict[str, Any]:
    """Runs the release's schema Job now, and follows it to its end."""
    session, objects, _ = _reach(environment, screen)
    job = databases.schema_job(objects)
    if job is None:
        raise Refused(
            "Temporal is off here: there is no schema to migrate",
            where=f"release {environment.desired.release} in namespace {environment.desired.namespace}",
            next="ENABLE_TEMPORAL=true ./inv redeploy",
        )
    with lease.alone(session.kube, environment.desired, screen), screen.stage("schema") as stage:
        told = run_schema(session.kube, environment.desired, job, stage.waits)
        stage.says(told)
    return {"schema": "devenv/db-migrate/v1", "told": told}


def run_schema(kube: Kube, desired: Desired, job: Object, waits: Waits) -> str:
    """The schema Job from the release's manifest, made anew where it is done; the last line of its log.

    One that is at work is followed, never cut off. Raises RolloutFailed with its own words.
    """
    name = job["metadata"]["name"]
    path = KINDS[("batch/v1", "Job")].path(desired.namespace, name)
    there = kube.find(path)
    if there is not None and not (there.get("status") or {}).get("active"):
        waits("removing the Job of before")
        kube.delete(path, propagation="Foreground")
        _until_gone(kube, path, desired)
        there = None
    if there is None:
        kube.create(path.rpartition("/")[0], _as_helm_made_it(job, desired))
    watch.follow(kube, watch.Goal(desired.namespace, (), (f"Job/{name}",), desired.timeouts["rollout"]), _idle, waits)
    pods = look.once(kube, desired.namespace).pods_of(f"Job/{name}")
    logs = [watch.log_tail(kube, desired.namespace, pod.name, "schema", previous=False) for pod in pods]
    lines = [lines[-1] for lines in logs if lines]
    return lines[-1].removeprefix("schema: ") if lines else "done"


def _idle() -> bool:
    return False


def _as_helm_made_it(job: Object, desired: Desired) -> Object:
    meta = job["metadata"]
    marks = {"meta.helm.sh/release-name": desired.release, "meta.helm.sh/release-namespace": desired.namespace}
    return {**job, "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), **marks}}}


def _until_gone(kube: Kube, path: str, desired: Desired, timeout: float = 120.0) -> None:
    """Waits for the end of an object. Raises StepFailed where it stays."""
    import time

    deadline = time.monotonic() + timeout
    while kube.find(path) is not None:
        if time.monotonic() > deadline:
            raise StepFailed(
                f"it does not go away within {timeout:.0f} s",
                where=path,
                next=f"inv kubectl -- get {path.rpartition('/')[2]} -o yaml   (its finalizers say who holds it)",
            )
        time.sleep(0.1)


def reset(environment: Environment, screen: Screen) -> dict[str, Any]:
    """Drops Temporal's two databases and makes them anew; the backend's rows stay. Proves that it works again."""
    desired = environment.desired
    session, objects, postgres = _reach(environment, screen)
    stores = [one for one in databases.of(desired, objects) if one.role != "backend"]
    names = [one.name for one in stores]
    ask.confirm(
        screen,
        f"{' and '.join(names)} in namespace {desired.namespace} lose all workflows. Go on?",
        yes=environment.settings.yes,
        where=f"databases {', '.join(names)}, pod {postgres.pod}",
        command="inv db.reset",
    )
    job, proven = databases.schema_job(objects), None
    with lease.alone(session.kube, desired, screen):
        _empty(session, screen, desired, postgres, names, temporal=job is not None)
        if job is not None:
            with screen.stage("schema") as stage:
                stage.says(run_schema(session.kube, desired, job, stage.waits))
            with screen.stage("rollout") as stage:
                _start(session.kube, desired, objects, stage.waits)
                stage.says("Temporal and the backend run again")
            proven = proof.prove(desired, session, screen, temporal=True)
    return {
        "schema": "devenv/db-reset/v1",
        "databases": names,
        "workflow": proven.workflow if proven else "",
    }


def _empty(
    session: Session, screen: Screen, desired: Desired, postgres: Postgres, names: Sequence[str], *, temporal: bool
) -> None:
    with screen.stage("databases") as stage:
        snapshot = look.once(session.kube, desired.namespace)
        destroy.forget(session.kube, desired, snapshot, stage.waits, clients=temporal)
        stage.waits(f"dropping {', '.join(names)}")
        postgres.run(databases.removal(names), timeout=120)
        stage.says(f"{', '.join(names)} dropped" + ("" if temporal else ": made anew when Temporal is switched on"))


def _start(kube: Kube, desired: Desired, objects: Sequence[Object], waits: Waits) -> None:
    """Gives each Deployment of the release its replicas back, and waits until all is ready."""
    for object in objects:
        if object["kind"] == "Deployment":
            path = KINDS[("apps/v1", "Deployment")].path(desired.namespace, object["metadata"]["name"])
            try:
                kube.patch(path, {"spec": {"replicas": object["spec"].get("replicas", 1)}})
            except NotThere:
                waits(f"Deployment/{object['metadata']['name']} is not there")
    watch.follow(kube, watch.goal(desired, objects), _idle, waits)


def runs_temporal(desired: Desired, objects: Sequence[Object]) -> bool:
    name = f"{desired.release}-temporal-frontend"
    return any(object["kind"] == "Deployment" and object["metadata"]["name"] == name for object in objects)


def psql(environment: Environment, screen: Screen, database: str, arguments: Sequence[str]) -> None:
    """Becomes psql in the database's pod."""
    check_internal(environment.desired)
    session = connect(environment, lambda _: None, start=False)
    postgres = running(session, environment.desired)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    shell.replace(postgres.argv("-d", database, *arguments, terminal=terminal))


def show(record: dict[str, Any]) -> None:
    """The record of `status` to people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    used, limit = record["connections"]["used"], record["connections"]["max"]
    console.print(f"PostgreSQL {record['server']} in pod {record['pod']}, {used} of {limit} connections")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("database", "state", "schema", "needed", "owner", "size", "connections"):
        table.add_column(column, no_wrap=column != "state")
    for one in record["databases"]:
        size = f"{one['bytes'] / 2**20:.1f} MB" if one["there"] else ""
        row = (one["name"], one["state"], one["version"], one["requires"], one["owner"], size, str(one["connections"]))
        table.add_row(*row, style="green" if one["state"] == "ok" else "red")
    console.print(table)
    if any(one["state"] == "missing" for one in record["databases"]):
        console.print("to make what is missing: inv db.create")
    if any(one["state"] in ("no schema", "older than the server needs") for one in record["databases"]):
        console.print("to migrate: inv db.migrate")
