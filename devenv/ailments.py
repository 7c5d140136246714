"""What stands in the way of pods: of one that is not ready, and of those that are never made. Pure.

Three classes of problems, by their patience in seconds: 0 fails at once, a number fails when it lasts that long, and
what is merely waited for is no problem. Reasons are those of the kubelet (pkg/kubelet/images, pkg/kubelet/container)
and of the controllers' events.
"""

from __future__ import annotations

import re

from devenv.model import Container, Pod, Problem, Snapshot

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


def of_pod(snapshot: Snapshot, pod: Pod, component: str, owner: str) -> list[Problem]:
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
    if missing := NO_CLAIM.search(pod.unscheduled):
        return [_without_claim(pod, component, owner, missing.group(0))]
    if "unbound immediate PersistentVolumeClaims" in pod.unscheduled or "persistentvolumeclaim" in pod.unscheduled:
        return _unbound(snapshot, pod, component, owner)
    where, about = f"pod {pod.name}", f"Pod/{pod.name}"
    return [Problem(f"{owner} unscheduled", component, what, where, pod.unscheduled, SCHEDULING_GRACE, about=about)]


def _without_claim(pod: Pod, component: str, owner: str, why: str) -> Problem:
    what, where = f"{owner} has no volume", f"pod {pod.name}"
    return Problem(what, component, what, where, why, SCHEDULING_GRACE, about=f"Pod/{pod.name}")


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
        return problem("gets no image", why, grace)._replace(hint=f"mend the image's name: {container.image}")
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
    return found._replace(crashes=crashes)


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


def never_made(snapshot: Snapshot, component: str, owner: str) -> list[Problem]:
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
