# mypy: disable-error-code="no-any-return"
"""The table of requests in PostgreSQL. Each function takes the database's settings, opens a connection and closes it.

That costs a few milliseconds and buys the simplest answer to a database that restarts: the next call works again.
psycopg's exceptions stop here; callers see Unusable.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from .errors import Unusable
from .settings import Database


@dataclass(frozen=True)
class Request:
    """A row. `state` is accepted or done; `temporal`: by a workflow; `template`: of the pod that did the work."""

    id: uuid.UUID
    name: str
    state: str
    result: str | None
    temporal: bool
    workflow_id: str | None
    run_id: str | None
    template: str | None
    served_by: str

    def json(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "name": self.name,
            "result": self.result,
            "state": self.state,
            "temporal": self.temporal,
            "workflowId": self.workflow_id,
            "runId": self.run_id,
            "template": self.template,
            "servedBy": self.served_by,
        }


COLUMNS = sql.SQL("id, name, state, result, temporal, workflow_id, run_id, template, served_by")
TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    state text NOT NULL DEFAULT 'accepted' CHECK (state IN ('accepted', 'done')),
    result text,
    temporal boolean NOT NULL,
    workflow_id text,
    run_id text,
    template text,
    served_by text NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
)"""


@contextmanager
def _connect(database: Database, name: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(
            host=database.host,
            port=database.port,
            user=database.user,
            password=database.password,
            dbname=name,
            connect_timeout=3,
            application_name="backend",
            autocommit=True,
        ) as connection:
            yield connection
    except psycopg.Error as error:
        text = str(error).strip() or type(error).__name__
        raise Unusable(f"database {name} at {database.host}:{database.port}: {text}") from error


def _rows(database: Database, statement: str, *values: Any) -> list[Request]:
    query = sql.SQL(statement).format(table=sql.Identifier(database.schema, "requests"), columns=COLUMNS)
    with _connect(database, database.name) as connection:
        return connection.cursor(row_factory=class_row(Request)).execute(query, values).fetchall()


def prepare(database: Database) -> None:
    """Makes database, schema and table where they are missing; safe beside others who do the same."""
    try:
        _make_table(database)
    except Unusable:
        _make_database(database)
        _make_table(database)


def _make_database(database: Database) -> None:
    with _connect(database, database.admin_name) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [database.name]).fetchone():
            return
        with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database.name)))


def _make_table(database: Database) -> None:
    schema, table = sql.Identifier(database.schema), sql.Identifier(database.schema, "requests")
    with _connect(database, database.name) as connection, connection.transaction():
        # IF NOT EXISTS does not keep two at the same time from colliding
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('backend-table'))")
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        connection.execute(sql.SQL(TABLE).format(table=table))


def check(database: Database) -> None:
    """Unusable unless database and table answer."""
    _rows(database, "SELECT {columns} FROM {table} LIMIT 0")


def add(database: Database, name: str, *, temporal: bool, served_by: str) -> Request:
    request_id = uuid.uuid4()
    workflow_id = f"request-{request_id}" if temporal else None
    return _rows(
        database,
        "INSERT INTO {table} (id, name, temporal, workflow_id, served_by)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING {columns}",
        *(request_id, name, temporal, workflow_id, served_by),
    )[0]


def started(database: Database, request_id: uuid.UUID, workflow_id: str, run_id: str) -> None:
    """Notes the workflow that has the request now."""
    _rows(
        database,
        "UPDATE {table} SET temporal = true, workflow_id = %s, run_id = %s WHERE id = %s RETURNING {columns}",
        *(workflow_id, run_id, request_id),
    )


def finish(database: Database, request_id: uuid.UUID, template: str, *, temporal: bool) -> Request | None:
    """Does the request's work, once: whoever comes second gets the first one's row. None if there is no such row."""
    done = _rows(
        database,
        "UPDATE {table} SET state = 'done', result = 'Hello, ' || name || '!', temporal = %s, template = %s,"
        " finished_at = now() WHERE id = %s AND state = 'accepted' RETURNING {columns}",
        *(temporal, template, request_id),
    )
    return done[0] if done else get(database, request_id)


def get(database: Database, request_id: uuid.UUID) -> Request | None:
    found = _rows(database, "SELECT {columns} FROM {table} WHERE id = %s", request_id)
    return found[0] if found else None


def latest(database: Database, count: int) -> list[Request]:
    return _rows(database, "SELECT {columns} FROM {table} ORDER BY accepted_at DESC LIMIT %s", count)


def unfinished(database: Database, seconds: float) -> list[Request]:
    """Requests that have waited so long that whoever took them must have been interrupted; the oldest first."""
    return _rows(
        database,
        "SELECT {columns} FROM {table} WHERE state = 'accepted' AND accepted_at <= now() - make_interval(secs => %s)"
        " ORDER BY accepted_at LIMIT 100",
        seconds,
    )
