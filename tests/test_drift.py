"""Only what the manifest sets is compared; what the server adds is its own."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import drift

SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults that the server adds": (
        {"spec": {"replicas": 1}},
        {"spec": {"replicas": 1, "paused": False}, "status": {"x": 1}},
    ),
    "an empty field that the server drops": ({"spec": {"a": {}, "b": [], "c": "", "d": None}}, {"spec": {}}),
    "false and zero that the server drops": ({"spec": {"a": False, "b": 0}}, {"spec": {}}),
    "a quantity in another unit": (
        {"spec": {"resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}}}},
        {"spec": {"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}},
    ),
    "a number that became text": ({"data": {"a": 1}}, {"data": {"a": "1"}}),
    "a list by name in another order": (
        {"spec": {"volumes": [{"name": "a"}, {"name": "b"}]}},
        {"spec": {"volumes": [{"name": "b"}, {"name": "a"}]}},
    ),
    "a volume that somebody added": ({"volumes": [{"name": "a"}]}, {"volumes": [{"name": "a"}, {"name": "b"}]}),
}

DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a changed number": ({"spec": {"replicas": 1}}, {"spec": {"replicas": 3}}, "spec.replicas"),
    "a removed field": ({"spec": {"a": "x"}}, {"spec": {}}, "spec.a"),
    "a changed image": (
        {"containers": [{"name": "c", "image": "a:1"}]},
        {"containers": [{"name": "c", "image": "a:2"}]},
        "containers[c].image",
    ),
    "a variable that was removed": ({"env": [{"name": "A", "value": "1"}]}, {"env": []}, "env[A]"),
    "a variable that was added by hand": (
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        "env[B]",
    ),
    "a container that was added by hand": (
        {"containers": [{"name": "a"}]},
        {"containers": [{"name": "a"}, {"name": "b"}]},
        "containers[b]",
    ),
    "an argument": ({"args": ["a", "b"]}, {"args": ["a", "c"]}, "args[1]"),
    "one argument more": ({"args": ["a"]}, {"args": ["a", "b"]}, "args"),
    "true and the text true": ({"spec": {"a": True}}, {"spec": {"a": "true"}}, "spec.a"),
}


@pytest.mark.parametrize(("wanted", "live"), SAME.values(), ids=SAME.keys())
def test_no_drift_is(wanted: dict[str, Any], live: dict[str, Any]) -> None:
    assert drift.compare(wanted, live) == ()


@pytest.mark.parametrize(("wanted", "live", "path"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_drift_is(wanted: dict[str, Any], live: dict[str, Any], path: str) -> None:
    assert [field.path for field in drift.compare(wanted, live)] == [path]


def test_a_secret_says_only_that_it_changed() -> None:
    [field] = drift.compare({"kind": "Secret", "data": {"a": "b2xk"}}, {"kind": "Secret", "data": {"a": "bmV3"}})
    assert "b2xk" not in str(field)
    assert "bmV3" not in str(field)


def test_what_was_added_by_hand_is_removed_by_name() -> None:
    base = "spec.template.spec.containers"
    assert drift.removal([f"{base}[app].env[A.B]", f"{base}[app].env[C]", f"{base}[side]"]) == {
        "spec": {"template": {"spec": {"containers": [
            {"name": "app", "env": [{"name": "A.B", "$patch": "delete"}, {"name": "C", "$patch": "delete"}]},
            {"name": "side", "$patch": "delete"},
        ]}}}
    }  # fmt: skip


SECRETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a variable's value": (
        {"env": [{"name": "DB_PASSWORD", "value": "s3cret-1"}]},
        {"env": [{"name": "DB_PASSWORD", "value": "s3cret-2"}]},
    ),
    "a whole variable": ({"env": [{"name": "API_TOKEN", "value": "s3cret-1"}]}, {"env": []}),
    "a key of a ConfigMap": ({"data": {"apiKey": "s3cret-1"}}, {"data": {"apiKey": "s3cret-2"}}),
    "a Secret": ({"kind": "Secret", "data": {"a": "s3cret-1"}}, {"kind": "Secret", "data": {"a": "s3cret-2"}}),
}


@pytest.mark.parametrize(("wanted", "live"), SECRETS.values(), ids=SECRETS.keys())
def test_what_holds_a_secret_is_said_to_change_and_not_shown(wanted: dict[str, Any], live: dict[str, Any]) -> None:
    [field] = drift.compare(wanted, live)
    assert field.new == drift.HIDDEN_NEW
    assert "s3cret" not in repr(field)


def test_the_name_of_a_secret_is_no_secret() -> None:
    source = {"secretKeyRef": {"name": "one", "key": "password"}}
    [field] = drift.compare({"env": [{"name": "DB_PASSWORD", "valueFrom": source}]}, {"env": []})
    assert field.new["valueFrom"] == source


def test_what_a_manifest_sets_no_more_is_dropped() -> None:
    before = {"spec": {"nodeSelector": {"disk": "ssd"}, "replicas": 2, "a": {"b": 1, "c": 2}}}
    now = {"spec": {"replicas": 3, "a": {"b": 1}}}
    told = [(field.path, field.old, field.new) for field in drift.dropped(before, now)]
    assert told == [("spec.nodeSelector", {"disk": "ssd"}, None), ("spec.a.c", 2, None)]
