"""The Secret of the database: made once, never overwritten, refused where it does not belong to the volume."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from devenv import environment, password, secret
from devenv.clients.kube import Kube
from devenv.errors import Refused
from devenv.model import Claim, Container, Pod, Snapshot
from devenv.settings import Flags
from tests.fake_api import FakeApi

SECRETS = "/api/v1/namespaces/devenv/secrets"
ONE = f"{SECRETS}/backend-postgresql"
VOLUME = Snapshot("devenv", claims=(Claim("data-backend-postgresql-0", "Bound", "local"),))
DESIRED = environment.describe(Flags()).desired
MISSING = secret.Password("postgres", "", password.Found(False, False, False))


def stored(value: str) -> dict[str, Any]:
    metadata = {"resourceVersion": "7", "uid": "u-1"}
    return {"metadata": metadata, "data": {"password": base64.b64encode(value.encode()).decode()}}


def test_the_password_is_made_with_the_four_keys(api: FakeApi, kube: Kube) -> None:
    made: list[dict[str, Any]] = []

    def create(body: dict[str, Any]) -> tuple[int, Any]:
        made.append(body)
        return 201, stored(body["stringData"]["password"])

    api.answers[f"POST {SECRETS}"] = create
    there = secret.ensure(kube, DESIRED, MISSING)
    [body] = made
    assert body["metadata"]["name"] == "backend-postgresql"
    data = body["stringData"]
    assert {**data, "password": "x"} == {
        "host": "backend-postgresql",
        "port": "5432",
        "username": "postgres",
        "password": "x",
    }
    assert there.value == data["password"]
    assert len(there.value) >= 32


def test_a_password_that_is_there_is_kept(api: FakeApi, kube: Kube) -> None:
    there = secret.Password("postgres", "kept", password.Found(True, True, True))
    assert secret.ensure(kube, DESIRED, there) == there
    assert api.asked == []


def test_of_two_runs_at_once_the_second_reads_what_the_first_made(api: FakeApi, kube: Kube) -> None:
    api.answers[f"POST {SECRETS}"] = (409, {"message": "exists"})
    api.answers[f"GET {ONE}"] = (200, stored("theirs"))
    assert secret.ensure(kube, DESIRED, MISSING).value == "theirs"


def test_a_secret_without_a_password_gets_one_and_keeps_the_rest(api: FakeApi, kube: Kube) -> None:
    put: list[dict[str, Any]] = []

    def replaced(body: dict[str, Any]) -> tuple[int, Any]:
        put.append(body)
        return 200, body

    api.answers[f"POST {SECRETS}"] = (409, {"message": "exists"})
    api.answers[f"GET {ONE}"] = (200, {"metadata": {"uid": "u"}, "data": {"host": "aA=="}})
    api.answers[f"PUT {ONE}"] = replaced
    assert len(secret.ensure(kube, DESIRED, MISSING).value) >= 32
    assert put[0]["data"]["host"] == "aA=="


def test_what_does_not_belong_together_is_refused_with_three_choices_the_data_first() -> None:
    there = secret.Password("postgres", "", password.Found(secret=False, volume=True, release=True))
    with pytest.raises(Refused) as refused:
        secret.refuse(there, DESIRED, VOLUME)
    assert "data-backend-postgresql-0" in refused.value.where
    order = [refused.value.next.index(part) for part in ("put Secret", "inv db.repair-password", "--reset-data")]
    assert order == sorted(order)


def opened(value: str) -> dict[str, Any]:
    there = stored(value)
    there["metadata"]["annotations"] = {secret.OPENED: password.digest(value, "u-1")}
    return there


REASONS: dict[str, tuple[tuple[int, Any], str]] = {
    "proven": ((200, opened("one")), ""),
    "gone": ((404, {}), "is gone"),
    "emptied": ((200, {"metadata": {}, "data": {}}), "is gone"),
    "never proven": ((200, stored("one")), "is not known to open"),
    "changed since": ((200, {**opened("one"), "data": stored("two")["data"]}), "is not known to open"),
    "made anew from a copy": (
        (200, {**opened("one"), "metadata": {**opened("one")["metadata"], "uid": "u-2"}}),
        "is not known to open",
    ),
}


@pytest.mark.parametrize(("answer", "reason"), REASONS.values(), ids=REASONS.keys())
def test_a_redeploy_has_something_to_do_where_the_secret_was(
    api: FakeApi, kube: Kube, answer: tuple[int, Any], reason: str
) -> None:
    api.answers[f"GET {ONE}"] = answer
    told = secret.reasons(kube, DESIRED)
    assert (not told) if not reason else reason in told[0]


def test_once_the_database_opened_the_secret_says_so_and_says_no_password(api: FakeApi, kube: Kube) -> None:
    patched: list[dict[str, Any]] = []

    def patch(body: dict[str, Any]) -> tuple[int, Any]:
        patched.append(body)
        return 200, body

    api.answers[f"GET {ONE}"] = (200, stored("a password"))
    api.answers[f"PATCH {ONE}"] = patch
    secret.remember(kube, DESIRED)
    [body] = patched
    assert secret.known({**stored("a password"), "metadata": {"uid": "u-1", **body["metadata"]}})
    assert "a password" not in str(body)


def test_a_run_with_another_password_forgets_the_one_that_opened_before(api: FakeApi, kube: Kube) -> None:
    other = stored("another")
    other["metadata"]["annotations"] = {secret.OPENED: "the digest of the one before"}
    patched: list[Any] = []
    api.answers[f"GET {ONE}"] = (200, other)
    api.answers[f"PATCH {ONE}"] = lambda body: patched.append(body) or (200, other)  # type: ignore[func-returns-value]
    there = secret.Password("postgres", "another", password.Found(True, True, False))
    assert secret.changed(kube, DESIRED, there, []) == []
    assert patched == [{"metadata": {"annotations": {secret.OPENED: None}}}]


def test_a_secret_of_the_users_own_is_not_touched(api: FakeApi, kube: Kube) -> None:
    theirs = environment.describe(Flags(sets=("backend.postgresql.existingSecret=mine",))).desired
    assert secret.reasons(kube, theirs) == ()
    secret.remember(kube, theirs)
    assert not [line for line in api.asked if not line.startswith("GET")]


def pod(state: str, **changes: Any) -> Pod:
    container = Container("postgresql", False, "postgres", False, state)
    made = Pod("backend-postgresql-0", "postgresql", "", "", "Running", False, False, "", "", (container,))
    return made._replace(**changes)


@pytest.mark.parametrize(
    ("pods", "runs"),
    [((), False), ((pod("waiting"),), False), ((pod("running"),), True), ((pod("running", deleting=True),), False)],
)
def test_the_password_is_tried_only_where_the_database_runs(pods: tuple[Pod, ...], runs: bool) -> None:
    assert secret.running(Snapshot("devenv", pods=pods), DESIRED) is runs
