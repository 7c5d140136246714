"""Schemas of an external database through their life: upgraded under running workflows, never downgraded, cut off and
mended. A real server, Temporal's own tool, migrators that are killed. In order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devenv.paths import START
from tests.cluster import outside
from tests.cluster.conftest import CONTEXT, Environment
from tests.cluster.outside import Server

pytestmark = pytest.mark.cluster

OFF = ("--set", "backend.temporalConfig.postgres.tls.mode=off")
FROM = (("temporal", "1.17"), ("temporal_visibility", "1.9"))  # what server 1.28 had
TO = ["temporal 1.19", "temporal_visibility 1.14"]


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment]) -> Environment:
    made = make_environment("schema")
    assert made.inv("kubectl", "--", "create", "namespace", made.namespace).code == 0
    return made


@pytest.fixture(scope="module")
def server(env: Environment) -> Server:
    made = outside.start(env, "plain", "-c", "max_connections=150")
    made.sql("CREATE ROLE app LOGIN CREATEDB PASSWORD 'pass-word';")
    outside.secret(env, "pg", host="plain", username="app", password="pass-word")
    return made


def answer(env: Environment, *words: str, code: int = 0) -> dict[str, Any]:
    output = env.inv(*words, *OFF, "--output", "json", TEMPORAL_EXTERNAL_SECRET="pg")
    assert output.code == code
    record: dict[str, Any] = json.loads(output.stdout)
    return record


def database(name: str) -> tuple[str, ...]:
    return ("--set", f"backend.temporalConfig.postgres.database={name}")


def workflow(env: Environment, *words: str) -> str:
    output = env.inv("temporal.cli", "--", "workflow", *words)
    assert output.code == 0
    return output.stdout


def versions(server: Server, *names: str) -> list[str]:
    query = "SELECT db_name || ' ' || curr_version FROM schema_version;"
    return [server.sql(f"\\connect {name}\n{query}") for name in names]


def tool(env: Environment, name: str, *words: str) -> None:
    """Temporal's own tool, in its own image, as the role of the Secret."""
    at = ("--plugin", "postgres12", "--endpoint", "plain", "--port", "5432", "--user", "app", "--password", "pass-word")
    program = ("exec", "deployment/backend-temporal-admintools", "--", "temporal-sql-tool")
    env.kubectl(*program, *at, "--database", name, *words)


def session(server: Server, name: str, sql: str) -> None:
    """A session of somebody's that goes on in the background, until `end_sessions`."""
    variables = {"PGHOST": ":HOST", "PGUSER": ":USER", "PGDATABASE": name, "PGAPPNAME": "somebody"}
    lines = [f"\\setenv {variable} {value}" for variable, value in variables.items()]
    server.sql("\n".join([*lines, f'\\! psql -c "{sql}; SELECT pg_sleep(900)" >/dev/null 2>&1 </dev/null &\n']))


def end_sessions(server: Server, name: str = "somebody") -> None:
    server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}';")


def until(what: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def begun(env: Environment, *words: str, secret: str = "pg") -> int:
    """A redeploy in the background: its pid."""
    argv = [
        sys.executable,
        str(START),
        "redeploy",
        "--context",
        CONTEXT,
        "--namespace",
        env.namespace,
        *OFF,
    ]
    variables = {**os.environ, "ENABLE_TEMPORAL": "1", "TEMPORAL_EXTERNAL_SECRET": secret}
    return os.spawnve(os.P_NOWAIT, sys.executable, [*argv, *words], variables)


def test_what_the_database_holds_is_not_changed_by_another_setting(env: Environment, server: Server) -> None:
    answer(env, "redeploy")
    workflow(env, "start", "--task-queue", "nobody", "--type", "Kept", "--workflow-id", "kept")
    before = env.kubectl("get", "secrets", "-o", "name")
    for change, told in {
        "server.config.numHistoryShards=8": "numHistoryShards is 4 for the life of the database, not 8",
        "schema.requires.temporal=1.18": "the schema for temporal is 1.19, and the server only knows 1.18: a downgrade",
    }.items():
        setting = ("--set", f"backend.temporal.{change}")
        assert answer(env, "plan", *setting)["impossible"] == [told]
        for words in ((), ("--fresh",), ("--yes",)):
            answer(env, "redeploy", *setting, *words, code=3)
    assert env.kubectl("get", "secrets", "-o", "name") == before
    assert answer(env, "plan")["nothingToDo"]


def test_an_older_schema_is_migrated_under_the_workflows_that_run(env: Environment, server: Server) -> None:
    for name, version in FROM:
        server.sql(f"CREATE DATABASE old_{name} OWNER app;")
        tool(env, f"old_{name}", "setup-schema", "-v", "0.0")
        schema = name.replace("temporal_", "")
        tool(env, f"old_{name}", "update-schema", "--schema-name", f"postgresql/v12/{schema}", "--version", version)
    assert env.inv("destroy").code == 0
    copy = """set -eu
export PGUSER=postgres PGHOST=/tmp
for name in temporal temporal_visibility; do
  ask() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
  ask -d "old_$name" -c "SELECT table_name || ' ' || string_agg(column_name, ',') FROM information_schema.columns
    WHERE table_schema = 'public' AND is_generated = 'NEVER' AND table_name NOT LIKE 'schema%'
    AND table_name <> 'cluster_membership' GROUP BY table_name" >/tmp/tables
  while read -r table columns; do
    ask -d "old_$name" -c "TRUNCATE $table"
    ask -d "$name" -c "COPY $table ($columns) TO STDOUT" | ask -d "old_$name" -c "COPY $table ($columns) FROM STDIN"
  done </tmp/tables
done
"""
    assert env.inv("kubectl", "--", "exec", "-i", "plain", "--", "sh", "-s", stdin=copy).code == 0
    for name, _ in FROM:
        server.sql(f"ALTER DATABASE {name} RENAME TO new_{name}; ALTER DATABASE old_{name} RENAME TO {name};")
        server.sql(f"\\connect {name}\nUPDATE schema_version SET db_name = '{name}';")
        server.sql(f"COMMENT ON DATABASE {name} IS 'of the billing team';")
    assert versions(server, "temporal", "temporal_visibility") == ["temporal 1.17", "temporal_visibility 1.9"]
    assert answer(env, "redeploy")["workflow"]
    assert versions(server, "temporal", "temporal_visibility") == TO
    assert "kept" in workflow(env, "list", "--query", "ExecutionStatus='Running'")
    workflow(env, "signal", "--workflow-id", "kept", "--name", "hello")
    workflow(env, "terminate", "--workflow-id", "kept")
    until(lambda: "kept" in workflow(env, "list", "--query", "ExecutionStatus='Terminated'"))


def test_a_comment_of_somebody_elses_stays_and_the_next_upgrade_is_not_refused(
    env: Environment, server: Server
) -> None:
    assert answer(env, "redeploy", "--set", "backend.temporal.server.config.maxConns=9")["workflow"]
    comments = server.sql(
        "\\connect temporal\nSELECT shobj_description(oid, 'pg_database'), obj_description(to_regclass('schema_version'))"
        " FROM pg_database WHERE datname = current_database();"
    )
    assert comments == f"of the billing team|devenv owner: {env.namespace}/backend"


def test_a_rollback_asks_the_database_which_schemas_it_has(env: Environment, server: Server) -> None:
    """The one thing that a rollback does not bring back."""
    server.sql("\\connect temporal\nUPDATE schema_version SET curr_version = '1.17';")
    failure = answer(env, "rollback", code=3)["failure"]
    assert failure["reason"] == "the databases are older than that"
    assert failure["evidence"] == "its server needs schema 1.19 of temporal, which has 1.17"
    server.sql("\\connect temporal\nUPDATE schema_version SET curr_version = '1.19';")
    assert answer(env, "rollback")["workflow"]


def test_without_a_release_the_database_itself_is_asked(env: Environment, server: Server) -> None:
    assert env.inv("destroy").code == 0
    for change, told in {
        "server.config.numHistoryShards=8": "database temporal was begun with other shards",
        "schema.requires.visibility=1.13": "database temporal_visibility is newer than the server",
    }.items():
        failure = answer(env, "redeploy", "--set", f"backend.temporal.{change}", code=3)["failure"]
        assert failure["reason"] == told
    assert not env.kubectl("get", "deployments", "-o", "name").strip()


def test_a_database_that_was_restored_under_another_name_is_named_with_what_mends_it(
    env: Environment, server: Server
) -> None:
    for name in ("restored", "restored_visibility"):
        server.sql(f"ALTER DATABASE {name.replace('restored', 'temporal')} RENAME TO {name};")
    for name in ("restored", "restored_visibility"):
        failure = answer(env, "redeploy", *database("restored"), code=3)["failure"]
        assert failure["reason"] == f"the schema of database {name} has no version"
        server.sql(f"\\connect {name}\n{failure['hint'].removesuffix(' there')};")
    assert answer(env, "redeploy", *database("restored"))["workflow"]
    assert "kept" in workflow(env, "list")
    assert env.inv("destroy").code == 0


VERSIONS = """CREATE TABLE schema_version(version_partition INT NOT NULL, db_name VARCHAR(255) NOT NULL,
  creation_time TIMESTAMP, curr_version VARCHAR(64), min_compatible_version VARCHAR(64),
  PRIMARY KEY (version_partition, db_name));
CREATE TABLE schema_update_history(version_partition INT NOT NULL, year int NOT NULL, month int NOT NULL,
  update_time TIMESTAMP NOT NULL, description VARCHAR(255), manifest_md5 VARCHAR(64), new_version VARCHAR(64),
  old_version VARCHAR(64), PRIMARY KEY (version_partition, year, month, update_time));
INSERT INTO schema_version VALUES (0, current_database(), now(), '0.0', '0.0');"""


def blocked(server: Server, name: str, role: str) -> None:
    """Set up, and nobody may write a version: the tool stops between the end of v1.0 and its record."""
    server.sql(f"\\connect {name} {role}\n{VERSIONS}")
    session(server, name, "BEGIN; LOCK TABLE schema_version IN SHARE MODE")


def empty(server: Server, name: str) -> None:
    server.sql(f"CREATE DATABASE {name} OWNER app; CREATE DATABASE {name}_visibility OWNER app;")


def migrating(server: Server, name: str) -> bool:
    """Whether all of v1.0 is there, and its record waits."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%schema_version%' AND"
    return bool(server.sql(f"{waits} datname = '{name}' LIMIT 1;"))


def schema_pods(env: Environment) -> list[str]:
    return env.kubectl("get", "pods", "-l", "app.kubernetes.io/component=schema", "-o", "name").split()


@pytest.mark.long
def test_the_migration_of_a_killed_run_is_not_cut_off_by_the_next_nor_do_two_migrate_at_once(
    env: Environment, server: Server
) -> None:
    empty(server, "slow")
    blocked(server, "slow", "app")
    pid = begun(env, *database("slow"))
    until(lambda: migrating(server, "slow"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    [first] = schema_pods(env)
    pid = begun(env, *database("slow"))
    until(lambda: [pod for pod in schema_pods(env) if pod != first])
    [second] = [pod for pod in schema_pods(env) if pod != first]
    until(lambda: "another migration holds the lock" in env.inv("kubectl", "--", "logs", second).stdout)
    assert migrating(server, "slow")
    assert versions(server, "slow") == ["slow 0.0"]
    assert "deletionTimestamp" in env.kubectl("get", first, "-o", "yaml")
    end_sessions(server)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert versions(server, "slow", "slow_visibility") == ["slow 1.19", "slow_visibility 1.14"]
    doubles = "SELECT count(*) - count(DISTINCT new_version) FROM schema_update_history;"
    assert server.sql(f"\\connect slow\n{doubles}") == "0"
    assert env.inv("destroy").code == 0


def cut_off(env: Environment, server: Server, name: str) -> None:
    """Ends the migrator between the end of v1.0 and its record, as a node that goes down does."""
    until(lambda: migrating(server, name))
    for pod in schema_pods(env):
        kill_processes(pod.removeprefix("pod/"))
    server.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND application_name <> 'somebody';"
    )
    end_sessions(server)


def kill_processes(pod: str) -> None:
    """All of a pod's processes at once; they run on this machine."""
    mark = f"HOSTNAME={pod}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@pytest.mark.long
def test_a_first_migration_that_was_cut_off_is_named_with_what_mends_it(env: Environment, server: Server) -> None:
    empty(server, "cut")
    blocked(server, "cut", "app")
    pid = begun(env, *database("cut"))
    cut_off(env, server, "cut")
    os.waitpid(pid, 0)
    assert versions(server, "cut") == ["cut 0.0"]
    failure = answer(env, "redeploy", *database("cut"), code=3)["failure"]
    assert failure["reason"] == "the first migration of database cut was cut off"
    for statement in failure["hint"].split(";"):
        server.sql(f"{statement};")
    assert answer(env, "redeploy", *database("cut"))["workflow"]
    assert env.inv("destroy").code == 0


@pytest.mark.long
def test_in_a_database_of_our_own_it_is_mended_by_itself(make_environment: Callable[[str], Environment]) -> None:
    env = make_environment("mended")
    assert env.inv("redeploy", temporal=False).code == 0
    assert env.inv("db.create").code == 0
    psql = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1")
    pod = ("exec", "-i", "backend-postgresql-0", "--", *psql)
    server = Server(lambda text: env.inv("kubectl", "--", *pod, stdin=text))
    blocked(server, "temporal", "postgres")
    pid = begun(env, secret="")
    cut_off(env, server, "temporal")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert versions(server, "temporal", "temporal_visibility") == TO
    log = env.kubectl("logs", "-l", "app.kubernetes.io/component=schema", "-c", "schema", "--tail", "-1")
    assert "no Temporal ever ran on database temporal" in log
    assert "it is emptied and begun anew" in log
