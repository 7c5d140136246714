"""What pods request, against what nodes can give."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import capacity
from devenv.capacity import Coming, Room

QUANTITIES = {
    "100m": 0.1, "2": 2.0, "1.5": 1.5, "1e3": 1000.0, "96Mi": 96 * 2**20, "1Gi": 2**30, "64Ki": 65536, "1k": 1000.0,
    "5M": 5e6, "2G": 2e9, "1Ti": 2**40, 4: 4.0,
}  # fmt: skip


@pytest.mark.parametrize(("text", "number"), QUANTITIES.items())
def test_a_quantity_is_read(text: str | int, number: float) -> None:
    assert capacity.quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "many", "1 Gi", "1KiB", "1mi"])
def test_what_is_no_quantity_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        capacity.quantity(text)


def wants(cpu: str = "0", memory: str = "0", **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


REQUESTS: dict[str, tuple[dict[str, Any], float]] = {
    "containers together": ({"containers": [wants("1"), wants("500m")]}, 1.5),
    "the largest init container where that is more": (
        {"initContainers": [wants("2"), wants("1")], "containers": [wants("1")]}, 2.0,
    ),
    "a sidecar with the containers": (
        {"initContainers": [wants("1", restartPolicy="Always"), wants("1")], "containers": [wants("1")]}, 2.0,
    ),
    "a limit where nothing is requested": ({"containers": [{"resources": {"limits": {"cpu": "3"}}}]}, 3.0),
    "nothing at all": ({"containers": [{}]}, 0.0),
    "its overhead as well": ({"containers": [wants("1")], "overhead": {"cpu": "250m"}}, 1.25),
}  # fmt: skip


@pytest.mark.parametrize(("pod", "cpu"), REQUESTS.values(), ids=REQUESTS.keys())
def test_a_pod_requests(pod: dict[str, Any], cpu: float) -> None:
    assert capacity.requested(pod).cpu == pytest.approx(cpu)


def node(name: str, cpu: str, ready: str = "True", **spec: Any) -> dict[str, Any]:
    status = {
        "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}, "conditions": [{"type": "Ready", "status": ready}]
    }  # fmt: skip
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def pod(where: str, cpu: str, phase: str = "Running") -> dict[str, Any]:
    return {"spec": {"nodeName": where, "containers": [wants(cpu)]}, "status": {"phase": phase}}


def test_what_is_free_is_what_no_living_pod_requests() -> None:
    nodes = [node("a", "4"), node("gone", "8", ready="Unknown"), node("closed", "8", unschedulable=True)]
    pods = [pod("a", "1"), pod("a", "2", "Succeeded"), pod("elsewhere", "1"), pod("gone", "1")]
    rooms = capacity.free(nodes, pods)
    assert rooms.keys() == {"a"}
    assert (rooms["a"].cpu, rooms["a"].pods) == (3.0, 9.0)


def comes(name: str, cpu: float, memory: float = 1.0, **of: Any) -> Coming:
    return Coming(name, Room(cpu, memory, 1.0), **of)


A, B = node("a", "2"), node("b", "1")


def test_pods_are_placed_the_largest_first() -> None:
    rooms = {"a": Room(2.0, 8.0, 9.0), "b": Room(1.0, 8.0, 9.0)}
    small, large = comes("small", 1.0), comes("large", 2.0)
    assert capacity.unplaced(rooms, [small, large], [A, B]) == []
    assert capacity.unplaced(rooms, [large, large], [A, B]) == [large]


def test_of_several_ways_to_pack_one_that_fits_is_found() -> None:
    rooms = {"a": Room(4.0, 2.0, 9.0), "b": Room(2.0, 4.0, 9.0)}
    assert capacity.unplaced(rooms, [comes("x", 2.0, 2.0), comes("y", 2.0, 4.0)], [A, B]) == []


GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
TROUBLE = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
TAKES: dict[str, tuple[dict[str, Any], list[Any], dict[str, str], list[Any], str]] = {
    "all that asks for nothing": ({}, [], {}, [], ""),
    "the label that is asked for": ({"pool": "t"}, [], {"pool": "t"}, [], ""),
    "another label": ({"pool": "x"}, [], {"pool": "t"}, [], "it has no label pool=t"),
    "a taint that is not tolerated": ({}, [GPU], {}, [], "it has the taint gpu=yes:NoSchedule"),
    "a taint that is preferred only": ({}, [{**GPU, "effect": "PreferNoSchedule"}], {}, [], ""),
    "trouble that passes": ({}, [TROUBLE], {}, [], ""),
    "tolerated by its value": ({}, [GPU], {}, [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}], ""),
    "tolerated by its key": ({}, [GPU], {}, [{"key": "gpu", "operator": "Exists"}], ""),
    "all tolerated": ({}, [GPU], {}, [{"operator": "Exists"}], ""),
    "another value tolerated": ({}, [GPU], {}, [{"key": "gpu", "value": "no"}], "it has the taint gpu=yes:NoSchedule"),
    "another effect tolerated": ({}, [GPU], {}, [{"operator": "Exists", "effect": "NoExecute"}], "it has the taint"),
}


@pytest.mark.parametrize(("labels", "taints", "selector", "tolerations", "why"), TAKES.values(), ids=TAKES.keys())
def test_a_node_takes(labels: Any, taints: Any, selector: Any, tolerations: Any, why: str) -> None:
    one = {"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}}
    refused = comes("x", 1.0, selector=selector, tolerations=tolerations).refused_by(one)
    assert refused.startswith(why) if why else not refused


GIB = 2.0**30
SHORT: dict[str, tuple[list[Coming], str]] = {
    "in all": ([comes("x", 1.5, 9 * GIB)] * 2, "2 pods want 3.00 CPU and 18.0 GiB, free on 2 of 2 nodes: 3.00 CPU and "
               "16.0 GiB: 2.0 GiB too little"),
    "on one node": ([comes("x", 3.0, GIB)], "free on 2 of 2 nodes: 3.00 CPU and 16.0 GiB, but not on one node together "
                    "(the most: 2.00 CPU and 8.0 GiB)"),
    "everywhere": ([comes("x", 1.0, selector={"pool": "t"})], "no node takes it (a: it has no label pool=t; b: it has no"),
}  # fmt: skip


@pytest.mark.parametrize(("coming", "told"), SHORT.values(), ids=SHORT.keys())
def test_it_lacks(coming: list[Coming], told: str) -> None:
    rooms = capacity.free([A, B], [])
    [one, *_] = capacity.unplaced(rooms, coming, [A, B])
    assert told in capacity.shortfall(one, coming, rooms, [A, B])


def test_only_pods_that_are_not_there_yet_are_still_to_come() -> None:
    template = {"spec": {"containers": [wants("1")]}}
    spread = {"spec": {"containers": [wants("1")], "affinity": {"podAntiAffinity": {}}}}
    objects = [
        {"kind": "Deployment", "metadata": {"name": "app"}, "spec": {"replicas": 3, "template": template}},
        {"kind": "Deployment", "metadata": {"name": "spread"}, "spec": {"template": spread}},
        {"kind": "Job", "metadata": {"name": "once"}, "spec": {"template": template}},
        {"kind": "Service", "metadata": {"name": "app"}, "spec": {}},
    ]
    coming = capacity.coming(objects, {"Deployment/app": 1, "Job/once": 1})
    assert [one.name for one in coming] == ["Deployment/app", "Deployment/app"]
