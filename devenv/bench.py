"""Measures devenv against plain Helm, side by side: the same chart, values, Helm program and cluster. Edge out.

Each round does both, in turns first, in namespaces of their own; a ratio is that of a pair, so that what else the
machine does weighs on both sides. Helm's side is `helm upgrade --install --wait`. Where PATH has Helmfile, its `sync`
is a third side, with the same Helm.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from devenv import apply, environment, look, paths
from devenv.benchtable import Measure, machine
from devenv.clients import shell
from devenv.clients.kube import KINDS, Kube
from devenv.cluster import images
from devenv.environment import Environment, Session, reach
from devenv.errors import InputWrong, StepFailed
from devenv.model import Desired
from devenv.report import Screen
from devenv.settings import Flags

Object = dict[str, Any]

SIDES = ("devenv", "helm")
# Seconds. The kubelet looks after pods each second, and at their readiness every two: without a pause each side
# begins where the one before it ended, and would meet those clocks at the same moment each time, early or late.
CLOCKS = 2.0
GONE_WITHIN = 60.0  # seconds that a namespace may take to go before the next round begins all the same


class Bench(NamedTuple):
    """What is measured, where, and how often."""

    flags: Flags
    mine: Environment
    session: Session
    rounds: int
    screen: Screen
    helmfile: Path | None

    @property
    def sides(self) -> tuple[str, ...]:
        return (*SIDES, "helmfile") if self.helmfile else SIDES


def run(flags: Flags, screen: Screen, rounds: int, scale: bool = False) -> dict[str, Any]:
    """Deploys the profile's environment once for each side, measures, and removes them. Raises InputWrong, StepFailed.

    `scale`: 1,000 simulated pods, too, on a cluster of their own.
    """
    if not 1 <= rounds <= 100:
        raise InputWrong(f"{rounds} rounds cannot be", where="--rounds", next="--rounds 5")
    mine = _described(flags, f"bench-devenv-{os.getpid()}")
    if not mine.desired.bundled:
        raise InputWrong("the bench is for the bundled chart", where="--chart", next="inv bench")
    session = reach(mine, screen, start=True)
    load = os.getloadavg()[0]
    bench = Bench(flags, mine, session, rounds, screen, shell.which("helmfile"))
    names = {side: f"bench-{side}-{os.getpid()}" for side in bench.sides}
    with _namespaces(session, list(names.values()), screen):
        with screen.stage("prepare") as stage:
            stage.waits("each side is deployed once")
            for side in bench.sides:
                _prepare(bench, side, names["devenv"], names[side])
                _run(bench, side, names[side], ())
            stage.says(f"{', '.join(bench.sides)} deployed, with equal values")
        measures = [
            Measure("start-up (--list)", tuple(_timed(_list) for _ in range(rounds))),
            _pairs(bench, "nothing changed", names, lambda _: ()),
            _pairs(bench, "one value changed", names, _changed),
        ]
        with _second_tag(session) as tags:
            if tags:
                measures.append(_pairs(bench, "one image changed", names, lambda number: (tags[number % 2],)))
        measures += _from_nothing(bench, names["devenv"])
    if scale:
        from devenv import benchscale

        measures += benchscale.measures(session.helm, _turns(SIDES, rounds), screen, _must)
    return {
        "schema": "devenv/bench/v1",
        "machine": {**machine(), "load": round(load, 1)},
        "versions": {
            "kubernetes": session.version,
            "helm": session.helm.version(),
            "python": platform.python_version(),
            **({"helmfile": _version(bench.helmfile)} if bench.helmfile else {}),
        },
        "temporal": mine.desired.temporal,
        "rounds": rounds,
        "measures": [measure.record() for measure in measures],
    }


def _described(flags: Flags, namespace: str) -> Environment:
    return environment.describe(flags._replace(namespace=namespace, context=flags.context or "embedded"))


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
        argv: list[str | Path] = [sys.executable, paths.START, "redeploy", *own, *profile, *words]
        started, began = time.monotonic(), time.time()
        _must(shell.run(argv), "redeploy")
        return time.monotonic() - started, _proof_seconds(namespace, began)
    composed = _described(bench.flags._replace(sets=(*bench.flags.sets, *sets)), namespace).desired
    words = ["upgrade", composed.release, composed.chart, "--install", "--wait", "--values", "-"]
    words += ["--timeout", f"{composed.timeouts['rollout']:.0f}s"]
    program, values = bench.session.helm._replace(namespace=namespace), json.dumps(composed.values.tree())
    if side == "helmfile":
        return _sync(bench, composed, namespace, values), 0.0
    started = time.monotonic()
    _must(program.run(*words, stdin=values), "helm")
    return time.monotonic() - started, 0.0


def _sync(bench: Bench, composed: Desired, namespace: str, values: str) -> float:
    """Seconds of Helmfile's `sync` of one release; Helm waits as on Helm's own side."""
    helm, timeout = bench.session.helm, int(composed.timeouts["rollout"])
    release = {"name": composed.release, "namespace": namespace, "chart": composed.chart, "values": ["values.json"]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "helmfile.yaml"
        file.write_text(f"releases: [{json.dumps({**release, 'wait': True, 'timeout': timeout})}]\n")
        file.with_name("values.json").write_text(values)
        bound: list[str | Path] = ["--helm-binary", helm.program, "--kube-context", helm.context, "--file", file]
        started = time.monotonic()
        argv = [str(bench.helmfile), *bound, "sync", "--skip-deps"]  # the chart's own are in its folder
        _must(shell.run(argv, env={"KUBECONFIG": str(helm.kubeconfig)}, drop=("HELM_",)), "helmfile")
        return time.monotonic() - started


def _version(helmfile: Path) -> str:
    said = re.search(r"\d+\.\d+\.\d+", shell.run([helmfile, "version", "--output", "short"]).stdout)
    return said[0] if said else "of a version that it does not say"


def _prepare(bench: Bench, side: str, first: str, namespace: str) -> None:
    """What the other sides need and devenv makes itself: the namespace, and the internal database's Secret."""
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
    seconds: dict[str, list[float]] = {side: [] for side in bench.sides}
    proofs, after = [], []
    kube = bench.session.kube
    with bench.screen.stage("bench") as stage:
        for number, side in _turns(bench.sides, bench.rounds):
            stage.waits(f"empty namespace: round {number + 1} of {bench.rounds}, {side}")
            namespace = f"{first}-{side}-{number}"
            with _namespaces(bench.session, [namespace], None):
                _prepare(bench, side, first, namespace)
                time.sleep(random.uniform(0, CLOCKS))
                with _ready(kube, namespace) as ready:
                    took, proof = _run(bench, side, namespace, ())
                    ended = time.monotonic()
                seconds[side].append(took)
                if side == "devenv":
                    proofs.append(proof)
                    after.append(max(0.0, ended - ready[-1] - proof))
        whole = _measure("empty namespace to ready", seconds, proofs)
        stage.says(whole.told())
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


def _turns(sides: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """All sides in each round, in turns first."""
    for number in range(rounds):
        yield from ((number, side) for side in (sides if number % 2 == 0 else reversed(sides)))


def _measure(name: str, seconds: Mapping[str, Sequence[float]], proofs: Sequence[float]) -> Measure:
    ours, helms, helmfiles = (tuple(seconds.get(side, ())) for side in (*SIDES, "helmfile"))
    return Measure(name, ours, helms, tuple(proofs) if any(proofs) else (), helmfiles)


def _pairs(bench: Bench, name: str, names: Mapping[str, str], sets: Callable[[int], Sequence[str]]) -> Measure:
    """All sides in each round, in turns first."""
    seconds: dict[str, list[float]] = {side: [] for side in bench.sides}
    proofs: list[float] = []
    with bench.screen.stage("bench") as stage:
        for number, side in _turns(bench.sides, bench.rounds):
            stage.waits(f"{name}: round {number + 1} of {bench.rounds}")
            time.sleep(random.uniform(0, CLOCKS))
            took, proof = _run(bench, side, names[side], sets(number))
            seconds[side].append(took)
            proofs += [proof] if side == "devenv" else []
        measure = _measure(name, seconds, proofs)
        stage.says(measure.told())
    return measure


def _list() -> None:
    _must(shell.run([sys.executable, paths.START, "--list"]), "--list")


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
