"""`--set` is read as Helm reads it: the table of test_values.py, run through Helm itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devenv import setflag
from devenv.clients import shell
from devenv.cluster import programs
from devenv.values import Origin, compose, leaves
from tests.test_values import SETS

pytestmark = pytest.mark.real

MORE = {
    "a float": "a=1.0",
    "an exponent": "a=1e3",
    "a negative number": "a=-7",
    "a big number": "a=9223372036854775808",
    "TRUE in capitals": "a=TRUE",
    "Null with a capital": "a=Null",
    "a space": "a=x y",
    "a list with an escape": r"a={x\,y,z}",
    "a list and more": "a={1,2},b=3",
    "an empty item": "a={,x}",
    "nested lists by index": "a[1].b[0]=x",
    "a quoted number stays a number": 'a="1"',
    "over the values below": "below.list[0].value=2",
    "an index past the end": "below.list[2]=x",
    "null over a map": "below=null",
    "a scalar over a map": "below=1",
}
BELOW = {"below": {"list": [{"name": "n", "value": 1}]}}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chart")
    (folder / "templates").mkdir()
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: x\nversion: 0.1.0\n")
    (folder / "templates" / "values.yaml").write_text("values: {{ toJson .Values | quote }}\n")
    return folder


def rendered(chart: Path, *words: str, stdin: dict[str, Any]) -> Any:
    import yaml

    output = shell.run([programs.path("helm"), "template", "r", chart, "-f", "-", *words], stdin=json.dumps(stdin))
    assert output.code == 0, output.stderr
    values = json.loads(yaml.safe_load(output.stdout)["values"])
    values.pop("global", None)
    return values


EXPRESSIONS = {**{name: expression for name, (expression, _) in SETS.items()}, **MORE}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_set_gives_the_chart_what_helms_own_set_gives_it(chart: Path, expression: str) -> None:
    ours = setflag.over(compose([leaves(BELOW, Origin("x"))]), (expression,)).tree()
    assert without_nulls(ours) == without_nulls(rendered(chart, "--set", expression, stdin=BELOW))


def without_nulls(tree: Any) -> Any:
    """Maps without the keys that are null: Helm removes them, from the chart's defaults too."""
    if isinstance(tree, dict):
        return {key: without_nulls(value) for key, value in tree.items() if value is not None}
    return [without_nulls(item) for item in tree] if isinstance(tree, list) else tree
