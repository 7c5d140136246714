"""Judges one snapshot: what is ready, what is waited for, what stands in the way. Pure.

What stands in the way of a pod, and for how long that may last: ailments.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from devenv import ailments
from devenv.ailments import AT_ONCE, CRASHES, PULLING, WRONG_CONFIG
from devenv.model import Container, Job, Pod, Problem, Snapshot, Verdict, Workload

LIVENESS = "Liveness probe failed"  # so begins the kubelet's event


def judge(
    snapshot: Snapshot,
    wanted: Iterable[str],
    jobs: Iterable[str],
    watched: Iterable[str] = (),
    ignored: frozenset[str] = frozenset(),
) -> Verdict:
    """Judges the workloads (Kind/name) and Jobs that the release is made of; all must be ready, or complete.

    `watched` Jobs and Pods (hooks) must not fail, but need not be there; `ignored` are uids of Jobs of earlier runs.
    """
    there = {workload.key: workload for workload in snapshot.workloads}
    there_jobs = {job.key: job for job in snapshot.jobs if job.uid not in ignored}
    lines: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for name in watched:
        if name in there_jobs:
            line, found = _job(snapshot, there_jobs[name], name)
            lines += [line] if line[1] != "ok" else []
            problems += [problem._replace(before_rollout=True) for problem in found]
        for pod in snapshot.pods:
            if name == f"Pod/{pod.name}":
                problems += [problem._replace(before_rollout=True) for problem in _hook_pod(snapshot, pod, name)]
    for name in jobs:
        line, found = _job(snapshot, there_jobs.get(name), name)
        lines.append(line)
        problems += found
    for name in wanted:
        line, found = _workload(snapshot, there.get(name), name)
        lines.append(line)
        problems += found
    ready = all(text == "ok" for _, text in lines)
    stuck = {problem.component for problem in problems}
    starting = any(text != "ok" and name not in stuck for name, text in lines)
    return Verdict(ready, tuple(lines), tuple(problem if starting else _alone(problem) for problem in problems))


def _alone(problem: Problem) -> Problem:
    """Where nothing else is starting there is nothing that a crashing program could still be waiting for."""
    return problem._replace(patience=AT_ONCE) if problem.crashes >= CRASHES else problem


def _job(snapshot: Snapshot, job: Job | None, name: str) -> tuple[tuple[str, str], list[Problem]]:
    if job is None:
        return (name, "not there yet"), []
    if job.succeeded:
        return (job.component, "ok"), []
    pods = [pod for pod in snapshot.pods if pod.owner == job.key]
    if job.failed:
        what, pod, container = _last_crash(pods)
        why = what or job.message
        problem = Problem(f"{name} failed", job.component, f"{name} failed", name, why, AT_ONCE, pod, container)
        return (job.component, "failed"), [problem]
    return (job.component, _pods_line(snapshot, pods, job.key)), _problems(snapshot, pods, job.component, job.key)


def _hook_pod(snapshot: Snapshot, pod: Pod, name: str) -> list[Problem]:
    """What is wrong with a pod that is a hook itself, without a Job."""
    if pod.phase != "Failed":
        return of_pod(snapshot, pod)
    what, _, container = _last_crash([pod])
    why = what or pod.message
    return [
        Problem(
            f"{name} failed",
            pod.component,
            f"{name} failed",
            f"pod {pod.name}",
            why,
            AT_ONCE,
            pod.name,
            container,
        )
    ]


def _last_crash(pods: Iterable[Pod]) -> tuple[str, str, str]:
    for pod in pods:
        for container in pod.containers:
            if container.state == "terminated" and container.exit_code:
                return f"{container.name} ended with exit code {container.exit_code}", pod.name, container.name
    return "", "", ""


def _workload(snapshot: Snapshot, workload: Workload | None, name: str) -> tuple[tuple[str, str], list[Problem]]:
    if workload is None:
        return (name, "not there yet"), []
    pods = newest(snapshot, workload)
    # The pods know first: a workload's own figures follow, later where the controllers have much to do.
    if workload.done and all(pod.ready for pod in pods if pod.phase not in ("Failed", "Succeeded")):
        return (workload.component, "ok"), []
    problems = _problems(snapshot, pods, workload.component, workload.key)
    if pods or problems:
        line = _pods_line(snapshot, pods, workload.key)
        if all(pod.ready for pod in pods) and pods:
            line = "old pods are ending" if workload.total > workload.wanted else "becoming available"
        return (workload.component, line), problems
    return (workload.component, "its pods are being made"), []


def newest(snapshot: Snapshot, workload: Workload) -> list[Pod]:
    """The pods of the newest template: the old ones still serve, and their faults are no longer of interest."""
    pods = [pod for pod in snapshot.pods_of(workload.key) if not pod.deleting]
    if workload.kind == "Deployment":
        sets = snapshot.sets_of(workload.key)
        template = max(sets, key=lambda entry: entry.revision).template if sets else ""
    else:
        template = workload.template
    return [pod for pod in pods if pod.template == template] if template else pods


def of_pod(snapshot: Snapshot, pod: Pod) -> list[Problem]:
    """What stands in the way of a pod that no workload owns, or whose owner is of no interest."""
    return ailments.of_pod(snapshot, pod, pod.component, f"Pod/{pod.name}")


class Unproven(NamedTuple):
    """A container that is ready and may yet crash in the next moment: nothing asks it, or its liveness probe failed,
    `failed_at` (RFC 3339) the last time."""

    pod: str
    container: str
    restarts: int
    failed_at: str = ""


def unproven(snapshot: Snapshot, wanted: Iterable[str]) -> list[Unproven]:
    """The unproven containers of the workloads (Kind/name)."""
    owners = frozenset(wanted)
    failed: dict[str, str] = {}
    for event in snapshot.events:
        if event.message.startswith(LIVENESS):
            failed[event.about] = max(failed.get(event.about, ""), event.at)
    return [
        Unproven(pod.name, container.name, container.restarts, failed.get(f"Pod/{pod.name}", ""))
        for pod in snapshot.pods
        if pod.owner in owners and not pod.deleting
        for container in pod.containers
        if container.state == "running" and (not container.probed or f"Pod/{pod.name}" in failed)
    ]


def troubled(snapshot: Snapshot) -> list[tuple[Pod, Container]]:
    """The containers that failed, or run without being ready, those that failed first."""
    found = [
        (pod, container)
        for pod in snapshot.pods
        if not pod.ready and not pod.deleting and pod.phase != "Succeeded"
        for container in pod.containers
        if _failed(container) or (container.state == "running" and not container.ready)
    ]
    return sorted(found, key=lambda pair: not _failed(pair[1]))


def _failed(container: Container) -> bool:
    return bool(container.exit_code or container.last_exit)


def _pods_line(snapshot: Snapshot, pods: list[Pod], owner: str) -> str:
    for pod in pods:
        if not pod.ready:
            return _pod_line(snapshot, pod)
    return "at work" if pods else "starting"


def _pod_line(snapshot: Snapshot, pod: Pod) -> str:
    if pod.unscheduled:
        return "no node has room for it"
    if pod.node in snapshot.unready:
        return f"its node {pod.node} is not ready"
    if not pod.containers:
        return "being scheduled" if pod.phase == "Pending" else pod.phase.lower()
    for container in pod.containers:
        if container.init and container.state == "running" and not container.ready:
            return f"init container {container.name} runs"
        if container.state == "terminated" and container.exit_code:
            return f"{container.name} ended with exit code {container.exit_code}"
        if container.state == "waiting" and container.reason in (
            "CrashLoopBackOff",
            *PULLING,
            *WRONG_CONFIG,
        ):
            return f"{container.name}: {container.reason}"
    if any(container.state == "running" and not container.ready and not container.init for container in pod.containers):
        return "waiting for its readiness probe"
    return _creating(snapshot, pod)


def _creating(snapshot: Snapshot, pod: Pod) -> str:
    told = [event for event in snapshot.events_about(f"Pod/{pod.name}") if event.reason in ("Pulling", "Pulled")]
    if told and told[-1].reason == "Pulling":
        named = re.search(r'"([^"]+)"', told[-1].message)
        return f"pulling {named.group(1)}" if named else "pulling its image"
    return "its containers are being made"


def _problems(snapshot: Snapshot, pods: list[Pod], component: str, owner: str) -> list[Problem]:
    found = [problem for pod in pods for problem in ailments.of_pod(snapshot, pod, component, owner)]
    if not pods:
        found += ailments.never_made(snapshot, component, owner)
    return found


def belonging(snapshot: Snapshot, component: str) -> list[Pod]:
    """The pods of a component: of its label, or of the workloads and Jobs that are called so."""
    owners = {workload.key for workload in snapshot.workloads if workload.component == component}
    owners |= {job.key for job in snapshot.jobs if job.component == component}
    return [pod for pod in snapshot.pods if pod.component == component or pod.owner in owners]


def last_warning(snapshot: Snapshot, component: str) -> str:
    """The newest warning about a component's pods, such as what its probe answered; empty where there is none."""
    pods = {f"Pod/{pod.name}" for pod in belonging(snapshot, component) if not pod.ready}
    told = [event for event in snapshot.events if event.warning and event.about in pods]
    return max(told, key=lambda event: event.at).message if told else ""
