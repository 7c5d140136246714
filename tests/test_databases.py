"""Which databases a release needs, and what is wrong with those that are there."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from devenv import ask, database, databases, environment
from devenv.clients.postgres import Postgres
from devenv.databases import Database, Wanted
from devenv.errors import Refused, StepFailed
from devenv.report import Screen
from devenv.settings import Flags

STORE = Wanted("temporal", "temporal", "1.19", "devenv/backend")

STATES: dict[str, tuple[Database, str]] = {
    "as it should be": (Database(STORE, True, "1.19", "devenv/backend"), "ok"),
    "newer than needed": (Database(STORE, True, "1.20", "devenv/backend"), "ok"),
    "not marked": (Database(STORE, True, "1.19", ""), "ok"),
    "not there": (Database(STORE, False), "missing"),
    "empty": (Database(STORE, True, "", "devenv/backend"), "no schema"),
    "older, by number and not by letter": (
        Database(STORE, True, "1.9", "devenv/backend"),
        "older than the server needs",
    ),
    "somebody else's": (Database(STORE, True, "1.19", "other/backend"), "belongs to other/backend"),
    "kept while Temporal is off": (Database(Wanted("temporal", "temporal"), True, "1.2", ""), "ok"),
    "the backend's": (Database(Wanted("backend", "backend"), True), "ok"),
}


@pytest.mark.parametrize(("found", "state"), STATES.values(), ids=STATES.keys())
def test_state(found: Database, state: str) -> None:
    assert found.state == state
    assert found.record()["state"] == state


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [("1.9", "1.10", True), ("1.10", "1.9", False), ("1.19", "1.19", False), ("1.19", "2.0", True)],
)
def test_versions_are_numbers(version: str, than: str, older: bool) -> None:
    assert databases.older(version, than) is older


def workload(kind: str, container: str, component: str = "", *, init: str = "", **env: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in env.items()]
    entries.append({"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}})
    pod = {"initContainers" if init else "containers": [{"name": container, "env": entries}]}
    labels = {"app.kubernetes.io/component": component}
    return {"kind": kind, "metadata": {"name": "x", "labels": labels}, "spec": {"template": {"spec": pod}}}


NEEDS = {
    "TEMPORAL_STORE_DATABASE": "t", "TEMPORAL_VISIBILITY_DATABASE": "t_visibility",
    "TEMPORAL_REQUIRES": "1.19", "VISIBILITY_REQUIRES": "1.14",
}  # fmt: skip
MANIFEST = [
    {"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": []}},
    {"kind": "ConfigMap", "metadata": {"name": "c"}},
    workload("Deployment", "wait-for-schema", init="yes", **NEEDS),
    workload("Job", "schema", "schema", OWNER="n/r", **NEEDS),
    workload("Deployment", "backend", DATABASE_NAME="rows"),
]


def test_a_release_says_by_itself_what_it_needs() -> None:
    assert databases.wanted(MANIFEST, "temporal", "devenv/backend") == (
        Wanted("temporal", "t", "1.19", "n/r"),
        Wanted("visibility", "t_visibility", "1.14", "n/r"),
        Wanted("backend", "rows"),
    )
    assert databases.requires(MANIFEST) == ("1.19", "1.14")
    assert databases.schema_job(MANIFEST) == MANIFEST[3]


def test_where_temporal_is_off_its_kept_databases_are_shown_and_asked_for_nothing() -> None:
    off = [workload("Deployment", "backend", DATABASE_NAME="backend")]
    assert databases.wanted(off, "temporal", "o")[1] == Wanted("visibility", "temporal_visibility", "", "o")
    assert databases.requires(off) == ("", "")
    assert databases.schema_job(off) is None


def test_an_answer_is_read_line_by_line() -> None:
    wanted = databases.wanted(MANIFEST, "temporal", "n/r")
    lines = [
        {"version": "18.6", "limit": 300, "used": 4},
        {"name": "t", "bytes": 9, "mark": "devenv owner: n/r", "connections": 3},
        {"name": "t", "schema": "1.19"},
        {"name": "rows", "bytes": 7, "mark": "a note of somebody's", "connections": 1},
    ]
    server, (store, visibility, backend) = databases.answer(wanted, "\n".join(json.dumps(line) for line in lines))
    assert (server.version, server.used, server.limit) == ("18.6", 4, 300)
    assert (store.state, store.mark, store.bytes, store.connections) == ("ok", "n/r", 9, 3)
    assert visibility.state == "missing"
    assert (backend.there, backend.mark) == (True, "")


def test_names_are_quoted_wherever_they_go() -> None:
    odd = Wanted("temporal", "a'b\"c", owner="n/r's")
    assert "datname = 'a''b\"c'" in databases.question([odd])
    assert '\\connect "a\'b""c"' in databases.question([odd])
    assert databases.creation([odd]) == (
        'CREATE DATABASE "a\'b""c";\nCOMMENT ON DATABASE "a\'b""c" IS \'devenv owner: n/r\'\'s\';'
    )
    assert databases.removal(["t"]) == 'DROP DATABASE IF EXISTS "t" WITH (FORCE);'


def fake(folder: Path, script: str) -> Postgres:
    """An executable `kubectl` that writes down how it was called, then does as the script says."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/argv"\ncat > "{folder}/stdin"\n{script}\n')
    program.chmod(0o755)
    return Postgres((program, "--namespace", "n"), "backend-postgresql-0")


def test_sql_goes_by_standard_input(tmp_path: Path) -> None:
    assert fake(tmp_path, "echo 1").run("SELECT 1;", "temporal") == "1"
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[:6] == ["--namespace", "n", "exec", "-i", "backend-postgresql-0", "-c"]
    assert argv[-2:] == ["-d", "temporal"]
    assert (tmp_path / "stdin").read_text() == "SELECT 1;\n"


def test_an_error_is_postgresqls_own(tmp_path: Path) -> None:
    said = 'ERROR:  database \\"x\\" does not exist\ncommand terminated with exit code 3'
    with pytest.raises(StepFailed) as failed:
        fake(tmp_path, f'printf "{said}" >&2; exit 3').run("DROP DATABASE x;")
    assert failed.value.why == 'ERROR:  database "x" does not exist'


OPENS: dict[str, tuple[str, bool | None]] = {
    "yes": ("echo 1", True),
    "no": ("echo 'FATAL:  password authentication failed for user \"postgres\"' >&2; exit 2", False),
    "no pod": ("echo 'Error from server (NotFound): pods not found' >&2; exit 1", None),
    "still starting": ("echo 'FATAL:  the database system is starting up' >&2; exit 2", None),
}


FINDS: dict[str, tuple[str, bool | None]] = {
    "yes": ("echo 'psql: error: connection to server at \"x\" (10.0.0.1), port 443 failed: no' >&2; exit 2", True),
    "no": ("echo 'psql: error: could not translate host name \"x\" to address' >&2; exit 2", False),
    "no answer": ("exec sleep 60", False),
    "no pod": ("echo 'Error from server (NotFound): pods not found' >&2; exit 1", None),
}


@pytest.mark.parametrize(("script", "finds"), FINDS.values(), ids=FINDS.keys())
def test_a_name_is_looked_up_from_the_pod(tmp_path: Path, script: str, finds: bool | None) -> None:
    assert fake(tmp_path, script).finds("x", timeout=1) is finds


@pytest.mark.parametrize(("script", "opens"), OPENS.values(), ids=OPENS.keys())
def test_a_password_is_tried_without_being_shown(tmp_path: Path, script: str, opens: bool | None) -> None:
    assert fake(tmp_path, script).opens("postgres", "hunter22") is opens
    assert "hunter22" not in (tmp_path / "argv").read_text()
    assert (tmp_path / "stdin").read_text().startswith("hunter22\n")


def test_an_external_database_is_nothing_to_drop() -> None:
    external = environment.describe(Flags(profile="production")).desired
    with pytest.raises(Refused) as refused:
        database.check_internal(external)
    assert "internal PostgreSQL only" in refused.value.why


def test_without_a_terminal_nothing_is_dropped_unless_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(plain=True, color=False, stream=io.StringIO())
    ask.confirm(screen, "Go on?", yes=True, where="here", command="inv db.reset")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Refused) as refused:
        ask.confirm(screen, "Go on?", yes=False, where="here", command="inv db.reset")
    assert refused.value.next == "inv db.reset --yes"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "goes_on"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_on_a_terminal_only_a_yes_goes_on(monkeypatch: pytest.MonkeyPatch, typed: str, goes_on: bool) -> None:
    screen = Screen(plain=True, color=False, stream=io.StringIO())
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr", Terminal())
    if goes_on:
        ask.confirm(screen, "Go on?", yes=False, where="here", command="inv db.reset")
        return
    with pytest.raises(Refused):
        ask.confirm(screen, "Go on?", yes=False, where="here", command="inv db.reset")


def server(shards: str, store: str = "1.19", visibility: str = "1.14", database: str = "t") -> list[dict[str, Any]]:
    config = {"config.yaml": f"persistence:\n  numHistoryShards: {shards}\n"}
    needs = {
        **NEEDS,
        "TEMPORAL_REQUIRES": store,
        "VISIBILITY_REQUIRES": visibility,
        "TEMPORAL_STORE_DATABASE": database,
    }
    return [
        {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": config},
        workload("Deployment", "wait-for-schema", init="yes", **needs),
    ]


BOUND: dict[str, tuple[list[dict[str, Any]], str]] = {
    "the same": (server("4"), ""),
    "other shards": (server("512"), "numHistoryShards is 4 for the life of the database, not 512"),
    "other shards on another database": (server("512", database="u"), ""),
    "a newer server": (server("4", "1.20"), ""),
    "an older server": (
        server("4", "1.9"),
        "the schema for temporal is 1.19, and the server only knows 1.9: a downgrade",
    ),
    "an older server's other schema": (server("4", "1.19", "1.13"), "the schema for visibility is 1.14"),
    "an older server on another database": (server("4", "1.9", database="u"), ""),
    "no Temporal any more": ([], ""),
}


@pytest.mark.parametrize(("after", "told"), BOUND.values(), ids=BOUND.keys())
def test_a_database_does_not_let_change(after: list[dict[str, Any]], told: str) -> None:
    before = server("4")
    found = (*databases.fixed(before, after), *databases.downgraded(before, after))
    assert (found[0] if found else "").startswith(told) if told else not found
