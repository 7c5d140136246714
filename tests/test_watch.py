"""A rollout is followed until it is ready, or until a problem has outlasted its patience."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import look, watch
from devenv.clients.kube import Kube
from devenv.errors import RolloutFailed, StepFailed
from devenv.model import Container, Pod, Snapshot
from devenv.watch import Goal
from tests.fake_api import FakeApi

GOAL = Goal("n", ("Deployment/app",), (), 5.0)
DEPLOYMENT = "/apis/apps/v1/namespaces/n/deployments"
PODS = "/api/v1/namespaces/n/pods"


def listed(*items: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"metadata": {"resourceVersion": "1"}, "items": list(items)}


def deployment(ready: int) -> dict[str, Any]:
    status = {
        "observedGeneration": 1,
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": ready,
        "availableReplicas": ready,
    }
    return {"metadata": {"name": "app", "uid": "d", "generation": 1}, "spec": {"replicas": 1}, "status": status}


def pod(state: dict[str, Any], restarts: int = 0) -> dict[str, Any]:
    owner = {"kind": "ReplicaSet", "name": "app-1", "controller": True}
    container = {"name": "main", "ready": False, "restartCount": restarts, "state": state}
    labels = {"pod-template-hash": "1"}
    meta = {"name": "app-1-x", "uid": "p", "labels": labels, "ownerReferences": [owner]}
    return {"metadata": meta, "spec": {}, "status": {"phase": "Running", "containerStatuses": [container]}}


@pytest.mark.parametrize(("count", "asked"), [(2, 2), (4, 1)])
def test_several_nodes_on_which_pods_wait_are_asked_for_together(
    api: FakeApi, tmp_path: Path, count: int, asked: int
) -> None:
    def node(nth: int) -> dict[str, Any]:
        ready = {"type": "Ready", "status": "True" if nth else "Unknown", "message": "no word from it"}
        return {"metadata": {"name": f"node-{nth}"}, "status": {"conditions": [ready]}}

    api.answers["GET /api/v1/nodes"] = (200, {"items": [node(nth) for nth in range(9)]})
    api.answers |= {f"GET /api/v1/nodes/node-{nth}": (200, node(nth)) for nth in range(9)}
    waiting = [look.pod({**pod({}), "spec": {"nodeName": f"node-{nth}"}}) for nth in range(count)]
    snapshot = Snapshot("n", pods=tuple(waiting))
    assert look.unready(Kube(api.kubeconfig(tmp_path), "fake"), snapshot) == {"node-0": "no word from it"}
    assert len(api.asked) == asked


def test_changes_that_never_cease_do_not_put_off_the_next_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def ceaseless(_: Any, row: Any, __: str, stop: threading.Event, changes: Any, *___: Any) -> None:
        changes.put((row[1], "reset", "", {}))
        while not stop.wait(0.01):
            changes.put((row[1], "MODIFIED", "x", f"{time.monotonic()}"))

    monkeypatch.setattr(look, "_watch", ceaseless)
    stop = threading.Event()
    pictures = look.looks(None, "n", stop)  # type: ignore[arg-type]
    began = time.monotonic()
    for _ in range(3):
        next(pictures)
    stop.set()
    assert time.monotonic() - began < 3


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi().start()
    for path, plural, _, _ in look.READS:
        fake.answers[f"GET {path}/namespaces/n/{plural}"] = listed()
    yield fake
    fake.stop()


def follow(api: FakeApi, folder: Path, applying: Any = lambda: False) -> list[str]:
    said: list[str] = []
    watch.follow(Kube(api.kubeconfig(folder), "fake"), GOAL, applying, said.append)
    return said


def test_it_ends_when_helm_is_over_and_all_is_ready(api: FakeApi, tmp_path: Path) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    busy = iter([True, True])
    assert follow(api, tmp_path, lambda: next(busy, False)) == ["helm applies", "helm applies"]


def test_it_does_not_believe_a_watch_that_lags_behind_helm(api: FakeApi, tmp_path: Path) -> None:
    pictures = iter([listed(deployment(1)), listed(deployment(0))])
    api.answers[f"GET {DEPLOYMENT}"] = lambda _: next(pictures, listed(deployment(1)))
    assert follow(api, tmp_path)  # it went on waiting after the first picture


def test_a_crash_loop_fails_with_the_log_line_that_explains(api: FakeApi, tmp_path: Path) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(0))
    crashed = {"waiting": {"reason": "CrashLoopBackOff"}}
    api.answers[f"GET {PODS}"] = listed(pod(crashed, restarts=3))
    api.answers[f"GET {PODS}/app-1-x/log"] = (200, 'start\npassword authentication failed for user "x"\n')
    with pytest.raises(RolloutFailed) as failed:
        follow(api, tmp_path)
    assert failed.value.what == "Deployment/app does not start"
    assert failed.value.where == "pod app-1-x, container main"
    assert failed.value.why == 'PostgreSQL refuses the password: "password authentication failed for user "x""'


def after_a_while(what: str, object: Any) -> Any:
    """What a watch says a moment later."""

    def answer(_: Any) -> tuple[int, str]:
        time.sleep(0.4)
        return 200, json.dumps({"type": what, "object": object}) + "\n"

    return answer


def test_a_pod_that_crashed_before_is_no_failure_of_the_run_that_mends_it(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = pod({"waiting": {"reason": "CrashLoopBackOff"}}, restarts=3)
    crashed["metadata"]["resourceVersion"] = "2"
    pods = iter([listed(crashed)])
    api.answers[f"GET {PODS}"] = lambda _: next(pods, listed())
    pictures = iter([listed(deployment(0))])
    api.answers[f"GET {DEPLOYMENT}"] = lambda _: next(pictures, listed(deployment(1)))
    mended = deployment(1)
    mended["metadata"]["resourceVersion"] = "2"

    api.answers[f"WATCH {DEPLOYMENT}"] = after_a_while("MODIFIED", mended)
    api.answers[f"WATCH {PODS}"] = after_a_while("DELETED", crashed)
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(earlier=frozenset({"Pod/app-1-x"})))
    helm = iter([True, True])
    assert follow(api, tmp_path, lambda: next(helm, False))


def test_a_pod_that_crashed_before_and_still_does_is_one(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(0))
    api.answers[f"GET {PODS}"] = listed(pod({"waiting": {"reason": "CrashLoopBackOff"}}, restarts=3))
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(earlier=frozenset({"Pod/app-1-x"})))
    monkeypatch.setattr(watch, "SETTLE", 0.1)
    with pytest.raises(RolloutFailed, match="does not start"):
        follow(api, tmp_path)


@pytest.mark.parametrize(("earlier", "lasts"), [(frozenset(), False), (frozenset({"ReplicaSet/app-1"}), True)])
def test_a_refused_pod_is_a_failure_of_this_run_where_what_makes_it_is_new(
    earlier: frozenset[str], lasts: bool, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(0))
    owner = {"kind": "Deployment", "name": "app", "controller": True}
    api.answers["GET /apis/apps/v1/namespaces/n/replicasets"] = listed(
        {"metadata": {"name": "app-1", "uid": "r", "labels": {"pod-template-hash": "1"}, "ownerReferences": [owner]}}
    )
    told = {"kind": "ReplicaSet", "name": "app-1"}
    event = {"metadata": {"uid": "e"}, "involvedObject": told, "type": "Warning", "reason": "FailedCreate"}
    api.answers["GET /api/v1/namespaces/n/events"] = listed({**event, "message": "exceeded quota"})
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(earlier=earlier))
    settle = 1.0 if lasts else 10.0
    monkeypatch.setattr(watch, "SETTLE", settle)
    began = time.monotonic()
    with pytest.raises(RolloutFailed, match="may not make its pods"):
        follow(api, tmp_path)
    assert (time.monotonic() - began >= settle) is lasts


def test_what_the_kubelet_says_in_place_of_a_log_is_no_log(api: FakeApi, tmp_path: Path) -> None:
    answers = iter(["unable to retrieve container logs for containerd://1", "the true end\n"])
    api.answers[f"GET {PODS}/p/log"] = lambda _: (200, next(answers))
    kube = Kube(api.kubeconfig(tmp_path), "fake")
    assert watch.log_tail(kube, "n", "p", "main", previous=True) == ["the true end"]


def test_the_logs_of_a_failure_are_of_what_failed_and_of_what_is_asked_for(api: FakeApi, tmp_path: Path) -> None:
    for name in ("crashed", "waits", "asked", "fine"):
        api.answers[f"GET {PODS}/{name}/log"] = (200, f"{name}\n")
    running = Container("main", False, "", False, "running")
    crashed = Container("main", False, "", False, "waiting", "CrashLoopBackOff", last_exit=1, restarts=3)
    ready = running._replace(ready=True)
    rows = (("waits", "w", running), ("fine", "f", ready), ("asked", "backend", ready), ("crashed", "c", crashed))
    pods = tuple(
        Pod(name, component, "", "", "Running", container.ready, False, "", "", (container,))
        for name, component, container in rows
    )
    found = watch.tails(Kube(api.kubeconfig(tmp_path), "fake"), Snapshot("n", pods=pods), "backend")
    assert [(tail.pod, tail.lines) for tail in found] == [
        ("crashed", ("crashed",)),
        ("waits", ("waits",)),
        ("asked", ("asked",)),
    ]


SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
    "spec": {"selector": {"app": "wbe"}, "ports": [{"port": 80}]},
}  # fmt: skip
SLICES = "GET /apis/discovery.k8s.io/v1/namespaces/n/endpointslices"


def test_a_service_that_leads_nowhere_fails_what_is_ready_otherwise(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    api.answers[SLICES] = listed()
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(objects=(SERVICE,)))
    monkeypatch.setattr(watch, "SERVICE_GRACE", 0.1)
    monkeypatch.setattr(watch, "SETTLE", 0.0)
    with pytest.raises(RolloutFailed) as failed:
        follow(api, tmp_path)
    assert failed.value.what == "Service/web leads nowhere"
    assert failed.value.why == "no pod has the labels of its selector, app=wbe"


@pytest.mark.parametrize("answer", [(403, {"message": "forbidden"}), (404, {"message": "not found"})])
def test_who_may_not_see_endpoints_is_not_stopped_by_them(
    answer: tuple[int, Any], api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    api.answers[SLICES] = answer
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(objects=(SERVICE,)))
    assert follow(api, tmp_path) == []


def blind(restarts: int, state: str = "running") -> dict[str, Any]:
    one = pod({state: {"reason": "CrashLoopBackOff"} if state == "waiting" else {}}, restarts)
    one["spec"] = {"containers": [{"name": "main"}]}
    one["status"]["conditions"] = [{"type": "Ready", "status": str(state == "running")}]
    one["metadata"]["resourceVersion"] = str(restarts)
    return one


def test_what_has_no_readiness_probe_must_run_for_a_while(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    api.answers[f"GET {PODS}"] = listed(blind(0))
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(steady=1.0))
    began = time.monotonic()
    said = follow(api, tmp_path)
    assert time.monotonic() - began >= 1.0
    assert said[0].startswith("all ok; what has no readiness probe")


def test_what_was_there_before_need_not(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    api.answers[f"GET {PODS}"] = listed(blind(0))
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(earlier=frozenset({"Pod/app-1-x"}), steady=60.0))
    assert follow(api, tmp_path) == []


def test_a_program_that_is_ready_until_it_crashes_is_not_taken_for_ready(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    api.answers[f"GET {PODS}"] = listed(blind(1))

    def crash(_: Any) -> tuple[int, str]:
        time.sleep(0.5)
        down = deployment(0)
        down["metadata"]["resourceVersion"] = "9"
        api.answers[f"GET {DEPLOYMENT}"] = listed(down)
        api.answers[f"WATCH {DEPLOYMENT}"] = (200, json.dumps({"type": "MODIFIED", "object": down}) + "\n")
        return 200, json.dumps({"type": "MODIFIED", "object": blind(3, "waiting")}) + "\n"

    api.answers[f"WATCH {PODS}"] = crash
    monkeypatch.setattr(watch, "SETTLE", 0.0)
    with pytest.raises(RolloutFailed, match="does not start"):
        follow(api, tmp_path)


def test_a_hook_that_hangs_is_named_with_its_last_words(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = {"metadata": {"name": "once", "uid": "j"}, "status": {"active": 1}}
    api.answers["GET /apis/batch/v1/namespaces/n/jobs"] = listed(hook)
    one = pod({"running": {}})
    one["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "once", "controller": True}]
    one["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    api.answers[f"GET {PODS}"] = listed(one)
    api.answers[f"GET {PODS}/app-1-x/log"] = (200, "start\nwaiting for Godot\n")
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(watched=("Job/once",)))

    def late() -> bool:
        raise StepFailed("helm could not apply", why="failed pre-install: timed out waiting for the condition")

    with pytest.raises(StepFailed) as failed:
        follow(api, tmp_path, late)
    assert failed.value.what == "Job/once, a hook, is not over after 5 s"
    assert failed.value.why == 'at work, its last words: "waiting for Godot"'


def test_a_hook_that_hangs_to_our_own_end_is_named_as_well(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = {"metadata": {"name": "once", "uid": "j"}, "status": {"active": 1}}
    api.answers["GET /apis/batch/v1/namespaces/n/jobs"] = listed(hook)
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(watched=("Job/once",), timeout=0.3))
    with pytest.raises(StepFailed, match="Job/once, a hook, is not over after 0 s"):
        follow(api, tmp_path, lambda: True)


def test_what_has_crashed_before_must_run_longer(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    api.answers[f"GET {PODS}"] = listed(blind(1))
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(steady=0.5))
    began = time.monotonic()
    follow(api, tmp_path)
    assert time.monotonic() - began >= 1.5


@pytest.mark.parametrize("probe", [{}, {"readinessProbe": {"tcpSocket": {"port": 80}}}], ids=["not probed", "ready"])
def test_a_program_whose_liveness_probe_fails_is_not_taken_for_ready(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: dict[str, Any]
) -> None:
    one = blind(0)
    one["spec"]["containers"][0] |= probe
    about = {"kind": "Pod", "name": "app-1-x"}
    told = {
        "type": "Warning",
        "reason": "Unhealthy",
        "message": "Liveness probe failed: dial tcp",
        "involvedObject": about,
    }
    told |= {"metadata": {"name": "e", "uid": "e"}, "lastTimestamp": "2026-01-01T00:00:00Z"}
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(1))
    api.answers[f"GET {PODS}"] = listed(one)
    api.answers["GET /api/v1/namespaces/n/events"] = listed(told)
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(steady=0.4))
    began = time.monotonic()
    said = follow(api, tmp_path)
    assert time.monotonic() - began >= 1.2
    assert said[0] == "all ok; the liveness probe of app-1-x failed, 1 s must pass without that"


def test_a_helm_that_fails_ends_it_at_once(api: FakeApi, tmp_path: Path) -> None:
    def failed() -> bool:
        raise RolloutFailed("helm said no")

    with pytest.raises(RolloutFailed, match="helm said no"):
        follow(api, tmp_path, failed)


def test_when_the_time_is_over_it_says_what_was_waited_for(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(deployment(0))
    api.answers[f"GET {PODS}"] = listed(pod({"running": {}}))
    monkeypatch.setattr("tests.test_watch.GOAL", Goal("n", ("Deployment/app",), (), 0.3))
    told = {"kind": "Pod", "name": "app-1-x"}
    api.answers["GET /api/v1/namespaces/n/events"] = listed(
        {"metadata": {"uid": "e"}, "involvedObject": told, "type": "Warning", "message": "Readiness probe failed: no"}
    )
    with pytest.raises(RolloutFailed) as failed:
        follow(api, tmp_path)
    assert "Readiness probe failed: no" in failed.value.why
    assert failed.value.what == "not ready after 0 s: app: waiting for its readiness probe"


def crashing(name: str) -> dict[str, Any]:
    """A pod of Deployment `name` that has crashed for good."""
    one = pod({"waiting": {"reason": "CrashLoopBackOff"}}, restarts=3)
    owner = {"kind": "ReplicaSet", "name": f"{name}-1", "controller": True}
    one["metadata"] |= {"name": f"{name}-1-x", "uid": name, "ownerReferences": [owner]}
    return one


def called(name: str) -> dict[str, Any]:
    one = deployment(0)
    one["metadata"] |= {"name": name, "uid": f"d-{name}"}
    return one


CAUSES: dict[str, tuple[dict[str, str], str, str]] = {
    "ten that fail for one cause are one failure": (
        {f"app{number}": f"cannot read /data of app{number}" for number in range(10)},
        "(so do app1, app2, app3, app4, app5, app6 and 3 more)",
        "cannot read /data of app0",
    ),
    "two that fail for two are both told, and not as one": (
        {"web": "cannot open the door", "api": "no such file: x"},
        "Deployment/web does not start",
        "also: Deployment/api does not start: ",
    ),
    "the cause of the most comes first": (
        {"web": "cannot open the door", "api": "no such file: x", "job": "no such file: x"},
        "Deployment/api does not start (so do job)",
        "also: Deployment/web does not start: ",
    ),
}


@pytest.mark.parametrize(("logs", "what", "why"), CAUSES.values(), ids=CAUSES.keys())
def test_causes(
    logs: dict[str, str], what: str, why: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers[f"GET {DEPLOYMENT}"] = listed(*map(called, logs))
    api.answers[f"GET {PODS}"] = listed(*map(crashing, logs))
    for name, line in logs.items():
        api.answers[f"GET {PODS}/{name}-1-x/log"] = (200, f"start\n{line}\n")
    monkeypatch.setattr("tests.test_watch.GOAL", Goal("n", tuple(f"Deployment/{name}" for name in logs), (), 5.0))
    monkeypatch.setattr(watch, "SETTLE", 0.0)
    with pytest.raises(RolloutFailed) as failed:
        follow(api, tmp_path)
    assert what in failed.value.what
    assert ("so do" in failed.value.what) is ("so do" in what)
    assert why in failed.value.why


NODE = "GET /api/v1/nodes/one"
SILENT = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting."}]}}


def on_a_node(api: FakeApi) -> None:
    one = pod({"waiting": {"reason": "ContainerCreating"}})
    one["spec"], one["status"]["phase"] = {"nodeName": "one"}, "Pending"
    api.answers[f"GET {DEPLOYMENT}"], api.answers[f"GET {PODS}"] = listed(deployment(0)), listed(one)


@pytest.mark.parametrize(
    ("answer", "why"),
    [((200, SILENT), "Kubelet stopped posting."), ((404, {"message": "no"}), "there is no node of that name")],
)
def test_a_pod_on_a_node_that_is_not_ready_fails_with_the_nodes_reason(
    answer: Any, why: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_node(api)
    api.answers[NODE] = answer
    monkeypatch.setattr(watch, "NODES", 0.1)
    monkeypatch.setattr(watch, "SETTLE", 0.0)
    monkeypatch.setattr("devenv.ailments.NODE_GRACE", 0.3)
    with pytest.raises(RolloutFailed) as failed:
        follow(api, tmp_path)
    assert (failed.value.what, failed.value.why) == (
        "Deployment/app is on a node that is not ready",
        why,
    )


def test_who_may_not_see_nodes_waits_on(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_node(api)
    api.answers[NODE] = (403, {"message": "nodes is forbidden"})
    monkeypatch.setattr(watch, "NODES", 0.1)
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(timeout=1.0))
    with pytest.raises(RolloutFailed, match="its containers are being made"):
        follow(api, tmp_path)


def test_a_hook_that_helm_deleted_is_named_by_what_was_read_of_it_in_time(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pod({"terminated": {"exitCode": 1}})
    one["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "once", "controller": True}]
    api.answers[f"GET {PODS}"] = listed(one)
    logs = iter([(200, "start\nError: the hook has no luck\n")])
    api.answers[f"GET {PODS}/app-1-x/log"] = lambda _: next(logs, (404, {"message": "gone"}))
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(watched=("Job/once",)))

    def failed() -> bool:
        raise StepFailed("helm could not apply", why="failed pre-install: job once failed: BackoffLimitExceeded")

    with pytest.raises(StepFailed) as told:
        follow(api, tmp_path, failed)
    assert told.value.what == "Job/once failed"
    assert "app-1-x" in told.value.where
    assert "the hook has no luck" in told.value.why


def test_a_job_whose_pods_went_with_it_is_named_by_what_was_read_of_them_in_time(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With restartPolicy OnFailure, Kubernetes deletes a Job's pods when it gives up."""
    one = pod({"running": {}}, restarts=1)
    one["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 3}}
    one["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "once", "controller": True}]
    job: dict[str, Any] = {"metadata": {"name": "once", "uid": "j", "resourceVersion": "2"}, "status": {"active": 1}}
    failed = {"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"}
    jobs = "/apis/batch/v1/namespaces/n/jobs"
    one["metadata"]["resourceVersion"] = "2"
    api.answers[f"GET {PODS}"], api.answers[f"GET {jobs}"] = listed(one), listed(job)
    api.answers[f"WATCH {PODS}"] = after_a_while("DELETED", one)
    api.answers[f"WATCH {jobs}"] = after_a_while("MODIFIED", {**job, "status": {"conditions": [failed]}})
    api.answers[f"GET {PODS}/app-1-x/log"] = (200, "start\nError: cannot find module x\n")
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(workloads=(), jobs=("Job/once",)))
    monkeypatch.setattr(watch, "SETTLE", 0.0)
    with pytest.raises(RolloutFailed) as told:
        follow(api, tmp_path)
    assert told.value.what == "Job/once failed"
    assert told.value.why == 'Job has reached the specified backoff limit: "Error: cannot find module x"'


def test_a_pod_of_an_earlier_hook_says_nothing_of_this_run(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pod({"terminated": {"exitCode": 1}})
    one["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "once", "controller": True}]
    api.answers[f"GET {PODS}"] = listed(one)
    earlier = frozenset({"Pod/app-1-x"})
    monkeypatch.setattr("tests.test_watch.GOAL", GOAL._replace(watched=("Job/once",), earlier=earlier))

    def failed() -> bool:
        raise StepFailed("helm could not apply", why="failed pre-install: the server said no")

    with pytest.raises(StepFailed, match="helm could not apply"):
        follow(api, tmp_path, failed)
