"""What pods request, against what nodes can give."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import capacity
from devenv.capacity import Room

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


def test_pods_are_placed_the_largest_first() -> None:
    rooms = {"a": Room(2.0, 8.0, 9.0), "b": Room(1.0, 8.0, 9.0)}
    small, large = ("small", Room(1.0, 1.0, 1.0)), ("large", Room(2.0, 1.0, 1.0))
    assert capacity.unplaced(rooms, [small, large]) == []
    assert capacity.unplaced(rooms, [large, large]) == [large]


def test_only_pods_that_are_not_there_yet_are_still_to_come() -> None:
    template = {"spec": {"containers": [wants("1")]}}
    objects = [
        {"kind": "Deployment", "metadata": {"name": "app"}, "spec": {"replicas": 3, "template": template}},
        {"kind": "Job", "metadata": {"name": "once"}, "spec": {"template": template}},
        {"kind": "Service", "metadata": {"name": "app"}, "spec": {}},
    ]
    coming = capacity.coming(objects, {"Deployment/app": 1, "Job/once": 1})
    assert [name for name, _ in coming] == ["Deployment/app", "Deployment/app"]
