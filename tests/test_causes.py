"""Where a change comes from: the value and its layer, the chart, or a hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devenv import causes
from devenv.causes import attribute, settings, without
from devenv.model import Change, Field, Setting
from devenv.values import Origin, Values, compose, leaves


def values(tree: dict[str, Any], layer: str = "profile dev") -> Values:
    return compose([leaves(tree, Origin(layer))])


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, Any, Any]]]] = {
    "nothing": ({"a": {"b": 1}}, {"a": {"b": 1}}, []),
    "a value": ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", 1, 2)]),
    "a value that is new": ({}, {"a": {"b": 2}}, [("a.b", None, 2)]),
    "a value that is gone": ({"a": {"b": 1, "c": 1}}, {"a": {"c": 1}}, [("a.b", 1, None)]),
    "a list": ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
    "a map that became a value": ({"a": {"b": 1}}, {"a": "x"}, [("a", None, "x")]),
    "null where nothing was": ({}, {"a": None}, []),
    "an empty map where nothing was": ({}, {"a": {}}, []),
    "a number that Helm keeps as another": ({"a": 5432.0}, {"a": 5432}, []),
    "a key with a dot": ({}, {"a": {"b.c": 1}}, [("a.b\\.c", None, 1)]),
}


@pytest.mark.parametrize(("before", "now", "told"), CHANGES.values(), ids=CHANGES.keys())
def test_the_settings_that_changed_are(before: dict[str, Any], now: dict[str, Any], told: list[Any]) -> None:
    assert [(setting.key, setting.old, setting.new) for setting in settings(before, values(now))] == told


def test_a_setting_names_the_layer_that_sets_it_now() -> None:
    [gone, new] = settings({"a": 1}, values({"b": 2}, "--set"))
    assert (gone.origin, new.origin) == (causes.NOWHERE, "--set")


@pytest.mark.parametrize(
    "tree",
    [{"db": {"password": "s3cret-{}"}}, {"env": [{"name": "DB_PASSWORD", "value": "s3cret-{}"}]}],
    ids=["by its key", "in a list of variables"],
)
def test_a_secret_among_the_settings_is_not_shown(tree: dict[str, Any]) -> None:
    one, two = (json.loads(json.dumps(tree).replace("{}", number)) for number in "12")
    [setting] = settings(one, values(two))
    assert "s3cret" not in repr(setting)


BEFORE = {"a": {"b": 1}, "d.e": {"f": 1}}
WITHOUT: dict[str, tuple[str, dict[str, Any]]] = {
    "as it was before": ("a.b", {"a": {"b": 1, "c": 2}, "d.e": {"f": 2}}),
    "left out where it was not there": ("a.c", {"a": {"b": 2}, "d.e": {"f": 2}}),
    "found by a key with a dot": ("d\\.e.f", {"a": {"b": 2, "c": 2}, "d.e": {"f": 1}}),
}


@pytest.mark.parametrize(("key", "expected"), WITHOUT.values(), ids=WITHOUT.keys())
def test_one_setting_is(key: str, expected: dict[str, Any]) -> None:
    now = {"a": {"b": 2, "c": 2}, "d.e": {"f": 2}}
    assert without(now, Setting(key, None, 2, ""), BEFORE) == expected
    assert now == {"a": {"b": 2, "c": 2}, "d.e": {"f": 2}}


def test_each_field_gets_the_settings_that_it_comes_from_and_what_is_left_the_rest() -> None:
    changes = (
        Change(
            "change", "Deployment/a", (Field("spec.x", 1, 2), Field("spec.y", 1, 2), Field("spec.z", 1, 2, "by hand"))
        ),
        Change("create", "Job/b"),
        Change("create", "Job/c"),
    )
    by = {
        "k.one (--set)": frozenset({("Deployment/a", "spec.x"), ("Job/b", "")}),
        "k.two (profile dev)": frozenset({("Deployment/a", "spec.x.deeper")}),
    }
    made = attribute(changes, by, "chart")
    assert [field.by for field in made[0].fields] == ["k.one (--set), k.two (profile dev)", "chart", "by hand"]
    assert [change.by for change in made[1:]] == ["k.one (--set)", "chart"]
