"""Runs the catalogue of broken environments on a cluster: under devenv, and under plain Helm beside it. Edge out.

Every row is a small chart of its own in a namespace of its own, so rows can run side by side. The time that counts is
from the moment at which the API server shows the fault (a watch of ours sees it) to the exit of the command.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from devenv import look, paths
from devenv.benchtable import machine
from devenv.broken import Broken, Object, bound, made
from devenv.catalogue import CATALOGUE
from devenv.clients import shell
from devenv.clients.kube import Kube
from devenv.cluster import start
from devenv.environment import Session, describe, kubectl_argv, reach
from devenv.errors import StepFailed
from devenv.report import Screen
from devenv.settings import Flags

HELM_SECONDS = 60.0  # its --timeout
SIDE_BY_SIDE = 4
CLUSTER_WIDE = ("Node", "ValidatingWebhookConfiguration")


class Seen(NamedTuple):
    """How a command ended: `said` is all that could name the cause, `named` that it does. `late`: seconds from the
    fault's showing to the exit, less the grace of its class, None where it never showed. `load`: processes that wanted
    each processor then."""

    code: int
    seconds: float
    said: str
    named: bool
    failure: Mapping[str, str] = {}
    late: float | None = None
    load: float = 0.0


class Eye:
    """Watches a namespace beside the command, and notes when the API server first shows what a pattern says."""

    def __init__(self, kube: Kube, namespace: str, pattern: str) -> None:
        self.at: float | None = None
        self._stop = threading.Event()
        self._pattern = re.compile(pattern)
        threading.Thread(target=self._look, args=(kube, namespace), daemon=True).start()

    def _look(self, kube: Kube, namespace: str) -> None:
        for snapshot in look.looks(kube, namespace, self._stop):
            if self.at is None and self._pattern.search(repr(snapshot)):
                self.at = time.monotonic()

    def close(self) -> None:
        self._stop.set()


Run = Callable[[Session, Broken, str, Path], Seen]


def run(session: Session, name: str, side: str, folder: Path) -> Seen:
    """One row under `devenv` or `helm`; its namespace is gone, or going, afterwards. Raises StepFailed."""
    namespace = f"broken-{list(CATALOGUE).index(name)}-{side}-{os.getpid()}"
    broken = bound(CATALOGUE[name], namespace)
    sides: dict[str, Run] = {"devenv": _devenv, "helm": _helm}
    with _prepared(session, broken, namespace):
        return sides[side](session, broken, namespace, folder)


@contextmanager
def _prepared(session: Session, broken: Broken, namespace: str) -> Iterator[None]:
    """The namespace, and what is there first; all of it goes in the end."""
    try:
        _apply(session, namespace, [made("Namespace", namespace, metadata={"labels": broken.namespace})])
        _apply(session, namespace, broken.before)
        if any(object["kind"] == "Pod" for object in broken.before):
            _kubectl(session, namespace, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
        yield
    finally:
        for object in broken.before:
            if object["kind"] in CLUSTER_WIDE:
                _kubectl(session, namespace, "delete", object["kind"], object["metadata"]["name"], "--ignore-not-found")
        # Waited for: a port of the node is free again only then.
        _kubectl(session, namespace, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")


def _apply(session: Session, namespace: str, objects: Sequence[Object]) -> None:
    if objects:
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        _kubectl(session, namespace, "apply", "-f", "-", stdin=body)


def _kubectl(session: Session, namespace: str, *words: str, stdin: str | None = None) -> None:
    _must(shell.run(kubectl_argv(session, namespace, *words), stdin=stdin), f"kubectl {words[0]}")


def _must(output: shell.Output, what: str) -> None:
    if output.code != 0:
        raise StepFailed(f"{what} failed", where="the catalogue of broken environments", why=output.last_line[:300])


def chart(folder: Path, objects: Sequence[Object]) -> str:
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: broken\nversion: 0.1.0\n")
    (folder / "templates" / "all.yaml").write_text("\n---\n".join(json.dumps(one) for one in objects))
    return str(folder)


def _devenv(session: Session, broken: Broken, namespace: str, folder: Path) -> Seen:
    def redeploy(where: Path, objects: Sequence[Object]) -> shell.Output:
        words = ["--context", session.target.context, "--namespace", namespace, "--chart", chart(where, objects)]
        words += ["--output", "json", "--timeout", f"{broken.timeout:.0f}s", *broken.flags]
        argv: list[str | Path] = [sys.executable, paths.START, "redeploy", *words]
        return shell.run(argv, env={"ENABLE_TEMPORAL": "", "TEMPORAL_EXTERNAL_SECRET": ""})

    if broken.first:
        _must(redeploy(folder / "first", broken.first), "the first redeploy")
    eye = Eye(session.kube, namespace, broken.shown or "$never")
    began = time.monotonic()
    output = redeploy(folder / "chart", broken.objects)
    over = time.monotonic()
    eye.close()
    failure = _failure(output)
    said = " | ".join(failure.get(part, "") for part in ("reason", "object", "evidence"))
    late = over - eye.at - broken.grace if eye.at is not None else None
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return Seen(output.code, over - began, said, names(broken, said), failure, late, load)


def names(broken: Broken, said: str) -> bool:
    """Whether it says what whoever names the cause must say. Pure."""
    return all(re.search(pattern, said) for pattern in broken.cause)


def _failure(output: shell.Output) -> dict[str, str]:
    try:
        return dict(json.loads(output.stdout).get("failure") or {})
    except ValueError:
        raise StepFailed("redeploy did not answer", where="--output json", why=output.last_line[:300]) from None


def _helm(session: Session, broken: Broken, namespace: str, folder: Path) -> Seen:
    helm = session.helm._replace(namespace=namespace)

    def upgrade(where: Path, objects: Sequence[Object]) -> shell.Output:
        words = ("upgrade", "broken", chart(where, objects), "--install", "--wait", "--timeout", f"{HELM_SECONDS:.0f}s")
        return helm.run(*words)

    if broken.first:
        _must(upgrade(folder / "first", broken.first), "the first helm upgrade")
    began = time.monotonic()
    output = upgrade(folder / "chart", broken.objects)
    said = output.stdout + output.stderr
    return Seen(output.code, time.monotonic() - began, said, names(broken, said))


def compare(session: Session, folder: Path, told: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """All rows under both, a few side by side; each row's two sides one after the other. Raises StepFailed."""
    count = 0

    def row(name: str) -> dict[str, Any]:
        nonlocal count
        place = folder / str(list(CATALOGUE).index(name))
        seen = {side: run(session, name, side, place / side) for side in ("devenv", "helm")}
        count += 1
        told(count, len(CATALOGUE))
        return record(name, seen["devenv"], seen["helm"])

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(row, CATALOGUE))


def bench(flags: Flags, screen: Screen) -> dict[str, Any]:
    """The whole catalogue under both, on the embedded cluster unless flags say another. Raises StepFailed."""
    session = reach(describe(flags._replace(context=flags.context or "embedded")), screen, start=True)
    load = os.getloadavg()[0]
    with screen.stage("prepare") as stage:
        if session.target.embedded:
            start.load_images(session.target.embedded, stage.waits, temporal=True)
    with screen.stage("bench") as stage, tempfile.TemporaryDirectory(prefix="devenv-failures-") as folder:
        stage.waits(f"{len(CATALOGUE)} faults, {SIDE_BY_SIDE} side by side")
        rows = compare(session, Path(folder), lambda done, all: stage.waits(f"{done} of {all} faults"))
        named = {side: sum(row[side]["named"] for row in rows) for side in ("devenv", "helm")}
        stage.says(f"{len(rows)} faults: devenv named {named['devenv']}, helm {named['helm']}")
    return {
        "schema": "devenv/bench-failures/v1",
        "machine": {**machine(), "load": round(load, 1)},
        "versions": {
            "kubernetes": session.version,
            "helm": session.helm.version(),
            "python": platform.python_version(),
        },
        "helmTimeout": HELM_SECONDS,
        "rows": rows,
    }


def record(name: str, ours: Seen, helms: Seen) -> dict[str, Any]:
    """A row as JSON shows it."""
    broken = CATALOGUE[name]

    def side(seen: Seen) -> dict[str, Any]:
        return {"seconds": round(seen.seconds, 1), "exitCode": seen.code, "named": seen.named}

    late = None if ours.late is None else round(ours.late, 1)
    return {
        "fault": name,
        "class": broken.kind,
        "devenv": {**side(ours), "late": late, "says": ours.failure.get("reason", "")},
        "helm": side(helms),
    }


def table(record: Mapping[str, Any]) -> str:
    """The rows as Markdown, for README. Pure."""
    rows = record["rows"]
    lines = ["| fault | class | devenv | named | helm | named |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [_cells(row[side]) for side in ("devenv", "helm")]
        lines.append(f"| {row['fault']} | {row['class']} | {' | '.join(cells)} |")
    named = {side: sum(row[side]["named"] for row in rows) for side in ("devenv", "helm")}
    return "\n".join([*lines, "", f"Of {len(rows)}, devenv named {named['devenv']}, helm {named['helm']}."])


def _cells(seen: Mapping[str, Any]) -> str:
    """Seconds, and a success where there was none; whether the cause was named."""
    taken = "" if seen["exitCode"] else ", exit code 0"
    return f"{seen['seconds']:.1f} s{taken} | {'yes' if seen['named'] else 'no'}"
