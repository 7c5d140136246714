"""The story of a redeploy, one line per stage.

    look → plan → lock → preflight → secret → release and rollout → proof

Records are passed forward; each stage tells what it did. Interrupted at any moment, the next run goes on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from devenv import apply, draw, external, secret
from devenv import plan as planning
from devenv.environment import Environment, Session, reach, with_chart
from devenv.model import Desired, Plan
from devenv.report import Screen

if TYPE_CHECKING:
    from devenv.built import Built, Given
    from devenv.proof import Proof


class Result(NamedTuple):
    """What a redeploy came to."""

    plan: Plan
    revision: int
    proof: Proof | None
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


class How(NamedTuple):
    """How a redeploy is wanted: `smoke` also where nothing is to be done; `wait` for another run; `fresh`: the release
    is removed first, with `reset_data` its data too; `images` just built, as `--image` takes them."""

    smoke: bool = False
    wait: bool = True
    fresh: bool = False
    reset_data: bool = False
    images: tuple[Given, ...] = ()


AS_USUAL = How()


def redeploy(environment: Environment, screen: Screen, how: How = AS_USUAL) -> Result:
    """Brings the environment to what it should be, and proves it."""
    started = time.monotonic()
    session = reach(environment, screen, start=True)
    environment = external.settle(with_chart(environment, session, screen), session.kube, screen.secrets)
    environment, given = _given(environment, session, how)
    desired = environment.desired
    with apply.Upgrade(session.helm, desired) as upgrade:  # stands by while we look at what may forbid it
        drawn = _plan(environment, session, screen, upgrade)
        if drawn.plan.nothing_to_do and not how.fresh:
            proven = _outstanding(desired, session, screen, drawn, how)
            return Result(drawn.plan, drawn.plan.revision - 1, proven, time.monotonic() - started)
        from devenv import destroy, lease, nodes, probe, proof, stages

        if not environment.settings.yes:
            nodes.check(session.kube, drawn.wanted, drawn.seen.applied, drawn.snapshot)
        stages.images(environment, session, screen, drawn.wanted, drawn.snapshot, given)
        apply.namespace(session.kube, desired.namespace)
        with lease.alone(session.kube, desired, screen, wait=how.wait) as taken:
            release = drawn.seen.release
            worked = release is not None and release.status == "deployed"
            probe.ask(session, desired, screen, drawn.wanted, worked=worked)
            if how.fresh and not how.reset_data:
                stages.refuse_bound(environment, drawn.plan)
                if secret.ours(desired):
                    stages.password_of(environment, session, drawn, make=False)
            if how.fresh:
                destroy.remove(desired, session, screen, delete_data=how.reset_data)
            if how.fresh or taken.waited or taken.over:
                drawn = _plan(environment, session, screen, upgrade)
            stages.refuse(environment, drawn.plan)
            stages.heal(environment, session, screen, drawn, taken)
            password = stages.settle_password(environment, session, screen, drawn)
            stages.switch(desired, session, screen, drawn)
            external.bring(session.kube, desired, screen, drawn.seen.applied)
            seen = stages.rollout(environment, session, screen, drawn, password, upgrade)
            external.tidy(session.kube, desired)
            proven = proof.prove(desired, session, screen, temporal=desired.temporal, seen=seen)
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


def _outstanding(desired: Desired, session: Session, screen: Screen, drawn: draw.Drawn, how: How) -> Proof | None:
    """The proof of a release that is as it should be: where one is wanted, or the run that deployed it had none."""
    before = planning.proven(drawn.seen.release)
    if before and not how.smoke:
        return None
    from devenv import proof

    proven = proof.prove(desired, session, screen, temporal=desired.temporal)
    if not before:
        apply.remember_proof(session.kube, desired, drawn.plan.revision - 1)
    return proven


def _plan(environment: Environment, session: Session, screen: Screen, upgrade: apply.Upgrade) -> draw.Drawn:
    def prepare(revision: int, inputs: str) -> None:
        """What only a change needs: a run with nothing to do starts sooner without it."""
        upgrade.stand_by(revision, inputs)
        from devenv import destroy, lease, nodes, probe, proof, stages  # noqa: F401

    with screen.stage("plan") as stage:
        drawn = draw.draw(environment, session, stage.waits, meanwhile=prepare)
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


def farewell(desired: Desired, result: Result) -> str:
    """The last line: how long it took, and what to type next."""
    parts = [f"done in {result.seconds:.1f} s"]
    if desired.bundled and desired.temporal:
        parts.append("Temporal UI: inv temporal.ui")
    parts.append("logs: inv logs")
    return " · ".join(parts)
