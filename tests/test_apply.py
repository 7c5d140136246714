"""The password is made once, and a volume without its password is never given another."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import apply, environment
from devenv.clients.kube import Kube
from devenv.errors import Refused
from devenv.model import Claim, Snapshot
from devenv.settings import Flags
from tests.fake_api import FakeApi

PATH = "/api/v1/namespaces/devenv/secrets"
VOLUME = Snapshot("devenv", claims=(Claim("data-backend-postgresql-0", "Bound", "local"),))


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi().start()
    yield fake
    fake.stop()


def stored(password: str) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "7"}, "data": {"password": base64.b64encode(password.encode()).decode()}}


def test_the_password_is_made_with_the_four_keys(api: FakeApi, tmp_path: Path) -> None:
    made: list[dict[str, Any]] = []

    def create(body: dict[str, Any]) -> tuple[int, Any]:
        made.append(body)
        return 201, stored(body["stringData"]["password"])

    api.answers[f"POST {PATH}"] = create
    password = apply.password(
        Kube(api.kubeconfig(tmp_path), "fake"), environment.describe(Flags()).desired, Snapshot("devenv")
    )
    assert password.made
    [body] = made
    assert body["metadata"]["name"] == "backend-postgresql"
    data = body["stringData"]
    assert {**data, "password": "x"} == {
        "host": "backend-postgresql",
        "port": "5432",
        "username": "postgres",
        "password": "x",
    }
    assert len(data["password"]) >= 32


def test_a_password_that_is_there_is_kept(api: FakeApi, tmp_path: Path) -> None:
    api.answers[f"GET {PATH}/backend-postgresql"] = (200, stored("kept"))
    password = apply.password(Kube(api.kubeconfig(tmp_path), "fake"), environment.describe(Flags()).desired, VOLUME)
    assert (password.made, password.value) == (False, "kept")
    assert not [line for line in api.asked if line.startswith("POST")]


def test_of_two_runs_at_once_the_second_reads_what_the_first_made(api: FakeApi, tmp_path: Path) -> None:
    answers = iter([(404, {}), (200, stored("theirs"))])
    api.answers[f"GET {PATH}/backend-postgresql"] = lambda _: next(answers)
    api.answers[f"POST {PATH}"] = (409, {"message": "exists"})
    password = apply.password(
        Kube(api.kubeconfig(tmp_path), "fake"), environment.describe(Flags()).desired, Snapshot("devenv")
    )
    assert (password.made, password.value) == (False, "theirs")


def test_a_volume_without_its_password_is_refused_before_anything_is_written(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        apply.password(Kube(api.kubeconfig(tmp_path), "fake"), environment.describe(Flags()).desired, VOLUME)
    assert "data-backend-postgresql-0" in refused.value.where
    assert api.asked == [f"GET {PATH}/backend-postgresql"]
