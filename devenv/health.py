"""Judges one snapshot: what is ready, what is waited for, what stands in the way. Pure.

Three classes of problems, by their patience in seconds: 0 fails at once, a number fails when it lasts that long, and
what is merely waited for is no problem. Reasons are those of the kubelet (pkg/kubelet/images, pkg/kubelet/container)
and of the controllers' events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from devenv.model import Container, Job, Pod, Problem, Snapshot, Verdict, Workload

AT_ONCE = 0.0
CRASHES = 3
PULL_GRACE = 20.0
PULL_GRACE_PASSING = 120.0
CRASH_GRACE = 60.0
SCHEDULING_GRACE = 30.0
MOUNT_GRACE = 45.0
PENDING_CLAIM_GRACE = 45.0
REFUSED_GRACE = 5.0  # a service account or a token may come a moment after its pod was wanted
WEBHOOK_GRACE = 15.0
NODE_GRACE = 30.0  # a node that is new, or whose kubelet starts anew, is not ready for a moment
ENDING_GRACE = 45.0  # pods that are ending still count in a quota

WRONG_CONFIG = frozenset(
    {"CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError"}
)
PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
PASSING = re.compile(r"\b429\b|toomanyrequests|QPS|timeout|timed out|\bEOF\b|\b50[0-9]\b|temporar", re.IGNORECASE)
NOT_STARTED = frozenset({"StartError", "ContainerCannotRun", "RunContainerError"})
NEVER_STARTS = re.compile(
    r"executable file not found|no such file or directory|not a directory|permission denied|exec format error"
)
NO_PROGRAM = re.compile(r'exec: "[^"]*": (executable file not found|stat \S+: no such file|permission denied).*')
NO_CLASS = re.compile(r"storageclass\S* \"[^\"]*\" not found", re.IGNORECASE)
NO_SOURCE = re.compile(r"(secret|configmap) \"[^\"]*\" not found|references non-existent|hostPath type check failed")
NO_CLAIM = re.compile(r"persistentvolumeclaim \"[^\"]*\" not found")
ERRED = re.compile(r"Readiness probe errored")
NEVER_FITS = re.compile(r"exceeds the limit|forbidden sysctl")
FOR_GOOD = re.compile(r"violates PodSecurity|is forbidden: \[?(minimum|maximum|max |min )|must specify")
QUOTA = re.compile(r"exceeded quota")
WEBHOOK = re.compile(r"failed calling webhook|failed to call webhook")
SCALING = frozenset({"TriggeredScaleUp", "Nominated"})


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
            problems += [replace(problem, before_rollout=True) for problem in found]
        for pod in snapshot.pods:
            if name == f"Pod/{pod.name}":
                problems += [replace(problem, before_rollout=True) for problem in _hook_pod(snapshot, pod, name)]
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
    return replace(problem, patience=AT_ONCE) if problem.crashes >= CRASHES else problem


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
        Problem(f"{name} failed", pod.component, f"{name} failed", f"pod {pod.name}", why, AT_ONCE, pod.name, container)
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
    return _pod_problems(snapshot, pod, pod.component, f"Pod/{pod.name}")


def unproven(snapshot: Snapshot, wanted: Iterable[str]) -> list[tuple[str, str, int]]:
    """(pod, container, restarts) of what is ready only because nothing asks it: it may crash in the next moment."""
    owners = frozenset(wanted)
    return [
        (pod.name, container.name, container.restarts)
        for pod in snapshot.pods
        if pod.owner in owners and not pod.deleting
        for container in pod.containers
        if container.state == "running" and not container.probed
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
        if container.state == "waiting" and container.reason in ("CrashLoopBackOff", *PULLING, *WRONG_CONFIG):
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
    found = [problem for pod in pods for problem in _pod_problems(snapshot, pod, component, owner)]
    if not pods:
        found += _never_made(snapshot, component, owner)
    return found


def _pod_problems(snapshot: Snapshot, pod: Pod, component: str, owner: str) -> list[Problem]:
    if pod.ready:
        return []
    if pod.phase == "Failed":
        return _put_out(pod, component, owner)
    if pod.unscheduled:
        return _unscheduled(snapshot, pod, component, owner)
    if not pod.node and (hopeless := [one for one in _unbound(snapshot, pod, component, owner) if not one.patience]):
        return hopeless
    if pod.node in snapshot.unready:
        return [_on_unready_node(snapshot, pod, component, owner)]
    found = []
    for container in pod.containers:
        problem = _container_problem(snapshot, pod, container, component, owner)
        if problem:
            found.append(problem)
    return found or _no_program(snapshot, pod, component, owner) or _not_set_up(snapshot, pod, component, owner)


def _no_program(snapshot: Snapshot, pod: Pod, component: str, owner: str) -> list[Problem]:
    """The runtime's word for it, which comes as an event some seconds before the container's own status has it."""
    waiting = [container for container in pod.containers if container.state == "waiting"]
    told = [event for event in snapshot.events_about(f"Pod/{pod.name}") if event.warning and event.reason == "Failed"]
    found = [why.group(0) for event in told if (why := NO_PROGRAM.search(event.message))]
    if len(waiting) != 1 or not found:
        return []
    what, where = f"{owner} cannot be started", f"pod {pod.name}, container {waiting[0].name}"
    return [
        Problem(what, component, what, where, found[-1], AT_ONCE, pod.name, waiting[0].name, about=f"Pod/{pod.name}")
    ]


def _put_out(pod: Pod, component: str, owner: str) -> list[Problem]:
    """A pod that its node put out or did not take, as its own message says; the next may fare better."""
    if not pod.message:
        return []
    patience = AT_ONCE if NEVER_FITS.search(pod.message) else CRASH_GRACE
    where, about = f"pod {pod.name}", f"Pod/{pod.name}"
    return [Problem(f"{owner} put out", component, f"{owner} is put out", where, pod.message, patience, about=about)]


def _not_set_up(snapshot: Snapshot, pod: Pod, component: str, owner: str) -> list[Problem]:
    """Volumes and network of a pod, none of whose containers has started."""
    if any(container.state != "waiting" or container.restarts for container in pod.containers):
        return []
    reasons = ("FailedMount", "FailedCreatePodSandBox", "FailedAttachVolume")
    told = [event for event in snapshot.events_about(f"Pod/{pod.name}") if event.warning and event.reason in reasons]
    return [
        Problem(
            f"{owner} {event.reason}", component, f"{owner} cannot be started", f"pod {pod.name}", event.message,
            AT_ONCE if NO_SOURCE.search(event.message) else MOUNT_GRACE, about=f"Pod/{pod.name}",
        )
        for event in told[-1:]
    ]  # fmt: skip


def _unscheduled(snapshot: Snapshot, pod: Pod, component: str, owner: str) -> list[Problem]:
    events = snapshot.events_about(f"Pod/{pod.name}")
    if any(event.reason in SCALING for event in events):
        return []
    what = f"{owner} finds no node"
    if "unbound immediate PersistentVolumeClaims" in pod.unscheduled or "persistentvolumeclaim" in pod.unscheduled:
        missing = NO_CLAIM.search(pod.unscheduled)
        return (
            [_without_claim(pod, component, owner, missing.group(0))]
            if missing
            else _unbound(snapshot, pod, component, owner)
        )
    where, about = f"pod {pod.name}", f"Pod/{pod.name}"
    return [Problem(f"{owner} unscheduled", component, what, where, pod.unscheduled, SCHEDULING_GRACE, about=about)]


def _without_claim(pod: Pod, component: str, owner: str, why: str) -> Problem:
    what, where = f"{owner} has no volume", f"pod {pod.name}"
    return Problem(what, component, what, where, why, REFUSED_GRACE, about=f"Pod/{pod.name}")


def _on_unready_node(snapshot: Snapshot, pod: Pod, component: str, owner: str) -> Problem:
    what, where = f"{owner} is on a node that is not ready", f"pod {pod.name}, node {pod.node}"
    hint = f"inv kubectl -- describe node {pod.node}"
    return Problem(
        f"{owner} {pod.node}", component, what, where, snapshot.unready[pod.node], NODE_GRACE, hint=hint,
        about=f"Pod/{pod.name}",
    )  # fmt: skip


def _unbound(snapshot: Snapshot, pod: Pod, component: str, owner: str) -> list[Problem]:
    found = []
    for claim in snapshot.claims:
        if claim.phase == "Bound" or claim.name not in pod.claims:
            continue
        events = [event for event in snapshot.events_about(f"PersistentVolumeClaim/{claim.name}") if event.warning]
        why = events[-1].message if events else "no volume was made for it yet"
        patience = AT_ONCE if NO_CLASS.search(why) else PENDING_CLAIM_GRACE
        where = f"PersistentVolumeClaim {claim.name}, class {claim.storage_class or '(default)'}"
        what, about = f"{owner} has no volume", f"PersistentVolumeClaim/{claim.name}"
        found.append(Problem(f"{claim.name} unbound", component, what, where, why, patience, about=about))
    return found


def _container_problem(
    snapshot: Snapshot, pod: Pod, container: Container, component: str, owner: str
) -> Problem | None:
    where = f"pod {pod.name}, container {container.name}"

    def problem(what: str, why: str, patience: float | None, previous: bool = False) -> Problem:
        return Problem(
            f"{owner} {what}", component, f"{owner} {what}", where, why, patience, pod.name, container.name, previous,
            about=f"Pod/{pod.name}",
        )  # fmt: skip

    if container.state == "waiting" and container.reason in WRONG_CONFIG:
        return problem("cannot be started", container.message or container.reason, AT_ONCE)
    if container.state == "waiting" and container.reason in PULLING:
        why = first_pull_error(snapshot, pod) or container.message
        grace = PULL_GRACE_PASSING if PASSING.search(why.replace(container.image, "")) else PULL_GRACE
        return replace(problem("gets no image", why, grace), hint=f"mend the image's name: {container.image}")
    if _start_error(container):
        patience = AT_ONCE if NEVER_STARTS.search(_start_error(container)) else CRASH_GRACE
        return problem("cannot be started", _start_error(container), patience)
    if container.state == "running" and (erred := _probe_error(snapshot, pod)):
        return problem("cannot be asked whether it is ready", erred, CRASH_GRACE)
    crashes = container.restarts + 1
    if container.state == "running" or not (container.restarts >= CRASHES or container.reason == "CrashLoopBackOff"):
        return None
    patience = AT_ONCE if container.restarts >= CRASHES else CRASH_GRACE
    killer, said = _killed(snapshot, pod, container)
    if killer:
        found = problem(f"is killed by its {killer}", f"{said}; killed {crashes} times", patience, True)
    else:
        found = problem("does not start", f"crashed {crashes} times, {_ended(container)}", patience, True)
    return replace(found, crashes=crashes)


def _killed(snapshot: Snapshot, pod: Pod, container: Container) -> tuple[str, str]:
    """What the kubelet ended the container for, and its word on it; empty where it ended by itself."""
    told = snapshot.events_about(f"Pod/{pod.name}")
    for probe in ("liveness", "startup"):
        killing = f"Container {container.name} failed {probe} probe"
        if any(event.reason == "Killing" and event.message.startswith(killing) for event in told):
            said = [event.message for event in told if event.message.startswith(f"{probe.capitalize()} probe")]
            return f"{probe} probe", said[-1].strip() if said else f"its {probe} probe failed"
    after = [event.message for event in told if event.reason == "FailedPostStartHook"]
    return ("postStart hook", after[-1]) if after and _ended(container) == "exit code 137" else ("", "")


def _probe_error(snapshot: Snapshot, pod: Pod) -> str:
    """Why a pod's readiness probe cannot even be tried: its program is not there."""
    told = [event.message for event in snapshot.events_about(f"Pod/{pod.name}") if event.reason == "Unhealthy"]
    found = [why.group(0) for text in told if ERRED.search(text) and (why := NO_PROGRAM.search(text))]
    return found[-1] if found else ""


def _start_error(container: Container) -> str:
    """What the runtime says of a program that it could not even start, without the words around it."""
    if container.state != "running" and container.reason in NOT_STARTED:
        text = container.message
    elif container.state == "waiting" and container.last_reason in NOT_STARTED:
        text = container.last_message
    else:
        return ""
    return text[text.rfind("exec: ") :] if "exec: " in text else text


def _ended(container: Container) -> str:
    if "OOMKilled" in (container.last_reason, container.reason):
        return "killed for using more memory than its limit (OOMKilled)"
    code = container.last_exit if container.last_exit is not None else container.exit_code
    return f"exit code {code}"


def first_pull_error(snapshot: Snapshot, pod: Pod) -> str:
    """The first error holds the true reason; later ones only say "Back-off"."""
    for event in snapshot.events_about(f"Pod/{pod.name}"):
        if event.warning and event.reason == "Failed" and event.message.startswith("Failed to pull"):
            return event.message
    return ""


def _never_made(snapshot: Snapshot, component: str, owner: str) -> list[Problem]:
    """Quota, LimitRange, Pod Security and admission refuse pods; only the controllers' events say so."""
    sets = sorted((entry for entry in snapshot.replica_sets if entry.owner == owner), key=lambda entry: entry.revision)
    makers = [owner, *(f"ReplicaSet/{entry.name}" for entry in sets[-1:])]
    for maker in makers:
        for event in reversed(snapshot.events_about(maker)):
            if event.warning and event.reason in ("FailedCreate", "FailedDelete"):
                what, patience = f"{owner} may not make its pods", _refusal(snapshot, event.message)
                return [Problem(f"{owner} refused", component, what, maker, event.message, patience, about=maker)]
    return []


def _refusal(snapshot: Snapshot, why: str) -> float:
    """How long a refusal to make a pod may last."""
    if WEBHOOK.search(why):
        return WEBHOOK_GRACE
    if QUOTA.search(why):
        return ENDING_GRACE if any(pod.deleting for pod in snapshot.pods) else AT_ONCE
    return AT_ONCE if FOR_GOOD.search(why) else REFUSED_GRACE


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
