"""What an external PostgreSQL is asked, read off the rendered chart, and the one cause that its answer names."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from devenv import objections, preflight
from devenv.preflight import Question
from tests.test_environment_chart import EXTERNAL, render

TEXTS = {"Secret/managed": {"host": "db.example.com", "password": "hunter22", "ca.crt": "PEM"}}
VALUES = {**EXTERNAL, "backend": {"temporalConfig": {"postgres": {"secret": {"name": "managed"}}}}}
QUESTION = Question(
    {
        "PGHOST": "db.example.com",
        "PGPORT": "5432",
        "PGUSER": "app",
        "PGPASSWORD": "it's $HOME \\ `x`\nand more",
        "PGSSLMODE": "require",
    },
    "PEM",
    ("temporal", "temporal_visibility"),
    "postgres",
    "devenv/backend",
    60,
    "other/mine",
    ("1.19", "1.14"),
    "4",
)


def asked(values: dict[str, Any], texts: dict[str, dict[str, str]] = TEXTS) -> Question:
    found = preflight.question(render(values), texts, "devenv/managed")
    assert found is not None
    return found


def test_all_of_the_question_comes_from_the_rendered_schema_job() -> None:
    question = asked(VALUES)
    assert question.env == {
        "PGHOST": "db.example.com",
        "PGPORT": "5432",
        "PGUSER": "postgres",
        "PGPASSWORD": "hunter22",
        "PGSSLMODE": "require",
    }
    assert question.databases == ("temporal", "temporal_visibility")
    assert (question.admin, question.need) == ("postgres", 4 * (10 + 5))
    assert (question.schemas, question.shards) == (("1.19", "1.14"), "4")
    assert question.where == "PostgreSQL at db.example.com:5432, from devenv/managed"


def test_hosts_by_value_replicas_pools_and_the_ca_count() -> None:
    postgres = {"host": "pg.internal", "port": 6432, "username": "app", "database": "wf", "secret": {"name": "managed"}}
    postgres |= {"tls": {"mode": "verify-full", "caSecret": {"name": "ca"}}}
    server = {"replicaCount": 2, "history": {"replicaCount": 3}, "config": {"maxConns": 3, "visibilityMaxConns": 2}}
    values = {**EXTERNAL, "backend": {"temporalConfig": {"postgres": postgres}, "temporal": {"server": server}}}
    objects = render(values)
    job = next(one for one in objects if one["kind"] == "Job")
    assert preflight.sources(job) == {"Secret/managed", "Secret/ca"}
    question = asked(values, {**TEXTS, "Secret/ca": {"ca.crt": "OTHER PEM"}})
    assert (question.env["PGHOST"], question.env["PGPORT"], question.env["PGUSER"]) == ("pg.internal", "6432", "app")
    assert (question.ca, question.databases) == ("OTHER PEM", ("wf", "wf_visibility"))
    assert question.need == (2 + 3 + 2 + 2) * 5


def test_the_ca_may_be_in_a_config_map() -> None:
    tls = {"mode": "verify-full", "caConfigMap": {"name": "bundle", "key": "root.pem"}}
    values = {**EXTERNAL, "backend": {"temporalConfig": {"postgres": {"secret": {"name": "managed"}, "tls": tls}}}}
    job = next(one for one in render(values) if one["kind"] == "Job")
    assert preflight.sources(job) == {"Secret/managed", "ConfigMap/bundle"}
    assert asked(values, {**TEXTS, "ConfigMap/bundle": {"root.pem": "BUNDLE"}}).ca == "BUNDLE"


def test_without_a_schema_job_nothing_is_asked() -> None:
    assert preflight.question([], {}, "a/b") is None


def test_the_pod_is_as_confined_as_the_job_and_holds_no_secret() -> None:
    job = next(one for one in render(VALUES) if one["kind"] == "Job")
    pod = preflight.pod(job, "backend-preflight-1", 120)
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    [container] = spec["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["image"] == "devenv.local/postgres:18.6"
    assert "env" not in container
    assert spec["activeDeadlineSeconds"] == 120


def test_the_script_quotes_what_a_shell_would_read_into() -> None:
    script = preflight.script(QUESTION)
    assert f"export PGPASSWORD={shlex.quote(QUESTION.env['PGPASSWORD'])}" in script
    assert "PGSSLROOTCERT" not in script
    verifying = QUESTION._replace(env={**QUESTION.env, "PGSSLMODE": "verify-full"})
    assert "export PGSSLROOTCERT=/tmp/ca.crt" in preflight.script(verifying)


def test_what_is_remembered_tells_questions_apart_and_is_made_of_nothing_secret() -> None:
    key = QUESTION.key("v1")
    assert key == QUESTION._replace(env={**QUESTION.env, "PGPASSWORD": "another"}).key("v1")
    others = (
        QUESTION.key("v2"),
        QUESTION._replace(need=61).key("v1"),
        QUESTION._replace(ca="x").key("v1"),
        QUESTION._replace(schemas=("1.20", "1.14")).key("v1"),
        QUESTION._replace(shards="512").key("v1"),
        QUESTION._replace(env={**QUESTION.env, "PGSSLMODE": "disable"}).key("v1"),
    )
    assert len({key, *others}) == 7


SERVER: dict[str, Any] = {"of": "server", "number": 180006, "version": "18.6", "limit": 100, "reserved": 3}
SERVER |= {"others": 5, "gin": True, "createdb": True, "role_limit": -1}
INSIDE: dict[str, Any] = {
    "of": "inside",
    "tables": True,
    "schemas": True,
    "started": True,
    "readable": True,
}
OURS = "devenv owner: devenv/backend"


def database(name: str, **changes: Any) -> dict[str, Any]:
    return {"of": "database", "name": name, "owner": "app", "mark": "", "limit": -1, **changes}


def answer(**parts: list[Any] | str) -> str:
    """What the script prints: records, or an error, of each database that is asked."""
    lines = []
    for name, part in parts.items():
        lines.append(f"in {name}")
        if isinstance(part, str):
            lines += [part, "failed"]
        else:
            lines += [json.dumps(record) for record in part]
    return "\n".join(lines) + "\n"


AT = 'psql: error: connection to server at "db.example.com" (10.0.0.7), port 5432 failed: '
NONE_THERE = {
    "store": f'{AT}FATAL:  database "temporal" does not exist',
    "visibility": f'{AT}FATAL:  database "temporal_visibility" does not exist',
}
BOTH = [database("temporal"), database("temporal_visibility")]


def good(server: dict[str, Any] | None = None, databases: list[Any] | None = None, **inside: Any) -> str:
    there = BOTH if databases is None else databases
    return answer(
        admin=[{**SERVER, **(server or {})}, *there],
        store=[{**INSIDE, "name": "temporal", **inside}],
        visibility=[{**INSIDE, "name": "temporal_visibility", **inside}],
    )


def schema(version: str, **more: Any) -> dict[str, Any]:
    return {"of": "schema", "version": version, "other": None, "mark": "", "tables": 2, "migrating": False, **more}


def inside(store: list[Any], visibility: list[Any] | None = None) -> str:
    """Both databases are there, and hold these records."""
    return answer(
        admin=[SERVER, *BOTH],
        store=[{**INSIDE, "name": "temporal"}, *store],
        visibility=[{**INSIDE, "name": "temporal_visibility"}, *(visibility or [])],
    )


LIVE = {"of": "live", "at": "10.1.2.3"}
SERVES: dict[str, str] = {
    "both databases are there": good(),
    "neither is, and the role may make them": answer(admin=[SERVER], **NONE_THERE),
    "they are there, and the role could not make them": good({"createdb": False}),
    "they are there, and there is no database to look in": answer(
        admin=f'{AT}FATAL:  database "postgres" does not exist',
        instead=[SERVER, *BOTH],
        store=[{**INSIDE, "name": "temporal"}],
        visibility=[{**INSIDE, "name": "temporal_visibility"}],
    ),
    "they are empty, and the role's own": good(started=False),
    "they are marked as ours": good(databases=[database("temporal", mark=OURS), database("temporal_visibility")]),
    "just enough connections": good({"limit": 68}),
    "an older schema, to be migrated": inside([schema("1.9")], [schema("1.2")]),
    "a schema that was set up and no more": inside([schema("0.0")]),
    "a first migration that is under way": inside([schema("0.0", tables=12, migrating=True), {"of": "begun"}]),
    "a first migration that can go on": inside([schema("0.0", tables=9)]),
    "as many shards as it was begun with": inside([schema("1.19"), {"of": "recorded", "shards": 4}]),
    "our own servers work there, marked at a table": inside([schema("1.19", mark=OURS), LIVE]),
}


@pytest.mark.parametrize("text", SERVES.values(), ids=SERVES.keys())
def test_it_serves_where(text: str) -> None:
    assert objections.objection(QUESTION, text) is None


SAID: dict[str, tuple[str, str]] = {
    'psql: error: could not translate host name "db" to address: Name or service not known': (
        "host of the database is unknown",
        "NAME.NAMESPACE.svc",
    ),
    f"{AT}Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?": ("listens", ""),
    f"{AT}timeout expired": ("does not answer", "NetworkPolicy"),
    f'{AT}FATAL:  password authentication failed for user "app"': ("password does not open", "Secret"),
    f'{AT}FATAL:  role "app" is not permitted to log in': ("cannot log in", "username"),
    'psql: error: sslmode value "require" invalid when SSL support is not compiled in': ("cannot speak TLS", "image"),
    f"{AT}server does not support SSL, but SSL was required": ("refuses TLS", "tls.mode=off"),
    f'{AT}FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "app", database "postgres", no encryption': (
        "demands TLS",
        "tls.mode=require",
    ),
    f'{AT}FATAL:  pg_hba.conf rejects connection for host "10.0.0.7", user "app", database "x", SSL encryption': (
        "admits no such",
        "pg_hba.conf",
    ),
    f"{AT}SSL error: certificate verify failed": ("of another CA, or expired", "-connect db.example.com:5432 <"),
    f'{AT}server certificate for "elsewhere" does not match host name "db"': ("for another host", "host"),
    f'{AT}root certificate file "/tmp/ca.crt" does not exist\nEither provide the file or change sslmode.': (
        "no CA",
        "",
    ),
    f'{AT}could not read root certificate file "/tmp/ca.crt": no certificate or crl found': (
        "no CA",
        "tls.mode=require",
    ),
    f'{AT}FATAL:  database "postgres" does not exist': ("no database of that name", "adminDatabase"),
    f'{AT}FATAL:  too many connections for role "app"': ("no connection left", "limit"),
    f"{AT}FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute": (
        "no connection",
        "",
    ),
    f'{AT}FATAL:  permission denied for database "postgres"': ("may not connect", "GRANT"),
    f"{AT}something nobody thought of": ("cannot be used", ""),
}


@pytest.mark.parametrize(("line", "told"), SAID.items())
def test_what_was_said_is_told_as_what_it_means(line: str, told: tuple[str, str]) -> None:
    found = objections.objection(QUESTION, answer(admin=line, instead=line))
    assert found is not None
    assert told[0] in found.what
    assert told[1] in found.next
    assert line.splitlines()[0].removeprefix("psql: error: ") in found.why


UNTRUSTED = f"{AT}SSL error: certificate verify failed"
TOOL = (
    'Unable to create SQL database. {{"error": "tls: failed to verify certificate: {}", "logging-call-at": "x.go:76"}}'
)
WHY = {
    "x509: certificate has expired or is not yet valid: current time is after 2026-11-22T07:19:00Z": "has expired",
    "x509: certificate signed by unknown authority": "of a CA that is not trusted",
    "something that nobody thought of": "of another CA, or expired",
}


@pytest.mark.parametrize(("told", "what"), WHY.items())
def test_why_a_certificate_did_not_pass_comes_from_temporals_own_tool(told: str, what: str) -> None:
    asked = answer(admin=UNTRUSTED, instead=UNTRUSTED)
    assert objections.doubtful(asked)
    found = objections.objection(QUESTION, asked + answer(certificate=TOOL.format(told)))
    assert found is not None
    assert what in found.what
    assert not objections.doubtful(good())


def test_the_tool_is_asked_for_a_database_that_is_there_so_it_makes_none() -> None:
    script = preflight.tool_script(QUESTION)
    assert "export SQL_DATABASE=postgres\n" in script
    assert "create-database --defaultdb postgres" in script
    assert f"export SQL_PASSWORD={shlex.quote(QUESTION.env['PGPASSWORD'])}" in script


OBJECTIONS: dict[str, tuple[str, str, str]] = {
    "an old server": (good({"number": 110022, "version": "11.22"}), "11.22 is too old", "upgrade"),
    "no right to create": (
        answer(admin=[{**SERVER, "createdb": False}, database("temporal")], **NONE_THERE),
        "may not create databases",
        'CREATE DATABASE "temporal_visibility" OWNER "app"',
    ),
    "no database to create from": (
        answer(admin=f'{AT}FATAL:  database "postgres" does not exist', instead=[SERVER, database("temporal")]),
        "no database of that name",
        "adminDatabase",
    ),
    "another release's": (
        good(databases=[database("temporal", mark="devenv owner: other/backend"), database("temporal_visibility")]),
        "database temporal belongs to other/backend",
        "postgres.database=",
    ),
    "a Temporal that works there": (
        answer(
            admin=[SERVER, *BOTH],
            store=[{**INSIDE, "name": "temporal"}, {"of": "live", "at": "10.1.2.3"}],
            visibility=[{**INSIDE, "name": "temporal_visibility"}],
        ),
        "a Temporal works on database temporal",
        "COMMENT ON DATABASE",
    ),
    "somebody else's, and empty": (
        good(
            databases=[database("temporal", owner="root"), database("temporal_visibility")], tables=False, started=False
        ),
        "database temporal is somebody else's",
        'ALTER DATABASE "temporal" OWNER TO "app", as root',
    ),
    "another release's, marked at a table": (
        inside([schema("1.19", mark="devenv owner: other/backend")]),
        "database temporal belongs to other/backend",
        "postgres.database=",
    ),
    "newer than the server": (
        inside([schema("1.20")]),
        "database temporal is newer than the server",
        "the newer server's image",
    ),
    "newer for visibility": (inside([schema("1.19")], [schema("1.15")]), "temporal_visibility is newer", "image"),
    "begun with other shards": (
        inside([schema("1.19"), {"of": "recorded", "shards": 512}]),
        "begun with other shards",
        "numHistoryShards=512",
    ),
    "a first migration that was cut off": (
        inside([schema("0.0", tables=12), {"of": "begun"}]),
        "the first migration of database temporal was cut off",
        'DROP DATABASE "temporal"; CREATE DATABASE "temporal" OWNER "app"',
    ),
    "restored under another name": (
        inside([schema("", other="prod")]),
        "has no version",
        "SET db_name = 'temporal'",
    ),
    "somebody else's tables, which may not be read": (
        good(readable=False) + "psql:<stdin>:22: ERROR:  permission denied for table schema_version\nfailed\n",
        "database temporal is somebody else's",
        "OWNER TO",
    ),
    "somebody else's tables": (good(readable=False), "database temporal is somebody else's", "OWNER TO"),
    "no way in": (
        answer(
            admin=[SERVER, *BOTH], store=f'{AT}FATAL:  permission denied for database "temporal"', visibility=[INSIDE]
        ),
        "may not connect",
        "GRANT",
    ),
    "no extension": (good({"gin": False}), "no extension btree_gin", "install"),
    "too few connections": (good({"limit": 67}), "may open 60, 59 are free", "maxConns"),
    "too few for the role": (good({"role_limit": 20}), "may open 60, 20 are free", "maxConns"),
    "too few for a database": (
        good(databases=[database("temporal"), database("temporal_visibility", limit=7)]),
        "may open 60, 7 are free",
        "maxConns",
    ),
    "nothing at all": ("", "said nothing", ""),
}


@pytest.mark.parametrize(("text", "what", "next"), OBJECTIONS.values(), ids=OBJECTIONS.keys())
def test_the_one_cause_is_named(text: str, what: str, next: str) -> None:
    found = objections.objection(QUESTION, text)
    assert found is not None
    assert what in found.what
    assert next in found.next
