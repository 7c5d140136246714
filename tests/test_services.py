"""Services that lead nowhere, and those that only seem to."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import services

Object = dict[str, Any]


def service(selector: dict[str, str] | None = None, port: Any = 80, **spec: Any) -> Object:
    chosen = {"app": "web"} if selector is None else selector
    ports = [{"port": 80, "targetPort": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": chosen, "ports": ports, **spec},
    }


def workload(kind: str = "Deployment", replicas: int = 1, port: str = "http") -> Object:
    template = {
        "metadata": {"labels": {"app": "web", "tier": "front"}},
        "spec": {"containers": [{"ports": [{"name": port, "containerPort": 80}]}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "template": template},
    }


def reached(*conditions: dict[str, Any], ports: Any = ({"port": 80},)) -> Object:
    labels = {"kubernetes.io/service-name": "web"}
    return {
        "metadata": {"labels": labels},
        "ports": list(ports),
        "endpoints": [{"conditions": one} for one in conditions],
    }


READY = reached({"ready": True})
NOT_READY = reached({"ready": False})
WIDGET: Object = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}

# objects, slices, lost or not, and whether no waiting mends it
CASES: dict[str, tuple[list[Object], list[Object], bool, bool]] = {
    "a pod behind it is ready": ([service(), workload()], [READY], False, False),
    "its pods are not ready yet": ([service(), workload()], [NOT_READY], True, False),
    "its labels are nobody's": ([service({"app": "wbe"}), workload()], [reached()], True, True),
    "its labels are those of pods from elsewhere": ([service({"app": "other"})], [READY], False, False),
    "an operator may make its pods": ([service({"app": "widget"}), WIDGET], [], True, False),
    "its port has a name that nobody has": (
        [service(port="htpp"), workload()], [reached({"ready": True}, ports=())], True, True,
    ),
    "its port has a name": ([service(port="http"), workload()], [READY], False, False),
    "its workload wants no pods": ([service(), workload(replicas=0)], [], False, False),
    "only a Job has its labels": ([service(), workload("Job")], [], False, False),
    "it chooses no pods": ([service({})], [], False, False),
    "it is a name for somewhere else": ([service(type="ExternalName")], [], False, False),
}  # fmt: skip


@pytest.mark.parametrize(("objects", "slices", "lost", "sure"), CASES.values(), ids=CASES.keys())
def test_a_service_is_lost_or_not_when(objects: list[Object], slices: list[Object], lost: bool, sure: bool) -> None:
    found = services.lost(objects, slices)
    assert bool(found) is lost
    assert bool(services.surely(objects, found)) is sure


def test_it_says_why() -> None:
    [one] = services.lost([service({"app": "wbe"}), workload()], [])
    assert one.why == "no pod has the labels of its selector, app=wbe"
    [one] = services.lost([service(port="htpp"), workload()], [])
    assert one.why == "no container of its pods has a port named htpp"
