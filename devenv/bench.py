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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devenv import apply, environment, paths
from devenv.clients import shell
from devenv.clients.kube import KINDS
from devenv.environment import Environment, Session, reach
from devenv.errors import InputWrong, StepFailed
from devenv.report import Screen
from devenv.settings import Flags

Waits = Callable[[str], None]
Object = dict[str, Any]


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


def run(flags: Flags, screen: Screen, rounds: int) -> dict[str, Any]:
    """Deploys the profile's environment twice, measures, and removes both. Raises InputWrong, StepFailed."""
    if not 1 <= rounds <= 100:
        raise InputWrong(f"{rounds} rounds cannot be", where="--rounds", next="--rounds 5")
    names = {side: f"bench-{side}-{os.getpid()}" for side in ("devenv", "helm")}
    mine = _described(flags, names["devenv"])
    if not mine.desired.bundled:
        raise InputWrong("the bench is for the bundled chart", where="--chart", next="inv bench")
    session = reach(mine, screen, start=True)
    load = os.getloadavg()[0]
    with _namespaces(session, list(names.values()), screen):
        with screen.stage("prepare") as stage:
            stage.waits("both sides are deployed once")
            ours, helm = _sides(flags, mine, session, names)
            ours(())
            apply.namespace(session.kube, names["helm"])
            _copy_secret(session, mine, names)
            helm(())
            stage.says("both sides deployed, with equal values")
        measures = [
            Measure("start-up (--list)", tuple(_timed(_list) for _ in range(rounds))),
            _pairs("nothing changed", rounds, lambda _: (), ours, helm, screen),
            _pairs("one value changed", rounds, _changed, ours, helm, screen),
        ]
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


Run = Callable[[Sequence[str]], tuple[float, float]]  # --set texts → seconds, and those of the proof in them


def _sides(flags: Flags, mine: Environment, session: Session, names: Mapping[str, str]) -> tuple[Run, Run]:
    """What runs each side, with `--set` texts."""

    def ours(sets: Sequence[str]) -> tuple[float, float]:
        own = ["--namespace", names["devenv"], "--context", session.target.context, "--profile", mine.desired.profile]
        words = [word for text in (*flags.sets, *sets) for word in ("--set", text)]
        argv: list[str | Path] = [sys.executable, paths.PROJECT / "tasks.py", "redeploy", *own, *words]
        started = time.monotonic()
        _must(shell.run(argv), "redeploy")
        return time.monotonic() - started, _proof_seconds(names["devenv"]) if sets else 0.0

    def helm(sets: Sequence[str]) -> tuple[float, float]:
        composed = _described(replace(flags, sets=(*flags.sets, *sets)), names["helm"]).desired
        words = ["upgrade", composed.release, composed.chart, "--install", "--wait", "--values", "-"]
        words += ["--timeout", f"{composed.timeouts['rollout']:.0f}s"]
        program, values = replace(session.helm, namespace=names["helm"]), json.dumps(composed.values.tree())
        started = time.monotonic()
        _must(program.run(*words, stdin=values), "helm")
        return time.monotonic() - started, 0.0

    return ours, helm


def _must(output: shell.Output, what: str) -> None:
    if output.code != 0:
        raise StepFailed(f"{what} failed in the bench", where=f"exit code {output.code}", why=output.last_line[:300],
                         next="inv bench, on a cluster that is at rest")  # fmt: skip


def _proof_seconds(namespace: str) -> float:
    """From the report that the last redeploy left."""
    newest = max((paths.state() / "reports").glob(f"*-{namespace}-redeploy/report.json"), default=None)
    stages = json.loads(newest.read_text())["stages"] if newest else []
    return float(sum(stage["seconds"] for stage in stages if stage["name"] == "proof"))


def _pairs(
    name: str, rounds: int, sets: Callable[[int], Sequence[str]], ours: Run, helm: Run, screen: Screen
) -> Measure:
    """Both sides in each round, in turns first."""
    seconds: dict[str, list[float]] = {"devenv": [], "helm": []}
    proofs: list[float] = []
    with screen.stage("bench") as stage:
        for number in range(rounds):
            stage.waits(f"{name}: round {number + 1} of {rounds}")
            pair: list[tuple[str, Run]] = [("devenv", ours), ("helm", helm)]
            for side, run in pair if number % 2 == 0 else reversed(pair):
                took, proof = run(sets(number))
                seconds[side].append(took)
                proofs += [proof] if side == "devenv" else []
        measure = Measure(name, tuple(seconds["devenv"]), tuple(seconds["helm"]), tuple(proofs) if any(proofs) else ())
        record = measure.record()
        told = f"{record['devenvMedian']:.2f} s, helm {record['helmMedian']:.2f} s, ratio {record['ratio']}"
        stage.says(f"{name}: {told}")
    return measure


def _list() -> None:
    _must(shell.run([sys.executable, paths.PROJECT / "tasks.py", "--list"]), "--list")


def _timed(what: Callable[[], None]) -> float:
    started = time.monotonic()
    what()
    return time.monotonic() - started


@contextmanager
def _namespaces(session: Session, names: Sequence[str], screen: Screen) -> Iterator[None]:
    """The namespaces go in the end, whatever happened."""
    try:
        yield
    finally:
        with screen.stage("tidy") as stage:
            for name in names:
                session.kube.delete(f"/api/v1/namespaces/{name}")
            stage.says(f"namespaces {', '.join(names)} are being deleted")


def _copy_secret(session: Session, mine: Environment, names: Mapping[str, str]) -> None:
    """Helm's side needs the internal database's Secret too, where there is one."""
    name = apply.database_name(mine.desired.release)
    found = session.kube.find(KINDS[("v1", "Secret")].path(names["devenv"], name))
    if found is not None:
        body: Object = {"metadata": {"name": name}, "data": found["data"], "type": found.get("type", "Opaque")}
        session.kube.create(KINDS[("v1", "Secret")].path(names["helm"]), body)


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
