"""What pods of the embedded cluster use, as its kubelet tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from devenv import usage
from devenv.clients.kube import Kube
from devenv.cluster import images
from tests.cluster.conftest import CLUSTER, CONTEXT, Environment

pytestmark = pytest.mark.cluster

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: busy}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {image}
    command: [python3, -c, "kept = bytearray(64 * 2**20)\\nwhile True: pass"]
    resources: {{limits: {{cpu: 100m, memory: 128Mi}}}}
"""


def test_a_busy_pod_is_seen_to_be_busy(running: Any, make_environment: Callable[[str], Environment]) -> None:
    environment = make_environment("usage")
    environment.kubectl("create", "namespace", environment.namespace)
    assert (
        environment.inv(
            "kubectl", "--", "apply", "-f", "-", stdin=POD.format(image=images.references()["backend"])
        ).code
        == 0
    )
    kube, deadline = Kube(running.kubeconfig, CONTEXT), time.monotonic() + 90
    used: usage.Usage | None = None
    while used is None or not used.cpu or used.memory < 64 * 2**20:
        assert time.monotonic() < deadline, f"seen last: {used}"
        time.sleep(1)
        used = usage.asked(kube, environment.namespace, CLUSTER)().get("busy")
    assert 0.03 < used.cpu < 0.2
    assert used.memory < 128 * 2**20
    environment.kubectl("delete", "pod", "busy")
