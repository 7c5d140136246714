"""What an external PostgreSQL's answer to the preflight means. Pure.

In: the `Question`, and what its script printed; out: one `Objection`, the first that has to be mended, or none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from devenv import databases
from devenv.databases import OWNER
from devenv.preflight import Question

OLDEST = 120000  # Temporal's plugin is postgres12
SETTINGS = "--set backend.temporal.server.config"
ANOTHER = "another database: --set backend.temporalConfig.postgres.database=…"


class Objection(NamedTuple):
    """Why this database cannot serve, in the words of a failure."""

    what: str
    why: str
    next: str


class Section(NamedTuple):
    """What psql printed in one database: JSON lines by the name of their `of`, or an error."""

    records: tuple[Mapping[str, Any], ...]
    error: str

    def of(self, name: str) -> list[Mapping[str, Any]]:
        return [record for record in self.records if record.get("of") == name]


def doubtful(answer: str) -> bool:
    """Whether the server's certificate did not pass: libpq does not say why, Temporal's own tool does."""
    return any("certificate verify failed" in part.error for part in sections(answer).values())


def sections(text: str) -> dict[str, Section]:
    """What the script printed, by the database that was asked."""
    lines: dict[str, list[str]] = {}
    current = ""
    for line in text.splitlines():
        if line.startswith("in "):
            current = line[3:]
        lines.setdefault(current, []).append(line)
    return {name: _section(part[1:]) for name, part in lines.items() if name}


def _section(lines: Sequence[str]) -> Section:
    records = tuple(json.loads(line) for line in lines if line.startswith("{"))
    words = [line.strip() for line in lines if not line.startswith("{")]
    if "failed" not in words:
        return Section(records, "")
    said = [line for line in words if line and line != "failed"]
    first = next((line for line in said if re.search(r"error|FATAL|ERROR", line)), said[0] if said else "psql failed")
    return Section(records, re.sub(r"^psql:( error:)? ?", "", first))


def schemas(question: Question, answer: str) -> list[tuple[str, str, str]]:
    """(database, the version of its schema, the one that the server needs); empty versions where there is none."""
    found = sections(answer)
    rows = zip(("store", "visibility"), question.databases, question.schemas, strict=True)
    told = [(name, found[place].of("schema") if place in found else [], needs) for place, name, needs in rows]
    return [(name, str(records[0]["version"]) if records else "", needs) for name, records, needs in told]


def objection(question: Question, answer: str) -> Objection | None:
    """The one cause why this database cannot serve, the first one that has to be mended; None where it can."""
    found = sections(answer)
    server = found.get("instead") if found.get("instead") and not found["instead"].error else found.get("admin")
    if server is None:
        return Objection("the database was asked, but said nothing", answer.strip()[-200:], "inv redeploy")
    if doubtful(answer) and "certificate" in found:
        told = re.search(r"x509: [^\"\\\n]+", answer.partition("in certificate")[2])
        return _refused(question, told.group(0) if told else found["admin"].error, question.admin)
    if server.error:
        return _refused(question, found["admin"].error, question.admin)
    facts = server.of("server")[0]
    there = {record["name"]: record for record in server.of("database")}
    return (
        _old(facts)
        or _missing(question, facts, there, admin=not found["admin"].error, denied=found["admin"].error)
        or next(filter(None, (_one(question, there, name, found) for name in question.databases)), None)
        or _connections(question, facts, there)
    )


def _old(facts: Mapping[str, Any]) -> Objection | None:
    """What no right there changes: the server's version, and what it has not."""
    if facts["number"] < OLDEST:
        why = "Temporal needs 12 or newer"
        return Objection(f"PostgreSQL {facts['version']} is too old", why, "upgrade the server")
    if not facts["gin"]:
        why = "Temporal's visibility needs it"
        return Objection("the server has no extension btree_gin", why, "allow or install it there")
    return None


def _missing(
    question: Question, facts: Mapping[str, Any], there: Mapping[str, Any], *, admin: bool, denied: str
) -> Objection | None:
    missing = [name for name in question.databases if name not in there]
    user = question.env["PGUSER"]
    make = " and ".join(f'CREATE DATABASE "{name}" OWNER "{user}"' for name in missing)
    if missing and not admin:
        return _refused(question, denied, question.admin)
    if missing and not facts["createdb"]:
        why = f"role {user} has no CREATEDB, and there is no database {' and no '.join(missing)}"
        return Objection("the role may not create databases", why, f"{make}, as somebody who may")
    return None


def _one(question: Question, there: Mapping[str, Any], name: str, found: Mapping[str, Section]) -> Objection | None:
    """What speaks against a database that exists."""
    if name not in there:
        return None
    section = found["store" if name == question.databases[0] else "visibility"]
    inside = section.of("inside")
    if not inside or (section.error and inside[0]["readable"]):
        return _refused(question, section.error, name)
    return (
        _not_ours(question, there[name], section)
        or _no_rights(question, there[name], inside[0])
        or _wrong_schema(question, name, section)
    )


def _not_ours(question: Question, database: Mapping[str, Any], section: Section) -> Objection | None:
    """Another release's by its mark, or one on which a Temporal works that is not known."""
    name = database["name"]
    marks = [str(database["mark"]), *(str(schema["mark"]) for schema in section.of("schema"))]
    mark = next((mark for mark in marks if mark.startswith(OWNER)), "")
    another = f"{ANOTHER}; or COMMENT ON DATABASE \"{name}\" IS '{OWNER}{question.owner}'"
    if mark and mark != OWNER + question.owner:
        belongs = mark.removeprefix(OWNER)
        return Objection(f"database {name} belongs to {belongs}", "two Temporals destroy each other's data", another)
    live = [str(record["at"]) for record in section.of("live") if record["at"]]
    if live and not mark:
        why = f"it is not known to be {question.owner}'s; servers at {live[0]} reported within 20 s"
        return Objection(f"a Temporal works on database {name}", why, another)
    return None


def _no_rights(question: Question, database: Mapping[str, Any], inside: Mapping[str, Any]) -> Objection | None:
    name, owner, user = database["name"], database["owner"], question.env["PGUSER"]
    rights = [("tables in schema public", inside["tables"]), ("schemas", inside["schemas"])]
    lacking = [right for right, has in rights if not has and not inside["started"]]
    if lacking or not inside["readable"]:
        why = f"it belongs to {owner}; {user} may not create {' or '.join(lacking)} in it" if lacking else \
            f"it belongs to {owner}, and so do the tables in it"  # fmt: skip
        return Objection(
            f"database {name} is somebody else's", why, f'ALTER DATABASE "{name}" OWNER TO "{user}", as {owner}'
        )
    return None


def _wrong_schema(question: Question, name: str, section: Section) -> Objection | None:
    """A schema that no migration brings to what the server knows."""
    schema = section.of("schema")
    if not schema:
        return None
    version, known = schema[0]["version"], question.schemas[question.databases.index(name)]
    if not version and schema[0]["other"]:
        why = f"it has the schema of {schema[0]['other']}: it was restored under another name"
        return Objection(
            f"the schema of database {name} has no version", why, f"UPDATE schema_version SET db_name = '{name}' there"
        )
    if version and known and databases.older(known, version):
        why = f"it has schema {version}, which a newer server brought; this one knows {known}"
        return Objection(f"database {name} is newer than the server", why, f"the newer server's image; or {ANOTHER}")
    if version == "0.0" and section.of("begun") and not schema[0]["migrating"]:
        why = f"{schema[0]['tables']} tables and no version; Temporal's tool cannot go on, and no server ever ran on it"
        remake = f'DROP DATABASE "{name}"; CREATE DATABASE "{name}" OWNER "{question.env["PGUSER"]}"'
        return Objection(f"the first migration of database {name} was cut off", why, remake)
    begun = next((str(record["shards"]) for record in section.of("recorded") if record["shards"]), question.shards)
    if begun != question.shards:
        why = f"numHistoryShards is {begun} for as long as it lives, {question.shards} is asked for"
        return Objection(
            f"database {name} was begun with other shards", why, f"{SETTINGS}.numHistoryShards={begun}; or {ANOTHER}"
        )
    return None


def _connections(question: Question, facts: Mapping[str, Any], there: Mapping[str, Any]) -> Objection | None:
    free = facts["limit"] - facts["reserved"] - max(0, facts["others"])
    limits = [(free, f"max_connections is {facts['limit']}, {facts['reserved']} reserved, {facts['others']} in use")]
    if facts["role_limit"] >= 0:
        limits.append((facts["role_limit"], f"role {question.env['PGUSER']} may have {facts['role_limit']}"))
    own = [(one["limit"], f"database {name} allows {one['limit']}") for name, one in there.items()]
    limits += [limit for limit in own if limit[0] >= 0]
    room, why = min(limits)
    if question.need <= room:
        return None
    return Objection(
        f"too few connections: Temporal's servers may open {question.need}, {room} are free",
        why,
        f"{SETTINGS}.maxConns=2 {SETTINGS}.visibilityMaxConns=1, or more connections there",
    )


TLS = "--set backend.temporalConfig.postgres.tls.mode"
# What libpq and the server say (PostgreSQL 15 and 18) → what it means, what to do.
SAID: tuple[tuple[str, str, str], ...] = (
    (
        "could not translate host name",
        "the host of the database is unknown",
        "mend the host in the Secret; a Service in another namespace is NAME.NAMESPACE.svc",
    ),
    (
        "Connection refused",
        "nothing listens at the database's host and port",
        "mend host or port in the Secret, or start the server",
    ),
    (
        "timeout expired|timed out|No route to host|Network is unreachable",
        "the database's host does not answer",
        "mend the host in the Secret, or what is in the way there: a firewall, a NetworkPolicy",
    ),
    (
        "password authentication failed",
        "the password does not open the database",
        "mend username or password in the Secret",
    ),
    ("is not permitted to log in|role .* does not exist", "the role cannot log in", "mend username in the Secret"),
    (
        "SSL support is not compiled in",
        "the psql of the schema Job's image cannot speak TLS",
        f"an image that can: --set backend.temporal.schema.image.repository=…; or, where TLS is not needed, {TLS}=off",
    ),
    ("server does not support SSL", "the server refuses TLS", f"turn it on there, or {TLS}=off"),
    (
        "no encryption|SSL off|ESSLREQUIRED|SSL connection is required|SSL required",
        "the server demands TLS",
        f"{TLS}=require   (or verify-full)",
    ),
    (
        "certificate has expired or is not yet valid",
        "the server's certificate has expired",
        "a new certificate for the server at ADDRESS",
    ),
    (
        "signed by unknown authority",
        "the server's certificate is of a CA that is not trusted",
        "that CA's certificate as ca.crt in the Secret",
    ),
    (
        "certificate verify failed",
        "the server's certificate is not trusted: of another CA, or expired",
        "openssl s_client -starttls postgres -connect ADDRESS </dev/null | openssl x509 -noout -issuer -dates   "
        "(tells which), then mend ca.crt in the Secret, or the certificate",
    ),
    (
        "does not match host name",
        "the server's certificate is for another host",
        "the host's name in the Secret as the certificate has it",
    ),
    ("root certificate file", "there is no CA to trust the server by", f"key ca.crt in the Secret, or {TLS}=require"),
    (
        "no pg_hba.conf entry|pg_hba.conf rejects",
        "the server admits no such connection",
        "a line in its pg_hba.conf",
    ),
    (
        "too many connections for|remaining connection slots|too many clients",
        "the server has no connection left",
        "end some, or raise max_connections or the role's limit",
    ),
    ("permission denied for database", "the role may not connect to a database", "GRANT CONNECT ON DATABASE there"),
    (
        "database .* does not exist",
        "there is no database of that name",
        "name one to look in: --set backend.temporalConfig.postgres.adminDatabase=defaultdb",
    ),
)


def _refused(question: Question, error: str, database: str) -> Objection:
    """A connection that failed, by what was said of it. libpq and PostgreSQL never say the password."""
    for pattern, what, next in SAID:
        if re.search(pattern, error):
            address = f"{question.env['PGHOST']}:{question.env['PGPORT']}"
            return Objection(what, f'database {database}: "{error}"', next.replace("ADDRESS", address))
    return Objection("the database cannot be used", f'database {database}: "{error}"', "inv redeploy, when it can")
