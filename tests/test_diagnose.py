"""Log lines become causes."""

from __future__ import annotations

import pytest

from devenv import diagnose

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
    "dial tcp: lookup db.nowhere: no such host": "the database's host name cannot be resolved",
    "FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute": "PostgreSQL has no connection left",
    "could not write: No space left on device": "the volume is full",
    "exec /app: exec format error": "the image is for another processor",
}


@pytest.mark.parametrize(("line", "cause"), LINES.items(), ids=LINES.values())
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
