"""CPU and memory of pods: from metrics.k8s.io or from the kubelet, and nothing at all where nobody tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devenv import usage
from devenv.clients.kube import Kube
from devenv.usage import Usage
from tests.fake_api import FakeApi

SUMMARY = {
    "node": {"nodeName": "devenv"},
    "pods": [
        {
            "podRef": {"name": "backend-1", "namespace": "a"},
            "cpu": {"usageNanoCores": 2_500_000},
            "memory": {"workingSetBytes": 23236608},
        },
        {"podRef": {"name": "starting", "namespace": "a"}, "cpu": {"time": "now"}, "memory": {"time": "now"}},
        {
            "podRef": {"name": "backend-1", "namespace": "b"},
            "cpu": {"usageNanoCores": 9},
            "memory": {"workingSetBytes": 9},
        },
    ],
}
METRICS = {
    "items": [
        {
            "metadata": {"name": "backend-1"},
            "containers": [
                {"usage": {"cpu": "2500000n", "memory": "20Mi"}},
                {"usage": {"cpu": "1m", "memory": "1048576"}},
                {"usage": {"cpu": "500u", "memory": "0"}},
            ],
        }
    ]
}


def test_the_kubelet_tells_of_all_namespaces_and_only_ours_counts() -> None:
    assert usage.summary(SUMMARY, "a") == {"backend-1": Usage(0.0025, 23236608)}


def test_a_pods_containers_count_together() -> None:
    (used,) = usage.metrics(METRICS).values()
    assert used.cpu == pytest.approx(0.004)
    assert used.memory == 21 * 2**20


@pytest.mark.parametrize(
    ("answer", "pods"),
    [
        ((200, METRICS), {"backend-1"}),
        ((404, {"message": "the server could not find the requested resource"}), set()),
        ((403, {"message": "forbidden"}), set()),
        ((503, {"message": "the server is currently unable to handle the request"}), set()),
        (
            (200, {"items": [{"metadata": {"name": "x"}, "containers": [{"usage": {"cpu": "?", "memory": "1"}}]}]}),
            set(),
        ),
    ],
)
def test_a_cluster_that_does_not_tell_is_no_failure(api: FakeApi, tmp_path: Path, answer: Any, pods: set[str]) -> None:
    api.answers["GET /apis/metrics.k8s.io/v1beta1/namespaces/a/pods"] = answer
    answered = usage.asked(Kube(api.kubeconfig(tmp_path), "fake"), "a", "")
    assert set(answered()) == pods
    assert len(api.asked) == 1
