"""What surely finds no node is refused before the release is touched; whatever might find one is not."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import nodes
from devenv.clients.kube import Kube
from devenv.errors import Refused
from devenv.model import Pod, Snapshot
from tests.fake_api import FakeApi
from tests.test_capacity import node, wants

Object = dict[str, Any]
AUTOSCALER = "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status"


def app(cpu: str, replicas: int = 1, name: str = "app", **spec: Any) -> Object:
    template = {"spec": {"containers": [wants(cpu)], **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "template": template},
    }


def hooked(object: Object) -> Object:
    return {**object, "metadata": {**object["metadata"], "annotations": {"helm.sh/hook": "test"}}}


def running(name: str, cpu: str, owner: str = "", namespace: str = "devenv", where: str = "a") -> tuple[Object, Pod]:
    """A pod on a node: as the API lists it, and as a snapshot holds it."""
    raw = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": where, "containers": [wants(cpu)]},
        "status": {"phase": "Running"},
    }
    return raw, Pod(name, "", owner, "", "Running", True, False, "", "", (), scheduled="2026-11-24T08:00:00Z")


OTHER = running("other", "3", namespace="elsewhere")
ENDING = ({**OTHER[0], "metadata": {**OTHER[0]["metadata"], "deletionTimestamp": "2026-11-24T08:00:00Z"}}, OTHER[1])
OURS = [running("app-1", "1", "Deployment/app"), running("app-2", "1", "Deployment/app")]
FITS: dict[str, tuple[list[Object], list[Object], list[tuple[Object, Pod]]]] = {
    "a pod for which there is room": ([app("4")], [], []),
    "pods that run already, on a full node": ([app("1", 2)], [app("1", 2)], [*OURS, running("x", "2", namespace="y")]),
    "larger ones in the place of those that run": ([app("2", 2)], [app("1", 2)], OURS),
    "others in the place of those that go": ([app("4", name="new")], [app("1", 2)], OURS),
    "a pod for which there is room when another has ended": ([app("4")], [], [ENDING]),
    "a test that waits until all else is there": ([hooked(app("9"))], [], []),
    "one that says itself where it goes": ([app("9", affinity={"nodeAffinity": {}})], [], []),
}


def check(
    api: FakeApi, kube: Kube, wanted: list[Object], applied: list[Object], pods: list[tuple[Object, Pod]]
) -> None:
    """With one node, a, of 4 cores and 8 GiB."""
    api.answers.setdefault("GET /api/v1/nodes", (200, {"items": [node("a", "4")]}))
    api.answers.setdefault("GET /api/v1/pods", (200, {"items": [raw for raw, _ in pods]}))
    own = tuple(pod for raw, pod in pods if raw["metadata"]["namespace"] == "devenv")
    nodes.check(kube, wanted, applied, Snapshot("devenv", pods=own))


@pytest.mark.parametrize(("wanted", "applied", "pods"), FITS.values(), ids=FITS.keys())
def test_nobody_is_refused_for(api: FakeApi, kube: Kube, wanted: Any, applied: Any, pods: Any) -> None:
    check(api, kube, wanted, applied, pods)


REFUSED: dict[str, tuple[list[Object], list[Object], list[tuple[Object, Pod]], str]] = {
    "one too large for the node": ([app("5")], [], [], "1 pods want 5.00 CPU and 0.0 GiB"),
    "one beside what others have taken": ([app("2")], [], [OTHER], "1.00 CPU too little"),
    "one more replica": (
        [app("1", 3)],
        [app("1", 2)],
        [*OURS, running("x", "2", namespace="y")],
        "1.00 CPU too little",
    ),
    "a pool that no node is of": (
        [app("1", nodeSelector={"pool": "temporal"})],
        [],
        [],
        "no node takes it (a: it has no label pool=temporal)",
    ),
}


@pytest.mark.parametrize(("wanted", "applied", "pods", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused(api: FakeApi, kube: Kube, wanted: Any, applied: Any, pods: Any, why: str) -> None:
    with pytest.raises(Refused, match="no room") as refused:
        check(api, kube, wanted, applied, pods)
    assert refused.value.where.startswith("Deployment/app, which wants")
    assert why in (refused.value.why or "")


LENIENT: dict[str, dict[str, tuple[int, Any]]] = {
    "cluster-autoscaler is at work": {f"GET {AUTOSCALER}": (200, {"metadata": {}})},
    "Karpenter is at work": {"GET /apis/karpenter.sh": (200, {"kind": "APIGroup"})},
    "whether somebody adds nodes may not be looked at": {f"GET {AUTOSCALER}": (403, {"message": "no"})},
    "nodes may not be listed": {"GET /api/v1/nodes": (403, {"message": "no"})},
    "pods of others may not be listed": {"GET /api/v1/pods": (403, {"message": "no"})},
    "a node that is not ready has room": {"GET /api/v1/nodes": (200, {"items": [node("a", "8", ready="Unknown")]})},
}


@pytest.mark.parametrize("answers", LENIENT.values(), ids=LENIENT.keys())
def test_nobody_is_refused_where(api: FakeApi, kube: Kube, answers: Any) -> None:
    api.answers.update(answers)
    check(api, kube, [app("5")], [], [])


def test_where_no_new_pod_comes_nodes_are_not_asked(api: FakeApi, kube: Kube) -> None:
    check(api, kube, [app("1", 2)], [app("1", 2)], OURS)
    assert api.asked == []
