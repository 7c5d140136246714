"""A thousand simulated pods: what a redeploy of them costs our own process, and that their failures are told as real ones.

On a cluster of its own with simulated nodes, deleted at the end; on one that is kept where DEVENV_TEST_SCALE_CLUSTER
names it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devenv import bench, benchscale, scale
from devenv.clients import shell
from devenv.clients.helm import Helm
from devenv.cluster import embedded, programs, start
from devenv.paths import START
from devenv.report import Screen
from tests.conftest import measured

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="the embedded cluster needs Linux and root"
    ),
]

NAME = os.environ.get("DEVENV_TEST_SCALE_CLUSTER", f"scale-{os.getpid()}")
WORKLOADS, REPLICAS = 100, 10
MOST_MEMORY = 200e6  # bytes
# Seconds; 3 are wanted of both. An update makes each pod and deletes another one: twice the news of a first install.
MOST_CPU = {"first": 3.0, "second": 4.0}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The chart, and a cluster with ten simulated nodes for it."""
    kept = embedded.state(NAME).exists()
    try:
        start.up(NAME, lambda _: None, 10)
        yield scale.write_chart(tmp_path_factory.mktemp("chart"), WORKLOADS, REPLICAS)
    finally:
        if not kept:
            embedded.delete(NAME, lambda _: None)


def argv(chart: Path, namespace: str, task: str, *words: str) -> list[str | Path]:
    bound = ("--context", f"embedded-{NAME}", "--namespace", namespace)
    return [sys.executable, START, task, "--chart", chart, *bound, *words]


def kubectl(*words: str) -> str:
    output = shell.run([programs.path("kubectl"), "--kubeconfig", embedded.state(NAME) / "kubeconfig", *words])
    assert output.code == 0, output.stderr
    return output.stdout


def test_a_redeploy_of_a_thousand_pods_costs_our_process_little(chart: Path) -> None:
    for text, most in MOST_CPU.items():
        cost = scale.measure(argv(chart, "scale", "redeploy", "--set", f"text={text}"), {"ENABLE_TEMPORAL": "false"})
        measured.append(
            f"1,000 simulated pods, {text} redeploy: {cost.seconds:.1f} s, CPU of our process {cost.cpu:.2f} s,"
            f" its largest resident set {cost.memory / 1e6:.0f} MB"
        )
        print(measured[-1], cost.output.stdout, cost.output.stderr, sep="\n")
        assert cost.output.code == 0
        assert "100 of 100 ok" in cost.output.stdout + cost.output.stderr
        assert cost.cpu <= most
        assert cost.memory <= MOST_MEMORY
    pods = json.loads(kubectl("get", "pods", "--namespace", "scale", "--output", "json"))["items"]
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert len(running) == WORKLOADS * REPLICAS
    assert {pod["spec"]["nodeName"] for pod in running} == {f"simulated-{nth:03}" for nth in range(1, 11)}


def test_simulated_nodes_get_no_pod_that_does_not_ask_for_them(chart: Path) -> None:
    nodes = json.loads(kubectl("get", "nodes", "--selector", "devenv.local/simulated", "--output", "json"))["items"]
    assert [node["spec"]["taints"][0]["effect"] for node in nodes] == ["NoSchedule"] * 10


def test_the_bench_measures_both_sides_on_a_cluster_that_goes_afterwards() -> None:
    helm, screen = Helm(programs.path("helm"), Path(), "", ""), Screen(plain=True, color=False)
    made = benchscale.measures(helm, [(0, "helm"), (0, "devenv")], screen, bench._must, workloads=3, replicas=2)
    assert [one.name for one in made] == [
        "6 simulated pods, first install",
        "6 simulated pods, one value changed in all",
    ]
    assert all(one.ratio and one.cpu[0] > 0.1 and one.memory[0] > 10e6 for one in made)
    assert not embedded.state(f"bench-{os.getpid()}").exists()


@pytest.mark.parametrize(
    ("how", "what"), [("crash", "Deployment/workload-001"), ("image", "Deployment/workload-001 gets no image")]
)
def test_what_fails_among_many_is_told(chart: Path, how: str, what: str) -> None:
    namespace = f"scale-{how}"
    sets = ("--set", "workloads=10", "--set", "replicas=2", "--set", f"simulate.1={how}", "--timeout", "60s")
    output = shell.run(
        [*argv(chart, namespace, "redeploy", *sets), "--output", "json"], env={"ENABLE_TEMPORAL": "false"}
    )
    print(output.stdout, output.stderr)
    assert output.code == 5
    assert what in json.loads(output.stdout)["failure"]["reason"]
