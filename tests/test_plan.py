"""The plan: what would be done, and why; nothing where nothing changed."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import plan
from devenv.model import Release
from devenv.plan import Seen


def config(name: str, keep: bool = False, **data: str) -> dict[str, Any]:
    annotations = {"helm.sh/resource-policy": "keep"} if keep else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "annotations": annotations},
        "data": data,
    }


def release(revision: int = 3, status: str = "deployed", inputs: str = "same", stamped: int | None = None) -> Release:
    return Release("r", revision, status, {plan.LABEL: plan.stamp(stamped or revision, inputs)})


def seen(release: Release | None, applied: list[Any], live: list[Any], unready: tuple[str, ...] = ()) -> Seen:
    keys = {plan.key(entry): None for entry in applied}
    return Seen(release, tuple(applied), {**keys, **{plan.key(entry): entry for entry in live}}, unready)


A, B = config("a", x="1"), config("b")
ROWS: dict[str, tuple[list[Any], Seen, str, list[str]]] = {
    "a first install": ([A, B], seen(None, [], []), "the release is not there", ["+ ConfigMap/a", "+ ConfigMap/b"]),
    "a changed value": (
        [A],
        seen(release(inputs="old"), [A], [config("a", x="2")]),
        "1 to change",
        ["~ ConfigMap/a (x)"],
    ),
    "an object less": ([A], seen(release(inputs="old"), [A, B], [A, B]), "1 to remove", ["- ConfigMap/b"]),
    "an object less that is to be kept": (
        [A],
        seen(release(inputs="old"), [A, config("b", keep=True)], [A, B]),
        "the inputs changed (chart, values or Helm), the objects stay as they are",
        [],
    ),
    "an edit by hand": (
        [A],
        seen(release(), [A], [config("a", x="9")]),
        "ConfigMap/a was edited: data.x",
        ["~ ConfigMap/a (x)"],
    ),
    "a deletion by hand": ([A, B], seen(release(), [A, B], [A]), "ConfigMap/b was deleted", ["+ ConfigMap/b"]),
    "a workload that is not ready": (
        [A],
        seen(release(), [A], [A], ("Deployment/x",)),
        "Deployment/x is not ready",
        [],
    ),
    "a failed revision": ([A], seen(release(status="failed"), [A], [A]), "revision 3 is failed", []),
    "a revision left pending": (
        [A],
        seen(release(status="pending-upgrade"), [A], [A]),
        "revision 3 is pending-upgrade",
        [],
    ),
    "a label carried forward from another revision": (
        [A],
        seen(release(stamped=2), [A], [A]),
        "the inputs changed (chart, values or Helm), the objects stay as they are",
        [],
    ),
}


@pytest.mark.parametrize(("wanted", "there", "reason", "changes"), ROWS.values(), ids=ROWS.keys())
def test_there_is_something_to_do_after(wanted: list[Any], there: Seen, reason: str, changes: list[str]) -> None:
    made = plan.make("same", wanted, there)
    assert reason in made.reasons
    assert [plan.short(change) for change in made.changes] == changes
    assert not made.nothing_to_do


def test_nothing_is_to_be_done_when_inputs_objects_and_readiness_are_as_deployed() -> None:
    made = plan.make("same", [A, B], seen(release(), [A, B], [A, B]))
    assert made.nothing_to_do
    assert made.changes == ()


def test_equal_inputs_have_an_equal_fingerprint_and_the_label_fits() -> None:
    one = plan.fingerprint([{"a": 1, "b": 2}, "x"])
    assert one == plan.fingerprint([{"b": 2, "a": 1}, "x"])
    assert one != plan.fingerprint([{"a": 1, "b": 2}, "y"])
    assert len(plan.stamp(99999, one)) <= 63


def stateful(storage: str) -> dict[str, Any]:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": storage}}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {"volumeClaimTemplates": [claim]},
    }


IMPOSSIBLE = {
    "a volume template that changes": (stateful("2Gi"), stateful("1Gi"), "StatefulSet/db: spec.volumeClaimTemplates"),
    "another number of shards": (
        config("a", False, **{"config.yaml": "persistence:\n  numHistoryShards: 512\n"}),
        config("a", False, **{"config.yaml": "persistence:\n  numHistoryShards: 4\n"}),
        "numHistoryShards is 4",
    ),
}


@pytest.mark.parametrize(("wanted", "live", "text"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_it_is_impossible_in_place(wanted: Any, live: Any, text: str) -> None:
    [told] = plan.make("new", [wanted], seen(release(), [live], [live])).impossible
    assert told.startswith(text)


def test_data_that_is_left_behind_is_said() -> None:
    one = stateful("1Gi")
    [told] = plan.make("new", [A], seen(release(), [A, one], [A, one])).left_behind
    assert told.startswith("StatefulSet/db goes")


def test_a_job_that_kubernetes_deleted_when_it_was_done_is_not_missed() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"ttlSecondsAfterFinished": 1}}
    assert plan.make("same", [job], seen(release(), [job], [])).nothing_to_do
