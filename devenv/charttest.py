"""Runs the tests that a chart brings (`helm.sh/hook: test`): the proof of a user's own chart. Edge out.

Helm runs them; the cluster is watched meanwhile, so that a test that cannot start ends it at once, and the log of one
that failed is read before Helm deletes its pod.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from devenv import diagnose, health, look, watch
from devenv import plan as planning
from devenv.clients import helm as helming
from devenv.clients.kube import Kube, Object
from devenv.environment import Session
from devenv.errors import RolloutFailed
from devenv.model import Desired, Pod, Problem, Snapshot
from devenv.report import Screen

Waits = Callable[[str], None]
Log = tuple[str, ...]


def prove(session: Session, desired: Desired, screen: Screen) -> None:
    """Runs the release's tests, where it has some. Raises RolloutFailed with the end of the failed one's log."""
    release = look.releases(session.kube, desired.namespace).get(desired.release)
    revision = release.revision if release else 0
    tests = [
        hook
        for hook in helming.hooks(session.kube, desired.namespace, desired.release, revision)
        if "test" in planning.hook(hook)
    ]
    if not tests:
        return
    names = [planning.title(planning.key(test)) for test in tests]
    with screen.stage("proof") as stage:
        stage.waits(f"the chart's tests: {', '.join(names)}")
        _run(session, desired, names, stage.waits)
        told = "the chart's test passed" if len(names) == 1 else f"the chart's {len(names)} tests passed"
        stage.says(told, ", ".join(names))


@dataclass
class _Watched:
    """The tests' pods as they were last seen, and the ends of their logs."""

    names: Sequence[str]
    earlier: frozenset[tuple[str, str]]
    pods: dict[str, Pod] = field(default_factory=dict)
    logs: dict[tuple[str, str], Log] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)

    def look(self, kube: Kube, snapshot: Snapshot) -> list[Problem]:
        """Takes in a snapshot; the problems that outlast their patience."""
        found: list[Problem] = []
        for pod in snapshot.pods:
            if (pod.name, pod.created) in self.earlier or not {f"Pod/{pod.name}", pod.owner} & set(self.names):
                continue
            self.pods[pod.name] = pod
            for container in pod.containers:
                if container.state != "waiting":
                    lines = watch.log_tail(kube, snapshot.namespace, pod.name, container.name, previous=False)
                    self.logs[(pod.name, container.name)] = tuple(lines) or self.logs.get(
                        (pod.name, container.name), ()
                    )
            found += health.of_pod(snapshot, pod)
        now = time.monotonic()
        self.since = {problem.key: self.since.get(problem.key, now) for problem in found}
        return [one for one in found if one.patience is not None and now - self.since[one.key] >= one.patience]


def _run(session: Session, desired: Desired, names: Sequence[str], waits: Waits) -> None:
    kube, namespace = session.kube, desired.namespace
    before = look.once(kube, namespace)
    watched = _Watched(names, frozenset((pod.name, pod.created) for pod in before.pods))
    started, stop = time.monotonic(), threading.Event()
    running = session.helm.test(desired.release, desired.timeouts["proof"])
    try:
        for snapshot in look.looks(kube, namespace, stop, tick=0.3):
            lasting = watched.look(kube, snapshot)
            if lasting:
                raise _cannot(lasting[0])
            if not running.alive:
                break
            waits(f"the chart's tests: {_waiting(names, watched.pods)}, {time.monotonic() - started:.0f} s")
    finally:
        stop.set()
        running.stop()
        output = running.wait()
    if output.code != 0:
        watched.look(kube, look.once(kube, namespace))
        raise failed(desired, names, watched.pods, watched.logs, helming.reason(output), time.monotonic() - started)


def _waiting(names: Sequence[str], pods: Mapping[str, Pod]) -> str:
    running = [name for name in pods if pods[name].phase == "Running"]
    return f"{running[0]} runs" if running else names[0]


def _cannot(problem: Problem) -> RolloutFailed:
    return RolloutFailed(
        f"the chart's test cannot run: {problem.what}", where=problem.where, why=problem.why,
        next=problem.hint or "inv kubectl -- get events",
    )  # fmt: skip


def failed(
    desired: Desired,
    names: Sequence[str],
    pods: Mapping[str, Pod],
    logs: Mapping[tuple[str, str], Log],
    said: str,
    took: float,
) -> RolloutFailed:
    """The test that failed, with the line of its log that explains it; where none did, Helm's own words. Pure."""
    for pod in pods.values():
        for container in pod.containers:
            if container.exit_code:
                line = diagnose.explain(logs.get((pod.name, container.name), ())).line
                return RolloutFailed(
                    f"the chart's test {pod.name} failed",
                    where=f"pod {pod.name}, container {container.name}",
                    why=f"exit code {container.exit_code}" + (f': "{line}"' if line else ", and no word in its log"),
                    next=f"inv logs {pod.name}",
                )
    if took >= desired.timeouts["proof"]:
        running = [pod.name for pod in pods.values() if pod.phase == "Running"] or [names[0]]
        return RolloutFailed(
            f"the chart's test {running[0]} does not end within {desired.timeouts['proof']:.0f} s",
            where=f"release {desired.release} in namespace {desired.namespace}",
            why=said,
            next=f"inv logs {running[0]}, or a longer timeouts.proof in the profile",
        )
    return RolloutFailed(
        "the chart's tests failed", where=f"release {desired.release} in namespace {desired.namespace}", why=said,
        next="inv helm -- test --logs " + desired.release,
    )  # fmt: skip


def leftovers(hooks: Sequence[Object]) -> list[tuple[str, str, str]]:
    """The Pods and Jobs that Helm leaves behind when it uninstalls a release: those of hooks. Pure."""
    return [
        planning.key(hook)
        for hook in hooks
        if hook["kind"] in ("Pod", "Job")
        and (hook["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") != "keep"
    ]
