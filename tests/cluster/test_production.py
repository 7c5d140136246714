"""Production, with Helm alone: the seed's values as they stand, against a server outside the cluster that behaves as managed
ones do: TLS forced, `postgres` without superuser rights, few connections. In order."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devenv.cluster import schemas
from tests.cluster import outside
from tests.cluster.conftest import PROJECT, Environment
from tests.cluster.outside import CARRIED, Certificates, Server
from tests.test_environment_chart import SEED, SERVICES, VARIABLES

pytestmark = pytest.mark.cluster

CHART = str(PROJECT / "devenv/charts/environment")
SECRET = "managed-postgres-credentials"
UPGRADE = ("upgrade", "--install", "backend", CHART, "--wait", "--timeout", "5m", "--values", "-")


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment]) -> Environment:
    made = make_environment("production")
    assert made.inv("kubectl", "--", "create", "namespace", made.namespace).code == 0
    return made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory, env: Environment) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"), outside.programs())
    made.make("good", f"rds.{env.namespace}.svc")
    return made


@pytest.fixture(scope="module")
def server(env: Environment, certificates: Certificates, running: Any) -> Iterator[Server]:
    address = outside.host(running.server)
    port = outside.free_port(address)
    outside.outward(env, "rds", address, port)
    with (
        tempfile.TemporaryDirectory(prefix="devenv-test-") as folder,
        outside.managed(Path(folder), address, port, certificates, "max_connections=80") as made,
    ):
        quoted = CARRIED.replace("'", "''")
        made.sql(f"ALTER ROLE postgres PASSWORD '{quoted}';")
        outside.secret(env, SECRET, host=f"rds.{env.namespace}.svc", password=CARRIED)  # port, username: optional
        yield made


def helm(env: Environment, *words: str, values: str = "") -> str:
    output = env.inv("helm", "--", *words, stdin=values)
    assert output.code == 0
    return output.stdout


def databases(server: Server) -> list[str]:
    query = "SELECT datname FROM pg_database WHERE datname ~ 'temporal|files' ORDER BY datname COLLATE \"C\";"
    return server.sql(query).split()


def test_the_seeds_values_give_a_temporal_that_runs_a_workflow(env: Environment, server: Server) -> None:
    helm(env, *UPGRADE, values=SEED)
    helm(env, "test", "backend")
    assert databases(server) == ["temporal", "temporal_visibility"]
    asked = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'postgres';"
    assert server.sql(asked) == "t"
    job = json.loads(env.kubectl("get", "job", "backend-temporal-schema-setup", "-o", "json"))
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert env.inv("temporal.smoke", TEMPORAL_EXTERNAL_SECRET=SECRET).code == 0


@pytest.mark.parametrize("service", SERVICES)
def test_the_variables_are_in(service: str, env: Environment, server: Server) -> None:
    object = json.loads(env.kubectl("get", f"deployment/backend-temporal-{service}", "-o", "json"))
    [container] = object["spec"]["template"]["spec"]["containers"]
    assert {entry["name"] for entry in container["env"]} >= VARIABLES


def test_the_next_upgrade_leaves_a_schema_that_is_right_alone(env: Environment, server: Server) -> None:
    values = yaml.safe_load(SEED)
    values["backend"]["temporal"]["server"]["config"] = {"maxConns": 8}
    helm(env, *UPGRADE, values=yaml.safe_dump(values))
    told = env.kubectl("logs", "job/backend-temporal-schema-setup", "-c", "schema").splitlines()
    assert told == ["schema: nothing to do: temporal 1.19, temporal_visibility 1.14"]


def test_more_history_servers_than_shards_are_ready_all_the_same(env: Environment, server: Server) -> None:
    """One of five owns none of the four shards; one that rolls out beside one may own none, too."""
    values = yaml.safe_load(SEED)
    values["backend"]["temporal"]["server"]["config"] = {"maxConns": 2, "visibilityMaxConns": 1}
    values["backend"]["temporal"]["server"]["history"] = {"replicaCount": 5}
    helm(env, *UPGRADE, values=yaml.safe_dump(values))
    helm(env, "test", "backend")


def test_a_downgrade_and_other_shards_end_in_the_hook_before_the_release_is_touched(
    env: Environment, server: Server
) -> None:
    before = env.kubectl("get", "deployment/backend-temporal-history", "-o", "jsonpath={.metadata.generation}")
    for change, told in {
        "backend.temporal.schema.requires.temporal=1.18": "schema: database temporal has schema 1.19, which a newer server",
        "backend.temporal.server.config.numHistoryShards=8": "schema: database temporal was begun with numHistoryShards 4",
    }.items():
        setting = "--set" if "Shards" in change else "--set-string"
        output = env.inv("helm", "--", *UPGRADE, setting, change, stdin=SEED)
        assert output.code != 0
        job = env.kubectl("get", "job/backend-temporal-schema-setup", "-o", "jsonpath={.status.conditions[*].message}")
        assert "exit code 78 matching FailJob rule" in job  # at once: no further try would mend it
        log = env.kubectl("logs", "job/backend-temporal-schema-setup", "-c", "schema")
        assert told in log
    assert env.kubectl("get", "deployment/backend-temporal-history", "-o", "jsonpath={.metadata.generation}") == before
    helm(env, *UPGRADE, values=SEED)


def test_a_second_release_on_the_same_database_ends_in_the_hook(env: Environment, server: Server) -> None:
    words = ("upgrade", "--install", "second", *UPGRADE[3:])
    assert env.inv("helm", "--", *words, stdin=SEED).code != 0
    log = env.kubectl("logs", "job/second-temporal-schema-setup", "-c", "schema")
    assert f"database temporal belongs to {env.namespace}/backend, not to {env.namespace}/second" in log
    assert "second-temporal" not in env.kubectl("get", "deployments", "-o", "name")
    helm(env, "uninstall", "second")


def test_the_certificates_host_is_verified_with_a_ca_from_a_config_map(
    env: Environment, server: Server, certificates: Certificates
) -> None:
    name = {"name": "ca-bundle"}
    outside.apply(
        env,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": {"ca.crt": certificates.text("ca")}},
    )
    values = yaml.safe_load(SEED)
    values["backend"]["temporalConfig"]["postgres"]["tls"] = {"mode": "verify-full", "caConfigMap": name}
    helm(env, *UPGRADE, values=yaml.safe_dump(values))
    helm(env, "test", "backend")


def test_the_hook_migrates_by_the_sql_files_of_the_chart_where_it_has_some(
    env: Environment, server: Server, tmp_path: Path
) -> None:
    """With the Secret by its other name, and host and port by value."""
    helm(env, "uninstall", "backend", "--wait")
    chart = tmp_path / "environment"
    shutil.copytree(CHART, chart)
    assert schemas.write(lambda _: None, chart / "charts/backend/temporal/sql-schemas").newest == ("1.19", "1.14")
    postgres = {"host": f"rds.{env.namespace}.svc", "port": 5432, "username": "postgres", "database": "from-files"}
    given = {"postgres": postgres, "database": {"existingSecret": SECRET}}
    values = {"global": {"temporal": {"enabled": True}}, "backend": {"temporalConfig": given}}
    helm(env, *UPGRADE[:3], str(chart), *UPGRADE[4:], values=yaml.safe_dump(values))
    helm(env, "test", "backend")
    job = env.kubectl("get", "job", "backend-temporal-schema-setup", "-o", "json")
    assert "/sql/temporal" in job and "/sql/visibility" in job
    told = env.kubectl("logs", "job/backend-temporal-schema-setup", "-c", "schema")
    assert "schema: database from-files: from schema none to 1.19" in told
    assert "schema: database from-files_visibility: 1.13 to 1.14" in told
    assert databases(server) == ["from-files", "from-files_visibility", "temporal", "temporal_visibility"]


SERVER = "backend.temporal.server"
ROOM: dict[str, str] = {
    f"{SERVER}.history.resources.requests.cpu=100": "CPU too little",
    f"{SERVER}.replicaCount=2,{SERVER}.resources.requests.cpu=1": "CPU too little",  # as in the profile production
    "global.temporal.nodeSelector.pool=temporal": "it has no label pool=temporal",
}


def test_what_the_node_cannot_hold_is_refused_before_anything_is_applied(
    make_environment: Callable[[str], Environment],
) -> None:
    env = make_environment("room")
    for setting, why in ROOM.items():
        output = env.inv("redeploy", "--set", setting, "--output", "json")
        assert output.code == 3
        failure = json.loads(output.stdout)["failure"]
        assert failure["reason"] == "the nodes have no room for it"
        assert why in failure["evidence"]
    assert env.inv("kubectl", "--", "get", "namespace", env.namespace).code != 0
