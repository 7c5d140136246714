"""Follows a rollout until it is ready, or until its one cause of failure is known. Edge out.

Waiting is driven by the cluster's own changes: each snapshot is judged, problems that outlast their patience end it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from devenv import diagnose, health, look, services
from devenv import plan as planning
from devenv.clients.kube import Denied, Kube, NotThere, Object
from devenv.errors import Failure, RolloutFailed, StepFailed
from devenv.model import Desired, Job, Problem, Snapshot, Verdict

GONE = "unable to retrieve container logs for "  # the kubelet says so with status 200, as if it were the log
SERVICE_GRACE = 2.0  # seconds: pods of elsewhere that it may lead to are found by then
STEADY = 5.0  # seconds: a program that crashes at start has done so by then
TICK = 0.25  # seconds: what outlasts its patience is seen that soon
NODES = 1.0  # seconds: how often nodes are asked whether they are ready, while pods on them are not
SETTLE = 2.0  # seconds after Helm: until then the controllers may not have seen its change

HOOK = re.compile(r"hook|BackoffLimitExceeded|(pre|post)-(install|upgrade|rollback)", re.IGNORECASE)  # and for a hook
LATE = re.compile(r"timed out|deadline|timeout|not ready", re.IGNORECASE)  # Helm's words for it

Waits = Callable[[str], None]
Seen = Callable[[Snapshot], None]
Kept = dict[tuple[str, str], tuple[str, list[str]]]  # (pod, container) of a hook that failed → its owner, its log


class Goal(NamedTuple):
    """What must become ready: workloads and Jobs as Kind/name; `timeout` in seconds.

    `watched` Jobs and Pods must not fail, but may come and go: hooks, and Jobs that Kubernetes deletes when done.
    `ignored`: the uids of Jobs of earlier runs. `earlier`: what was there before, as Kind/name; what is wrong with it
    may be the very thing that is being mended. `objects`: the manifest, for the Services in it. `steady`: the seconds
    that a container without a readiness probe must run for before it counts as ready. `before`: the picture from which
    watching goes on.
    """

    namespace: str
    workloads: tuple[str, ...]
    jobs: tuple[str, ...]
    timeout: float
    watched: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()
    earlier: frozenset[str] = frozenset()
    objects: tuple[Object, ...] = ()
    steady: float = STEADY
    before: Snapshot | None = None


class Reached(NamedTuple):
    """The goal as it was reached: what was judged, on which picture."""

    verdict: Verdict
    seen: Snapshot


def goal(desired: Desired, objects: Sequence[Object], before: Snapshot | None = None) -> Goal:
    """What must become ready: the release's workloads and Jobs, as far as they are in its namespace. Failed Jobs of
    `before` are of an earlier run."""
    workloads: list[str] = []
    jobs: list[str] = []
    watched: list[str] = []
    for object in objects:
        title, hook = planning.title(planning.key(object)), planning.hook(object)
        if planning.place(planning.key(object), "")[0]:
            continue
        if object["kind"] in planning.WORKLOADS and not hook:
            workloads.append(title)
        elif object["kind"] == "Job" and "test" not in hook:
            passing = hook or "ttlSecondsAfterFinished" in object["spec"]
            (watched if passing else jobs).append(title)
        elif object["kind"] == "Pod" and hook and "test" not in hook:
            watched.append(title)
    return Goal(
        desired.namespace,
        tuple(workloads),
        tuple(jobs),
        desired.timeouts["rollout"],
        tuple(watched),
        ignored=frozenset(job.uid for job in before.jobs if job.failed) if before else frozenset(),
        earlier=earlier(before) if before else frozenset(),
        objects=tuple(object for object in objects if _is_here(object, desired.namespace)),
        # Of our own chart only the admin tools have no readiness probe, and they only sleep.
        steady=0.0 if desired.sample_backend else STEADY,
        before=before,
    )


def _is_here(object: Object, namespace: str) -> bool:
    return not planning.hook(object) and object["metadata"].get("namespace", namespace) == namespace


def follow(
    kube: Kube,
    goal: Goal,
    applying: Callable[[], bool],
    waits: Waits,
    seen: Seen = lambda _: None,
    applied: Callable[[Goal], Goal] = lambda goal: goal,
) -> Reached:
    """Returns when `applying` is over and all of the goal is ready. Raises RolloutFailed with the cause.

    `seen` is told of each snapshot, also of those before a failure. `applied` gives the goal as it is once Helm is
    done: names that hold a revision or a random part are known only then.
    """
    stop = threading.Event()
    started = time.monotonic()
    first_seen: dict[str, float] = {}
    lines_since: dict[tuple[str, str], float] = {}
    running: dict[health.Unproven, float] = {}
    verdict = Verdict(False, (), ())
    busy, settled = True, started
    unready: Mapping[str, str] = {}
    asked = started
    kept: Kept = {}
    try:
        for picture in look.looks(kube, goal.namespace, stop, TICK, goal.before):
            now = time.monotonic()
            if now - asked >= NODES:
                unready, asked = look.unready(kube, picture), now
            snapshot = replace(picture, unready=unready)
            seen(snapshot)
            _keep(kube, goal, snapshot, kept)
            was_busy, busy = busy, _busy(kube, goal, applying, kept)
            if was_busy and not busy:
                goal, settled = applied(goal), now + SETTLE
            verdict = _judge(snapshot, goal)
            running = {one: running.get(one, now) for one in health.unproven(snapshot, goal.workloads)}
            shaky = [one for one, began in running.items() if now - began < _steady(one, goal)]
            if verdict.ready and not busy and not shaky:
                listed = look.again(kube, snapshot)
                verdict = _led(kube, goal, _judge(listed, goal))
                if verdict.ready:
                    seen(listed)
                    return Reached(verdict, listed)
            first_seen = {problem.key: first_seen.get(problem.key, now) for problem in verdict.problems}
            lasting = [problem for problem in verdict.problems if _over(problem, now - first_seen[problem.key])]
            if busy or now < settled:
                lasting = [problem for problem in lasting if _is_new(problem, goal)]
            if lasting:
                raise _failed(kube, goal.namespace, lasting, kept)
            lines_since = {line: lines_since.get(line, now) for line in verdict.lines}
            if verdict.ready:
                waits("helm applies" if busy or not shaky else _held(shaky, goal))
            else:
                waits(_waiting(verdict, lines_since, now))
            if now - started > goal.timeout:
                raise _timed_out(kube, goal, verdict, snapshot, kept)
    finally:
        stop.set()
    raise AssertionError("looks never ends by itself")


def _keep(kube: Kube, goal: Goal, snapshot: Snapshot, kept: Kept) -> None:
    """Reads the logs of hooks and Jobs as soon as they fail: Helm, or Kubernetes, may delete their pods in the next
    moment."""
    owners = {*goal.watched, *goal.jobs}
    if not owners:
        return
    for pod in snapshot.pods:
        if owners.isdisjoint((pod.owner, f"Pod/{pod.name}")) or f"Pod/{pod.name}" in goal.earlier:
            continue
        for container in pod.containers:
            failed = container.exit_code or container.last_exit
            if failed and (pod.name, container.name) not in kept:
                lines = log_tail(kube, goal.namespace, pod.name, container.name, previous=bool(container.last_exit))
                kept[pod.name, container.name] = pod.owner or f"Pod/{pod.name}", lines


def earlier(seen: Snapshot) -> frozenset[str]:
    """What is there now, for a Goal."""
    named = {f"Pod/{pod.name}" for pod in seen.pods} | {workload.key for workload in seen.workloads}
    named |= {f"ReplicaSet/{entry.name}" for entry in seen.replica_sets}
    return frozenset(named | {f"PersistentVolumeClaim/{claim.name}" for claim in seen.claims})


def _judge(snapshot: Snapshot, goal: Goal) -> Verdict:
    return health.judge(snapshot, goal.workloads, goal.jobs, goal.watched, goal.ignored)


def _led(kube: Kube, goal: Goal, verdict: Verdict) -> Verdict:
    """The verdict, not ready where a Service of the manifest leads to no pod and never will."""
    if not verdict.ready or not services.selecting(goal.objects):
        return verdict
    try:
        slices = kube.get(f"/apis/discovery.k8s.io/v1/namespaces/{goal.namespace}/endpointslices").get("items") or []
    except (Denied, NotThere):
        return verdict  # a Role of before this was asked for
    lost = services.surely(goal.objects, services.lost(goal.objects, slices))
    if not lost:
        return verdict
    lines = tuple((f"Service/{one.name}", "leads nowhere") for one in lost)
    return Verdict(False, (*verdict.lines, *lines), tuple(_leads_nowhere(one) for one in lost))


def _leads_nowhere(lost: services.Lost) -> Problem:
    what, hint = f"Service/{lost.name} leads nowhere", f"inv kubectl -- describe service {lost.name}"
    return Problem(what, lost.name, what, f"Service {lost.name}", lost.why, SERVICE_GRACE, hint=hint)


def _busy(kube: Kube, goal: Goal, applying: Callable[[], bool], kept: Kept) -> bool:
    """Whether Helm is at work. When it failed, the cause that the cluster shows is better than Helm's own words."""
    try:
        return applying()
    except Failure as failure:
        seen = look.once(kube, goal.namespace)
        problems = _judge(seen, goal).problems
        at_once = [problem for problem in problems if problem.patience == 0 and _is_new(problem, goal)]
        if at_once:
            raise _failed(kube, goal.namespace, at_once, kept) from None
        hanging = _hanging(seen, goal)
        if hanging and LATE.search(failure.why):
            raise _hangs(kube, goal, seen, hanging[0]) from None
        hooks = {where: told for where, told in kept.items() if told[0] in goal.watched}
        if hooks and HOOK.search(failure.why):
            raise _deleted(failure, hooks) from None
        raise


def _deleted(failure: Failure, kept: Kept) -> StepFailed:
    """A hook that failed and that Helm has deleted, with what was read of it in time."""
    (pod, container), (owner, lines) = list(kept.items())[-1]
    told = diagnose.explain(lines)
    why = f'{told.cause or failure.why}: "{told.line}"' if told.line else failure.why
    where, todo = f"pod {pod}, container {container}, which Helm deleted", told.hint or failure.next
    return StepFailed(f"{owner} failed", where=where, why=why, next=todo)


def _hanging(seen: Snapshot, goal: Goal) -> list[Job]:
    """The hooks that are still at work."""
    return [job for job in seen.jobs if job.key in goal.watched and job.active and job.uid not in goal.ignored]


def _hangs(kube: Kube, goal: Goal, seen: Snapshot, job: Job) -> StepFailed:
    """A hook that Helm waited for to the end: where it is, and its last words."""
    line = health.judge(seen, (), (job.key,)).lines[0][1]
    ran = [(pod.name, container.name) for pod in seen.pods_of(job.key) for container in pod.containers]
    told = [log_tail(kube, goal.namespace, pod, container, previous=False) for pod, container in ran]
    last = next((f', its last words: "{lines[-1]}"' for lines in reversed(told) if lines), "")
    return StepFailed(
        f"{job.key}, a hook, is not over after {goal.timeout:.0f} s",
        where=f"pod {ran[-1][0]}, container {ran[-1][1]}" if ran else f"namespace {goal.namespace}",
        why=f"{line}{last}",
        next=f"inv logs {job.name}   (or a longer --timeout)",
    )


def _is_new(problem: Problem, goal: Goal) -> bool:
    """Whether it is of this run for sure: a Job that failed, or something befell an object that is new."""
    if problem.before_rollout or problem.where in goal.jobs:
        return True
    return bool(problem.about) and problem.about not in goal.earlier


def _steady(one: health.Unproven, goal: Goal) -> float:
    """For how many seconds it must run to count as ready: longer where it has crashed, or is about to be killed."""
    if f"Pod/{one.pod}" in goal.earlier:
        return 0.0
    return goal.steady * (1 + 2 * max(one.restarts, bool(one.failed_at)))


def _held(shaky: Sequence[health.Unproven], goal: Goal) -> str:
    longest = max(_steady(one, goal) for one in shaky)
    failing = next((one.pod for one in shaky if one.failed_at), "")
    if failing:
        return f"all ok; the liveness probe of {failing} failed, {longest:.0f} s must pass without that"
    return f"all ok; what has no readiness probe must run for {longest:.0f} s"


def _over(problem: Problem, lasted: float) -> bool:
    return problem.patience is not None and lasted >= problem.patience


def _waiting(verdict: Verdict, since: dict[tuple[str, str], float], now: float) -> str:
    """`7 of 9 ok · backend: waiting for its readiness probe, 3 s (and 1 more)`: what takes longest is named."""
    open_ = sorted(((since[line], *line) for line in verdict.lines if line[1] != "ok"), key=lambda entry: entry[0])
    parts = [f"{len(verdict.lines) - len(open_)} of {len(verdict.lines)} ok"]
    if open_:
        began, name, text = open_[0]
        more = f" (and {len(open_) - 1} more)" if len(open_) > 1 else ""
        parts.append(f"{name}: {text}, {now - began:.0f} s{more}")
    return " · ".join(parts)


Explained = tuple[Problem, diagnose.Explained]


def _failed(kube: Kube, namespace: str, problems: Iterable[Problem], kept: Kept) -> RolloutFailed | StepFailed:
    """The cause that the most components share, with the log line that explains it; other causes come after it."""
    by_cause: dict[str, list[Explained]] = {}
    for problem in problems:
        told = _explain(kube, namespace, problem, kept)
        by_cause.setdefault(_cause(problem, told), []).append((problem, told))
    groups = sorted(by_cause.values(), key=lambda group: (bool(group[0][1].cause), len(group)), reverse=True)
    (problem, told), same = groups[0][0], sorted({other.component for other, _ in groups[0]})
    same = [name for name in same if name != problem.component]
    failed = StepFailed if problem.before_rollout else RolloutFailed
    return failed(
        problem.what + (f" (so do {_shortened(same)})" if same else ""),
        where=problem.where,
        why="; ".join([_why(problem, told), *(f"also: {_one(group)}" for group in groups[1:4])]),
        next=told.hint or problem.hint or diagnose.mend(problem.why) or _look_at(problem, told),
    )


def _look_at(problem: Problem, told: diagnose.Explained) -> str:
    """The command that shows more: the log of what ran, else what Kubernetes says of it."""
    if told.line or not problem.about:
        return f"inv logs {problem.component}"
    kind, _, name = problem.about.partition("/")
    return f"inv kubectl -- describe {kind.lower()} {name}"


def _cause(problem: Problem, told: diagnose.Explained) -> str:
    """What problems of one cause have in common: their words without the names and numbers of each one."""
    owner, _, what = problem.what.partition(" ")
    own = re.escape(owner.rpartition("/")[2]) + r"[-.a-z0-9]*"
    text = told.cause or f"{what}: {told.line or problem.why}"
    return re.sub(r"[0-9]+", "#", re.sub(own, "*", text))


def _why(problem: Problem, told: diagnose.Explained) -> str:
    return f'{told.cause or problem.why}: "{told.line}"' if told.line else problem.why


def _one(group: Sequence[Explained]) -> str:
    """Another cause in a few words."""
    problem, told = group[0]
    more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
    return f"{problem.what}{more}: {_why(problem, told)[:160]}"


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _explain(kube: Kube, namespace: str, problem: Problem, kept: Kept) -> diagnose.Explained:
    if not problem.container:
        of_owner = [lines for owner, lines in kept.values() if owner == problem.where]  # its pods are gone
        return diagnose.explain(of_owner[-1]) if of_owner else diagnose.Explained("")
    if lines := kept.get((problem.pod, problem.container), ("", []))[1]:
        return diagnose.explain(lines)
    return diagnose.explain(log_tail(kube, namespace, problem.pod, problem.container, previous=problem.previous))


def log_tail(kube: Kube, namespace: str, pod: str, container: str, *, previous: bool, lines: int = 60) -> list[str]:
    """The last lines of a container's log, of the previous one first where there was one; empty when there is none."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
    for which in ("true", "false") if previous else ("false", "true"):
        try:
            text = kube.text(path, {"container": container, "tailLines": str(lines), "previous": which})
        except Failure:
            continue
        if text.strip() and not text.startswith(GONE):
            return text.splitlines()
    return []


class Tail(NamedTuple):
    """The end of one container's log."""

    pod: str
    container: str
    lines: tuple[str, ...]


def tails(kube: Kube, seen: Snapshot, component: str = "", most: int = 6) -> tuple[Tail, ...]:
    """The ends of the logs of what is in trouble, and of `component` in any case; where there is none, none."""
    of_component = [
        (pod, container)
        for pod in seen.pods
        for container in pod.containers
        if component and pod.component == component and not pod.deleting and not container.init
    ]
    chosen = list(dict.fromkeys([*health.troubled(seen), *of_component]))[:most]
    found = []
    for pod, container in chosen:
        again = container.restarts > 0 and container.state != "running"
        lines = log_tail(kube, seen.namespace, pod.name, container.name, previous=again)
        found.append(Tail(pod.name, container.name, tuple(lines)))
    return tuple(tail for tail in found if tail.lines)


def _timed_out(kube: Kube, goal: Goal, verdict: Verdict, seen: Snapshot, kept: Kept) -> RolloutFailed | StepFailed:
    """What was waited for to the end, and the newest warning about it."""
    if verdict.problems:
        return _failed(kube, goal.namespace, verdict.problems, kept)
    hanging = _hanging(seen, goal)
    if hanging:
        return _hangs(kube, goal, seen, hanging[0])
    open_ = [(name, text) for name, text in verdict.lines if text != "ok"]
    warnings = [warning for name, _ in open_ if (warning := health.last_warning(seen, name))]
    told = [f"{name}: {text}" for name, text in open_] or ["helm has not finished"]
    name, text = open_[0] if open_ else ("", "")
    pods = [pod.name for pod in health.belonging(seen, name) if not pod.ready and not pod.deleting]
    pulls = bool(pods) and text.startswith("pulling")
    todo = f"inv kubectl -- describe pod {pods[0]}" if pulls else f"inv logs {name.rpartition('/')[2]}"
    return RolloutFailed(
        f"not ready after {goal.timeout:.0f} s: {told[0]}",
        where=f"pod {pods[0]} in namespace {goal.namespace}" if pods else f"namespace {goal.namespace}",
        why="; ".join([*warnings[:2], *told]),
        next=f"{todo}   (or a longer --timeout)",
    )
