"""The revisions of a release: what each was, which one a rollback goes to, and what speaks against it. Pure.

In: what Helm keeps of each revision; out: `Revision` records and objections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from devenv import databases
from devenv import plan as planning
from devenv.errors import InputWrong, Refused

GOOD = ("deployed", "superseded")


class Revision(NamedTuple):
    """One revision; `at` as Helm wrote it. `temporal` and `database` (internal, external) are those of our chart and
    empty for others; `by_devenv`: devenv made it, and not a rollback or Helm by hand."""

    number: int
    at: str
    status: str
    description: str
    chart: str
    app_version: str
    temporal: str
    database: str
    by_devenv: bool
    manifest: str

    def record(self) -> dict[str, Any]:
        return {
            "revision": self.number,
            "at": self.at,
            "status": self.status,
            "description": self.description,
            "chart": self.chart,
            "appVersion": self.app_version,
            "temporal": self.temporal,
            "database": self.database,
            "byDevenv": self.by_devenv,
        }


def read(content: Mapping[str, Any], labels: Mapping[str, str], *, bundled: bool) -> Revision:
    """A revision from what Helm keeps: its content, and the labels of its Secret."""
    info, chart = content.get("info") or {}, (content.get("chart") or {}).get("metadata") or {}
    number = int(content["version"])
    switches = (content.get("config") or {}).get("global") or {} if bundled else {}
    return Revision(
        number=number,
        at=str(info.get("last_deployed") or ""),
        status=str(info.get("status") or ""),
        description=str(info.get("description") or ""),
        chart=f"{chart.get('name', '?')} {chart.get('version', '')}".strip(),
        app_version=str(chart.get("appVersion") or ""),
        temporal=_word(switches, "temporal", "on", "off") if bundled else "",
        database=_word(switches, "postgresql", "internal", "external") if bundled else "",
        by_devenv=str(labels.get(planning.LABEL, "")).startswith(f"{number}-"),
        manifest=str(content.get("manifest") or ""),
    )


def _word(switches: Mapping[str, Any], name: str, yes: str, no: str) -> str:
    return yes if (switches.get(name) or {}).get("enabled") is True else no


def moment(at: str) -> str:
    """`2026-11-23 23:48` in local time of what Helm wrote; as it is where it cannot be read."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return at


def choose(revisions: Sequence[Revision], wanted: str, where: str) -> Revision:
    """The revision to go back to: `wanted`, or the newest good one before the current. Raises InputWrong, Refused."""
    current = max(revisions, key=lambda one: one.number)
    good = [one for one in revisions if one.status in GOOD and one.number < current.number]
    there = "there are: " + ", ".join(f"{one.number} ({one.status})" for one in revisions)
    if not wanted:
        if not good:
            raise Refused("there is no revision to go back to", where=where, why=there, next="inv history")
        return max(good, key=lambda one: one.number)
    number = int(wanted) if wanted.isascii() and wanted.isdigit() else 0
    found = next((one for one in revisions if one.number == number), None)
    if found is None:
        raise InputWrong(f"there is no revision {wanted[:40]}", where=where, why=there, next="inv history")
    if found.number == current.number:
        raise Refused(f"revision {number} is the current one", where=where, next="inv redeploy")
    return found


def schema_objection(target: Sequence[Mapping[str, Any]], found: Sequence[databases.Database]) -> str:
    """Why the target's servers would not start on these databases; empty where they would. Newer schemas are fine."""
    needs = dict(zip(("temporal", "visibility"), databases.requires([dict(one) for one in target]), strict=True))
    for database in found:
        need = needs.get(database.wanted.role, "")
        if need and database.version and databases.older(database.version, need):
            return f"its server needs schema {need} of {database.wanted.name}, which has {database.version}"
    return ""


def stays(found: Sequence[databases.Database]) -> str:
    """What a rollback does not undo, in one line."""
    schemas = [f"{one.wanted.name} {one.version}" for one in found if one.version]
    told = f" ({', '.join(schemas)})" if schemas else ""
    return f"a rollback does not undo schemas and data: they stay as they are{told}"


def warnings(current: Revision, target: Revision) -> tuple[str, ...]:
    """What a rollback does that wants a yes."""
    told = []
    if target.status not in GOOD:
        told.append(f"revision {target.number} is {target.status}: it never worked")
    if current.database != target.database:
        told.append(
            f"revision {target.number} uses the {target.database} PostgreSQL: what is in the {current.database} one, "
            "data and workflows, stays behind"
        )
    return tuple(told)
