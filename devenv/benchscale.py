"""The bench's 1,000 simulated pods: devenv against plain Helm on a cluster of its own, which goes afterwards. Edge out.

Of devenv's own process CPU and memory are measured, too; of Helm, which both sides run, they are not.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from devenv import paths, scale
from devenv.benchtable import Measure
from devenv.clients import shell
from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.cluster import embedded, start
from devenv.report import Screen

WORKLOADS, REPLICAS, NODES = 100, 10, 10
TASKS = ("first install", "one value changed in all")
GONE_WITHIN = 180.0  # seconds for the thousand pods of one turn to go

Turns = Iterable[tuple[int, str]]
Must = Callable[[shell.Output, str], None]


class Ground(NamedTuple):
    """The cluster, the chart, and Helm on it."""

    kube: Kube
    helm: Helm
    chart: Path


def measures(
    helm: Helm, turns: Turns, screen: Screen, must: Must, workloads: int = WORKLOADS, replicas: int = REPLICAS
) -> list[Measure]:
    """A first install and an update, each turn in a namespace that was not there. Raises StepFailed, Refused."""
    name = f"bench-{os.getpid()}"
    costs: dict[tuple[str, str], list[scale.Cost]] = {}
    with ExitStack() as stack:
        stage = stack.enter_context(screen.stage("scale"))
        stack.callback(embedded.delete, name, stage.waits)
        start.up(name, stage.waits, NODES)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        kubeconfig, context = embedded.state(name) / "kubeconfig", f"embedded-{name}"
        chart = scale.write_chart(Path(folder), workloads, replicas)
        bound = helm._replace(kubeconfig=kubeconfig, context=context)
        ground = Ground(Kube(kubeconfig, context), bound, chart)
        for number, side in turns:
            for task in TASKS:
                stage.waits(f"{task}: round {number + 1}, {side}")
                cost = _run(ground, side, f"scale-{number}-{side}", task)
                must(cost.output, f"{side}, {task}")
                costs.setdefault((task, side), []).append(cost)
            _remove(ground.kube, f"scale-{number}-{side}")
        pods = f"{workloads * replicas:,} simulated pods"
        made = [_measure(f"{pods}, {task}", costs[task, "devenv"], costs[task, "helm"]) for task in TASKS]
        stage.says(made[0].told(), *(one.told() for one in made[1:]))
    return made


def _measure(name: str, ours: list[scale.Cost], helms: list[scale.Cost]) -> Measure:
    return Measure(
        name,
        tuple(cost.seconds for cost in ours),
        tuple(cost.seconds for cost in helms),
        cpu=tuple(cost.cpu for cost in ours),
        memory=tuple(cost.memory for cost in ours),
    )


def _run(ground: Ground, side: str, namespace: str, task: str) -> scale.Cost:
    """One deployment by one side; the task's name is the value that changes."""
    text = f"text={task}"
    if side == "devenv":
        bound = ("--context", ground.helm.context, "--namespace", namespace, "--set", text)
        argv: list[str | Path] = [
            sys.executable,
            paths.START,
            "redeploy",
            "--chart",
            ground.chart,
            *bound,
        ]
        return scale.measure(argv, {"ENABLE_TEMPORAL": "false"})
    bound_helm = ground.helm._replace(namespace=namespace)
    words = ("upgrade", "scale", str(ground.chart), "--install", "--create-namespace", "--wait", "--set", text)
    return scale.measure(bound_helm.argv(*words, "--timeout", "600s"), {})


def _remove(kube: Kube, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}"
    kube.delete(path)
    deadline = time.monotonic() + GONE_WITHIN
    while kube.find(path) and time.monotonic() < deadline:
        time.sleep(0.5)
