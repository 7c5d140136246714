"""An environment's life on the real cluster: real API server, PostgreSQL, Temporal and Helm. In order."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devenv.cluster import schemas
from tests.cluster.conftest import PROJECT, Environment

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment]) -> Environment:
    return make_environment("life")


@pytest.fixture(scope="module")
def remembered() -> dict[str, Any]:
    """What the tests before saw: workflows must outlive what comes after."""
    return {}


def redeploy(env: Environment, *words: str, temporal: bool = True) -> dict[str, Any]:
    output = env.inv("redeploy", "--output", "json", *words, temporal=temporal)
    assert output.code == 0
    record: dict[str, Any] = json.loads(output.stdout)
    return record


def workflows(env: Environment) -> set[str]:
    """The workflow ids that Temporal itself lists, asked by its own CLI."""
    output = env.inv("temporal.cli", "--", "workflow", "list", "--output", "json")
    assert output.code == 0
    return {entry["execution"]["workflowId"] for entry in json.loads(output.stdout)}


def deployments(env: Environment) -> set[str]:
    return set(env.kubectl("get", "deployments", "-o", "name").split())


def test_from_an_empty_namespace_to_a_workflow_that_ran(env: Environment, remembered: dict[str, Any]) -> None:
    started = time.monotonic()
    record = redeploy(env)
    print(f"empty namespace to workflow: {time.monotonic() - started:.1f} s")
    assert record["revision"] == 1
    assert record["workflow"] in workflows(env)
    remembered["first"] = record["workflow"]


def test_no_container_crashed_on_the_way(env: Environment) -> None:
    restarts = env.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
    assert set(restarts.split()) == {"0"}


def test_all_components_of_the_seed_are_there(env: Environment) -> None:
    roles = ("frontend", "history", "matching", "worker", "web", "admintools")
    assert {f"deployment.apps/backend-temporal-{role}" for role in roles} < deployments(env)


def test_both_databases_have_the_schema_that_the_server_needs(env: Environment) -> None:
    versions = []
    for database in ("temporal", "temporal_visibility"):
        query = f"SELECT curr_version FROM schema_version WHERE db_name = '{database}'"
        versions.append(
            env.kubectl(
                "exec",
                "backend-postgresql-0",
                "--",
                "psql",
                "-h",
                "/var/run/postgresql",
                "-U",
                "postgres",
                "-d",
                database,
                "-Atc",
                query,
            ).strip()
        )
    assert versions == ["1.19", "1.14"]


def test_the_seeds_own_commands_work(env: Environment) -> None:
    assert "backend" in env.inv("helm", "--", "list", "-n", env.namespace).stdout
    assert env.kubectl("logs", "-n", env.namespace, "-l", "app.kubernetes.io/name=temporal", "--tail", "1")


def test_the_same_again_does_nothing(env: Environment) -> None:
    record = redeploy(env)
    assert (record["nothingToDo"], record["revision"]) == (True, 1)
    assert env.inv("plan", "--detailed-exitcode").code == 0


def test_temporal_is_healthy(env: Environment) -> None:
    health = json.loads(env.inv("temporal.health", "--output", "json").stdout)
    assert health["healthy"]


def test_the_password_is_in_no_manifest_and_in_no_output(env: Environment) -> None:
    import base64

    encoded = env.kubectl("get", "secret", "backend-postgresql", "-o", "jsonpath={.data.password}")
    password = base64.b64decode(encoded).decode()
    for words in (("helm", "--", "get", "all", "backend"), ("logs",), ("status",), ("values",)):
        assert password not in env.inv(*words).stdout


def test_an_edit_by_hand_is_named_and_mended(env: Environment) -> None:
    env.kubectl("scale", "deployment/backend-temporal-web", "--replicas=0")
    plan = json.loads(env.inv("plan", "--output", "json").stdout)
    assert "Deployment/backend-temporal-web was edited: spec.replicas" in plan["reasons"]
    assert redeploy(env)["revision"] == 2
    assert env.inv("plan", "--detailed-exitcode").code == 0


def test_a_variable_that_was_added_by_hand_is_removed(env: Environment) -> None:
    env.kubectl("set", "env", "deployment/backend", "BY_HAND=1")
    plan = json.loads(env.inv("plan", "--output", "json").stdout)
    assert [change["object"] for change in plan["changes"]] == ["Deployment/backend"]
    redeploy(env)
    assert "BY_HAND" not in env.kubectl("exec", "deployment/backend", "--", "env")
    assert env.inv("plan", "--detailed-exitcode").code == 0


def test_a_value_of_the_users_reaches_the_pods(env: Environment) -> None:
    setting = "backend.additionalEnv[0].name=HELLO,backend.additionalEnv[0].value=world"
    assert env.inv("plan", "--set", setting, "--detailed-exitcode").code == 10
    redeploy(env, "--set", setting)
    assert env.kubectl("exec", "deployment/backend", "--", "env").count("HELLO=world") == 1


def test_beside_a_backend_of_the_users_own_a_workflow_of_temporals_own_worker_is_the_proof(env: Environment) -> None:
    record = redeploy(env, "--set", "backend.image.repository=devenv.local/backend")
    assert record["workflow"].startswith("devenv-smoke-")
    words = ("workflow", "describe", "--workflow-id", record["workflow"], "--output", "json")
    assert '"WORKFLOW_EXECUTION_STATUS_TERMINATED"' in env.inv("temporal.cli", "--", *words).stdout


def test_switched_off_temporal_goes_and_the_backend_stays(env: Environment) -> None:
    redeploy(env, temporal=False)
    assert deployments(env) == {"deployment.apps/backend"}


def test_switched_on_again_nothing_is_lost(env: Environment, remembered: dict[str, Any]) -> None:
    redeploy(env)
    assert remembered["first"] in workflows(env)


def test_destroyed_with_its_data_kept_the_workflows_of_before_come_back(
    env: Environment, remembered: dict[str, Any]
) -> None:
    assert env.inv("destroy").code == 0
    assert env.kubectl("get", "pods,jobs,deployments,statefulsets", "-o", "name").split() == []
    redeploy(env)
    assert remembered["first"] in workflows(env)


def test_destroyed_twice_is_no_error(env: Environment) -> None:
    assert env.inv("destroy").code == 0
    output = env.inv("destroy", "--delete-data")
    assert output.code == 0
    assert env.kubectl("get", "secrets,persistentvolumeclaims", "-o", "name").split() == []
    assert env.inv("destroy").code == 0


def test_plain_helm_installs_the_chart_without_the_tool_by_the_sql_files_in_it(
    make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    env = make_environment("helm")
    chart = tmp_path / "environment"
    shutil.copytree(PROJECT / "devenv/charts/environment", chart)
    written = schemas.write(lambda _: None, chart / "charts/backend/temporal/sql-schemas")
    assert written.newest == ("1.19", "1.14")
    env.inv("kubectl", "--", "create", "namespace", env.namespace)
    password = secrets.token_urlsafe(16)
    literals = [
        f"--from-literal={key}"
        for key in ("host=backend-postgresql", "port=5432", "username=postgres", f"password={password}")
    ]
    env.kubectl("create", "secret", "generic", "backend-postgresql", *literals)
    on = "global.temporal.enabled=true,global.postgresql.enabled=true,backend.postgresql.existingSecret=backend-postgresql"
    words = ("upgrade", "--install", "backend", str(chart), "--wait", "--timeout", "5m", "--set", on)
    assert env.inv("helm", "--", *words).code == 0
    assert env.inv("helm", "--", "test", "backend").code == 0
    files = env.kubectl("get", "configmaps", "-l", "app.kubernetes.io/component=schema", "-o", "jsonpath={..data}")
    assert "v1.19__manifest.json" in files and "v1.14__manifest.json" in files
    assert "default" in env.inv("temporal.cli", "--", "operator", "namespace", "list").stdout
    assert env.inv("helm", "--", *words).code == 0


def test_a_missing_secret_is_named_at_once(make_environment: Callable[[str], Environment]) -> None:
    env = make_environment("broken")
    started = time.monotonic()
    output = env.inv("redeploy", "--set", "backend.postgresql.existingSecret=nope", "--output", "json", temporal=False)
    failure = json.loads(output.stdout)["failure"]
    assert output.code == 5
    assert 'secret "nope" not found' in failure["evidence"]
    assert time.monotonic() - started < 20
