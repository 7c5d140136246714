"""A run's report as one page that needs nothing else: no script, no image, no font, no address. Pure.

In: the record of devenv/runlog.py, free of secrets; out: HTML. Readable in light and dark, on a screen and a phone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
OUTCOME = {0: "done", 130: "interrupted"}
SIGNS = {"create": "+", "change": "~", "remove": "−"}
WELL = ("ready", "complete", "ending")
HELD_UP = ("not ready", "pending")  # waits for something else, as a rule


def html(record: Record) -> str:
    """The whole page."""
    outcome = OUTCOME.get(record["exitCode"], "failed")
    title = f"{record['task']} · {record['namespace']} · {outcome}"
    parts = (_head(record, outcome), _failure(record["failure"]), _times(record), _plan(record), _logs(record["logs"]))
    style = (Path(__file__).parent / "page.css").read_text()
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(record: Record, outcome: str) -> str:
    versions = record["versions"]
    rows = (
        ("when", record["when"].replace("T", " ").replace("Z", " UTC")),
        ("profile", record["profile"]),
        ("context", record["context"]),
        ("kubernetes", versions.get("kubernetes", "")),
        ("workflow", record["workflow"]),
        ("devenv", versions["devenv"]),
    )
    facts = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in rows if text)
    exit_code = "" if not record["exitCode"] else f", exit code {record['exitCode']}"
    verdict = f"{outcome} {'in' if outcome == 'done' else 'after'} {duration(record['seconds'])}{exit_code}"
    heading = f"{escape(record['task'])} <span>{escape(record['namespace'])}</span>"
    return f'<header>\n<h1>{heading}</h1>\n<p class="verdict {outcome}">{verdict}</p>\n<dl>{facts}</dl>\n</header>'


def _failure(failure: Record | None) -> str:
    if failure is None:
        return ""
    rows = (("what", "reason"), ("where", "object"), ("why", "evidence"), ("next", "hint"))
    lines = "".join(
        f'<div class="{name}"><dt>{name}</dt><dd>{escape(failure[key])}</dd></div>'
        for name, key in rows
        if failure[key]
    )
    return f'<section class="cause {failure["class"]}">\n<h2>Cause</h2>\n<dl>{lines}</dl>\n</section>'


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`."""
    if seconds >= 120:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _times(record: Record) -> str:
    """Steps and pods as bars over one axis."""
    stages = [stage for stage in record["stages"] if stage["text"] or stage["seconds"] >= 0.05]
    total = max([record["seconds"], 0.1, *(stage["start"] + stage["seconds"] for stage in stages)])
    tick = next((step for step in STEPS if total / step <= 6), total / 6)
    rows = [_stage_row(stage, total) for stage in stages]
    lives = sorted(record["pods"], key=_pod_order)
    calm = {pod["name"]: pod for pod in lives if _untouched(pod, record["when"])}
    pods = [row for pod in lives if pod["name"] not in calm and (row := _pod_row(pod, record, total))]
    marks = "".join(
        f'<span style="left:{_share(count * tick, total)}">{_tick(count * tick)}</span>'
        for count in range(int(total / tick) + 1)
        if total - count * tick > total * 0.04
    )
    axis = f'<div class="row axis" aria-hidden="true"><b></b><div class="track">{marks}</div><i></i></div>'
    legend = (
        '<p class="legend"><span class="waiting">waiting, init containers</span><span class="starting">starting</span>'
        '<span class="ready">ready</span><em>on the right: until ready, or complete</em></p>'
    )
    rest = f'<p class="calm">not touched: {escape(", ".join(calm))}</p>' if calm else ""
    below = f"<h3>Pods</h3>\n{legend}\n{axis}\n{''.join(pods)}{rest}" if pods else rest
    return (
        f'<section class="times" style="--tick:{_share(tick, total)}">\n<h2>Steps</h2>\n{axis}\n{"".join(rows)}\n'
        f"{below}</section>"
    )


def _tick(seconds: float) -> str:
    return f"{seconds:g} s" if 0 < seconds < 120 else duration(seconds) if seconds else "0"


def _share(part: float, total: float) -> str:
    return f"{100 * max(0.0, min(part, total)) / total:.2f}%"


def _bar(start: float, end: float, total: float, kind: str) -> str:
    start, end = max(0.0, start), min(end, total)
    return f'<u class="{kind}" style="left:{_share(start, total)};width:{_share(max(0.0, end - start), total)}"></u>'


def _stage_row(stage: Record, total: float) -> str:
    bar = _bar(stage["start"], stage["start"] + stage["seconds"], total, stage["outcome"])
    text = stage["text"] or ("" if stage["outcome"] == "ok" else stage["outcome"])
    more = "".join(f"<small>{escape(line)}</small>" for line in stage["more"])
    told = f'<p class="{stage["outcome"]}">{escape(text)}{more}</p>' if text or more else ""
    return (
        f'<div class="row"><b>{escape(stage["name"])}</b><div class="track" aria-hidden="true">{bar}</div>'
        f"<i>{duration(stage['seconds'])}</i>{told}</div>\n"
    )


def _pod_order(pod: Record) -> tuple[str, str]:
    return pod["created"], pod["name"]


def _pod_row(pod: Record, record: Record, total: float) -> str:
    """A pod's bar: waiting until its containers started, starting until ready. Empty for one that ended before."""
    when = record["when"]
    created, started, ready, ended = (_after(pod[key], when) for key in ("created", "started", "ready", "ended"))
    if created is None or (ended is not None and ended <= 0):
        return ""
    bad = bool(record["failure"]) and ended is None and pod["state"] not in WELL
    style = "" if not bad else "held" if pod["state"] in HELD_UP else "failed"
    over = pod["state"] == "complete"
    kinds = (("waiting", created), ("ran" if over else "starting", started), ("ready", None if over else ready))
    known = [(kind, at) for kind, at in kinds if at is not None]
    ends = [*(at for _, at in known[1:]), total if ended is None else ended]
    last = (style or known[-1][0], known[-1][1])
    bars = "".join(
        _bar(at, until, total, kind)
        for (kind, at), until in zip([*known[:-1], last], ends, strict=True)
        if until > 0 and until >= at
    )
    settled = ended if over else ready
    took = duration(settled - created) if settled is not None and created >= -1 else ""
    told = f"{escape(_pod_state(pod))} <small>{escape(pod['name'])}</small>"
    return (
        f'<div class="row"><b>{escape(pod["component"])}</b><div class="track" aria-hidden="true">{bars}</div>'
        f'<i>{took}</i><p class="pod {style}">{told}</p></div>\n'
    )


def _pod_state(pod: Record) -> str:
    state = "ended" if pod["ended"] and pod["state"] in ("ready", "ending") else pod["state"]
    count = pod["restarts"]
    return state if not count else f"{state}, {count} restart{'s' if count > 1 else ''}"


def _untouched(pod: Record, when: str) -> bool:
    """Ready before the run and still there after it."""
    ready = _after(pod["ready"], when)
    return ready is not None and ready <= 0 and not pod["ended"] and pod["state"] == "ready"


def _after(time: str, when: str) -> float | None:
    return (datetime.fromisoformat(time) - datetime.fromisoformat(when)).total_seconds() if time else None


def _plan(record: Record) -> str:
    plan = record["plan"]
    if plan is None or not (plan["reasons"] or plan["changes"]):
        return ""
    warnings = [f"impossible in place: {text}" for text in plan["impossible"]]
    warnings += [f"left behind: {text}" for text in plan["leftBehind"]]
    heading = f"<h2>Plan <span>revision {plan['revision']}</span></h2>"
    return "\n".join(
        ('<section class="plan">', heading, _list(plan["reasons"], "reasons"), _list(warnings, "warnings"),
         _changes(plan["changes"]), "</section>")
    )  # fmt: skip


def _list(texts: Iterable[str], kind: str) -> str:
    lines = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{lines}</ul>' if lines else ""


def _changes(changes: Sequence[Record]) -> str:
    lines = "".join(
        f'<li class="{change["how"]}"><code>{SIGNS[change["how"]]} {escape(change["object"])}</code>'
        + "".join(f"<small>{escape(field)}</small>" for field in change["fields"])
        + "</li>"
        for change in changes
    )
    if not lines:
        return ""
    opened = " open" if len(changes) <= 30 else ""
    count = f"{len(changes)} objects" if len(changes) > 1 else "1 object"
    return f'<details{opened}><summary>{count}</summary><ul class="changes">{lines}</ul></details>'


def _logs(logs: Sequence[Record]) -> str:
    if not logs:
        return ""
    texts = "\n".join(
        f"<details{' open' if place < 2 else ''}><summary>{escape(tail['pod'])} "
        f"<span>{escape(tail['container'])}</span></summary><pre>{escape(chr(10).join(tail['lines']))}</pre></details>"
        for place, tail in enumerate(logs)
    )
    return f'<section class="logs">\n<h2>Logs</h2>\n{texts}\n</section>'
