"""Log lines become causes."""

from __future__ import annotations

import json
import re

import pytest

from devenv import diagnose, objections, paths

SCHEMA = (
    '{"level":"fatal","ts":"2026-01-01T00:00:00Z","msg":"Unable to start server","error":"sql schema version compatibility '
    'check failed: version mismatch for keyspace/database: \\"temporal\\". Expected version: 1.19 cannot be greater than '
    'Actual version: 1.18"}'
)
LINES = {
    SCHEMA: "the schema is older than the server",
    'FATAL:  password authentication failed for user "postgres"': "PostgreSQL refuses the password",
    'no pg_hba.conf entry for host "10.0.0.1", user "x", database "y", no encryption': "PostgreSQL wants TLS, which is off",
    "pq: SSL is not enabled on the server": "TLS is on, but PostgreSQL has none",
    "tls: failed to verify certificate: x509: certificate signed by unknown authority": "the CA of PostgreSQL's certificate is not known",
    "pq: permission denied to create database": "the role may not create databases",
    'pq: database "temporal" does not exist': "the database is not there",
    "dial tcp: lookup db.nowhere: no such host": "a host's name is not known",
    "socket.gaierror: [Errno -2] Name or service not known": "a host's name is not known",
    "socket.gaierror: [Errno -3] Temporary failure in name resolution": "the cluster's DNS does not answer",
    'psql: error: could not translate host name "db" to address: Temporary failure in name resolution': "the cluster's DNS does not answer",
    "dial tcp: lookup db on 10.96.0.10:53: read udp 10.0.0.1:4->10.96.0.10:53: i/o timeout": "the cluster's DNS does not answer",
    "temporal-server: configuration: Persistence.NumHistoryShards: zero value": "Temporal's configuration is wrong",
    "Unable to load configuration: config file corrupted: yaml: line 1": "Temporal's configuration is wrong",
    "FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute": "PostgreSQL has no connection left",
    "could not write: No space left on device": "the volume is full",
    "exec /app: exec format error": "the image is for another processor",
    "schema: no Temporal ever ran on database cut; its first migration was cut off after schema 0.0, with 24 tables. Make it "
    'anew, and deploy again: DROP DATABASE "cut"; CREATE DATABASE "cut" OWNER "app"': "a first migration was cut off",
    "schema: database t was restored under another name, so its": "the schema's version is under another name",
    "schema: database t belongs to a/b, not to c/d; name": "the database is another release's",
    "schema: a Temporal that is not known to be c/d works on database t, at 10.1.2.3": "the database is another release's",
    "schema: database t was begun with numHistoryShards 4, for": "the number of shards is fixed for the life of the database",
    "schema: database t has schema 1.20, which a newer server brought; this one knows 1.19, and a downgrade is refused: deploy": "the schema is newer than the server",
}


@pytest.mark.parametrize(("line", "cause"), LINES.items(), ids=range(len(LINES)))
def test_a_known_line_is_understood(line: str, cause: str) -> None:
    assert diagnose.explain(["starting", line, "bye"]).cause == cause


def test_temporals_json_is_read() -> None:
    assert diagnose.explain([SCHEMA]).line.startswith("Unable to start server: sql schema version")


def test_of_an_unknown_program_the_last_line_that_looks_like_an_error_is_shown() -> None:
    told = diagnose.explain(["ok", "Error: cannot open /data", "shutting down"])
    assert (told.line, told.cause) == ("Error: cannot open /data", "")


def test_else_the_last_line() -> None:
    assert diagnose.explain(["one", "two", ""]).line == "two"
    assert diagnose.explain([]).line == ""


def test_what_the_schema_job_says_itself_explains_more_than_its_tools_error() -> None:
    tool = 'Unable to update SQL schema. {"error": "pq: permission denied for schema public"}'
    told = diagnose.explain([tool, "schema: no Temporal ever ran on database x; its first migration was cut off …"])
    assert told.cause == "a first migration was cut off"


def test_every_value_that_a_hint_sets_is_one_that_the_chart_knows() -> None:
    known = json.loads((paths.PACKAGE / "charts/environment/values.schema.json").read_text())
    hints = " ".join(each.hint for each in diagnose.KNOWN) + " ".join(next for _, _, next in objections.SAID)
    named = {*re.findall(r"--set ([\w.]+)=", hints), *re.findall(r"--set ([\w.]+)=", objections.ANOTHER)}
    assert named
    for name in named:
        place = known
        for part in name.split("."):
            place = known["$defs"][place["$ref"].rpartition("/")[2]] if "$ref" in place else place
            assert part in place["properties"], name
            place = place["properties"][part]


CHAIN = 'temporal-server: could not build arguments for function "go.uber.org/fx".(*module).install: ' * 8


def test_of_a_long_line_the_part_that_explains_is_shown() -> None:
    known = diagnose.explain([CHAIN + 'config validation error: "history" service is missing in config'])
    assert known.cause == "Temporal's configuration is wrong"
    assert known.line.endswith('config validation error: "history" service is missing in config')
    unknown = diagnose.explain([f"Error: first {CHAIN}last"])
    assert unknown.line.startswith("Error: first")
    assert unknown.line.endswith("last")


def test_a_line_that_ends_with_a_colon_is_finished_by_the_next() -> None:
    told = diagnose.explain(["temporal-server: configuration: unmarshal errors:", "  line 2: cannot unmarshal `soon`"])
    assert told.line == "temporal-server: configuration: unmarshal errors: line 2: cannot unmarshal `soon`"


MENDS = {
    'secret "nope" not found': "mend the name, or: inv kubectl -- create secret generic nope --from-literal=KEY=…",
    "couldn't find key a in Secret n/there": "mend the key's name, or add a",
    'storageclass.storage.k8s.io "nope" not found': "inv kubectl -- get storageclass   (those that there are)",
    'pods "x" is forbidden: exceeded quota: none, requested: pods=1': "inv kubectl -- describe resourcequota none",
    "forbidden: maximum cpu usage per Container is 100m": "inv kubectl -- describe limitrange",
    'failed calling webhook "down.test": no endpoints': "bring back what serves the webhook down.test, or delete its configuration",
    "crashed 3 times, killed for using more memory than its limit (OOMKilled)": "raise its memory limit",
    "0/1 nodes are available: 1 Insufficient cpu.": "inv kubectl -- describe nodes   (or smaller requests)",
    "whatever else": "",
}


@pytest.mark.parametrize(("why", "hint"), MENDS.items(), ids=MENDS.keys())
def test_what_kubernetes_says_is_mended_by(why: str, hint: str) -> None:
    assert diagnose.mend(why) == hint
