"""Measures devenv against plain Helm, side by side: the same chart, values, Helm program and cluster. Edge out.

Each round does both, in turns first, in namespaces of their own; a ratio is that of a pair, so that what else the
machine does weighs on both sides. Helm's side is `helm upgrade --install --wait`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devenv import apply, environment, look, paths
from devenv.clients import shell
from devenv.clients.kube import KINDS, Kube
from devenv.cluster import images
from devenv.environment import Environment, Session, reach
from devenv.errors import InputWrong, StepFailed
from devenv.report import Screen
from devenv.settings import Flags

Object = dict[str, Any]

SIDES = ("devenv", "helm")
GONE_WITHIN = 60.0  # seconds that a namespace may take to go before the next round begins all the same


@dataclass(frozen=True)
class Measure:
    """One thing that was measured: seconds for each round; `helm` is empty where Helm has nothing like it.

    `proof` is the part of devenv's seconds in which it proved the environment, which Helm does not do.
    """

    name: str
    devenv: tuple[float, ...]
    helm: tuple[float, ...] = ()
    proof: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The median of the pairs' ratios, the proof not counted."""
        if not self.helm:
            return None
        proof = self.proof or (0.0,) * len(self.devenv)
        pairs = zip(self.devenv, proof, self.helm, strict=True)
        return statistics.median((ours - proving) / theirs for ours, proving, theirs in pairs)

    def record(self) -> dict[str, Any]:
        ratio = self.ratio
        return {
            "name": self.name,
            "devenv": [round(seconds, 3) for seconds in self.devenv],
            "helm": [round(seconds, 3) for seconds in self.helm],
            "proof": [round(seconds, 3) for seconds in self.proof],
            "devenvMedian": round(statistics.median(self.devenv), 3),
            "helmMedian": round(statistics.median(self.helm), 3) if self.helm else None,
            "proofMedian": round(statistics.median(self.proof), 3) if self.proof else None,
            "ratio": None if ratio is None else round(ratio, 2),
        }


@dataclass(frozen=True)
class Bench:
    """What is measured, where, and how often."""

    flags: Flags
    mine: Environment
    session: Session
    rounds: int
    screen: Screen


def run(flags: Flags, screen: Screen, rounds: int) -> dict[str, Any]:
    """Deploys the profile's environment twice, measures, and removes both. Raises InputWrong, StepFailed."""
    if not 1 <= rounds <= 100:
        raise InputWrong(f"{rounds} rounds cannot be", where="--rounds", next="--rounds 5")
    names = {side: f"bench-{side}-{os.getpid()}" for side in SIDES}
    mine = _described(flags, names["devenv"])
    if not mine.desired.bundled:
        raise InputWrong("the bench is for the bundled chart", where="--chart", next="inv bench")
    session = reach(mine, screen, start=True)
    load = os.getloadavg()[0]
    bench = Bench(flags, mine, session, rounds, screen)
    with _namespaces(session, list(names.values()), screen):
        with screen.stage("prepare") as stage:
            stage.waits("both sides are deployed once")
            for side in SIDES:
                _prepare(bench, side, names["devenv"], names[side])
                _run(bench, side, names[side], ())
            stage.says("both sides deployed, with equal values")
        measures = [
            Measure("start-up (--list)", tuple(_timed(_list) for _ in range(rounds))),
            _pairs(bench, "nothing changed", names, lambda _: ()),
            _pairs(bench, "one value changed", names, _changed),
        ]
        with _second_tag(session) as tags:
            if tags:
                measures.append(_pairs(bench, "one image changed", names, lambda number: (tags[number % 2],)))
        measures += _from_nothing(bench, names["devenv"])
    return {
        "schema": "devenv/bench/v1",
        "machine": {**machine(), "load": round(load, 1)},
        "versions": {
            "kubernetes": session.version,
            "helm": session.helm.version(),
            "python": platform.python_version(),
        },
        "temporal": mine.desired.temporal,
        "rounds": rounds,
        "measures": [measure.record() for measure in measures],
    }


def _described(flags: Flags, namespace: str) -> Environment:
    return environment.describe(replace(flags, namespace=namespace, context=flags.context or "embedded"))


def _changed(number: int) -> tuple[str, ...]:
    return (f"backend.additionalEnv[0].name=BENCH,backend.additionalEnv[0].value=round-{number}",)


@contextmanager
def _second_tag(session: Session) -> Iterator[tuple[str, ...]]:
    """What sets the backend's image to one of two tags of the same image; on another cluster than our own, nothing."""
    if not session.target.embedded:
        yield ()
        return
    name = images.references()["backend"]
    other = f"{name}-bench"
    with images.alias(session.target.embedded, name, other):
        yield tuple(f"backend.image.tag={one.rpartition(':')[2]}" for one in (other, name))


def _run(bench: Bench, side: str, namespace: str, sets: Sequence[str]) -> tuple[float, float]:
    """Seconds of one deployment by one side, and those of devenv's proof in them."""
    if side == "devenv":
        own = ["--namespace", namespace, "--context", bench.session.target.context]
        words = [word for text in (*bench.flags.sets, *sets) for word in ("--set", text)]
        profile = ["--profile", bench.mine.desired.profile]
        argv: list[str | Path] = [sys.executable, paths.PROJECT / "tasks.py", "redeploy", *own, *profile, *words]
        started, began = time.monotonic(), time.time()
        _must(shell.run(argv), "redeploy")
        return time.monotonic() - started, _proof_seconds(namespace, began)
    composed = _described(replace(bench.flags, sets=(*bench.flags.sets, *sets)), namespace).desired
    words = ["upgrade", composed.release, composed.chart, "--install", "--wait", "--values", "-"]
    words += ["--timeout", f"{composed.timeouts['rollout']:.0f}s"]
    program, values = replace(bench.session.helm, namespace=namespace), json.dumps(composed.values.tree())
    started = time.monotonic()
    _must(program.run(*words, stdin=values), "helm")
    return time.monotonic() - started, 0.0


def _prepare(bench: Bench, side: str, first: str, namespace: str) -> None:
    """What plain Helm needs and devenv makes itself: the namespace, and the internal database's Secret."""
    if side == "devenv":
        return
    kube, name = bench.session.kube, apply.database_name(bench.mine.desired.release)
    apply.namespace(kube, namespace)
    found = kube.find(KINDS[("v1", "Secret")].path(first, name))
    if found is not None:
        body: Object = {"metadata": {"name": name}, "data": found["data"], "type": found.get("type", "Opaque")}
        kube.create(KINDS[("v1", "Secret")].path(namespace, name).rpartition("/")[0], body)


def _from_nothing(bench: Bench, first: str) -> list[Measure]:
    """Each round in namespaces that were not there; and how long devenv goes on after the last pod is ready."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    proofs, after = [], []
    kube = bench.session.kube
    with bench.screen.stage("bench") as stage:
        for number, side in _turns(bench.rounds):
            stage.waits(f"empty namespace: round {number + 1} of {bench.rounds}, {side}")
            namespace = f"{first}-{side}-{number}"
            with _namespaces(bench.session, [namespace], None):
                _prepare(bench, side, first, namespace)
                with _ready(kube, namespace) as ready:
                    took, proof = _run(bench, side, namespace, ())
                    ended = time.monotonic()
                seconds[side].append(took)
                if side == "devenv":
                    proofs.append(proof)
                    after.append(max(0.0, ended - ready[-1] - proof))
        whole = Measure("empty namespace to ready", tuple(seconds["devenv"]), tuple(seconds["helm"]), tuple(proofs))
        stage.says(_told(whole))
    return [whole, Measure("from the last pod's Ready to the end", tuple(after))]


@contextmanager
def _ready(kube: Kube, namespace: str) -> Iterator[list[float]]:
    """When (monotonic seconds) a pod of the namespace was first seen ready, one after the other."""
    stop, known, times = threading.Event(), set[str](), [time.monotonic()]

    def follow() -> None:
        for seen in look.looks(kube, namespace, stop):
            new = {pod.name for pod in seen.pods if pod.ready} - known
            known.update(new)
            times.extend(time.monotonic() for _ in new)

    watching = threading.Thread(target=follow, daemon=True)
    watching.start()
    try:
        yield times
    finally:
        stop.set()


def _must(output: shell.Output, what: str) -> None:
    if output.code != 0:
        raise StepFailed(f"{what} failed in the bench", where=f"exit code {output.code}", why=output.last_line[:300],
                         next="inv bench, on a cluster that is at rest")  # fmt: skip


def _proof_seconds(namespace: str, since: float) -> float:
    """From the report that a redeploy left that began after `since` (epoch seconds); none when it did nothing."""
    newest = max((paths.state() / "reports").glob(f"*-{namespace}-redeploy/report.json"), default=None)
    if newest is None or newest.stat().st_mtime < since:
        return 0.0
    stages = json.loads(newest.read_text())["stages"]
    return float(sum(stage["seconds"] for stage in stages if stage["name"] == "proof"))


def _turns(rounds: int) -> Iterator[tuple[int, str]]:
    """Both sides in each round, in turns first."""
    for number in range(rounds):
        yield from ((number, side) for side in (SIDES if number % 2 == 0 else reversed(SIDES)))


def _pairs(bench: Bench, name: str, names: Mapping[str, str], sets: Callable[[int], Sequence[str]]) -> Measure:
    """Both sides in each round, in turns first."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    proofs: list[float] = []
    with bench.screen.stage("bench") as stage:
        for number, side in _turns(bench.rounds):
            stage.waits(f"{name}: round {number + 1} of {bench.rounds}")
            took, proof = _run(bench, side, names[side], sets(number))
            seconds[side].append(took)
            proofs += [proof] if side == "devenv" else []
        measure = Measure(name, tuple(seconds["devenv"]), tuple(seconds["helm"]), tuple(proofs) if any(proofs) else ())
        stage.says(_told(measure))
    return measure


def _told(measure: Measure) -> str:
    record = measure.record()
    both = f"{record['devenvMedian']:.2f} s, helm {record['helmMedian']:.2f} s, ratio {record['ratio']}"
    return f"{measure.name}: {both}"


def _list() -> None:
    _must(shell.run([sys.executable, paths.PROJECT / "tasks.py", "--list"]), "--list")


def _timed(what: Callable[[], None]) -> float:
    started = time.monotonic()
    what()
    return time.monotonic() - started


@contextmanager
def _namespaces(session: Session, names: Sequence[str], screen: Screen | None) -> Iterator[None]:
    """The namespaces go in the end, whatever happened; without a screen to tell it on, that is waited for."""
    try:
        yield
    finally:
        for name in names:
            session.kube.delete(f"/api/v1/namespaces/{name}")
        if screen is not None:
            with screen.stage("tidy") as stage:
                stage.says(f"namespaces {', '.join(names)} are being deleted")
        deadline = time.monotonic() + GONE_WITHIN
        while screen is None and time.monotonic() < deadline and _there(session, names):
            time.sleep(0.2)


def _there(session: Session, names: Sequence[str]) -> bool:
    return any(session.kube.find(f"/api/v1/namespaces/{name}") for name in names)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    except (OSError, ValueError, IndexError):
        memory = 0
    return {
        "cpus": os.cpu_count() or 0,
        "model": model or platform.machine(),
        "memoryMB": memory,
        "system": platform.system(),
    }


def table(record: Mapping[str, Any]) -> str:
    """The figures as Markdown, for README, with the machine that they were taken on. Pure."""
    where, versions = record["machine"], record["versions"]
    lines = ["| | devenv | of it proof | helm | ratio without proof |", "|---|---|---|---|---|"]
    for one in record["measures"]:
        cells = [_seconds(one[key]) for key in ("devenvMedian", "proofMedian", "helmMedian")]
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        lines.append(f"| {one['name']} | {' | '.join(cells)} | {ratio} |")
    lines += [
        "",
        f"Medians of {record['rounds']} rounds; Temporal {'on' if record['temporal'] else 'off'}; {where['cpus']} CPUs "
        f"({where['model']}), {where['memoryMB'] / 1024:.0f} GB, load {where['load']} before; "
        f"Kubernetes {versions['kubernetes'].removeprefix('v')}, Helm {versions['helm']}, Python {versions['python']}.",
    ]
    if where["load"] > where["cpus"]:
        lines.append("The machine was busy with other things: only the ratios say something.")
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
