"""Logs: merged by time, as far back as is wanted, and followed across restarts and new pods."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import logs, look
from devenv.clients.kube import Kube
from devenv.errors import InputWrong
from tests.fake_api import FakeApi
from tests.test_watch import PODS, listed


def pod(name: str, component: str, restarts: int = 0) -> dict[str, Any]:
    meta = {"name": name, "uid": name, "labels": {"app.kubernetes.io/component": component}}
    container = {"name": "main", "ready": True, "restartCount": restarts, "state": {"running": {}}}
    return {"metadata": meta, "spec": {}, "status": {"phase": "Running", "containerStatuses": [container]}}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi().start()
    for path, plural, _, _ in look.READS:
        fake.answers[f"GET {path}/namespaces/n/{plural}"] = listed()
    fake.answers[f"GET {PODS}"] = listed(pod("a-1", "web"), pod("b-1", "store"))
    fake.answers[f"GET {PODS}/a-1/log"] = (200, "2026-01-01T00:00:01Z one\n2026-01-01T00:00:03Z three\n")
    fake.answers[f"GET {PODS}/b-1/log"] = (200, "2026-01-01T00:00:02Z two\n")
    yield fake
    fake.stop()


def asked(api: FakeApi, pod: str) -> list[str]:
    return [line for line in api.asked if f"/{pod}/log" in line]


def ctrl_c_at(last: str) -> Callable[[logs.Source, str], None]:
    """A writer with a user who has seen enough at a certain line."""

    def write(source: logs.Source, text: str) -> None:
        if text == last:
            raise KeyboardInterrupt

    return write


def test_all_logs_are_merged_by_time(api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.show(Kube(api.kubeconfig(tmp_path), "fake"), "n", "", follow=False, previous=False)
    assert capsys.readouterr().out.splitlines() == ["web         one", "store       two", "web         three"]
    assert "tailLines=200" in asked(api, "a-1")[0]


def test_only_what_was_said_since_then_is_asked_for(api: FakeApi, tmp_path: Path) -> None:
    logs.show(Kube(api.kubeconfig(tmp_path), "fake"), "n", "web", follow=False, previous=False, since=90)
    [one] = asked(api, "a-1")
    assert "sinceSeconds=90" in one
    assert "tailLines" not in one
    assert asked(api, "b-1") == []


def test_an_unknown_component_is_told_with_those_there_are(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(InputWrong) as wrong:
        logs.show(Kube(api.kubeconfig(tmp_path), "fake"), "n", "wbe", follow=False, previous=False)
    assert wrong.value.why == "there are: store, web"


def test_a_new_pod_is_followed_from_its_start_and_a_restarted_one_from_where_it_was(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = iter([listed(pod("a-1", "web")), listed(pod("a-1", "web"))])
    later = listed(pod("a-1", "web", restarts=1), pod("c-1", "web"))
    api.answers[f"GET {PODS}"] = lambda _: next(pictures, later)

    def new(_: Any) -> tuple[int, str]:
        """Says nothing before the restarted one was asked, too: the user has seen enough at this line."""
        deadline = time.monotonic() + 20
        while len(asked(api, "a-1")) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return 200, "2026-01-01T00:00:09Z new\n"

    api.answers[f"GET {PODS}/c-1/log"] = new
    monkeypatch.setattr(logs, "LOOK_AGAIN", 0.1)
    monkeypatch.setattr(logs, "_writer", lambda: ctrl_c_at("new"))
    logs.show(Kube(api.kubeconfig(tmp_path), "fake"), "n", "", follow=True, previous=False)
    assert "tailLines=20" in asked(api, "a-1")[0]
    assert "sinceTime=2026-01-01T00%3A00%3A03Z" in asked(api, "a-1")[1]
    assert not any(word in asked(api, "c-1")[0] for word in ("tailLines", "since"))
