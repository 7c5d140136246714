"""The databases of a release: which it needs, and how they are. Pure.

In: the objects of the release's manifest, and what PostgreSQL answers to `question`; out: `Database` records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from devenv.model import Desired

Object = dict[str, Any]


class Wanted(NamedTuple):
    """A database that a release uses: `role` is temporal, visibility or backend; `requires` the schema version that
    the server needs, and `owner` the mark that it should have; both empty where nobody asks for it."""

    role: str
    name: str
    requires: str = ""
    owner: str = ""


class Database(NamedTuple):
    """A wanted database as it is; `version` is empty where it has no schema, `mark` is the owner it is marked with."""

    wanted: Wanted
    there: bool
    version: str = ""
    mark: str = ""
    bytes: int = 0
    connections: int = 0

    @property
    def state(self) -> str:
        need = self.wanted.requires
        if not self.there:
            return "missing"
        if self.mark and self.wanted.owner and self.mark != self.wanted.owner:
            return f"belongs to {self.mark}"
        if need and not self.version:
            return "no schema"
        if need and older(self.version, need):
            return "older than the server needs"
        return "ok"

    def record(self) -> dict[str, Any]:
        return {
            "name": self.wanted.name,
            "role": self.wanted.role,
            "there": self.there,
            "owner": self.mark,
            "version": self.version,
            "requires": self.wanted.requires,
            "bytes": self.bytes,
            "connections": self.connections,
            "state": self.state,
        }


class Server(NamedTuple):
    """The PostgreSQL that holds them, and its connections."""

    version: str
    used: int
    limit: int


def older(version: str, than: str) -> bool:
    """Whether schema version `1.9` is older than `1.10`."""
    return [int(part) for part in version.split(".")] < [int(part) for part in than.split(".")]


def environments(objects: Sequence[Object]) -> Iterator[tuple[Object, str, Mapping[str, str]]]:
    """(object, container, its variables with a plain value) for each container of each workload."""
    for object in objects:
        template = (object.get("spec") or {}).get("template") or {}
        pod = template.get("spec") or {} if isinstance(template, Mapping) else {}
        for container in [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]:
            plain = {entry["name"]: str(entry["value"]) for entry in container.get("env") or [] if "value" in entry}
            yield object, container["name"], plain


def schema_job(objects: Sequence[Object]) -> Object | None:
    """The Job that makes and migrates Temporal's databases; None where Temporal is off or its database external."""
    for object in objects:
        labels = object["metadata"].get("labels") or {}
        if object["kind"] == "Job" and labels.get("app.kubernetes.io/component") == "schema":
            return object
    return None


def requires(objects: Sequence[Object]) -> tuple[str, str]:
    """The schema versions that the servers of a manifest need; empty where there are none."""
    for _, _, env in environments(objects):
        if "TEMPORAL_REQUIRES" in env:
            return env["TEMPORAL_REQUIRES"], env["VISIBILITY_REQUIRES"]
    return "", ""


_SHARDS = re.compile(r"^\s*numHistoryShards:\s*(\d+)", re.M)


def shards(objects: Sequence[Object]) -> str:
    """numHistoryShards in a manifest's configuration of Temporal; empty where there is none."""
    for object in objects:
        texts = (object.get("data") or {}).values() if object["kind"] == "ConfigMap" else ()
        for found in filter(None, (_SHARDS.search(str(text)) for text in texts)):
            return found.group(1)
    return ""


def fixed(before: Sequence[Object], after: Sequence[Object]) -> tuple[str, ...]:
    """What the database holds for as long as it lives, and `after` has otherwise."""
    old, new = shards(before), shards(after)
    same = not (old and new) or old == new or _store(before) != _store(after)
    return () if same else (f"numHistoryShards is {old} for the life of the database, not {new}",)


def downgraded(before: Sequence[Object], after: Sequence[Object]) -> tuple[str, ...]:
    """The schemas that `before` brought and the servers of `after` do not know yet."""
    if _store(before) != _store(after):
        return ()
    pairs = zip(("temporal", "visibility"), requires(before), requires(after), strict=True)
    return tuple(
        f"the schema for {store} is {old}, and the server only knows {new}: a downgrade"
        for store, old, new in pairs
        if old and new and older(new, old)
    )


def _store(objects: Sequence[Object]) -> str:
    """The name of Temporal's database in a manifest."""
    return wanted(objects, "", "")[0].name


def wanted(objects: Sequence[Object], fallback: str, owner: str) -> tuple[Wanted, ...]:
    """The databases of a release: Temporal's two, also where Temporal is off (then named after `fallback` and asked
    for nothing), and the backend's."""
    store, visibility, needs, mark = fallback, f"{fallback}_visibility", ("", ""), owner
    backend = "backend"
    for object, container, env in environments(objects):
        if "TEMPORAL_REQUIRES" in env:
            store, visibility = env["TEMPORAL_STORE_DATABASE"], env["TEMPORAL_VISIBILITY_DATABASE"]
            needs = (env["TEMPORAL_REQUIRES"], env["VISIBILITY_REQUIRES"])
        if container == "schema":
            mark = env.get("OWNER", owner)
        if object["kind"] == "Deployment" and container == "backend":
            backend = env.get("DATABASE_NAME", backend)
    return (
        Wanted("temporal", store, needs[0], mark),
        Wanted("visibility", visibility, needs[1], mark),
        Wanted("backend", backend),
    )


def of(desired: Desired, objects: Sequence[Object]) -> tuple[Wanted, ...]:
    """The databases of an environment's release."""
    named = desired.values.get(("backend", "temporalConfig", "postgres", "database"))
    return wanted(objects, str(named or "temporal"), f"{desired.namespace}/{desired.release}")


def seen(ask: Callable[[str], str], wanted: Sequence[Wanted]) -> tuple[Server, tuple[Database, ...]]:
    """The databases as they are; `ask` hands a script to psql and gives what it answers."""
    return answer(wanted, ask(question(wanted)))


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


OWNER = "devenv owner: "

_SERVER = """SELECT json_build_object(
  'version', split_part(current_setting('server_version'), ' ', 1),
  'limit', current_setting('max_connections')::int,
  'used', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()));"""
_DATABASE = """SELECT json_build_object('name', datname, 'bytes', pg_database_size(oid),
  'mark', coalesce(shobj_description(oid, 'pg_database'), ''),
  'connections', (SELECT count(*) FROM pg_stat_activity WHERE datid = pg_database.oid))
FROM pg_database WHERE datname = {name};"""
_VERSION = """SELECT EXISTS (SELECT FROM pg_database WHERE datname = {name}) AS there \\gset
\\if :there
\\connect {ident}
SELECT to_regclass('schema_version') IS NOT NULL AS known \\gset
\\if :known
SELECT json_build_object('name', current_database(), 'schema', curr_version)
FROM schema_version WHERE version_partition = 0 AND db_name = current_database();
\\endif
\\connect postgres
\\endif"""


def question(wanted: Sequence[Wanted]) -> str:
    """The psql script that asks for all of it; each line that it answers is JSON."""
    parts = [_SERVER.replace("\n", " ")]
    for one in wanted:
        names = {"name": literal(one.name), "ident": identifier(one.name)}
        parts.append(_DATABASE.format(**names))
        if one.role != "backend":
            parts.append(_VERSION.format(**names))
    return "\n".join(parts)


def answer(wanted: Sequence[Wanted], text: str) -> tuple[Server, tuple[Database, ...]]:
    """What PostgreSQL said to `question`."""
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    server = next(line for line in lines if "limit" in line)
    there = {line["name"]: line for line in lines if "bytes" in line}
    schemas = {line["name"]: str(line["schema"]) for line in lines if "schema" in line}
    found = tuple(_database(one, there.get(one.name), schemas.get(one.name, "")) for one in wanted)
    return Server(server["version"], server["used"], server["limit"]), found


def _database(wanted: Wanted, line: Mapping[str, Any] | None, version: str) -> Database:
    if line is None:
        return Database(wanted, there=False)
    mark = str(line["mark"]).removeprefix(OWNER) if str(line["mark"]).startswith(OWNER) else ""
    return Database(wanted, True, version, mark, int(line["bytes"]), int(line["connections"]))


def creation(missing: Sequence[Wanted]) -> str:
    """The SQL that makes databases, marked as their owner's."""
    lines = []
    for one in missing:
        lines.append(f"CREATE DATABASE {identifier(one.name)};")
        if one.owner:
            lines.append(f"COMMENT ON DATABASE {identifier(one.name)} IS {literal(OWNER + one.owner)};")
    return "\n".join(lines)


def removal(names: Sequence[str]) -> str:
    return "\n".join(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE);" for name in names)
