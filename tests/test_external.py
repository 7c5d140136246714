"""The Secret of an external PostgreSQL is looked at before the release is touched."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import environment, external
from devenv.clients.kube import Kube
from devenv.errors import Refused
from devenv.settings import Flags
from tests.fake_api import FakeApi

PATH = "GET /api/v1/namespaces/devenv/secrets/mine"


def secret(**keys: str) -> tuple[int, dict[str, Any]]:
    return 200, {"data": {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi().start()
    yield fake
    fake.stop()


def check(api: FakeApi, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "mine") -> str:
    monkeypatch.setenv("ENABLE_TEMPORAL", "true")
    monkeypatch.setenv("TEMPORAL_EXTERNAL_SECRET", name)
    return external.check(Kube(api.kubeconfig(folder), "fake"), environment.describe(Flags()).desired)


def test_host_and_password_are_enough(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers[PATH] = secret(host="db", password="hunter22")
    assert check(api, tmp_path, monkeypatch) == "hunter22"
    assert check(api, tmp_path, monkeypatch, "devenv/mine") == "hunter22"


REFUSED: dict[str, tuple[str, tuple[int, Any], str]] = {
    "it is not there": ("mine", (404, {}), "is not there"),
    "it has no host": ("mine", secret(password="hunter22"), "has no host"),
    "its password is empty": ("mine", secret(host="db", password=""), "has no password"),
    "it is in another namespace": ("other/mine", secret(host="db", password="hunter22"), "own namespace"),
}


@pytest.mark.parametrize(("name", "answer", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_when(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: tuple[int, Any], what: str
) -> None:
    api.answers[PATH] = answer
    with pytest.raises(Refused, match=what) as refused:
        check(api, tmp_path, monkeypatch, name)
    assert "hunter22" not in str(refused.value.record())
