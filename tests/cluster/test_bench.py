"""The bench on the real cluster: one round of everything, both sides, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cluster.conftest import Environment
from tests.test_schemas import validate

pytestmark = pytest.mark.cluster


def test_one_round_measures_both_sides_and_leaves_nothing(make_environment: Callable[[str], Environment]) -> None:
    env = make_environment("bench")
    output = env.inv("bench", "--rounds", "1", "--output", "json", temporal=False)
    assert output.code == 0
    record = json.loads(output.stdout)
    validate("bench", record)
    measured = {one["name"]: one for one in record["measures"]}
    assert measured.keys() == {
        "start-up (--list)",
        "nothing changed",
        "one value changed",
        "one image changed",
        "empty namespace to ready",
        "from the last pod's Ready to the end",
    }
    assert all(one["devenvMedian"] > 0 for one in record["measures"])
    changed = measured["one value changed"]
    assert changed["proofMedian"] > 0
    assert changed["ratio"] == pytest.approx(
        (changed["devenv"][0] - changed["proof"][0]) / changed["helm"][0], abs=0.02
    )
    left = json.loads(env.inv("kubectl", "--", "get", "namespaces", "-o", "json").stdout)["items"]
    assert not [
        entry["metadata"]["name"]
        for entry in left
        if entry["metadata"]["name"].startswith("bench-") and "deletionTimestamp" not in entry["metadata"]
    ]
