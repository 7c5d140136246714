"""Data, its password and the way back, on the real cluster: real PostgreSQL, real Secrets, real Helm. In order."""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.conftest import Environment

pytestmark = pytest.mark.cluster

SECRET = "backend-postgresql"


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment]) -> Environment:
    """An environment without Temporal: what is lost and kept is the same, and it is there in seconds."""
    made = make_environment("data")
    redeploy(made)
    return made


@pytest.fixture(scope="module")
def kept(env: Environment) -> str:
    """A request of before, which must outlive everything here."""
    name = uuid.uuid4().hex
    insert = f"INSERT INTO requests (id, name, temporal, served_by) VALUES (gen_random_uuid(), '{name}', false, 'test')"
    assert env.inv("db.shell", "--", "-c", insert).code == 0
    return name


def answer(env: Environment, *words: str, temporal: bool = False, code: int = 0) -> dict[str, Any]:
    output = env.inv(*words, "--output", "json", temporal=temporal)
    assert output.code == code
    record: dict[str, Any] = json.loads(output.stdout)
    return record


def redeploy(env: Environment, *words: str, temporal: bool = False) -> dict[str, Any]:
    return answer(env, "redeploy", *words, temporal=temporal)


def is_kept(env: Environment, name: str) -> bool:
    output = env.inv("db.shell", "--", "-Atc", f"SELECT count(*) FROM requests WHERE name = '{name}'")
    return output.stdout.strip() == "1"


def stored(env: Environment) -> str:
    return env.kubectl("get", "secret", SECRET, "-o", "jsonpath={.data.password}")


def overwrite(env: Environment, password: str) -> None:
    data = {"data": {"password": base64.b64encode(password.encode()).decode()}}
    env.kubectl("patch", "secret", SECRET, "--type=merge", "-p", json.dumps(data))


def revision(env: Environment) -> int:
    return int(max(entry["revision"] for entry in answer(env, "history")["revisions"]))


def test_what_was_just_deployed_has_nothing_to_do(env: Environment, kept: str) -> None:
    assert redeploy(env)["nothingToDo"]
    assert is_kept(env, kept)


def test_the_status_names_the_databases(env: Environment) -> None:
    record = answer(env, "db.status")
    assert record["schema"] == "devenv/db-status/v1"
    assert {one["role"]: one["state"] for one in record["databases"]}["backend"] == "ok"
    assert 0 < record["connections"]["max"] >= record["connections"]["used"]
    assert "PostgreSQL 18" in env.inv("db.status", temporal=False).stdout


def test_a_secret_deleted_while_all_runs_is_refused_before_the_release_is_touched(env: Environment, kept: str) -> None:
    before = revision(env)
    env.kubectl("delete", "secret", SECRET)
    failure = answer(env, "redeploy", code=3)["failure"]
    assert "Secret with its password is gone" in failure["reason"]
    assert "inv db.repair-password" in failure["hint"]
    assert revision(env) == before


def test_repaired_it_works_again_with_all_data(env: Environment, kept: str) -> None:
    record = answer(env, "db.repair-password")
    assert (record["secretMade"], record["passwordChanged"]) == (True, True)
    assert record["restarted"] == ["Deployment/backend"]
    assert is_kept(env, kept)
    assert redeploy(env)["nothingToDo"]


def test_another_password_in_the_secret_is_found_and_named(env: Environment, kept: str) -> None:
    before = revision(env)
    overwrite(env, secrets.token_urlsafe(16))
    assert any("password" in reason for reason in answer(env, "plan")["reasons"])
    failure = answer(env, "redeploy", code=3)["failure"]
    assert "does not open the database" in failure["reason"]
    assert revision(env) == before


def test_a_password_of_ones_own_is_given_to_the_database_and_said_nowhere(env: Environment, kept: str) -> None:
    own = 'Grüße’ \\n$(id)"' + secrets.token_urlsafe(12)
    overwrite(env, own)
    output = env.inv("db.repair-password", temporal=False)
    assert output.code == 0
    assert own not in output.stdout + output.stderr
    assert own not in env.kubectl("logs", "backend-postgresql-0")
    assert is_kept(env, kept)
    assert redeploy(env)["nothingToDo"]


def test_destroyed_and_the_secret_lost_the_data_is_still_saved(env: Environment, kept: str) -> None:
    assert env.inv("destroy", temporal=False).code == 0
    env.kubectl("delete", "secret", SECRET)
    assert "is gone" in answer(env, "redeploy", code=3)["failure"]["reason"]
    record = answer(env, "db.repair-password")
    assert (record["secretMade"], record["passwordChanged"]) == (True, True)
    redeploy(env)
    assert is_kept(env, kept)


def test_destroyed_and_another_password_is_named_as_the_cause(env: Environment, kept: str) -> None:
    right = base64.b64decode(stored(env)).decode()
    assert env.inv("destroy", temporal=False).code == 0
    overwrite(env, "another-password")
    failure = answer(env, "redeploy", code=5)["failure"]
    assert "password authentication failed" in failure["evidence"]
    assert "inv db.repair-password" in failure["hint"]
    overwrite(env, right)
    redeploy(env)
    assert is_kept(env, kept)


def test_a_deleted_database_is_made(env: Environment) -> None:
    assert answer(env, "db.create")["made"] == ["temporal", "temporal_visibility"]
    assert answer(env, "db.create")["made"] == []
    marks = {one["role"]: one["owner"] for one in answer(env, "db.status")["databases"]}
    assert marks["temporal"] == marks["visibility"] == f"{env.namespace}/backend"


def test_back_to_the_revision_before_and_forward_again(env: Environment, kept: str) -> None:
    setting = ("--set", "backend.additionalEnv[0].name=HELLO,backend.additionalEnv[0].value=world")
    redeploy(env, *setting)
    newest = revision(env)
    record = answer(env, "rollback")
    assert (record["from"], record["revision"]) == (newest, newest + 1)
    assert "HELLO" not in env.kubectl("exec", "deployment/backend", "--", "env")
    assert is_kept(env, kept)
    entries = answer(env, "history")["revisions"]
    assert [entry["byDevenv"] for entry in entries[-2:]] == [True, False]
    assert env.inv("plan", "--detailed-exitcode", *setting, temporal=False).code == 10
    redeploy(env, *setting)
    assert "HELLO=world" in env.kubectl("exec", "deployment/backend", "--", "env")


def test_a_rollback_to_what_is_not_there_is_wrong_input(env: Environment) -> None:
    assert env.inv("rollback", "--revision", "999", temporal=False).code == 2
    assert env.inv("rollback", "--revision", str(revision(env)), temporal=False).code == 3


def test_with_temporal_on_its_databases_are_migrated_and_emptied_and_work_again(env: Environment, kept: str) -> None:
    first = redeploy(env, temporal=True)["workflow"]
    states = {one["name"]: (one["version"], one["state"]) for one in answer(env, "db.status")["databases"]}
    assert states["temporal"] == ("1.19", "ok")
    assert states["temporal_visibility"] == ("1.14", "ok")
    assert "nothing to do" in answer(env, "db.migrate")["told"]
    refused = answer(env, "db.reset", code=3)["failure"]
    assert refused["hint"] == "inv db.reset --yes"
    again = answer(env, "db.reset", "--yes")["workflow"]
    listed = env.inv("temporal.cli", "--", "workflow", "list", "--output", "json").stdout
    assert again in listed
    assert first not in listed
    assert is_kept(env, kept)
    assert redeploy(env, temporal=True)["nothingToDo"]


def test_a_volume_that_is_gone_is_said_and_all_begins_anew(env: Environment) -> None:
    env.kubectl("scale", "statefulset", "backend-postgresql", "--replicas=0")
    env.kubectl("wait", "--for=delete", "pod/backend-postgresql-0", "--timeout=60s")
    env.kubectl("delete", "pvc", "data-backend-postgresql-0")
    output = env.inv("redeploy", temporal=True)
    assert output.code == 0
    assert "the database begins empty" in output.stderr
    assert redeploy(env, temporal=True)["nothingToDo"]
