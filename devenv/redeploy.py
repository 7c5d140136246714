"""The story of a redeploy, one line per stage.

    look → plan → lock → preflight → secret → release and rollout → proof

Records are passed forward; each stage tells what it did. Interrupted at any moment, the next run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from devenv import apply, destroy, draw, external, lease, look, nodes, probe, proof, runlog, secret, watch
from devenv import plan as planning
from devenv.clients import helm as helming
from devenv.environment import Environment, Session, reach, with_chart
from devenv.errors import Failure, Refused
from devenv.model import Desired, Plan
from devenv.report import Screen

if TYPE_CHECKING:
    from devenv.built import Built, Given

Object = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a redeploy came to."""

    plan: Plan
    revision: int
    proof: proof.Proof | None
    seconds: float

    def record(self) -> dict[str, Any]:
        return {
            "schema": "devenv/redeploy/v1",
            "nothingToDo": self.plan.nothing_to_do,
            "reasons": list(self.plan.reasons),
            "revision": self.revision,
            "workflow": self.proof.workflow if self.proof else "",
            "run": self.proof.run if self.proof else "",
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class How:
    """How a redeploy is wanted: `smoke` also where nothing is to be done; `wait` for another run; `fresh`: the release
    is removed first, with `reset_data` its data too; `images` just built, as `--image` takes them."""

    smoke: bool = False
    wait: bool = True
    fresh: bool = False
    reset_data: bool = False
    images: tuple[Given, ...] = ()


def redeploy(environment: Environment, screen: Screen, how: How = How()) -> Result:
    """Brings the environment to what it should be, and proves it."""
    started = time.monotonic()
    session = reach(environment, screen, start=True)
    environment = external.settle(with_chart(environment, session, screen), session.kube, screen.secrets)
    environment, given = _given(environment, session, how)
    desired = environment.desired
    drawn = _plan(environment, session, screen)
    if drawn.plan.nothing_to_do and not how.fresh:
        proven = _outstanding(desired, session, screen, drawn, how)
        return Result(drawn.plan, drawn.plan.revision - 1, proven, time.monotonic() - started)
    if not environment.settings.yes:
        nodes.check(session.kube, drawn.wanted, drawn.seen.applied, drawn.snapshot)
    _images(environment, session, screen, drawn, given)
    apply.namespace(session.kube, desired.namespace)
    with lease.alone(session.kube, desired, screen, wait=how.wait) as taken:
        probe.ask(session, desired, screen, drawn.wanted)
        if how.fresh and not how.reset_data:
            _refuse_bound(environment, drawn.plan)
            if secret.ours(desired):
                _password(environment, session, drawn, make=False)
        if how.fresh:
            destroy.remove(desired, session, screen, delete_data=how.reset_data)
        if how.fresh or taken.waited or taken.over:
            drawn = _plan(environment, session, screen)
        _refuse(environment, drawn.plan)
        _heal(environment, session, screen, drawn, taken)
        password = _secret(environment, session, screen, drawn)
        _switch(desired, session, screen, drawn)
        external.bring(session.kube, desired, screen, drawn.seen.applied)
        _rollout(environment, session, screen, drawn, password)
        external.tidy(session.kube, desired)
        proven = proof.prove(desired, session, screen, temporal=desired.temporal)
        apply.remember_proof(session.kube, desired, drawn.plan.revision)
        secret.remember(session.kube, desired)
    return Result(drawn.plan, drawn.plan.revision, proven, time.monotonic() - started)


def _given(environment: Environment, session: Session, how: How) -> tuple[Environment, tuple[Built, ...]]:
    """The environment with the images just built in its values, and where those images are now."""
    if not how.images:
        return environment, ()
    from devenv import built

    found = built.find(how.images, environment, session)
    return built.over(environment, found), found


def _outstanding(desired: Desired, session: Session, screen: Screen, drawn: draw.Drawn, how: How) -> proof.Proof | None:
    """The proof of a release that is as it should be: where one is wanted, or the run that deployed it had none."""
    before = planning.proven(drawn.seen.release)
    if before and not how.smoke:
        return None
    proven = proof.prove(desired, session, screen, temporal=desired.temporal)
    if not before:
        apply.remember_proof(session.kube, desired, drawn.plan.revision - 1)
    return proven


def _refuse(environment: Environment, plan: Plan) -> None:
    """What cannot be done, or leaves data behind unasked, ends here: nothing was touched yet."""
    desired = environment.desired
    where = f"release {desired.release} in namespace {desired.namespace}"
    _refuse_bound(environment, plan)
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


def _refuse_bound(environment: Environment, plan: Plan) -> None:
    desired = environment.desired
    if plan.bound:
        raise Refused(
            "the database of this release does not let it change so",
            where=f"release {desired.release} in namespace {desired.namespace}",
            why="; ".join(plan.bound),
            next="undo it, or begin with another database: --set backend.temporalConfig.postgres.database=…",
        )


def _plan(environment: Environment, session: Session, screen: Screen) -> draw.Drawn:
    with screen.stage("plan") as stage:
        drawn = draw.draw(environment, session, stage.waits)
        stage.says(*summary(environment.desired, drawn.plan))
    screen.tell(plan=drawn.plan)
    return drawn


def summary(desired: Desired, plan: Plan) -> tuple[str, ...]:
    """The plan in a few lines: what was asked for and by whom, why something is to be done, and the objects."""
    lines = [_asked(desired)]
    if plan.nothing_to_do:
        return (f"nothing to do: {lines[0]}, as deployed",)
    created = [change for change in plan.changes if change.how == "create"]
    more = f" and {len(plan.reasons) - 1} more" if len(plan.reasons) > 1 else ""
    lines.append(f"because {plan.reasons[0]}{more}")
    if len(created) > 4:
        lines.append(f"+ {len(created)} objects")
    else:
        lines += [planning.short(change) for change in created]
    rest = [planning.short(change) for change in plan.changes if change.how != "create"]
    lines += rest[:6] + ([f"and {len(rest) - 6} more: inv plan"] if len(rest) > 6 else [])
    return tuple(lines)


def _asked(desired: Desired) -> str:
    if not desired.bundled:
        return f"chart {desired.chart_shown}"
    temporal = desired.choice("temporal")
    database = "internal PostgreSQL" if desired.internal_postgres else "external PostgreSQL"
    by = {"default": "", "the environment": f" ({temporal.toggle.variable})"}.get(
        temporal.origin, f" ({temporal.origin})"
    )
    return f"Temporal {'on' if desired.temporal else 'off'}{by}, {database}"


def _images(
    environment: Environment, session: Session, screen: Screen, drawn: draw.Drawn, given: Sequence[Built]
) -> None:
    """Ours into our own cluster, and those just built; an image that nobody gives is refused."""
    from devenv import built, obtain
    from devenv.cluster import start

    with screen.stage("images") as stage:
        loaded = built.load(given, session, stage.waits)
        if session.target.embedded:
            login, wanted = environment.settings.docker_config, obtain.names(drawn.wanted)
            loaded += start.load_named(session.target.embedded, stage.waits, wanted, login)
        if loaded:
            stage.says(f"{', '.join(loaded)} loaded into the cluster")
        obtain.check(environment, session, drawn.wanted, drawn.snapshot, stage.waits)


def _secret(environment: Environment, session: Session, screen: Screen, drawn: draw.Drawn) -> secret.Password | None:
    """The database's password; where the database begins empty, what remembers an older one goes first."""
    desired = environment.desired
    if not secret.ours(desired):
        return None
    with screen.stage("database") as stage:
        stage.waits("looking for the database's password")
        password = _password(environment, session, drawn, make=True)
        screen.secrets.add(password.value)
        if password.outcome.empty:
            destroy.forget(session.kube, desired, drawn.snapshot, stage.waits, clients=password.found.release)
        restarted = secret.changed(session.kube, desired, password, drawn.seen.applied)
        stage.says(password.outcome.told, *([f"restarted for it: {', '.join(restarted)}"] if restarted else []))
    return password


def _switch(desired: Desired, session: Session, screen: Screen, drawn: draw.Drawn) -> None:
    """From one database to another: what works on the old one ends first, and begins anew on the new one. Side by side
    they would share a Service, and Temporal's namespace would be looked for in the old one, where it is."""
    if not (desired.bundled and drawn.plan.left_behind):
        return
    with screen.stage("switch") as stage:
        destroy.forget(session.kube, desired, drawn.snapshot, stage.waits, clients=True)
        stage.says("what worked on the other database has ended")


def _password(environment: Environment, session: Session, drawn: draw.Drawn, *, make: bool) -> secret.Password:
    """Raises Refused where the password does not belong to the volume that is there."""
    desired = environment.desired
    database = ("apps/v1", "StatefulSet", apply.database_name(desired.release))
    there = secret.look(
        session, desired, drawn.snapshot, release=database in {planning.key(object) for object in drawn.seen.applied}
    )
    secret.refuse(there, desired, drawn.snapshot)
    return secret.ensure(session.kube, desired, there) if make else there


def _rollout(
    environment: Environment, session: Session, screen: Screen, drawn: draw.Drawn, password: secret.Password | None
) -> None:
    """Helm applies in the background while the cluster is followed, so that a failing hook is seen as well."""
    desired = environment.desired
    target = watch.goal(desired, drawn.wanted, drawn.snapshot)

    def applied(before: watch.Goal) -> watch.Goal:
        manifest = helming.manifest(session.kube, desired.namespace, desired.release, drawn.plan.revision)
        now = watch.goal(desired, helming.objects(manifest, desired.namespace), drawn.snapshot)
        return replace(now, watched=(*before.watched, *now.watched))

    with screen.stage("rollout") as stage:
        stage.waits(f"helm applies revision {drawn.plan.revision}")
        apply.remove_additions(session.kube, desired, drawn.plan)
        apply.remove_failed_jobs(session.kube, desired, drawn.snapshot, target.jobs)
        applying = apply.upgrade(session.helm, desired, drawn.plan, server_side=True)
        busy = secret.trying(session, desired, password, applying.busy) if password else applying.busy
        try:
            verdict = watch.follow(session.kube, target, busy, stage.waits, partial(runlog.saw, screen), applied)
        except Failure:
            screen.tell(logs=watch.tails(session.kube, screen.facts.get("last", drawn.snapshot)))
            raise
        finally:
            applying.stop()
        apply.tidy_jobs(session.kube, desired, look.once(session.kube, desired.namespace), target.jobs)
        names = list(dict.fromkeys(name for name, _ in verdict.lines))
        stage.says(f"revision {drawn.plan.revision}, {len(names)} of {len(names)} ok", ", ".join(names))


def _heal(environment: Environment, session: Session, screen: Screen, drawn: draw.Drawn, taken: lease.Taken) -> None:
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


def farewell(desired: Desired, result: Result) -> str:
    """The last line: how long it took, and what to type next."""
    parts = [f"done in {result.seconds:.1f} s"]
    if desired.bundled and desired.temporal:
        parts.append("Temporal UI: inv temporal.ui")
    parts.append("logs: inv logs")
    return " · ".join(parts)
