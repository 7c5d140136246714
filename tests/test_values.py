"""Layers become values; every value remembers who set it. `--set` reads as Helm's own."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import setflag, values
from devenv.errors import InputWrong
from devenv.values import Origin, Values, compose, leaves

MERGES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "maps merge deep": ([{"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}], {"a": {"b": 1, "c": 3}}),
    "lists are replaced": ([{"a": [1, 2]}, {"a": [3]}], {"a": [3]}),
    "null stays, so that Helm removes the default": ([{"a": {"b": 1}}, {"a": {"b": None}}], {"a": {"b": None}}),
    "null over a map removes the whole map": ([{"a": {"b": 1}}, {"a": None}], {"a": None}),
    "a map over a null": ([{"a": None}, {"a": {"b": 1}}], {"a": {"b": 1}}),
    "a scalar over a map": ([{"a": {"b": 1}}, {"a": 2}], {"a": 2}),
    "a map over a scalar": ([{"a": 2}, {"a": {"b": 1}}], {"a": {"b": 1}}),
    "an empty map over a map changes nothing": ([{"a": {"b": 1}}, {"a": {}}], {"a": {"b": 1}}),
    "an empty map alone": ([{"a": {}}], {"a": {}}),
    "keys with dots": ([{"a": {"b.c": 1}}, {"a": {"b.c": 2}}], {"a": {"b.c": 2}}),
}


def composed(*layers: dict[str, Any]) -> Values:
    return compose(leaves(layer, Origin(f"layer {number}")) for number, layer in enumerate(layers))


@pytest.mark.parametrize(("layers", "result"), MERGES.values(), ids=MERGES.keys())
def test_layers_merge(layers: list[dict[str, Any]], result: dict[str, Any]) -> None:
    assert composed(*layers).tree() == result


def test_explain_tells_who_set_a_value_and_what_that_overrode() -> None:
    result = composed({"a": {"b": 1}}, {"a": {"b": 2}}, {"a": {"b": 3}})
    [(key, value, setters)] = values.explain(result, "a.b")
    assert (key, value) == ("a.b", 3)
    assert [(leaf.value, leaf.origin.layer) for leaf in setters] == [(3, "layer 2"), (2, "layer 1"), (1, "layer 0")]


def test_explain_of_a_map_explains_all_below_it() -> None:
    assert [key for key, _, _ in values.explain(composed({"a": {"b": 1, "c": {"d": 2}}}), "a")] == ["a.b", "a.c.d"]


def test_explain_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(InputWrong, match="no layer sets"):
        values.explain(composed({"a": 1}), "b")


# What `helm template --set EXPRESSION` makes of it; test_set_like_helm.py runs Helm itself over the same table.
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("a=b", {"a": "b"}),
    "a whole number": ("a=12", {"a": 12}),
    "a leading zero is text": ("a=012", {"a": "012"}),
    "a decimal is text": ("a=1.5", {"a": "1.5"}),
    "true and false": ("a=true,b=false", {"a": True, "b": False}),
    "null": ("a=null", {"a": None}),
    "nothing is an empty text": ("a=", {"a": ""}),
    "several": ("a=1,b.c=2", {"a": 1, "b": {"c": 2}}),
    "a comma with a backslash": (r"a=1\,2", {"a": "1,2"}),
    "a dot in a key": (r"a.b\.c=1", {"a": {"b.c": 1}}),
    "an equals sign in the value": ("a=b=c", {"a": "b=c"}),
    "a list": ("a={x,1,true}", {"a": ["x", 1, True]}),
    "an empty list, which is one empty text to Helm": ("a={}", {"a": [""]}),
    "a list index": ("a[0]=x,a[1]=y", {"a": ["x", "y"]}),
    "an index with keys below": ("a[0].b=1,a[0].c=2", {"a": [{"b": 1, "c": 2}]}),
    "an index in a list in a list": ("a[0][1]=x", {"a": [[None, "x"]]}),
    "a URL": ("a=https://x.y/z?q=1", {"a": "https://x.y/z?q=1"}),
}


@pytest.mark.parametrize(("expression", "result"), SETS.values(), ids=SETS.keys())
def test_set_reads_as_helm_does(expression: str, result: dict[str, Any]) -> None:
    assert setflag.over(composed(), (expression,)).tree() == result


def test_an_index_changes_the_list_of_the_layers_below() -> None:
    below = composed({"a": [{"name": "x", "value": 1}]})
    assert setflag.over(below, ("a[0].value=2",)).tree() == {"a": [{"name": "x", "value": 2}]}


@pytest.mark.parametrize(
    "expression", ["a", "", "=1", "a..b=1", "a,b=1", "a[x]=1", "a[-1]=1", "a[0=1", "a={1,2", "a[99999]=1"]
)
def test_a_wrong_set_is_refused(expression: str) -> None:
    with pytest.raises(InputWrong):
        setflag.over(composed(), (expression,))


def test_a_refused_set_does_not_repeat_the_value() -> None:
    with pytest.raises(InputWrong) as refused:
        setflag.over(composed(), ("password[x]=hunter22",))
    assert "hunter22" not in str(refused.value.record())
