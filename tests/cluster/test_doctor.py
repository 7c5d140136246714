"""doctor on a healthy environment and on a broken one, whose mending it names itself. In order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from devenv import checks
from tests.cluster.conftest import Environment
from tests.conftest import measured

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment]) -> Environment:
    made = make_environment("doctor")
    assert made.inv("redeploy").code == 0
    return made


def examine(env: Environment, code: int) -> dict[str, Any]:
    output = env.inv("doctor", "--output", "json")
    assert output.code == code
    record: dict[str, Any] = json.loads(output.stdout)
    return record


def those(record: dict[str, Any], outcome: str) -> dict[str, str]:
    """What the checks with this outcome say, and what they say to type."""
    return {one["check"]: f"{one['says']} → {one['next']}" for one in record["checks"] if one["outcome"] == outcome}


def test_a_healthy_environment_passes_every_check_within_5_seconds(env: Environment) -> None:
    records = [examine(env, 0) for _ in range(3)]
    for record in records:
        assert those(record, checks.WARN) == those(record, checks.FAIL) == {}
        assert {"members", "frontend", "default", "schema", "schema job", "secret"} <= those(record, checks.PASS).keys()
    seconds = min(record["seconds"] for record in records)
    measured.append(f"doctor, healthy, Temporal on: {seconds:.1f} s")
    assert seconds < 5


def test_an_empty_namespace_is_no_failure(make_environment: Callable[[str], Environment]) -> None:
    record = examine(make_environment("nothing"), 0)
    assert those(record, checks.WARN).keys() == {"release", "temporal", "plan"}


def test_each_fault_is_a_line_and_the_others_still_pass(env: Environment) -> None:
    sql = "UPDATE schema_version SET curr_version = '1.18'"
    psql = ("exec", "backend-postgresql-0", "--", "psql", "-h", "/var/run/postgresql", "-U", "postgres")
    env.kubectl(*psql, "-d", "temporal", "-c", sql)
    env.kubectl("scale", "deployment/backend-temporal-worker", "--replicas=0")
    lost = json.dumps({"spec": {"selector": {"app.kubernetes.io/component": "wbe"}}})
    env.kubectl("patch", "service", "backend-temporal-web", "--type", "merge", "-p", lost)
    record = examine(env, 5)
    failed = those(record, checks.FAIL)
    assert "temporal has 1.18, the server needs 1.19 → inv db.migrate" in failed["schema"]
    assert "Deployment/backend-temporal-worker was scaled to nothing" in failed["components"]
    assert "→ inv redeploy" in failed["components"]
    assert "component=wbe" in failed["services"]
    assert {"nodes", "rights", "secret", "frontend", "default", "volume", "jobs"} <= those(record, checks.PASS).keys()
    assert "was edited" in those(record, checks.WARN)["plan"]


def test_what_it_says_to_type_mends_it(env: Environment) -> None:
    assert env.inv("db.migrate").code == 0
    assert env.inv("redeploy").code == 0
    assert those(examine(env, 0), checks.FAIL) == {}


def test_a_lost_password_is_told_with_what_keeps_the_data(env: Environment) -> None:
    env.kubectl("delete", "secret", "backend-postgresql")
    assert "inv db.repair-password" in those(examine(env, 5), checks.FAIL)["secret"]
    assert env.inv("db.repair-password", "--yes").code == 0
    assert those(examine(env, 0), checks.FAIL) == {}


def test_it_works_when_postgresql_is_gone(env: Environment) -> None:
    env.kubectl("scale", "statefulset/backend-postgresql", "--replicas=0")
    env.kubectl("wait", "--for=delete", "pod/backend-postgresql-0", "--timeout=120s")
    record = examine(env, 5)
    assert "PostgreSQL does not run" in those(record, checks.FAIL)["schema"]
    assert "not known: PostgreSQL does not run" in those(record, checks.WARN)["members"]
    assert "backend-postgresql was scaled to nothing" in those(record, checks.FAIL)["components"]
