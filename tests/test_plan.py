"""The plan: what would be done, and why; nothing where nothing changed."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import plan
from devenv.causes import BY_HAND
from devenv.model import Release, Setting
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


SETTING = Setting("a.x", "2", "1", "profile dev, profiles/dev.yaml:9")
A, B = config("a", x="1"), config("b")
ROWS: dict[str, tuple[list[Any], Seen, str, list[str]]] = {
    "a first install": ([A, B], seen(None, [], []), "the release is not there", ["+ ConfigMap/a", "+ ConfigMap/b"]),
    "a changed value": (
        [A],
        seen(release(inputs="old"), [A], [config("a", x="2")]),
        "ConfigMap/a was edited: data.x",
        ["~ ConfigMap/a (x)"],
    ),
    "a value that reaches an object": (
        [A],
        seen(release(inputs="old"), [config("a", x="2")], [config("a", x="2")])._replace(settings=(SETTING,)),
        "a.x changed (profile dev)",
        ["~ ConfigMap/a (x)"],
    ),
    "a value that reaches no object": (
        [A],
        seen(release(inputs="old"), [A], [A])._replace(settings=(SETTING,)),
        "a.x changed (profile dev)",
        [],
    ),
    "another chart": (
        [A],
        seen(release(inputs="old"), [A, B], [A, B])._replace(other_chart="web 1.2.3"),
        "the chart is another: web 1.2.3 before",
        ["- ConfigMap/b"],
    ),
    "an object less, by the chart's files": (
        [A],
        seen(release(inputs="old"), [A, B], [A, B]),
        "the chart's files, Helm or Kubernetes changed",
        ["- ConfigMap/b"],
    ),
    "an object less that is to be kept": (
        [A],
        seen(release(inputs="old"), [A, config("b", keep=True)], [A, B]),
        "the chart's files, Helm or Kubernetes changed, the objects stay as they are",
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
        "the chart's files, Helm or Kubernetes changed, the objects stay as they are",
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


def fields_by(wanted: Any, applied: Any, live: Any, status: str = "deployed") -> dict[str, str]:
    made = plan.make("new", [wanted], seen(release(status=status), [applied], [live]))
    return {field.path: field.by for change in made.changes for field in change.fields}


def test_an_edit_by_hand_is_told_from_a_change_of_the_inputs() -> None:
    wanted, applied = config("a", x="new", y="1", z="1"), config("a", x="old", y="1", z="1", gone="1")
    live = config("a", x="old", y="edited", z="1", gone="1")
    assert fields_by(wanted, applied, live) == {"data.x": "", "data.y": BY_HAND, "data.gone": ""}


def test_of_a_failed_revision_nobody_says_that_it_was_edited() -> None:
    assert fields_by(config("a", x="new"), config("a", x="new"), config("a", x="old"), "failed") == {"data.x": ""}


def workload(name: str, image: str, component: str = "", kind: str = "Deployment", hook: str = "") -> dict[str, Any]:
    meta = {"name": name, "labels": {"app.kubernetes.io/component": component}}
    if hook:
        meta["annotations"] = {"helm.sh/hook": hook}
    template = {"spec": {"containers": [{"name": "c", "image": image}]}}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": {"template": template}}


def test_the_steps_are_told_in_order_and_only_those_that_there_are() -> None:
    objects = [
        workload("web", "new"),
        workload("same", "one"),
        workload("setup-1", "x", component="schema", kind="Job"),
        workload("first", "x", kind="Job", hook="pre-upgrade"),
        workload("other", "x", kind="Job", hook="pre-install"),
    ]
    there = [workload("web", "old"), workload("same", "one")]
    lasting = [one for one in objects if not plan.hook(one)]
    made = plan.make("new", lasting, seen(release(), there, there))
    assert plan.steps(made, objects, "password kept", "a request") == (
        "database: password kept",
        "hooks: Job/first",
        "release: revision 4: 1 to create, 1 to change",
        "schema: Job/setup-1 makes and migrates the databases",
        "rollout: new pods for web",
        "proof: a request",
    )
    assert plan.steps(plan.make("same", [A], seen(release(), [A], [A])), [A], "", "") == (
        "release: revision 4: the objects stay as they are",
    )
