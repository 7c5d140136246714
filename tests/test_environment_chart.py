"""The bundled chart, rendered by the real Helm: values in, facts about the objects out. No cluster."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devenv import capacity, paths
from devenv.clients import shell
from devenv.cluster import programs

pytestmark = pytest.mark.real

CHART = paths.PACKAGE / "charts" / "environment"
SCRIPTS = CHART / "charts" / "backend" / "scripts"
SERVICES = ("frontend", "history", "matching", "worker")
VARIABLES = {
    *(
        f"TEMPORAL_{store}_{field}"
        for store in ("STORE", "VISIBILITY")
        for field in ("HOST", "PORT", "DATABASE", "USER")
    ),
    "TEMPORAL_STORE_PASSWORD",
    "TEMPORAL_VISIBILITY_STORE_PASSWORD",
}

Object = dict[str, Any]
Values = dict[str, Any]

OFF: Values = {"global": {"postgresql": {"enabled": True}}, "backend": {"postgresql": {"existingSecret": "pw"}}}
INTERNAL: Values = {**OFF, "global": {"postgresql": {"enabled": True}, "temporal": {"enabled": True}}}
EXTERNAL: Values = {
    "global": {"temporal": {"enabled": True}},
    "backend": {"temporalConfig": {"postgres": {"secret": {"name": "managed"}}}},
}

# As in the document that the project was made from, character by character.
SEED = """
global:
  temporal:
    enabled: true

backend:
  temporalConfig:
    postgres:
      host: "NONE"  # Using NONE means read from secret
      port: 5432
      database: temporal
      username: postgres
      secret:
        name: "managed-postgres-credentials"
        passwordKey: "password"
        hostKey: "host"
        portKey: "port"
        usernameKey: "username"

  # Temporal server config uses environment variable placeholders
  temporal:
    # Must provide additionalEnv with all database configuration
    server:
      frontend:
        additionalEnv:
          - name: TEMPORAL_STORE_HOST
            valueFrom:
              secretKeyRef:
                name: "managed-postgres-credentials"
                key: "host"
          - name: TEMPORAL_VISIBILITY_HOST
            valueFrom:
              secretKeyRef:
                name: "managed-postgres-credentials"
                key: "host"
          - name: TEMPORAL_STORE_PORT
            value: "5432"
          - name: TEMPORAL_VISIBILITY_PORT
            value: "5432"
          - name: TEMPORAL_STORE_DATABASE
            value: "temporal"
          - name: TEMPORAL_VISIBILITY_DATABASE
            value: "temporal_visibility"
          - name: TEMPORAL_STORE_USER
            value: "postgres"
          - name: TEMPORAL_VISIBILITY_USER
            value: "postgres"
          - name: TEMPORAL_STORE_PASSWORD
            valueFrom:
              secretKeyRef:
                name: "managed-postgres-credentials"
                key: "password"
          - name: TEMPORAL_VISIBILITY_STORE_PASSWORD
            valueFrom:
              secretKeyRef:
                name: "managed-postgres-credentials"
                key: "password"
      history:
        additionalEnv:
          # Same as frontend - repeat all env vars
      matching:
        additionalEnv:
          # Same as frontend - repeat all env vars
      worker:
        additionalEnv:
          # Same as frontend - repeat all env vars
"""


@functools.cache
def helm() -> Path:
    return programs.path("helm")


@functools.cache
def _template(values: str, release: str, chart: Path, turn: int) -> shell.Output:
    return shell.run([helm(), "template", release, chart, "--namespace", "devenv", "--values", "-"], stdin=values)


def text(values: Values, release: str = "backend", chart: Path = CHART, turn: int = 0) -> str:
    output = _template(json.dumps(values), release, chart, turn)
    assert output.code == 0, output.stderr
    return output.stdout


@functools.cache
def _parsed(manifests: str) -> list[Object]:
    return [document for document in yaml.load_all(manifests, yaml.CSafeLoader) if document]


def render(values: Values, release: str = "backend", chart: Path = CHART) -> list[Object]:
    return _parsed(text(values, release, chart))


def refusal(values: Values) -> str:
    output = _template(json.dumps(values), "backend", CHART, 0)
    assert output.code != 0
    return output.stderr


def merged(*layers: Values) -> Values:
    result: Values = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def at(path: str, value: Any) -> Values:
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def one(objects: list[Object], kind: str, name: str) -> Object:
    found = [each for each in objects if each["kind"] == kind and re.fullmatch(name, each["metadata"]["name"])]
    assert len(found) == 1, (kind, name, [each["metadata"]["name"] for each in objects])
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def variables(container: Object) -> dict[str, Object]:
    return {entry["name"]: entry for entry in container.get("env", [])}


def server(objects: list[Object], component: str) -> Object:
    deployment = one(objects, "Deployment", f"backend-temporal-{component}")
    return dict(deployment["spec"]["template"]["spec"]["containers"][0])


def config(objects: list[Object], **environment: str) -> Object:
    """The servers' configuration, filled in as the server would."""
    filled = re.sub(
        r'{{ env "(\w+)"(?: \| default "([^"]*)")?( \| quote)? }}',
        lambda found: (json.dumps if found[3] else str)(environment.get(found[1], found[2] or "")),
        one(objects, "ConfigMap", "backend-temporal-config")["data"]["config.yaml"],
    )
    return dict(yaml.safe_load(filled))


BACKEND = {"Deployment/backend", "Service/backend"}
DATABASE = {"StatefulSet/backend-postgresql", "Service/backend-postgresql", "Pod/backend-postgresql-test"}
TEMPORAL = {
    *(f"Deployment/backend-temporal-{component}" for component in (*SERVICES, "web", "admintools")),
    "Service/backend-temporal-frontend",
    "Service/backend-temporal-web",
    "ConfigMap/backend-temporal-config",
    "ConfigMap/backend-temporal-dynamic-config",
    "Pod/backend-temporal-test",
    "Job/backend-temporal-schema-setup",
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(OFF, BACKEND | DATABASE, id="Temporal off"),
        pytest.param(INTERNAL, BACKEND | DATABASE | TEMPORAL, id="internal"),
        pytest.param(EXTERNAL, BACKEND | TEMPORAL, id="external"),
        pytest.param(yaml.safe_load(SEED), BACKEND | TEMPORAL, id="the seed's values as they stand"),
    ],
)
def test_these_objects_and_no_others(values: Values, expected: set[str]) -> None:
    names = {f"{each['kind']}/{each['metadata']['name']}" for each in render(values)}
    assert {re.sub(r"-setup-[0-9a-f]{10}$", "-setup", name) for name in names} == expected
    output = shell.run([helm(), "lint", CHART, "--strict", "--values", "-"], stdin=json.dumps(values))
    assert output.code == 0, output.stdout + output.stderr


def test_lint_is_clean_without_values() -> None:
    output = shell.run([helm(), "lint", CHART, "--strict"])
    assert output.code == 0, output.stdout + output.stderr


def test_equal_values_render_equal_manifests() -> None:
    assert text(INTERNAL, turn=1) == text(INTERNAL, turn=2)
    templates = "".join(path.read_text() for path in CHART.rglob("templates/**/*") if path.is_file())
    assert not re.search(
        r"\b(rand\w+|lookup|genCA|genSelfSignedCert|uuidv4|now|Release\.Revision|IsUpgrade)\b", templates
    )


# path, value, what Helm says; all in one rendering, because each takes a fifth of a second
UNKNOWN: list[tuple[str, Any, str]] = [
    ("surprise", 1, "at '': additional properties 'surprise'"),
    ("global.surprise", 1, "at '/global'"),
    ("global.temporal.enabled", "yes", "at '/global/temporal/enabled': got string"),
    ("backend.temporal.web.temporalConfig", {}, "at '/backend/temporal/web': additional properties 'temporalConfig'"),
    ("backend.temporal.frontend.additionalEnv", [], "at '/backend/temporal': additional properties 'frontend'"),
    ("backend.temporal.server.fronted", {}, "at '/backend/temporal/server': additional properties 'fronted'"),
    ("backend.temporal.server.worker.additionalEnv", [{"value": "1"}], "missing property 'name'"),
    ("backend.temporalConfig.tls", {}, "at '/backend/temporalConfig': additional properties 'tls'"),
    ("backend.temporalConfig.postgres.tls.mode", "on", "value must be one of"),
    ("backend.temporalConfig.postgres.database", 'x"; DROP', "does not match pattern"),
    ("backend.temporalConfig.postgres.username", "user@host", "does not match pattern"),
    ("backend.postgresql.existingSecrets", "pw", "at '/backend/postgresql'"),
    ("backend.port", 99999, "at '/backend/port'"),
]


@pytest.mark.parametrize(("path", "value", "says"), UNKNOWN)
def test_values_that_the_chart_does_not_know_are_refused_by_path(path: str, value: Any, says: str) -> None:
    assert says in refusal(merged(EXTERNAL, *(at(path, value) for path, value, _ in UNKNOWN)))


TO_ANOTHER = {"name": "TEMPORAL_STORE_DATABASE", "value": "other"}
TWO_CAS = {"mode": "verify-full", "caSecret": {"name": "one"}, "caConfigMap": {"name": "two"}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        pytest.param({}, "backend.temporalConfig.postgres.secret.name", id="no database"),
        pytest.param(
            merged(EXTERNAL, at("backend.temporalConfig.database.existingSecret", "other")),
            'postgres.secret.name is "managed", database.existingSecret is "other"',
            id="two names for one Secret",
        ),
        pytest.param(
            merged(INTERNAL, at("backend.postgresql.existingSecret", None)),
            "kubectl create secret generic backend-postgresql --namespace devenv",
            id="the internal database's Secret, with the line to paste",
        ),
        pytest.param(
            merged(EXTERNAL, at("backend.temporalConfig.postgres", {"host": "db.example", "secret": {"name": None}})),
            "name the Secret of an external one in backend.temporalConfig.postgres.secret.name",
            id="a host, and no Secret with its password",
        ),
        pytest.param(
            {"backend": {"temporalConfig": {"postgres": {"port": 6432}}}, **at("global.temporal.enabled", True)},
            "set global.postgresql.enabled=true for the internal PostgreSQL, or name the Secret",
            id="neither a host nor a Secret",
        ),
        pytest.param(
            merged(EXTERNAL, at("backend.temporal.server.additionalEnv", [TO_ANOTHER])),
            'server.additionalEnv sets TEMPORAL_STORE_DATABASE to "other", and the schema is made in "temporal": set '
            "backend.temporalConfig.postgres.database",
            id="another database in the one list",
        ),
        pytest.param(
            merged(EXTERNAL, at("backend.temporal.server.worker.additionalEnv", [TO_ANOTHER])),
            'backend.temporal.server.worker.additionalEnv sets TEMPORAL_STORE_DATABASE to "other"',
            id="another database for one service",
        ),
        pytest.param(
            merged(EXTERNAL, at("backend.temporalConfig.postgres.tls", {"caConfigMap": {"name": "ca"}})),
            'names a CA ("ca"), and mode is "require", which does not look at it. Set '
            "backend.temporalConfig.postgres.tls.mode=verify-full",
            id="a CA that nobody would look at",
        ),
        pytest.param(
            merged(EXTERNAL, at("backend.temporalConfig.postgres.tls", TWO_CAS)),
            'names two CAs: caSecret.name is "one", caConfigMap.name is "two"',
            id="two CAs",
        ),
        pytest.param(merged(INTERNAL, at("backend.image.tag", "")), "backend.image.tag is empty", id="no tag"),
        pytest.param(
            merged(INTERNAL, at("backend.temporal.server.image", None)),
            "backend.temporal.server.image.repository is empty",
            id="no image",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(values: Values, says: str) -> None:
    message = refusal(values)
    assert says in message
    assert "nil pointer" not in message


NAMES = {
    'x"; DROP DATABASE y': "backend/temporalConfig/postgres/database': 'x\"; DROP DATABASE y' does not match pattern",
    "a;b": "does not match pattern",
    "1st": "does not match pattern",
    "n" * 53: "does not match pattern",  # with _visibility 64 bytes, of which PostgreSQL keeps 63
    "größe": "does not match pattern",
    "template0": "which PostgreSQL keeps for itself: name another database",
    "n" * 52: "",
    "My-Temporal_2": "",
}


@pytest.mark.parametrize(("name", "says"), NAMES.items())
def test_a_database_is_named_as_it_is_or_refused(name: str, says: str) -> None:
    values = merged(EXTERNAL, at("backend.temporalConfig.postgres.database", name))
    if says:
        assert says in refusal(values)
    else:
        found = variables(server(render(values), "history"))
        assert found["TEMPORAL_STORE_DATABASE"]["value"] == name
        assert found["TEMPORAL_VISIBILITY_DATABASE"]["value"] == f"{name}_visibility"


def test_null_means_empty_everywhere() -> None:
    """Every value null but the images' names, the Secret and the toggles."""

    def nulls(values: Values) -> Values:
        kept = ("repository", "tag", "requires", "enabled")
        return {
            key: value if key in kept else nulls(value) if isinstance(value, dict) and value else None
            for key, value in values.items()
        }

    values: Values = {}
    for path, prefix in (
        (CHART, ""),
        (CHART / "charts" / "backend", "backend"),
        (CHART / "charts" / "backend" / "charts" / "temporal", "backend.temporal"),
        (CHART / "charts" / "backend" / "charts" / "postgresql", "backend.postgresql"),
    ):
        defaults = nulls(yaml.safe_load((path / "values.yaml").read_text()))
        values = merged(values, at(prefix, defaults) if prefix else defaults)
    for wanted in (INTERNAL, EXTERNAL):
        objects = render(merged(values, wanted))
        assert one(objects, "Deployment", "backend-temporal-frontend")["spec"]["replicas"] == 1
        assert config(objects)["persistence"]["numHistoryShards"] == 4
    off = render(merged(OFF, at("global.temporal", None)))
    assert not [each for each in off if "temporal" in each["metadata"]["name"]]


@pytest.mark.parametrize(
    "path", ["backend.temporal.server.worker", "backend.temporal.namespace", "backend.image.registry"]
)
def test_a_null_in_place_of_a_block_is_an_empty_block(path: str) -> None:
    assert render(merged(INTERNAL, at(path, None)))


@pytest.mark.parametrize("values", [INTERNAL, EXTERNAL, yaml.safe_load(SEED)], ids=["internal", "external", "seed"])
def test_all_four_services_get_the_variables_and_none_twice(values: Values) -> None:
    objects = render(values)
    for name, pod in pods(objects):
        for container in containers(pod):
            names = [entry["name"] for entry in container.get("env", [])]
            assert len(names) == len(set(names)), (name, container["name"])
    for component in SERVICES:
        pod = one(objects, "Deployment", f"backend-temporal-{component}")["spec"]["template"]["spec"]
        for container in containers(pod):
            assert variables(container).keys() >= VARIABLES, (component, container["name"])
        assert variables(server(objects, component))["TEMPORAL_SERVICES"]["value"] == component


def test_additional_variables_win_by_name() -> None:
    common = [{"name": "TEMPORAL_STORE_PORT", "value": "6432"}, {"name": "LOG", "value": "all"}]
    own = [{"name": "LOG", "value": "history"}, {"name": "TEMPORAL_STORE_HOST", "value": "proxy"}]
    values = {"additionalEnv": common, "history": {"additionalEnv": own}}
    objects = render(merged(INTERNAL, at("backend.temporal.server", values)))
    history, worker = variables(server(objects, "history")), variables(server(objects, "worker"))
    assert history["LOG"]["value"] == "history"
    assert history["TEMPORAL_STORE_HOST"] == {"name": "TEMPORAL_STORE_HOST", "value": "proxy"}
    assert history["TEMPORAL_STORE_PORT"]["value"] == worker["TEMPORAL_STORE_PORT"]["value"] == "6432"
    assert worker["LOG"]["value"] == "all"
    assert worker["TEMPORAL_STORE_HOST"]["value"] == "backend-postgresql"


ONE_LIST = yaml.safe_load(SEED)["backend"]["temporal"]["server"]["frontend"]["additionalEnv"]
# Every way to name one and the same database. The same ten variables come of each.
WAYS: dict[str, Values] = {
    "the seed's list for one service, null for the others": yaml.safe_load(SEED),
    "one list for all four": merged(
        at("backend.temporal.server.additionalEnv", ONE_LIST),
        at("backend.temporalConfig.postgres.secret.name", "managed-postgres-credentials"),
    ),
    "the same list four times": merged(
        at("backend.temporal.server", {service: {"additionalEnv": ONE_LIST} for service in SERVICES}),
        at("backend.temporalConfig.postgres.secret.name", "managed-postgres-credentials"),
    ),
    "no list at all": at("backend.temporalConfig.postgres.secret.name", "managed-postgres-credentials"),
    "the Secret by its other name": at("backend.temporalConfig.database.existingSecret", "managed-postgres-credentials"),
    "the Secret by both names": at(
        "backend.temporalConfig",
        {"database": {"existingSecret": "managed-postgres-credentials"},
         "postgres": {"secret": {"name": "managed-postgres-credentials"}}},
    ),
    "the host by value": at(
        "backend.temporalConfig",
        {"database": {"existingSecret": "managed-postgres-credentials"}, "postgres": {"host": "db.example", "port": 5432}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("values", WAYS.values(), ids=WAYS.keys())
def test_however_the_database_is_named_all_four_services_and_the_job_find_it(values: Values) -> None:
    objects = render(merged(at("global.temporal.enabled", True), values))
    job = one(objects, "Job", "backend-temporal-schema-setup")["spec"]["template"]["spec"]["containers"][0]
    kept = {"host": "db.example", "port": "5432", "username": "postgres", "password": "secret"}

    def read(container: Object) -> dict[str, str]:
        found = {}
        for name, entry in variables(container).items():
            if name in VARIABLES:
                reference = (entry.get("valueFrom") or {}).get("secretKeyRef", {})
                assert reference.get("name", "managed-postgres-credentials") == "managed-postgres-credentials"
                found[name] = kept[reference["key"]] if reference else entry["value"]
        return found

    expected = {
        **{f"TEMPORAL_{store}_{field}": value for store in ("STORE", "VISIBILITY")
           for field, value in (("HOST", "db.example"), ("PORT", "5432"), ("USER", "postgres"))},
        "TEMPORAL_STORE_DATABASE": "temporal", "TEMPORAL_VISIBILITY_DATABASE": "temporal_visibility",
        "TEMPORAL_STORE_PASSWORD": "secret", "TEMPORAL_VISIBILITY_STORE_PASSWORD": "secret",
    }  # fmt: skip
    assert read(job) == expected
    for service in SERVICES:
        assert read(server(objects, service)) == expected


def test_external_connection_honours_all_four_keys() -> None:
    keys = {"passwordKey": "pw", "hostKey": "address", "portKey": "number", "usernameKey": "login"}
    container = server(render(merged(EXTERNAL, at("backend.temporalConfig.postgres.secret", keys))), "matching")
    found = {
        name: entry["valueFrom"]["secretKeyRef"]
        for name, entry in variables(container).items()
        if name in VARIABLES and "valueFrom" in entry
    }
    assert found["TEMPORAL_VISIBILITY_STORE_PASSWORD"] == {"name": "managed", "key": "pw"}
    assert found["TEMPORAL_STORE_HOST"] == {"name": "managed", "key": "address"}
    assert found["TEMPORAL_STORE_PORT"] == {"name": "managed", "key": "number", "optional": True}
    assert found["TEMPORAL_VISIBILITY_USER"] == {"name": "managed", "key": "login", "optional": True}


def test_external_host_by_value_and_secret_by_its_other_name() -> None:
    given = {
        "postgres": {"host": "db.example", "port": 6432, "username": "ada"},
        "database": {"existingSecret": "managed"},
    }
    values = {"global": {"temporal": {"enabled": True}}, "backend": {"temporalConfig": given}}
    found = variables(server(render(values), "frontend"))
    assert found["TEMPORAL_STORE_HOST"]["value"] == "db.example"
    assert found["TEMPORAL_VISIBILITY_PORT"]["value"] == "6432"
    assert found["TEMPORAL_STORE_USER"]["value"] == "ada"
    assert found["TEMPORAL_STORE_PASSWORD"]["valueFrom"]["secretKeyRef"]["name"] == "managed"


def test_a_port_and_user_that_the_secret_lacks_come_from_the_values() -> None:
    objects = render(merged(EXTERNAL, at("backend.temporalConfig.postgres", {"port": 6432, "username": "ada"})))
    stores = config(objects, TEMPORAL_STORE_HOST="db")["persistence"]["datastores"]
    assert stores["default"]["sql"]["connectAddr"] == "db:6432"
    assert stores["visibility"]["sql"]["user"] == "ada"


@pytest.mark.parametrize(
    ("values", "mode", "sql"),
    [
        (INTERNAL, "disable", {"enabled": False, "enableHostVerification": False}),
        (EXTERNAL, "require", {"enabled": True, "enableHostVerification": False}),
        (merged(EXTERNAL, at("backend.temporalConfig.postgres.tls.mode", False)), "disable", None),
        (merged(EXTERNAL, at("backend.temporalConfig.postgres.tls.mode", "off")), "disable", None),
        (
            merged(EXTERNAL, at("backend.temporalConfig.postgres.tls.mode", "verify-full")),
            "verify-full",
            {"enabled": True, "enableHostVerification": True, "caFile": "/etc/postgresql-ca/ca.crt"},
        ),
    ],
    ids=["internal", "external", "YAML's off", "off", "verify-full"],
)
def test_one_setting_drives_tls_of_job_servers_and_backend(values: Values, mode: str, sql: Object | None) -> None:
    objects = render(values)
    for store in config(objects)["persistence"]["datastores"].values():
        assert store["sql"]["tls"] == (sql or {"enabled": False, "enableHostVerification": False})
    asked = [
        container for _, pod in pods(objects) for container in containers(pod) if "PGSSLMODE" in variables(container)
    ]
    assert {container["name"] for container in asked} == {"schema", "wait-for-schema", "backend"}
    assert {variables(container)["PGSSLMODE"]["value"] for container in asked} == {mode}
    for name, pod in pods(objects):
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert mounted - {"data"} == {volume["name"] for volume in pod.get("volumes", [])}, name
        if pod["containers"][0]["name"] in ("schema", "temporal", "backend"):
            assert ("postgresql-ca" in mounted) == (mode == "verify-full"), name


@pytest.mark.parametrize(
    ("tls", "volume"),
    [
        ({}, {"secret": {"secretName": "managed", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        (
            {"caSecret": {"name": "ca", "key": "root.pem"}},
            {"secret": {"secretName": "ca", "items": [{"key": "root.pem", "path": "ca.crt"}]}},
        ),
        (
            {"caConfigMap": {"name": "bundle"}},
            {"configMap": {"name": "bundle", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ),
    ],
    ids=["the Secret of the database", "a Secret of its own", "a ConfigMap"],
)
def test_the_ca_is_taken_from(tls: Values, volume: Object) -> None:
    objects = render(merged(EXTERNAL, at("backend.temporalConfig.postgres.tls", {"mode": "verify-full", **tls})))
    reading = [pod for _, pod in pods(objects) for each in pod.get("volumes", []) if each["name"] == "postgresql-ca"]
    assert len(reading) == 4 + 1 + 1
    for pod in reading:
        assert {"name": "postgresql-ca", **volume} in pod["volumes"]


def test_internal_schema_is_a_plain_job_that_nobody_cuts_off() -> None:
    objects = render(INTERNAL)
    assert [each for each in objects if "helm.sh/hook" in each["metadata"].get("annotations", {})] == [
        one(objects, "Pod", "backend-postgresql-test"),
        one(objects, "Pod", "backend-temporal-test"),
    ]
    job = one(objects, "Job", "backend-temporal-schema-setup-[0-9a-f]{10}")
    assert job["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not {"ttlSecondsAfterFinished", "activeDeadlineSeconds"} & job["spec"].keys()
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 3600


def test_schema_jobs_name_follows_its_work_only() -> None:
    def name(changes: Values) -> str:
        job = one(render(merged(INTERNAL, changes)), "Job", "backend-temporal-schema-setup-.*")
        return str(job["metadata"]["name"])

    same = name({})
    assert name(at("backend.temporal.server.replicaCount", 3)) == same
    assert name(at("backend.temporal.web.image.tag", "9")) == same
    assert name(at("backend.temporal.schema.requires.temporal", "1.20")) != same
    assert name(at("backend.temporal.admintools.image.tag", "9")) != same


def test_external_schema_is_a_hook_that_comes_after_its_sql(tmp_path: Path) -> None:
    chart = tmp_path / "environment"
    shutil.copytree(CHART, chart)
    folder = chart / "charts/backend/temporal/sql-schemas/temporal/versioned/v1.0"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"CurrVersion": "1.0"}')
    (folder / "schema.sql").write_text("CREATE TABLE x (y int);")
    objects = render(EXTERNAL, chart=chart)
    job = one(objects, "Job", "backend-temporal-schema-setup")
    sql = one(objects, "ConfigMap", "backend-temporal-sql-temporal-[0-9a-f]{10}")
    for each, weight in ((sql, "-10"), (job, "-5")):
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert each["metadata"]["annotations"]["helm.sh/hook-weight"] == weight
        assert each["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    pod = job["spec"]["template"]["spec"]
    volume = next(volume["configMap"] for volume in pod["volumes"] if volume["name"] == "sql-temporal")
    assert volume["name"] == sql["metadata"]["name"]
    assert {item["path"] for item in volume["items"]} == {"v1.0/manifest.json", "v1.0/schema.sql"}
    assert {item["key"] for item in volume["items"]} == sql["data"].keys()
    assert variables(pod["containers"][0])["TEMPORAL_SQL"]["value"] == "/sql/temporal"
    assert "VISIBILITY_SQL" not in variables(pod["containers"][0])


@pytest.mark.parametrize("values", [INTERNAL, EXTERNAL], ids=["internal", "external"])
def test_every_pod_meets_the_restricted_standard_with_a_read_only_root(values: Values) -> None:
    for name, pod in pods(render(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] in (999, 1000), name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert {frozenset(volume) - {"name"} for volume in pod.get("volumes", [])} <= {
            frozenset({kind}) for kind in ("emptyDir", "configMap", "secret")
        }, name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, container["name"])
            assert container["resources"]["requests"], (name, container["name"])


@pytest.mark.parametrize("release", ["backend", "b" * 41, "c" * 53, "my.release", "123", "true"])
def test_any_release_name_gives_legal_names(release: str) -> None:
    objects = render(INTERNAL, release=release)
    names = [each["metadata"]["name"] for each in objects]
    plain = re.fullmatch("[a-z][-a-z0-9]*", release)
    for each in objects:
        name = each["metadata"]["name"]
        assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name), name
        assert len(name) <= (52 if each["kind"] == "StatefulSet" else 63), name
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == release
    assert len(names) == len({(each["kind"], each["metadata"]["name"]) for each in objects})
    if plain and len(release) <= 41:
        assert f"{release}-postgresql" in names
        assert release in names


def test_long_release_names_that_begin_alike_stay_apart() -> None:
    def names(release: str) -> set[str]:
        return {each["metadata"]["name"] for each in render(INTERNAL, release=release)}

    assert not names("d" * 52 + "a") & names("d" * 52 + "b")


def test_services_find_pods_and_the_backend_finds_services() -> None:
    objects = render(INTERNAL)
    templates = [each["spec"]["template"] for each in objects if each["kind"] in ("Deployment", "StatefulSet")]
    for service in (each for each in objects if each["kind"] == "Service"):
        chosen = [
            template
            for template in templates
            if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        ]
        assert len(chosen) == 1, service["metadata"]["name"]
        ports = {port["name"] for port in chosen[0]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    services = {each["metadata"]["name"] for each in objects if each["kind"] == "Service"}
    backend = variables(one(objects, "Deployment", "backend")["spec"]["template"]["spec"]["containers"][0])
    assert backend["TEMPORAL_ADDRESS"]["value"].removesuffix(":7233") in services
    assert backend["DATABASE_HOST"]["value"] in services
    assert backend["DATABASE_NAME"]["value"] == "backend"


def test_backend_without_temporal_knows_nothing_of_it_and_shares_the_external_database() -> None:
    off = variables(one(render(OFF), "Deployment", "backend")["spec"]["template"]["spec"]["containers"][0])
    assert not [name for name in off if name.startswith("TEMPORAL")]
    external = variables(one(render(EXTERNAL), "Deployment", "backend")["spec"]["template"]["spec"]["containers"][0])
    assert (external["DATABASE_NAME"]["value"], external["DATABASE_SCHEMA"]["value"]) == ("temporal", "backend")


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        ({}, "devenv.local", "devenv.local/backend:0.1.0"),
        ({}, "", "backend:0.1.0"),
        ({"repository": "acme/shop", "tag": "7"}, "mirror.example:5000", "mirror.example:5000/acme/shop:7"),
        ({"repository": "ghcr.io/acme/shop", "tag": "7"}, "devenv.local", "ghcr.io/acme/shop:7"),
        ({"registry": "docker.io", "repository": "acme/shop", "tag": "7"}, "devenv.local", "docker.io/acme/shop:7"),
        ({"tag": None, "digest": f"sha256:{'a' * 64}"}, "devenv.local", f"devenv.local/backend@sha256:{'a' * 64}"),
    ],
)
def test_image_references(image: Values, registry: str | None, expected: str) -> None:
    values = merged(OFF, at("backend.image", image), at("global.imageRegistry", registry))
    values = merged(values, at("global.imagePullSecrets", ["one", {"name": "two"}]))
    pod = one(render(values), "Deployment", "backend")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == expected
    assert pod["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


def test_placement_reaches_all_of_temporal_and_only_that() -> None:
    tolerations = [{"key": "temporal", "operator": "Exists"}]
    wish = {"nodeSelector": {"pool": "temporal"}, "tolerations": tolerations}
    objects = render(merged(INTERNAL, at("global.temporal", wish)))
    for name, pod in pods(objects):
        placed = pod.get("nodeSelector") == {"pool": "temporal"} and pod.get("tolerations") == tolerations
        assert placed == ("-temporal-" in name), name


def test_probes_ask_for_the_health_of_the_right_service() -> None:
    objects = render(merged(INTERNAL, at("backend.temporal.server.config.numHistoryShards", 512)))
    asked = {component: server(objects, component)["readinessProbe"]["grpc"] for component in SERVICES}
    prefix = "temporal.api.workflowservice.v1."
    assert asked == {
        "frontend": {"port": 7233, "service": f"{prefix}WorkflowService"},
        "history": {"port": 7234, "service": f"{prefix}HistoryService"},
        "matching": {"port": 7235, "service": f"{prefix}MatchingService"},
        "worker": {"port": 7239, "service": f"{prefix}WorkerService"},
    }
    for component, service in config(objects)["services"].items():
        assert service["rpc"]["grpcPort"] == asked[component]["port"]


def test_the_database_is_asked_each_second_until_it_opens_and_never_ended_for_being_slow() -> None:
    container = one(render(INTERNAL), "StatefulSet", "backend-postgresql")["spec"]["template"]["spec"]["containers"][0]
    startup, readiness = container["startupProbe"], container["readinessProbe"]
    assert startup["exec"] == readiness["exec"]
    assert (startup["periodSeconds"], readiness["periodSeconds"]) == (1, 3)
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 24 * 3600
    assert "livenessProbe" not in container


def test_a_schema_job_is_not_tried_again_where_that_mends_nothing_nor_counted_where_its_pod_was_put_out() -> None:
    ignored, failing = one(render(INTERNAL), "Job", "backend-temporal-schema-setup-.*")["spec"]["podFailurePolicy"][
        "rules"
    ]
    assert (ignored["action"], ignored["onPodConditions"]) == ("Ignore", [{"type": "DisruptionTarget"}])
    [code] = failing["onExitCodes"]["values"]
    assert f"\n  exit {code}\n" in (SCRIPTS / "schema-setup.sh").read_text()


@pytest.mark.parametrize(
    ("shards", "replicas", "named"), [(None, 1, False), (64, 1, True), (64, 2, False), (512, 15, True)]
)
def test_history_waits_for_shards_where_it_is_sure_to_get_one(shards: int | None, replicas: int, named: bool) -> None:
    """Beside another one it may own none of a few: by name it would then never be healthy."""
    config = {"numHistoryShards": shards} if shards else {}
    values = merged(INTERNAL, at("backend.temporal.server.config", config))
    values = merged(values, at("backend.temporal.server.history.replicaCount", replicas))
    probe = server(render(values), "history")["readinessProbe"]["grpc"]
    assert ("service" in probe) is named


def test_a_changed_configuration_restarts_the_servers_and_a_dynamic_one_does_not() -> None:
    def sums(changes: Values) -> set[str]:
        objects = render(merged(INTERNAL, changes))
        templates = [one(objects, "Deployment", f"backend-temporal-{name}")["spec"]["template"] for name in SERVICES]
        return {template["metadata"]["annotations"]["checksum/config"] for template in templates}

    assert len(sums({})) == 1
    assert sums(at("backend.temporal.server.dynamicConfig", {"limit.maxIDLength": [{"value": 255}]})) == sums({})
    assert sums(at("backend.temporal.server.config.logLevel", "debug")) != sums({})


def test_everything_fits_a_laptop() -> None:
    cpu = memory = 0
    for _, pod in pods(render(INTERNAL)):
        for container in pod["containers"]:
            requests = container["resources"]["requests"]
            cpu += int(requests["cpu"].removesuffix("m"))
            memory += int(requests["memory"].removesuffix("Mi"))
    assert cpu <= 500
    assert memory <= 1200


def test_production_requests_what_the_seed_says() -> None:
    profile = yaml.safe_load((paths.PROJECT / "profiles/production.yaml").read_text())
    objects = render(merged(EXTERNAL, profile["values"]))
    lasting = [each for each in objects if each["kind"] != "Job"]
    coming = [one for one in capacity.coming(lasting, {}) if "-temporal-" in one.name]
    assert len(coming) == 10
    assert sum(one.wants.cpu for one in coming) == pytest.approx(8.5)
    assert sum(one.wants.memory for one in coming) == pytest.approx(8.5e9)
    assert config(objects)["persistence"]["numHistoryShards"] == 512


def test_data_outlives_the_release() -> None:
    database = one(render(INTERNAL), "StatefulSet", "backend-postgresql")
    assert database["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = database["spec"]["volumeClaimTemplates"][0]
    assert "storageClassName" not in claim["spec"]
    assert "labels" not in claim["metadata"]
    assert not [each for each in render(INTERNAL) if each["kind"] == "Secret"]


@pytest.mark.parametrize("script", sorted(CHART.rglob("scripts/*.sh")), ids=lambda path: path.name)
def test_scripts_are_plain_shell_and_never_trace(script: Path) -> None:
    assert shell.run(["sh", "-n", script]).code == 0
    assert "set -eu" in script.read_text() or script.name in ("schema-setup.sh", "wait-for-schema.sh")
    assert not re.search(r"set -\w*x|--password|\[\[", script.read_text())


@pytest.mark.parametrize(
    ("have", "need", "enough"),
    [("1.19", "1.19", True), ("1.9", "1.19", False), ("1.20", "1.19", True), ("2.0", "1.19", True), ("", "1.0", False)],
)
def test_versions_are_compared_as_numbers(have: str, need: str, enough: bool) -> None:
    script = f"{(SCRIPTS / 'versions.sh').read_text()}\nat_least '{have}' '{need}'"
    assert (shell.run(["sh", "-c", script]).code == 0) == enough


def test_what_reads_the_external_secret_starts_anew_with_its_version_and_nothing_else_does() -> None:
    values = copy.deepcopy(EXTERNAL)
    values["backend"]["temporalConfig"]["postgres"]["secret"]["version"] = "7"

    def marked(objects: list[Object]) -> set[str]:
        templates = {one["metadata"]["name"]: one["spec"]["template"] for one in objects if one["kind"] == "Deployment"}
        marks = {name: template["metadata"].get("annotations") or {} for name, template in templates.items()}
        return {name for name, found in marks.items() if found.get("devenv/secret-version") == "7"}

    assert marked(render(values)) == {"backend", *(f"backend-temporal-{service}" for service in SERVICES)}
    assert marked(render(EXTERNAL)) == set()
    assert (
        marked(
            render({**values, "global": INTERNAL["global"], "backend": {**values["backend"], **INTERNAL["backend"]}})
        )
        == set()
    )
