"""The stages of a redeploy that change the cluster, in the order in which its story tells them. Edge out.

Each tells what it did, and raises before it touches anything that it should not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from devenv import apply, destroy, draw, obtain, runlog, secret, watch
from devenv import plan as planning
from devenv.clients import helm as helming
from devenv.clients.kube import Object
from devenv.environment import Environment, Session
from devenv.errors import Failure, Refused
from devenv.lease import Taken
from devenv.model import Desired, Plan, Snapshot
from devenv.report import Screen

if TYPE_CHECKING:
    from devenv.built import Built


def images(
    environment: Environment,
    session: Session,
    screen: Screen,
    wanted: Sequence[Object],
    seen: Snapshot,
    given: Sequence[Built] = (),
) -> None:
    """Those of the wanted objects: ours into our own cluster, and those just built; one that nobody gives is
    refused."""
    from devenv import built
    from devenv.cluster import start

    with screen.stage("images") as stage:
        loaded = built.load(given, session, stage.waits)
        if session.target.embedded:
            login = environment.settings.docker_config
            loaded += start.load_named(session.target.embedded, stage.waits, obtain.names(wanted), login)
        if loaded:
            stage.says(f"{', '.join(loaded)} loaded into the cluster")
        obtain.check(environment, session, wanted, seen, stage.waits)


def refuse(environment: Environment, plan: Plan) -> None:
    """What cannot be done, or leaves data behind unasked, ends here: nothing was touched yet."""
    desired = environment.desired
    where = f"release {desired.release} in namespace {desired.namespace}"
    refuse_bound(environment, plan)
    if plan.impossible:
        raise Refused(
            "this change cannot be made in place",
            where=where,
            why="; ".join(plan.impossible[:3]),
            next="undo it, or ./inv redeploy --fresh   (removes the release first, keeps the data)",
        )
    if plan.left_behind and not environment.settings.yes:
        raise Refused(
            "this change leaves data behind", where=where, why="; ".join(plan.left_behind), next="./inv redeploy --yes"
        )


def refuse_bound(environment: Environment, plan: Plan) -> None:
    """What the database does not let change ends here, also before the release is removed."""
    desired = environment.desired
    if plan.bound:
        raise Refused(
            "the database of this release does not let it change so",
            where=f"release {desired.release} in namespace {desired.namespace}",
            why="; ".join(plan.bound),
            next="undo it, or begin with another database: --set backend.temporalConfig.postgres.database=…",
        )


def heal(environment: Environment, session: Session, screen: Screen, drawn: draw.Drawn, taken: Taken) -> None:
    """A release left pending is marked failed, but only when the run that held it is known to be dead."""
    release = drawn.seen.release
    if release is None or not release.status.startswith("pending-"):
        return
    desired = environment.desired
    quiet = time.time() - release.modified
    if not taken.over and quiet < desired.timeouts["rollout"]:
        raise Refused(
            f"somebody else's helm may be at work: revision {release.revision} is {release.status}",
            where=f"release {release.name} in namespace {desired.namespace}",
            why=f"no run of devenv holds it, and it was touched {quiet:.0f} s ago",
            next=f"wait for it; after {desired.timeouts['rollout']:.0f} s of silence devenv takes it for dead",
        )
    apply.heal_pending(session.kube, desired.namespace, release)
    screen.line(f"revision {release.revision} was left {release.status} by a run that ended: marked failed", "yellow")


def settle_password(
    environment: Environment, session: Session, screen: Screen, drawn: draw.Drawn
) -> secret.Password | None:
    """The database's password; where the database begins empty, what remembers an older one goes first."""
    desired = environment.desired
    if not secret.ours(desired):
        return None
    with screen.stage("database") as stage:
        stage.waits("looking for the database's password")
        password = password_of(environment, session, drawn, make=True)
        screen.secrets.add(password.value)
        if password.outcome.empty:
            destroy.forget(session.kube, desired, drawn.snapshot, stage.waits, clients=password.found.release)
        restarted = secret.changed(session.kube, desired, password, drawn.seen.applied)
        stage.says(password.outcome.told, *([f"restarted for it: {', '.join(restarted)}"] if restarted else []))
    return password


def password_of(environment: Environment, session: Session, drawn: draw.Drawn, *, make: bool) -> secret.Password:
    """Raises Refused where the password does not belong to the volume that is there."""
    desired = environment.desired
    database = ("apps/v1", "StatefulSet", apply.database_name(desired.release))
    there = secret.look(
        session, desired, drawn.snapshot, release=database in {planning.key(object) for object in drawn.seen.applied}
    )
    secret.refuse(there, desired, drawn.snapshot)
    return secret.ensure(session.kube, desired, there) if make else there


def switch(desired: Desired, session: Session, screen: Screen, drawn: draw.Drawn) -> None:
    """From one database to another: what works on the old one ends first, and begins anew on the new one. Side by side
    they would share a Service, and Temporal's namespace would be looked for in the old one, where it is."""
    if not (desired.bundled and drawn.plan.left_behind):
        return
    with screen.stage("switch") as stage:
        destroy.forget(session.kube, desired, drawn.snapshot, stage.waits, clients=True)
        stage.says("what worked on the other database has ended")


def rollout(
    environment: Environment,
    session: Session,
    screen: Screen,
    drawn: draw.Drawn,
    password: secret.Password | None,
    upgrade: apply.Upgrade,
) -> Snapshot:
    """Helm applies in the background while the cluster is followed, so that a failing hook is seen as well."""
    desired = environment.desired
    target = watch.goal(desired, drawn.wanted, drawn.snapshot)

    def applied(before: watch.Goal) -> watch.Goal:
        manifest = helming.manifest(session.kube, desired.namespace, desired.release, drawn.plan.revision)
        now = watch.goal(desired, helming.objects(manifest, desired.namespace), drawn.snapshot)
        return now._replace(watched=(*before.watched, *now.watched))

    with screen.stage("rollout") as stage:
        stage.waits(f"helm applies revision {drawn.plan.revision}")
        apply.remove_additions(session.kube, desired, drawn.plan)
        apply.remove_failed_jobs(session.kube, desired, drawn.snapshot, target.jobs)
        applying = upgrade.go(drawn.plan)
        busy = secret.trying(session, desired, password, applying.busy) if password else applying.busy
        reached = follow(session, screen, applying, target, stage.waits, busy, applied)
        apply.tidy_jobs(session.kube, desired, reached.seen, target.jobs)
        names = list(dict.fromkeys(name for name, _ in reached.verdict.lines))
        stage.says(f"revision {drawn.plan.revision}, {len(names)} of {len(names)} ok", ", ".join(names))
    return reached.seen


def follow(
    session: Session,
    screen: Screen,
    applying: apply.Applying,
    goal: watch.Goal,
    waits: Callable[[str], None],
    busy: Callable[[], bool] | None = None,
    applied: Callable[[watch.Goal], watch.Goal] = lambda goal: goal,
) -> watch.Reached:
    """Follows the cluster while Helm is `busy`; of a failure, the logs of what is in trouble are kept."""
    try:
        seen = partial(runlog.saw, screen)
        return watch.follow(session.kube, goal, busy or applying.busy, waits, seen, applied)
    except Failure:
        if "last" in screen.facts:
            screen.tell(logs=watch.tails(session.kube, screen.facts["last"]))
        raise
    finally:
        applying.stop()
