"""Which ports are forwarded, and the least rights."""

from __future__ import annotations

from typing import Any

import yaml

from devenv import forward, rbac
from devenv.clients import kube


def service(name: str, *ports: tuple[str, int], headless: bool = False) -> dict[str, Any]:
    spec: dict[str, Any] = {"ports": [{"name": port, "port": number} for port, number in ports]}
    return {"metadata": {"name": name}, "spec": {**spec, **({"clusterIP": "None"} if headless else {})}}


def test_web_and_grpc_ports_are_forwarded_and_nothing_else() -> None:
    services = [
        service("backend", ("http", 8080)),
        service("frontend", ("grpc", 7233), ("membership", 6933)),
        service("database", ("postgresql", 5432)),
        service("headless", ("http", 8080), headless=True),
        service("old", ("", 80)),
    ]
    found = forward.ways(services, lambda port: port + 1)
    assert [(way.service, way.port, way.url) for way in found] == [
        ("backend", 8080, "http://127.0.0.1:8081"),
        ("frontend", 7233, "127.0.0.1:7234 (gRPC)"),
        ("old", 80, "http://127.0.0.1:81"),
    ]


def test_two_ways_never_share_a_local_port() -> None:
    taken: set[int] = set()
    assert forward._free(65001, taken) != forward._free(65001, taken)


def test_a_users_own_chart_needs_what_it_is_made_of() -> None:
    kinds = {"Pod": kube.Kind("/api/v1", "pods"), "Thing": kube.Kind("/apis/acme.io/v1", "things"),
             "Service": kube.Kind("/api/v1", "services"), "ClusterRole": kube.Kind("/x", "clusterroles", namespaced=False)}  # fmt: skip
    objects = [
        {"apiVersion": "acme.io/v1" if kind == "Thing" else "v1", "kind": kind, "metadata": {"name": "x", **where}}
        for kind, where in (
            ("Pod", {}),
            ("Thing", {}),
            ("Thing", {"namespace": "y"}),
            ("Service", {}),
            ("ClusterRole", {}),
        )
    ]
    more, beyond = rbac.of_chart(objects, lambda _, kind: kinds[kind])
    assert [(group, resources, verbs) for group, resources, verbs, _ in more] == [
        ("", ["pods"], rbac.WRITE),
        ("acme.io", ["things"], rbac.WRITE),
    ]
    assert beyond == ["Thing/x", "ClusterRole/x"]


def test_the_role_is_bound_to_one_namespace_and_asks_for_no_more_than_its_rules() -> None:
    documents = list(yaml.safe_load_all(rbac.yaml_text("ci", "n")))
    assert {entry["metadata"].get("namespace") for entry in documents} == {"n", None}
    verbs = {verb for entry in documents for rule in entry.get("rules", []) for verb in rule["verbs"]}
    assert verbs.isdisjoint({"*", "escalate", "bind", "impersonate"})
    wide = [entry for entry in documents if entry["kind"] == "ClusterRole"]
    assert [entry["rules"] for entry in wide] == [
        [{"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["n"], "verbs": ["get"]}]
    ]
