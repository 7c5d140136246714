"""The Kubernetes client: its errors are ours, passing faults are tried again, writes are not sent twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from devenv import apply, checks, health, look
from devenv.clients.kube import Conflict, Denied, Gone, Kube, NotThere, _together
from devenv.errors import Failure, Refused, StepFailed
from devenv.model import Snapshot
from tests.fake_api import FakeApi


@pytest.fixture
def kube(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kube:
    monkeypatch.setattr("time.sleep", lambda _: None)
    return Kube(api.kubeconfig(tmp_path), "fake")


ERRORS: dict[int, type[Failure]] = {
    404: NotThere,
    409: Conflict,
    410: Gone,
    401: Denied,
    403: Denied,
    400: StepFailed,
    500: StepFailed,
}


@pytest.mark.parametrize(("status", "error"), ERRORS.items())
def test_each_status_is_an_error_of_ours(api: FakeApi, kube: Kube, status: int, error: type[Failure]) -> None:
    api.answers["GET /x"] = (status, {"message": "because"})
    with pytest.raises(error) as raised:
        kube.get("/x")
    assert "because" in raised.value.what + raised.value.why


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_fault_is_tried_again(api: FakeApi, kube: Kube, status: int) -> None:
    answers = iter([(status, {}), (status, {}), (200, {"ok": True})])
    api.answers["GET /x"] = lambda _: next(answers)
    assert kube.get("/x") == {"ok": True}


def test_a_lasting_fault_ends_after_five_tries(api: FakeApi, kube: Kube) -> None:
    api.answers["GET /x"] = (503, {"message": "overloaded"})
    with pytest.raises(StepFailed, match="answered 503"):
        kube.get("/x")
    assert len(api.asked) == 5


def test_a_create_that_may_have_happened_is_not_sent_twice(api: FakeApi, kube: Kube) -> None:
    api.answers["POST /x"] = (500, {"message": "?"})
    with pytest.raises(StepFailed):
        kube.create("/x", {})
    assert api.asked == ["POST /x"]


def test_an_error_about_a_secret_does_not_repeat_its_body(api: FakeApi, kube: Kube) -> None:
    api.answers["POST /api/v1/namespaces/n/secrets"] = (422, {"message": "invalid: hunter22"})
    with pytest.raises(StepFailed) as raised:
        kube.create("/api/v1/namespaces/n/secrets", {"data": {}})
    assert "hunter22" not in str(raised.value.record())


def test_a_cluster_that_does_not_answer_is_refused_with_its_address(api: FakeApi, kube: Kube) -> None:
    api.stop()
    with pytest.raises(Refused) as refused:
        kube.get("/version")
    assert "does not answer" in refused.value.what
    assert refused.value.where == kube.server
    assert "refused" in refused.value.why


def test_delete_of_what_is_not_there_is_no_error(kube: Kube) -> None:
    assert kube.delete("/x") is False


def test_a_watch_yields_changes_and_says_when_it_must_start_again(api: FakeApi, kube: Kube) -> None:
    lines = [{"type": "ADDED", "object": {"a": 1}}, {"type": "ERROR", "object": {"code": 410, "message": "too old"}}]
    api.answers["WATCH /x"] = (200, "".join(json.dumps(line) + "\n" for line in lines))
    changes = kube.watch("/x", "1", threading.Event())
    assert next(changes) == ("ADDED", {"a": 1})
    with pytest.raises(Gone):
        next(changes)


KEY: dict[str, Any] = {"f:spec": {'k:{"name":"main"}': {}}}
ODD: dict[str, Any] = {"f:metadata": {'v:"}]}"': {}}}


def managed(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"name": "x", "managedFields": [{"manager": "one", "fieldsV1": key} for key in keys]}


@pytest.mark.parametrize(
    ("meta", "seen"),
    [
        (managed(KEY, KEY), {"name": "x"}),
        (managed(ODD, KEY), managed(ODD, KEY)),  # what cannot be cut out is read
        ({"name": "x"}, {"name": "x"}),
        ({"name": "x", "annotations": {"a": ',"managedFields":[{"b":1}]}'}},) * 2,
    ],
)
def test_lists_and_watches_are_read_without_managed_fields(
    api: FakeApi, kube: Kube, meta: dict[str, Any], seen: dict[str, Any]
) -> None:
    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":")) + "\n"

    object = {"metadata": meta, "spec": {"a": [{"b": 1}]}}
    api.answers["GET /x"] = (200, compact({"metadata": {}, "items": [object, object]}))
    api.answers["WATCH /x"] = (200, compact({"type": "ADDED", "object": object}))
    assert kube.listed("/x")["items"] == [{**object, "metadata": seen}] * 2
    assert list(kube.watch("/x", "1", threading.Event())) == [("ADDED", {**object, "metadata": seen})]


@pytest.mark.parametrize(("what", "metadata"), [("DELETED", False), ("MODIFIED", True)])
def test_of_what_was_deleted_a_watch_tells_the_metadata(api: FakeApi, kube: Kube, what: str, metadata: bool) -> None:
    own = {"metadata": managed(KEY), "spec": {}}
    other = {"metadata": {"name": "x"}, "spec": {"template": {"metadata": managed(KEY)}}}
    lines = [json.dumps({"type": what, "object": one}, separators=(",", ":")) for one in (own, other)]
    api.answers["WATCH /x"] = (200, "\n".join(lines) + "\n")
    [(_, first), (_, second)] = kube.watch("/x", "1", threading.Event(), "", metadata)
    assert first == {"metadata": {"name": "x"}}
    assert second["metadata"] == {"name": "x"}


def test_events_that_only_say_that_all_goes_its_way_are_not_asked_for(api: FakeApi, kube: Kube) -> None:
    empty(api, "1")
    look.once(kube, "n")
    [asked] = [unquote(path) for path in api.asked if "fieldSelector" in path]
    assert asked.startswith("GET /api/v1/namespaces/n/events?fieldSelector=reason!=Scheduled,reason!=Created,")


@pytest.mark.parametrize("reason", look.ROUTINE)
def test_no_event_that_somebody_looks_at_is_one_of_routine(reason: str) -> None:
    for module in (checks, health):
        assert f'"{reason}"' not in Path(str(module.__file__)).read_text()


def test_an_unknown_kind_is_looked_up_once(api: FakeApi, kube: Kube) -> None:
    resources = [
        {"name": "things/status", "kind": "Thing", "namespaced": True},
        {"name": "things", "kind": "Thing", "namespaced": True},
    ]
    api.answers["GET /apis/acme.io/v1"] = (200, {"resources": resources})
    assert kube.kind("acme.io/v1", "Thing").path("n", "x") == "/apis/acme.io/v1/namespaces/n/things/x"
    kube.kind("acme.io/v1", "Thing")
    assert len(api.asked) == 1


def test_a_helm_release_is_read_from_labels_alone(api: FakeApi, kube: Kube) -> None:
    def secret(version: int, status: str) -> dict[str, Any]:
        return {"metadata": {"labels": {"owner": "helm", "name": "r", "version": str(version), "status": status}}}

    api.answers["GET /api/v1/namespaces/n/secrets"] = (
        200,
        {"items": [secret(9, "superseded"), secret(10, "deployed")]},
    )
    release = look.releases(kube, "n")["r"]
    assert (release.revision, release.status) == (10, "deployed")


def test_a_namespace_without_releases_has_none(api: FakeApi, kube: Kube) -> None:
    api.answers["GET /api/v1/namespaces/n/secrets"] = (200, {"items": None})
    assert look.releases(kube, "n") == {}


def empty(api: FakeApi, version: str) -> None:
    """A namespace without anything in it, at this resourceVersion."""
    for path, plural, _, _ in look.READS:
        api.answers[f"GET {path}/namespaces/n/{plural}"] = (
            200,
            {"metadata": {"resourceVersion": version}, "items": []},
        )


def test_looks_begin_with_a_list_and_go_on_with_each_change(api: FakeApi, kube: Kube) -> None:
    empty(api, "1")
    pod = {"metadata": {"name": "p", "uid": "u", "resourceVersion": "2"}, "spec": {}, "status": {"phase": "Pending"}}
    changes = iter([(200, json.dumps({"type": "ADDED", "object": pod}) + "\n")])
    api.answers["WATCH /api/v1/namespaces/n/pods"] = lambda _: next(changes, (200, ""))
    stop = threading.Event()
    for snapshot in look.looks(kube, "n", stop, tick=0.2):
        if snapshot.pods:
            break
    stop.set()
    assert [entry.name for entry in snapshot.pods] == ["p"]


def test_looks_go_on_from_a_picture_without_listing_again(api: FakeApi, kube: Kube) -> None:
    empty(api, "7")
    pods = [{"metadata": {"name": name, "uid": name, "resourceVersion": "7"}, "spec": {}} for name in ("old", "gone")]
    api.answers["GET /api/v1/namespaces/n/pods"] = (200, {"metadata": {"resourceVersion": "7"}, "items": pods})
    before = look.once(kube, "n")
    listed = len(api.asked)
    changes = [("DELETED", "gone"), ("ADDED", "new")]
    told = [
        {"type": what, "object": {"metadata": {"name": name, "uid": name, "resourceVersion": "8"}, "spec": {}}}
        for what, name in changes
    ]
    answers = iter([(200, "".join(json.dumps(one) + "\n" for one in told))])
    api.answers["WATCH /api/v1/namespaces/n/pods"] = lambda _: next(answers, (200, ""))
    stop = threading.Event()
    for snapshot in look.looks(kube, "n", stop, 0.2, before):
        if {entry.name for entry in snapshot.pods} == {"old", "new"}:
            break
    stop.set()
    asked = api.asked[listed:]
    assert asked and all("watch=1" in one for one in asked)
    assert all("resourceVersion=7" in one or "resourceVersion=8" in one for one in asked)


STREAMS = {"as a rollout of ten pods has them": (0.1, 0), "by the hundred": (0.004, 20)}  # seconds between two; waits


@pytest.mark.parametrize(("pause", "waits"), STREAMS.values(), ids=STREAMS.keys())
def test_changes_are_let_come_together_only_where_they_are_many(
    monkeypatch: pytest.MonkeyPatch, pause: float, waits: int
) -> None:
    now, waited = [0.0], []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return False

    def chunks() -> Iterator[bytes]:
        for number in range(500):
            now[0] += pause
            yield b"%d" % number

    monkeypatch.setattr("devenv.clients.kube.time.monotonic", lambda: now[0])
    assert list(_together(chunks(), Stop())) == [b"%d" % number for number in range(500)]
    assert (len(waited) > waits) == bool(waits)


@pytest.mark.parametrize(("near", "most"), [(0.0, look.AT_ONCE), (60.0, 1)], ids=["far", "near"])
def test_lists_are_asked_for_side_by_side_only_where_the_server_is_far(
    api: FakeApi, kube: Kube, monkeypatch: pytest.MonkeyPatch, near: float, most: int
) -> None:
    monkeypatch.setattr("devenv.clients.kube.NEAR", near)
    asked: list[int] = []
    lock, active = threading.Lock(), [0]

    def slow(_: Any) -> tuple[int, Any]:
        with lock:
            active[0] += 1
            asked.append(active[0])
        threading.Event().wait(0.1)
        with lock:
            active[0] -= 1
        return 200, {"metadata": {"resourceVersion": "1"}, "items": []}

    for path, plural, _, _ in look.READS:
        api.answers[f"GET {path}/namespaces/n/{plural}"] = slow
    look.once(kube, "n")
    assert max(asked) == most


def test_a_last_look_lists_what_counts_pods_and_not_the_pods(api: FakeApi, kube: Kube) -> None:
    empty(api, "1")
    job = {"kind": "Job", "metadata": {"name": "j", "uid": "u"}, "status": {}}
    api.answers["GET /apis/batch/v1/namespaces/n/jobs"] = (200, {"metadata": {"resourceVersion": "1"}, "items": [job]})
    watched = Snapshot("n", pods=(look.pod({"metadata": {"name": "p"}, "spec": {}}),))
    seen = look.again(kube, watched)
    assert ([pod.name for pod in seen.pods], [job.name for job in seen.jobs]) == (["p"], ["j"])
    assert not [one for one in api.asked if one.partition("?")[0].endswith(("/pods", "/events"))]


def test_a_namespace_is_made_once(api: FakeApi, kube: Kube) -> None:
    api.answers["POST /api/v1/namespaces"] = (201, {})
    assert apply.namespace(kube, "n") is True
    api.answers["GET /api/v1/namespaces/n"] = (200, {"metadata": {"name": "n"}})
    assert apply.namespace(kube, "n") is False
