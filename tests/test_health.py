"""The judgement of one picture: ready, waiting, or a problem with its patience."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import ailments, health
from devenv.model import Claim, Container, Event, Job, Pod, ReplicaSet, Snapshot, Verdict, Workload

NAME = "Deployment/app"


def workload(**changes: Any) -> Workload:
    fields: dict[str, Any] = {"wanted": 1, "total": 1, "updated": 1, "ready": 0, "available": 0, "current": True}
    return Workload("Deployment", "app", "app", **{**fields, **changes})


def container(**changes: Any) -> Container:
    return Container(**{"name": "main", "init": False, "image": "i", "ready": False, "state": "running", **changes})


def pod(*containers: Container, **changes: Any) -> Pod:
    fields: dict[str, Any] = {
        "name": "app-new-1", "component": "app", "owner": NAME, "template": "new", "phase": "Pending", "ready": False,
        "deleting": False, "unscheduled": "", "created": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return Pod(**{**fields, **changes}, containers=containers)


SETS = (ReplicaSet("app-old", NAME, "old", 1), ReplicaSet("app-new", NAME, "new", 2))


def picture(*pods: Pod, events: tuple[Event, ...] = (), **changes: Any) -> Snapshot:
    fields: dict[str, Any] = {"workloads": (workload(),), "replica_sets": SETS, "pods": pods, "events": events}
    return Snapshot("ns", **{**fields, **changes})


def warning(about: str, reason: str, message: str, at: str = "2026-01-01T00:00:01Z") -> Event:
    return Event(about, reason, message, True, at)


def killing(message: str) -> Event:
    return Event("Pod/app-new-1", "Killing", message, False, "2026-01-01T00:00:02Z")


def judge(snapshot: Snapshot) -> Verdict:
    return health.judge(snapshot, [NAME], [])


WAITING = {
    "it is not there": (Snapshot("ns"), "not there yet"),
    "it has no pod yet": (picture(), "its pods are being made"),
    "its pod is being scheduled": (picture(pod()), "being scheduled"),
    "its image is pulled": (
        picture(
            pod(container(state="waiting", reason="ContainerCreating")),
            events=(Event("Pod/app-new-1", "Pulling", 'Pulling image "x/y:1"', False, "1"),),
        ),
        "pulling x/y:1",
    ),
    "its image has been pulled": (
        picture(
            pod(container(state="waiting", reason="ContainerCreating")),
            events=(
                Event("Pod/app-new-1", "Pulling", 'Pulling image "x/y:1"', False, "1"),
                Event("Pod/app-new-1", "Pulled", "Successfully pulled", False, "2"),
            ),
        ),
        "its containers are being made",
    ),
    "its containers are made": (
        picture(pod(container(state="waiting", reason="ContainerCreating"))),
        "its containers are being made",
    ),
    "an init container runs": (
        picture(pod(container(name="wait", init=True), container(state="waiting", reason="PodInitializing"))),
        "init container wait runs",
    ),
    "the readiness probe does not pass": (picture(pod(container())), "waiting for its readiness probe"),
    "one restart while the database starts": (
        picture(pod(container(restarts=1, last_exit=1))),
        "waiting for its readiness probe",
    ),
    "old pods are ending": (
        picture(pod(container(ready=True), ready=True), workloads=(workload(total=2, ready=2, available=2),)),
        "old pods are ending",
    ),
}


@pytest.mark.parametrize(("snapshot", "line"), WAITING.values(), ids=WAITING.keys())
def test_it_waits_while(snapshot: Snapshot, line: str) -> None:
    verdict = judge(snapshot)
    assert [text for _, text in verdict.lines] == [line]
    assert verdict.problems == ()
    assert not verdict.ready


def waits_on(reason: str, message: str = "", **changes: Any) -> Pod:
    return pod(container(state="waiting", reason=reason, message=message, **changes))


CREATE = warning("ReplicaSet/app-new", "FailedCreate", "exceeded quota: pods=0")
PULL = warning("Pod/app-new-1", "Failed", 'Failed to pull image "x": not found')
BUSY = warning("Pod/app-new-1", "Failed", 'Failed to pull image "x": 429 Too Many Requests')
NO_PROGRAM = (
    'failed to create containerd task: runc create failed: exec: "nope": executable file not found in $PATH: unknown'
)
UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."

# picture, what, what the why holds, patience in seconds
PROBLEMS: dict[str, tuple[Snapshot, str, str, float]] = {
    "a Secret is missing": (
        picture(waits_on("CreateContainerConfigError", 'secret "x" not found')),
        f"{NAME} cannot be started", 'secret "x" not found', ailments.AT_ONCE,
    ),
    "the image's name is wrong": (picture(waits_on("InvalidImageName")), f"{NAME} cannot be started", "Invalid", ailments.AT_ONCE),
    "the image is not there": (
        picture(waits_on("ImagePullBackOff", "Back-off"), events=(PULL,)),
        f"{NAME} gets no image", "not found", ailments.PULL_GRACE,
    ),
    "the registry is busy": (
        picture(waits_on("ImagePullBackOff", "Back-off"), events=(BUSY,)),
        f"{NAME} gets no image", "429", ailments.PULL_GRACE_PASSING,
    ),
    "it crashed three times": (
        picture(waits_on("CrashLoopBackOff", restarts=3, last_exit=7)),
        f"{NAME} does not start", "crashed 4 times, exit code 7", ailments.AT_ONCE,
    ),
    "it crashed twice": (
        picture(waits_on("CrashLoopBackOff", restarts=1, last_exit=7)),
        f"{NAME} does not start", "crashed 2 times, exit code 7", ailments.CRASH_GRACE,
    ),
    "it crashed three times, and there is nothing that it could wait for": (
        picture(waits_on("CrashLoopBackOff", restarts=2, last_exit=7)),
        f"{NAME} does not start", "crashed 3 times, exit code 7", ailments.AT_ONCE,
    ),
    "its program is not in the image": (
        picture(waits_on("CrashLoopBackOff", restarts=1, last_reason="StartError", last_message=NO_PROGRAM)),
        f"{NAME} cannot be started", 'exec: "nope": executable file not found', ailments.AT_ONCE,
    ),
    "the StorageClass of its volume is missing, and no scheduler has looked at it yet": (
        picture(
            pod(claims=("data",)), claims=(Claim("data", "Pending", "fast"), Claim("other", "Pending", "slow")),
            events=(warning("PersistentVolumeClaim/data", "ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found'),),
        ),
        f"{NAME} has no volume", '"fast" not found', ailments.AT_ONCE,
    ),
    "its program is not in the image, says the runtime": (
        picture(
            waits_on("ContainerCreating"),
            events=(warning("Pod/app-new-1", "Failed", f"Error: {NO_PROGRAM}"),),
        ),
        f"{NAME} cannot be started", 'exec: "nope": executable file not found', ailments.AT_ONCE,
    ),
    "its node is not ready": (
        picture(pod(node="one"), unready={"one": "Kubelet stopped posting node status."}),
        f"{NAME} is on a node that is not ready", "Kubelet stopped", ailments.NODE_GRACE,
    ),
    "it filled its volume": (
        picture(pod(phase="Failed", message='Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". ')),
        f"{NAME} is put out", 'exceeds the limit "1Mi"', ailments.AT_ONCE,
    ),
    "its node put it out": (
        picture(pod(phase="Failed", message="The node was low on resource: memory.")),
        f"{NAME} is put out", "low on resource", ailments.CRASH_GRACE,
    ),
    "Pod Security refuses its pods": (
        picture(events=(warning("ReplicaSet/app-new", "FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'),)),
        f"{NAME} may not make its pods", "violates PodSecurity", ailments.AT_ONCE,
    ),
    "a LimitRange refuses its pods": (
        picture(events=(warning("ReplicaSet/app-new", "FailedCreate", 'pods "x" is forbidden: maximum cpu usage per Container is 100m'),)),
        f"{NAME} may not make its pods", "maximum cpu usage", ailments.AT_ONCE,
    ),
    "a service account is not there yet": (
        picture(events=(warning("ReplicaSet/app-new", "FailedCreate", 'serviceaccount "default" not found'),)),
        f"{NAME} may not make its pods", "serviceaccount", ailments.REFUSED_GRACE,
    ),
    "an admission webhook does not answer": (
        picture(events=(warning("ReplicaSet/app-new", "FailedCreate", 'Internal error occurred: failed calling webhook "x"'),)),
        f"{NAME} may not make its pods", "failed calling webhook", ailments.WEBHOOK_GRACE,
    ),
    "a quota is full while old pods end": (
        picture(pod(deleting=True, template="old"), events=(CREATE,)),
        f"{NAME} may not make its pods", "exceeded quota", ailments.ENDING_GRACE,
    ),
    "it is killed for its memory": (
        picture(waits_on("CrashLoopBackOff", restarts=3, last_exit=137, last_reason="OOMKilled")),
        f"{NAME} does not start", "OOMKilled", ailments.AT_ONCE,
    ),
    "an init container crashes": (
        picture(pod(container(name="wait", init=True, state="waiting", reason="CrashLoopBackOff", restarts=4, last_exit=2))),
        f"{NAME} does not start", "exit code 2", ailments.AT_ONCE,
    ),
    "quota refuses its pods": (picture(events=(CREATE,)), f"{NAME} may not make its pods", "exceeded quota", ailments.AT_ONCE),
    "no node has room": (
        picture(pod(unscheduled="0/1 nodes are available: 1 Insufficient cpu.")),
        f"{NAME} finds no node", "Insufficient cpu", ailments.SCHEDULING_GRACE,
    ),
    "its volume is not made": (
        picture(
            pod(unscheduled=UNBOUND, claims=("data",)),
            claims=(Claim("data", "Pending", "fast"),),
            events=(warning("PersistentVolumeClaim/data", "ProvisioningFailed", 'storageclass "fast" not found'),),
        ),
        f"{NAME} has no volume", 'storageclass "fast" not found', ailments.AT_ONCE,
    ),
    "its volume is made slowly": (
        picture(
            pod(unscheduled=UNBOUND, claims=("data",)),
            claims=(Claim("data", "Pending", "fast"),),
            events=(warning("PersistentVolumeClaim/data", "ProvisioningFailed", "cloud says: try again"),),
        ),
        f"{NAME} has no volume", "try again", ailments.PENDING_CLAIM_GRACE,
    ),
    "a volume cannot be mounted yet": (
        picture(
            pod(container(state="waiting", reason="ContainerCreating")),
            events=(warning("Pod/app-new-1", "FailedMount", "Multi-Attach error: the volume is in use"),),
        ),
        f"{NAME} cannot be started", "Multi-Attach", ailments.MOUNT_GRACE,
    ),
    "its liveness probe kills it": (
        picture(
            waits_on("CrashLoopBackOff", restarts=3, last_exit=137),
            events=(
                warning("Pod/app-new-1", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 404"),
                killing("Container main failed liveness probe, will be restarted"),
            ),
        ),
        f"{NAME} is killed by its liveness probe", "statuscode: 404; killed 4 times", ailments.AT_ONCE,
    ),
    "its startup probe kills it": (
        picture(
            waits_on("CrashLoopBackOff", restarts=1, last_exit=137),
            events=(
                warning("Pod/app-new-1", "Unhealthy", "Startup probe failed: dial tcp 10.0.0.1:99: connection refused"),
                killing("Container main failed startup probe, will be restarted"),
            ),
        ),
        f"{NAME} is killed by its startup probe", "connection refused; killed 2 times", ailments.CRASH_GRACE,
    ),
    "another container's probe kills that one": (
        picture(
            waits_on("CrashLoopBackOff", restarts=3, last_exit=7),
            events=(killing("Container side failed liveness probe, will be restarted"),),
        ),
        f"{NAME} does not start", "exit code 7", ailments.AT_ONCE,
    ),
    "its hook after the start fails": (
        picture(
            waits_on("CrashLoopBackOff", restarts=3, last_exit=137),
            events=(warning("Pod/app-new-1", "FailedPostStartHook", "PostStartHook failed"),),
        ),
        f"{NAME} is killed by its postStart hook", "PostStartHook failed; killed 4 times", ailments.AT_ONCE,
    ),
    "its readiness probe runs a program that is not there": (
        picture(
            pod(container()),
            events=(warning("Pod/app-new-1", "Unhealthy", f"Readiness probe errored and resulted in unknown state: {NO_PROGRAM}"),),
        ),
        f"{NAME} cannot be asked whether it is ready", 'exec: "nope": executable file not found', ailments.CRASH_GRACE,
    ),
    "its volume claim is not there": (
        picture(pod(unscheduled='0/1 nodes are available: persistentvolumeclaim "x" not found. preemption: no.')),
        f"{NAME} has no volume", 'persistentvolumeclaim "x" not found', ailments.SCHEDULING_GRACE,
    ),
    "a folder of the node is not there": (
        picture(
            pod(container(state="waiting", reason="ContainerCreating")),
            events=(warning("Pod/app-new-1", "FailedMount", "hostPath type check failed: /x is not a directory"),),
        ),
        f"{NAME} cannot be started", "/x is not a directory", ailments.AT_ONCE,
    ),
    "a folder is mounted on a file": (
        picture(waits_on("CrashLoopBackOff", restarts=1, last_reason="StartError", last_message="mount: not a directory")),
        f"{NAME} cannot be started", "not a directory", ailments.AT_ONCE,
    ),
    "its node forbids a setting of its kernel": (
        picture(pod(phase="Failed", message='Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted')),
        f"{NAME} is put out", "kernel.msgmax", ailments.AT_ONCE,
    ),
    "a ConfigMap cannot be mounted": (
        picture(
            pod(container(state="waiting", reason="ContainerCreating")),
            events=(warning("Pod/app-new-1", "FailedMount", 'configmap "x" not found'),),
        ),
        f"{NAME} cannot be started", 'configmap "x" not found', ailments.AT_ONCE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("snapshot", "what", "why", "patience"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_it_names_the_problem_when(snapshot: Snapshot, what: str, why: str, patience: float) -> None:
    [problem] = judge(snapshot).problems
    assert problem.what == what
    assert why in problem.why
    assert problem.patience == patience


def test_a_crash_may_come_of_what_is_still_starting() -> None:
    crashing = waits_on("CrashLoopBackOff", restarts=2, last_exit=1)
    starting = workload()._replace(name="database", component="database")
    [problem] = health.judge(
        picture(crashing, workloads=(workload(), starting)), [NAME, "Deployment/database"], []
    ).problems
    assert problem.patience == ailments.CRASH_GRACE


PULLS = {
    "toomanyrequests: slow down": True,
    "unexpected status code 503 Service Unavailable": True,
    "net/http: TLS handshake timeout": True,
    "unexpected EOF": True,
    "not found": False,
    "lookup registry.invalid: no such host": False,
    "sha256:4a5501b429f0503c: not found": False,
    "app:1.503 not found": False,
}


@pytest.mark.parametrize(("why", "passing"), PULLS.items())
def test_a_pull_that_may_yet_succeed_is_given_more_time(why: str, passing: bool) -> None:
    told = warning("Pod/app-new-1", "Failed", f"Failed to pull image: {why}")
    failing = pod(container(state="waiting", reason="ErrImagePull", image="app:1.503"))
    [problem] = judge(picture(failing, events=(told,))).problems
    assert problem.patience == (ailments.PULL_GRACE_PASSING if passing else ailments.PULL_GRACE)


def test_the_newest_warning_says_what_is_waited_for() -> None:
    told = (
        warning("Pod/app-new-1", "Unhealthy", "first", "2026-01-01T00:00:01Z"),
        warning("Pod/app-new-1", "Unhealthy", "Readiness probe failed", "2026-01-01T00:00:02Z"),
        warning("Pod/other", "Unhealthy", "another's", "2026-01-01T00:00:03Z"),
    )
    assert health.last_warning(picture(pod(container()), events=told), "app") == "Readiness probe failed"
    assert health.last_warning(picture(pod(container())), "app") == ""


def test_an_autoscaler_at_work_is_waited_for() -> None:
    scaling = Event("Pod/app-new-1", "TriggeredScaleUp", "", False, "1")
    assert judge(picture(pod(unscheduled="Insufficient cpu"), events=(scaling,))).problems == ()


def test_the_faults_of_an_old_template_are_of_no_interest() -> None:
    old = pod(container(state="waiting", reason="CrashLoopBackOff", restarts=9), name="app-old-1", template="old")
    assert judge(picture(old, pod(container()))).problems == ()


READY = {
    "all pods are updated, ready and available": (workload(ready=1, available=1), True),
    "the status speaks of an older specification": (workload(ready=1, available=1, current=False), False),
    "an old pod is still there": (workload(ready=2, available=2, total=2), False),
    "it wants no pods": (workload(wanted=0, total=0, updated=0), True),
}


@pytest.mark.parametrize(("one", "ready"), READY.values(), ids=READY.keys())
def test_it_is_ready_or_not_when(one: Workload, ready: bool) -> None:
    assert judge(picture(workloads=(one,))).ready is ready


def test_the_pods_know_first() -> None:
    done = workload(ready=1, available=1)
    crashed = pod(container(state="terminated", reason="Error", exit_code=1))
    assert not judge(picture(crashed, workloads=(done,))).ready
    evicted = pod(phase="Failed", message="The node was low on resource: memory.")
    assert judge(picture(pod(container(ready=True), ready=True), evicted, workloads=(done,))).ready


def test_a_failed_job_fails_at_once_and_names_its_pod() -> None:
    job = Job("setup", "schema", 0, False, True, "Job has reached the specified backoff limit")
    failed = pod(container(name="run", state="terminated", exit_code=3), name="setup-1", owner="Job/setup")
    [problem] = health.judge(picture(failed, jobs=(job,)), [], ["Job/setup"]).problems
    assert (problem.what, problem.why) == ("Job/setup failed", "run ended with exit code 3")
    assert (problem.pod, problem.container, problem.patience) == ("setup-1", "run", 0.0)


def test_a_job_must_be_complete() -> None:
    done, active = Job("setup", "schema", 0, True, False), Job("setup", "schema", 1, False, False)
    assert health.judge(picture(jobs=(done,)), [], ["Job/setup"]).ready
    assert not health.judge(picture(jobs=(active,)), [], ["Job/setup"]).ready


def test_a_hook_may_come_and_go_but_must_not_fail() -> None:
    running, failed = Job("hook", "hook", 1, False, False), Job("hook", "hook", 0, False, True, "no luck", uid="2")
    assert health.judge(picture(workloads=()), [], [], ["Job/hook"]).ready
    assert not health.judge(picture(workloads=(), jobs=(running,)), [], [], ["Job/hook"]).ready
    [problem] = health.judge(picture(workloads=(), jobs=(failed,)), [], [], ["Job/hook"]).problems
    assert problem.before_rollout


def test_a_job_that_failed_in_an_earlier_run_is_of_no_interest() -> None:
    failed = Job("hook", "hook", 0, False, True, "no luck", uid="old")
    assert health.judge(picture(workloads=(), jobs=(failed,)), [], [], ["Job/hook"], frozenset({"old"})).problems == ()


HOOK_PODS = {
    "failed": ({"phase": "Failed"}, {"state": "terminated", "exit_code": 3}, "main ended with exit code 3"),
    "cannot start": ({}, {"state": "waiting", "reason": "CreateContainerConfigError", "message": "no"}, "no"),
    "runs": ({"phase": "Running"}, {"state": "running"}, ""),
    "is done": ({"phase": "Succeeded"}, {"state": "terminated", "exit_code": 0}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("phase", "state", "why"), HOOK_PODS.values(), ids=HOOK_PODS.keys())
def test_a_hook_that_is_a_pod_of_its_own_is_judged_like_a_job(
    phase: dict[str, Any], state: dict[str, Any], why: str
) -> None:
    seen = picture(pod(container(**state), name="before", owner="", **phase), workloads=())
    problems = health.judge(seen, [], [], ["Pod/before"]).problems
    assert [(one.why, one.patience, one.before_rollout) for one in problems] == ([(why, 0.0, True)] if why else [])


def test_a_claim_without_a_volume_is_told_by_name_so_that_a_new_one_fails_while_helm_still_applies() -> None:
    claim = Claim("data", "Pending", "fast")
    told = warning("PersistentVolumeClaim/data", "ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found')
    [problem] = judge(picture(pod(claims=("data",)), claims=(claim,), events=(told,))).problems
    assert problem.about == "PersistentVolumeClaim/data"
