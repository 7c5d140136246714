"""What tasks print to people, and the same as records for programs. Edge out, to standard output only."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devenv import plan as planning
from devenv import values
from devenv.model import Change, Desired, Plan
from devenv.values import Values

if TYPE_CHECKING:
    from devenv.cluster.ship import Shipment
    from devenv.cluster.wheel import Built
    from devenv.kubeconfig import Merged
    from devenv.report import Screen


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def plan(desired: Desired, made: Plan) -> None:
    """Why, the values that changed, the steps, and the objects with the fields that change and what they come from."""
    from rich.text import Text

    console = _console()
    if made.nothing_to_do:
        console.print(f"nothing to do: {desired.namespace}/{desired.release} is as it should be")
        return
    console.print(f"revision {made.revision} because {_few(made.reasons)}", markup=False)
    for setting in made.settings:
        old, new = (_short(value, "(not set)") for value in (setting.old, setting.new))
        console.print(f"    {setting.key}: {old} → {new}   ← {setting.origin}", style="dim", markup=False)
    for text in made.steps:
        name, _, told = text.partition(": ")
        told = textwrap.fill(told, 70, subsequent_indent=" " * 10, break_on_hyphens=False)
        console.print(Text.assemble((f"{name:<10}", "bold cyan"), told))
    styles = {"create": "green", "change": "yellow", "remove": "red"}
    for change in made.changes:
        sources = {field.by for field in change.fields} or {change.by}
        shared = _source(sources.pop()) if len(sources) == 1 else ""
        console.print(Text.assemble((planning.short(change), styles[change.how]), (shared, "dim")))
        for field in change.fields[:20]:
            own = "" if shared else _source(field.by)
            line = f"    {field.path}: {_short(field.old)} → {_short(field.new)}{own}"
            console.print(line, style="dim", markup=False)
        if len(change.fields) > 20:
            console.print(f"    and {len(change.fields) - 20} more fields", style="dim")
    for text in made.impossible:
        console.print(f"! impossible in place: {text}", style="bold red", markup=False)
    for text in made.left_behind:
        console.print(f"! left behind: {text}", style="bold red", markup=False)


def _source(by: str) -> str:
    """`   ← key`: the layers are told at the settings above."""
    keys = re.sub(r" \([^)]*\)", "", by)
    return f"   ← {keys}" if keys else ""


def _few(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


def _short(value: Any, nothing: str = "(not there)") -> str:
    text = nothing if value is None else _text(value)
    return text if len(text) <= 60 else text[:57] + "…"


def plan_record(made: Plan) -> dict[str, Any]:
    return {
        "schema": "devenv/plan/v1",
        "nothingToDo": made.nothing_to_do,
        "revision": made.revision,
        "reasons": list(made.reasons),
        "settings": [setting._asdict() for setting in made.settings],
        "steps": list(made.steps),
        "impossible": list(made.impossible),
        "leftBehind": list(made.left_behind),
        "changes": [_change(change) for change in made.changes],
    }


def _change(change: Change) -> dict[str, Any]:
    return {**change._asdict(), "fields": [field._asdict() for field in change.fields]}


def values_record(composed: Values, key: str) -> dict[str, Any]:
    record: dict[str, Any] = {"schema": "devenv/values/v1", "values": composed.tree()}
    if key:
        record["explained"] = [
            {"key": name, "value": value, "setBy": [{"by": str(leaf.origin), "value": leaf.value} for leaf in leaves]}
            for name, value, leaves in values.explain(composed, key)
        ]
    return record


def show_values(composed: Values, key: str) -> None:
    """The values as YAML, or for one key who set it and what that overrode."""
    import yaml

    console = _console()
    if not key:
        text = yaml.safe_dump(composed.tree(), sort_keys=False, allow_unicode=True)
        console.print(text.rstrip(), markup=False)
        return
    for name, value, leaves in values.explain(composed, key):
        console.print(f"{name} = {_text(value)}", style="bold", markup=False)
        console.print(f"    set by {leaves[0].origin}", markup=False)
        for leaf in leaves[1:]:
            console.print(f"    over {_text(leaf.value)} from {leaf.origin}", style="dim", markup=False)


def cluster(record: Mapping[str, Any]) -> None:
    """The embedded cluster on one screen."""
    console = _console()
    state = "ready" if record["ready"] else "running, not ready" if record["running"] else "not running: inv cluster.up"
    console.print(f"cluster {record['name']}: {state}")
    if not record["running"]:
        return
    console.print(f"kubeconfig {record['kubeconfig']}", markup=False)
    logs = {str(Path(entry["log"]).parent) for entry in record["components"] if entry.get("log")}
    console.print(f"logs       {', '.join(sorted(logs))}/COMPONENT.log", markup=False)
    console.print(f"memory     {_megabytes(record['memory'])} with all pods, disk {_megabytes(record['disk'])}")
    console.print(f"images     {', '.join(record['images']) or 'none'}", markup=False)
    columns([(_component(entry), "" if entry["state"] == "running" else "red") for entry in record["components"]])


def _component(entry: Mapping[str, Any]) -> dict[str, str]:
    return {
        "component": entry["name"],
        "version": entry.get("version") or "",
        "state": entry["state"],
        "pid": str(entry.get("pid") or ""),
        "memory": _megabytes(entry.get("memory") or 0),
        "restarts": str(entry.get("restarts") or ""),
    }


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MB"


def columns(rows: Sequence[tuple[Mapping[str, str], str]]) -> None:
    """A table of rows with their styles; a column that is empty in all rows is left out. A pipe gets wide lines."""
    from rich.console import Console
    from rich.table import Table

    console = _console()
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    names = [name for name in (rows[0][0] if rows else {}) if any(row[name] for row, _ in rows)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    for row, style in rows:
        table.add_row(*(row[name] for name in names), style=style)
    console.print(table)


def shipment(done: Shipment) -> None:
    """Our images, where they are or where they went, and what to type next."""
    from devenv.cluster import ship

    console = _console()
    title = {"list": "images of", "load": "loaded into", "push": "pushed to", "prune": "images of"}[done.how]
    console.print(f"{title} {done.where}", markup=False)
    columns([(row, "") for row in ship.rows(done)])
    for place, names in done.removed.items():
        console.print(f"removed from the {place}: {', '.join(names) or 'nothing'}", markup=False)
    if done.removed:
        console.print(f"freed {ship.megabytes(done.freed)}")
    if done.next:
        console.print(f"next: {done.next}", markup=False)


def programs(done: Built) -> None:
    """What to type next, each line whole, to be pasted."""
    for number, line in enumerate(done.next):
        print(f"{'next' if number == 0 else 'or'}: {line}")


def merged(screen: Screen, done: Merged) -> None:
    """What became of the user's kubeconfig, and what to type next."""
    screen.line(f"context {done.context} {'written into' if done.changed else 'is already in'} {done.file}")
    if done.backup is not None:
        screen.line(f"as it was: {done.backup}", "dim")
    if not done.current:
        screen.line(f"kubectl --context {done.context} get pods --all-namespaces", "dim")
