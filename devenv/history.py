"""The history of a release, and the way back: `history` and `rollback`. Edge in and out.

Read from what Helm keeps in the cluster. A rollback is a new revision with the objects of an old one; schemas and data
stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from devenv import (
    apply,
    database,
    databases,
    external,
    lease,
    look,
    objections,
    probe,
    proof,
    revisions,
    secret,
    stages,
    watch,
)
from devenv import plan as planning
from devenv.clients import helm as helming
from devenv.clients.kube import Object
from devenv.databases import Database
from devenv.environment import Environment, Session, reach
from devenv.errors import Refused, StepFailed
from devenv.model import Desired, External
from devenv.report import Screen
from devenv.revisions import Revision

Waits = Callable[[str], None]


def read(session: Session, desired: Desired) -> list[Revision]:
    """All revisions that Helm still keeps, the oldest first. Raises Refused where there is none."""
    kept = helming.kept(session.kube, desired.namespace, desired.release)
    found = [revisions.read(content, labels, bundled=desired.bundled) for content, labels in kept]
    if not found:
        raise Refused(
            "nothing is deployed here",
            where=f"release {desired.release} in namespace {desired.namespace}",
            next="inv redeploy",
        )
    return sorted(found, key=lambda one: one.number)


def record(desired: Desired, found: Sequence[Revision]) -> dict[str, Any]:
    return {
        "schema": "devenv/history/v1",
        "release": desired.release,
        "namespace": desired.namespace,
        "revisions": [one.record() for one in found],
    }


USUAL = ("Install complete", "Upgrade complete")


def show(found: Sequence[Revision]) -> None:
    """The revisions to people, the newest first; what is the same or empty for all of them is no column."""
    from devenv.show import columns

    def row(one: Revision) -> dict[str, str]:
        return {
            "revision": str(one.number),
            "when": revisions.moment(one.at),
            "status": one.status,
            "chart": one.chart if len({other.chart for other in found}) > 1 else "",
            "temporal": one.temporal,
            "database": one.database,
            "by": "devenv" if one.by_devenv else "helm",
            "description": "" if one.description in USUAL else one.description,
        }

    styles = {"deployed": "green", "superseded": ""}
    columns([(row(one), styles.get(one.status, "red")) for one in reversed(found)])


def rollback(environment: Environment, screen: Screen, wanted: str) -> dict[str, Any]:
    """Goes back to a revision, follows it until it is ready, proves it. Raises Refused where that would not work."""
    desired = environment.desired
    session = reach(environment, screen, start=False)
    with lease.alone(session.kube, desired, screen):
        found = read(session, desired)
        where = f"release {desired.release} in namespace {desired.namespace}"
        current, target = found[-1], revisions.choose(found, wanted, where)
        objects = helming.objects(target.manifest, desired.namespace)
        kept = _refuse(environment, session, screen, current, target, objects)
        screen.line(revisions.stays(kept))
        stages.images(environment, session, screen, objects, look.once(session.kube, desired.namespace))
        _apply(session, screen, desired, current, target, objects)
        proven = proof.prove(desired, session, screen, temporal=database.runs_temporal(desired, objects))
        secret.remember(session.kube, desired)
        screen.line("inv redeploy goes forward again", "dim")
    return {
        "schema": "devenv/rollback/v1",
        "from": current.number,
        "to": target.number,
        "revision": current.number + 1,
        "workflow": proven.workflow if proven else "",
    }


def _refuse(
    environment: Environment,
    session: Session,
    screen: Screen,
    current: Revision,
    target: Revision,
    objects: Sequence[Object],
) -> tuple[Database, ...]:
    """What speaks against it, found before anything is touched; the databases that stay as they are, where it can be
    seen."""
    desired, kube = environment.desired, session.kube
    where = f"revision {target.number} of release {desired.release} in namespace {desired.namespace}"
    lasting = [object for object in objects if not planning.hook(object)]
    applied = helming.objects(current.manifest, desired.namespace)
    keys = {planning.key(object) for object in (*lasting, *applied)}
    release = look.releases(kube, desired.namespace).get(desired.release)
    if release is not None and release.status.startswith("pending-"):
        raise Refused(f"revision {current.number} is {release.status}", where=where, next="inv redeploy   (heals it)")
    live = look.live(kube, desired.namespace, keys)
    plan = planning.make("", lasting, planning.Seen(release, tuple(applied), live, ()))
    impossible = (*plan.impossible, *(databases.fixed(applied, lasting) if current.database == target.database else ()))
    if impossible:
        raise Refused(
            "this rollback cannot be made in place", where=where, why="; ".join(impossible[:3]), next="inv history"
        )
    snapshot = look.once(kube, desired.namespace)
    if secret.ours(desired) and target.database == "internal":
        internal = current.database == "internal"
        secret.refuse(secret.look(session, desired, snapshot, release=internal), desired, snapshot)
    external.refuse_without_copy(kube, desired, objects)
    there: tuple[Database, ...] = ()
    if target.database == "external":
        there = _outside(session, desired, screen, target, objects)
    elif target.database == "internal" and secret.running(snapshot, desired):
        _, there = databases.seen(secret.postgres(session, desired).run, databases.of(desired, objects))
    objection = revisions.schema_objection(objects, there)
    if objection:
        raise Refused("the databases are older than that", where=where, why=objection, next="inv redeploy")
    told = (*revisions.warnings(current, target), *databases.downgraded(applied, objects))
    if told and not environment.settings.yes:
        again = f"inv rollback {target.number} --yes"
        raise Refused("this rollback wants a yes", where=where, why="; ".join(told), next=again)
    return there


def _outside(
    session: Session, desired: Desired, screen: Screen, target: Revision, objects: Sequence[Object]
) -> tuple[Database, ...]:
    """Temporal's databases in the external PostgreSQL of that revision, as its own schema Job, a hook, names them.
    Raises Refused where that does not let its servers in, or has no schemas for them: a rollback migrates none."""
    hooks = helming.hooks(session.kube, desired.namespace, desired.release, target.number)
    with screen.stage("preflight") as stage:
        there = desired._replace(external=External(f"revision {target.number}", "", False, "", {}))
        try:
            asked = probe.examine(session, there, [*objects, *hooks])
        except StepFailed as unasked:
            stage.says("the database could not be asked beforehand", unasked.why)
            return ()
        if asked is None:
            return ()
        question, answer = asked
        found = {name: version for name, version, _ in objections.schemas(question, answer)}
        if not any(found.values()):
            probe.refuse(question, answer)
            raise Refused(
                "the databases of that revision have no schemas",
                where=question.where,
                why="a rollback migrates none",
                next="inv redeploy",
            )
        stage.says(f"{question.env['PGHOST']} opens for {question.env['PGUSER']}")
    wanted = databases.of(desired, objects)
    return tuple(Database(one, there=True, version=found[one.name]) for one in wanted if one.name in found)


def _apply(
    session: Session,
    screen: Screen,
    desired: Desired,
    current: Revision,
    target: Revision,
    objects: Sequence[Object],
) -> None:
    """Helm goes back in the background while the cluster is followed."""
    before = look.once(session.kube, desired.namespace)
    goal = watch.goal(desired, objects, before)
    with screen.stage("rollback") as stage:
        stage.waits(f"helm goes back to revision {target.number}")
        apply.remove_failed_jobs(session.kube, desired, before, goal.jobs)
        running = session.helm.rollback(desired.release, target.number, desired.timeouts["rollout"])
        reached = stages.follow(session, screen, apply.Applying(running, desired), goal, stage.waits)
        apply.tidy_jobs(session.kube, desired, reached.seen, goal.jobs)
        count = len(goal.workloads)
        stage.says(
            f"revision {current.number + 1} is revision {target.number} again, {count} of {count} ok",
            *([target.description] if target.description else []),
        )
