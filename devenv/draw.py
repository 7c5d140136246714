"""Draws the plan of an environment: looks at the cluster, renders the chart where its inputs changed. Edge in.

In: an environment and a session; out: `Drawn`. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from devenv import causes, chart, databases, external, look, secret
from devenv import plan as planning
from devenv.clients import helm as helming
from devenv.environment import Environment, Session
from devenv.errors import Failure, InputWrong
from devenv.model import Desired, Plan, Release, Setting, Snapshot
from devenv.plan import WORKLOADS

Object = dict[str, Any]


class Drawn(NamedTuple):
    """A plan, and what it was drawn from: the objects that should be, the namespace as it was seen, and what Helm
    keeps of the revision `before` (empty: there is none)."""

    plan: Plan
    wanted: tuple[Object, ...]
    seen: planning.Seen
    snapshot: Snapshot
    before: Mapping[str, Any]


def draw(
    environment: Environment,
    session: Session,
    waits: Callable[[str], None],
    meanwhile: Callable[[int, str], object] = lambda revision, inputs: None,
) -> Drawn:
    """Looks at the cluster and makes the plan. Renders the chart only where the inputs changed; `meanwhile` is called
    with the revision that they will be, and with their hash, while Helm is at that."""
    desired, kube = chart.ready(environment.desired, session.helm, waits), session.kube
    waits("looking at the cluster")
    release = look.releases(kube, desired.namespace).get(desired.release)
    inputs = _inputs(desired, session)
    changed = not planning.unchanged(release, inputs)
    coming = rendering(desired, session, desired.values.tree()) if changed else None  # while the cluster is looked at
    snapshot = look.once(kube, desired.namespace)
    before = helming.content(kube, desired.namespace, desired.release, release.revision) if release else {}
    applied = helming.objects(str(before.get("manifest") or ""), desired.namespace)
    live = look.live(kube, desired.namespace, map(planning.key, applied))
    if coming:
        meanwhile(planning.following(release), inputs)
    wanted = coming() if coming else applied
    other = _other_chart(before, desired) if changed else ""
    settings = causes.settings(before.get("config") or {}, desired.values) if changed and release else ()
    lasting = [object for object in wanted if not planning.hook(object)]
    live |= look.live(kube, desired.namespace, {planning.key(object) for object in lasting} - live.keys())
    seen = planning.Seen(release, tuple(applied), live, _unready(wanted, snapshot), settings, other)
    plan = planning.make(inputs, lasting, seen)
    if release is not None:
        why = (*external.reasons(kube, desired, applied), *plan.reasons, *secret.reasons(kube, desired))
        left = external.left_behind(kube, desired, wanted, applied) if desired.bundled else ()
        plan = plan._replace(reasons=why, left_behind=(*plan.left_behind, *left))
        bound = _bound(plan, release, applied, wanted)
        plan = plan._replace(bound=bound, impossible=(*plan.impossible, *bound))
    return Drawn(plan, tuple(wanted), seen, snapshot, before)


def _bound(plan: Plan, release: Release, applied: Sequence[Object], wanted: Sequence[Object]) -> tuple[str, ...]:
    """What the database of a release that worked does not let change; another database is bound to nothing."""
    if plan.left_behind or release.status != "deployed":
        return ()
    return (*databases.fixed(applied, wanted), *databases.downgraded(applied, wanted))


def refuse(environment: Environment, session: Session, drawn: Drawn) -> None:
    """Raises Refused as a redeploy of this plan would: nodes without room, images that nobody gives."""
    if drawn.plan.nothing_to_do:
        return
    from devenv import nodes, obtain  # a plan with nothing to do starts sooner without them

    if not environment.settings.yes:
        nodes.check(session.kube, drawn.wanted, drawn.seen.applied, drawn.snapshot)
    obtain.check(environment, session, drawn.wanted, drawn.snapshot, lambda _: None)


def rendered(desired: Desired, session: Session, values: Mapping[str, Any]) -> list[Object]:
    """What the chart on disk comes to with these values; hooks are among it. Raises InputWrong."""
    return rendering(desired, session, values)()


def rendering(desired: Desired, session: Session, values: Mapping[str, Any]) -> Callable[[], list[Object]]:
    """Begins to render; what comes back waits for the objects, or raises InputWrong."""
    manifests = session.helm.rendering(desired.release, desired.chart, values, session.version)

    def objects() -> list[Object]:
        found = helming.objects(manifests(), desired.namespace)
        if ("v1", "Namespace", desired.namespace) in {planning.key(object) for object in found}:
            raise InputWrong(
                f"the chart holds namespace {desired.namespace}, which it is deployed to",
                where=f"chart {desired.chart_shown}",
                why="to remove the release would remove the namespace with all data in it",
                next="take it out of the chart: devenv makes the namespace",
            )
        return found

    return objects


def _other_chart(before: Mapping[str, Any], desired: Desired) -> str:
    """The chart of the revision before, where it is not the one of now by name or version."""
    meta = (before.get("chart") or {}).get("metadata") or {}
    was = f"{meta.get('name', '')} {meta.get('version', '')}".strip()
    now = chart.title(desired.chart_path) if desired.chart_path else ""
    return was if was and now and was != now else ""


MOST = 8  # settings that a plan is rendered without, to see what comes from each


def explained(environment: Environment, session: Session, drawn: Drawn) -> Plan:
    """The plan with its steps, and for each change what it comes from: the chart is rendered without each setting."""
    desired, plan = environment.desired, drawn.plan
    if plan.nothing_to_do:
        return plan
    settings, values = plan.settings, desired.values.tree()
    config = drawn.before.get("config") or {}

    def fields(setting: Setting) -> causes.Fields:
        try:
            return planning.differences(
                drawn.wanted, rendered(desired, session, causes.without(values, setting, config))
            )
        except Failure:
            return frozenset()  # the chart does not render without it: that says nothing about fields

    rest = "the first revision" if drawn.seen.release is None else "chart"
    if len(settings) > MOST:
        by, rest = {}, f"one of {len(settings)} settings"
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as pool:
            named = [f"{setting.key} ({setting.layer})" for setting in settings]
            by = dict(zip(named, pool.map(fields, settings), strict=True))
    database = (secret if secret.ours(desired) else external).step(session.kube, desired)
    made = plan._replace(changes=causes.attribute(plan.changes, by, rest))
    return made._replace(steps=planning.steps(made, drawn.wanted, database, _proof_step(desired, drawn.wanted)))


def _proof_step(desired: Desired, wanted: Sequence[Object]) -> str:
    if not desired.bundled:
        return "the chart's own tests" if any("test" in planning.hook(object) for object in wanted) else ""
    if not desired.sample_backend:
        return "a workflow of Temporal's own worker" if desired.temporal else ""
    return "a workflow through backend, listed by visibility" if desired.temporal else "a request through backend"


def _inputs(desired: Desired, session: Session) -> str:
    """The hash of all that goes into the release."""
    helm = f"{session.helm.program.resolve()} {session.helm.program.stat().st_size}"
    return planning.fingerprint([desired.chart_digest, desired.values.tree(), helm, session.version])


def _unready(wanted: Sequence[Object], snapshot: Snapshot) -> tuple[str, ...]:
    workloads = [planning.title(planning.key(object)) for object in wanted if object["kind"] in WORKLOADS]
    there = {workload.key: workload for workload in snapshot.workloads}
    return tuple(name for name in workloads if name in there and not there[name].done)
