"""What the pods of a namespace use of CPU and memory, where someone tells. Edge in.

On a cluster of yours metrics.k8s.io, where it is served; on our own, which has no metrics-server, the kubelet itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from devenv.capacity import quantity
from devenv.clients.kube import Kube, Object
from devenv.cluster import condition
from devenv.errors import Failure

PATIENCE = 1.0  # seconds for the answer: nobody waits longer for something that may not be there


class Usage(NamedTuple):
    """CPU in cores, over the last seconds; memory in bytes, without what the kernel could free (the working set)."""

    cpu: float
    memory: float


def asked(kube: Kube, namespace: str, embedded: str) -> Callable[[], Mapping[str, Usage]]:
    """Asks in the background; what is returned waits for the answer: pods by name, none where nobody tells.

    `embedded`: the name of our own cluster, or empty.
    """
    found: dict[str, Usage] = {}
    asking = threading.Thread(target=lambda: found.update(_asked(kube, namespace, embedded)), daemon=True)
    asking.start()

    def answer() -> Mapping[str, Usage]:
        asking.join(PATIENCE)
        return dict(found)

    return answer


def _asked(kube: Kube, namespace: str, embedded: str) -> Mapping[str, Usage]:
    seen = condition.read(embedded) if embedded else None
    try:
        if seen is not None:
            path = f"/api/v1/nodes/{seen.node}/proxy/stats/summary?only_cpu_and_memory=true"
            return summary(kube.call(path, timeout=PATIENCE), namespace)
        return metrics(kube.call(f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods", timeout=PATIENCE))
    except (Failure, ValueError):
        return {}


def summary(answer: Object, namespace: str) -> dict[str, Usage]:
    """The kubelet's summary. A pod that is just starting has no figures yet. Source: k8s.io/kubelet stats/v1alpha1."""
    own = [pod for pod in answer.get("pods") or [] if pod["podRef"]["namespace"] == namespace]
    return {
        pod["podRef"]["name"]: Usage(pod["cpu"]["usageNanoCores"] / 1e9, pod["memory"]["workingSetBytes"])
        for pod in own
        if "usageNanoCores" in (pod.get("cpu") or {}) and "workingSetBytes" in (pod.get("memory") or {})
    }


def metrics(answer: Object) -> dict[str, Usage]:
    """The PodMetricsList of metrics.k8s.io."""
    return {
        item["metadata"]["name"]: total(
            Usage(quantity(container["usage"]["cpu"].replace("n", "e-9").replace("u", "e-6")), _bytes(container))
            for container in item.get("containers") or []
        )
        for item in answer.get("items") or []
    }


def _bytes(container: Mapping[str, Any]) -> float:
    return quantity(container["usage"]["memory"])


def total(several: Iterable[Usage]) -> Usage:
    """All of it together."""
    cpu, memory = 0.0, 0.0
    for one in several:
        cpu, memory = cpu + one.cpu, memory + one.memory
    return Usage(cpu, memory)
