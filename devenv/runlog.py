"""The report of a run: what the screen recorded, as report.json and report.html under the state directory. Edge out.

`record` is pure. `keep` writes the two files, for a run that did something or failed; where that is not possible, it
says so in one line: a report never makes a run fail. Secret values never reach it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devenv import __version__, paths, timeline
from devenv.errors import Failure
from devenv.model import Plan, Snapshot
from devenv.report import Screen, Told, redacted

KEPT = 20
LOOKING = frozenset({"cluster", "chart", "plan", "proof"})  # steps that change nothing
NAME = re.compile(r"\d{8}-\d{6}-[-a-z0-9.]+")


def saw(screen: Screen, snapshot: Snapshot) -> None:
    """Notes the pods of one more snapshot, and keeps the last one: what is in trouble there has logs."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lives = timeline.fold(screen.facts.get("pods", ()), snapshot, now, screen.facts.get("last"))
    screen.tell(pods=lives, last=snapshot)


def worth(told: Iterable[Told], failure: Failure | None) -> bool:
    """A run that found nothing to do leaves no report: it would push out those that are of interest."""
    return failure is not None or any(step.name not in LOOKING for step in told)


def record(
    task: str, began: float, seconds: float, told: Sequence[Told], facts: Mapping[str, Any], failure: Failure | None
) -> dict[str, Any]:
    """The run as a record of plain values. Steps start in seconds after `when`; pods' times are the cluster's."""
    plan, proof = facts.get("plan"), facts.get("proof")
    return {
        "schema": "devenv/report/v1",
        "task": task,
        "when": _time(began),
        "seconds": round(seconds, 1),
        "exitCode": failure.code if failure else 0,
        "profile": facts.get("profile", ""),
        "namespace": facts.get("namespace", ""),
        "context": facts.get("context", ""),
        "versions": {"devenv": __version__, **facts.get("versions", {})},
        "plan": _plan(plan) if plan else None,
        "stages": [
            {
                "name": step.name,
                "start": round(max(0.0, step.start - began), 2),
                "seconds": round(step.seconds, 2),
                "outcome": step.outcome,
                "text": step.text,
                "more": list(step.more),
            }
            for step in told
        ],
        "failure": failure.record() if failure else None,
        "workflow": proof.workflow if proof else "",
        "pods": [life._asdict() for life in facts.get("pods", ())],
        "logs": [{**tail._asdict(), "lines": list(tail.lines)} for tail in facts.get("logs", ())],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plan(plan: Plan) -> dict[str, Any]:
    """The plan by the paths of its fields: their values may be anything, and a report lies about for long."""
    return {
        "revision": plan.revision,
        "reasons": list(plan.reasons),
        "impossible": list(plan.impossible),
        "leftBehind": list(plan.left_behind),
        "changes": [
            {"how": change.how, "object": change.object, "fields": [field.path for field in change.fields]}
            for change in plan.changes
        ],
    }


def clean(value: Any, secrets: Iterable[str]) -> Any:
    """The same value with every text in it redacted."""
    if isinstance(value, str):
        return redacted(value, secrets)
    if isinstance(value, Mapping):
        return {key: clean(child, secrets) for key, child in value.items()}
    return [clean(child, secrets) for child in value] if isinstance(value, list) else value


def keep(screen: Screen, task: str, failure: Failure | None, now: float) -> Path | None:
    """Writes the run's report and says where, if it is worth one."""
    if not screen.facts or not worth(screen.told, failure):
        return None
    try:
        made = record(task, screen.began, now - screen.began, screen.told, screen.facts, failure)
        page = write(clean(made, screen.secrets), paths.state() / "reports")
    except Exception as error:  # whatever it is: the run itself is over, and its outcome stands
        screen.line(f"no report was written: {error}", "yellow")
        return None
    screen.line(f"report {_from_home(page)}", "dim")
    return page


def _from_home(path: Path) -> str:
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def write(record: Mapping[str, Any], folder: Path) -> Path:
    """Writes report.json and report.html into a folder of their own and forgets the oldest; the page's path."""
    from devenv import page

    texts = {"report.json": _text(record), "report.html": page.html(record)}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = _place(folder, record)
    try:
        for name, text in texts.items():
            with os.fdopen(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    for old in stale(path.name for path in folder.iterdir()):
        shutil.rmtree(folder / old, ignore_errors=True)
    return place / "report.html"


def _text(record: Mapping[str, Any]) -> str:
    """JSON with a line for each key and each entry of its list: `indent` takes a third of a second for 2,000 pods."""

    def told(value: Any) -> str:
        if isinstance(value, list) and value:
            return "[\n    " + ",\n    ".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n  ]"
        return json.dumps(value, ensure_ascii=False)

    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {told(value)}" for key, value in record.items()) + "\n}\n"


def _place(folder: Path, record: Mapping[str, Any]) -> Path:
    """A new folder named <time>-<namespace>-<task>; a run of the same second gets a number."""
    when = re.sub(r"[-:Z]", "", record["when"]).replace("T", "-")
    name = f"{when}-{record['namespace']}-{record['task']}"
    for number in range(1, 100):
        place = folder / (name if number == 1 else f"{name}.{number}")
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return place
    raise OSError(f"{folder / name} is taken a hundred times")


def stale(names: Iterable[str]) -> list[str]:
    """The reports beyond the newest ones; what is no report of ours is left alone."""
    return sorted((name for name in names if NAME.fullmatch(name)), reverse=True)[KEPT:]
