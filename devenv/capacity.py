"""Whether the nodes have room: what pods request against what nodes can give. Pure.

In: nodes and pods as the API sends them, and the pods still to come; out: what is free, and what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(m|[kMGTPE]i?|Ki)?")
_SIZES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SIZES |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)}


@dataclass(frozen=True)
class Room:
    """CPU in cores, memory in bytes, and how many pods."""

    cpu: float
    memory: float
    pods: float = 0.0

    def plus(self, other: Room, times: float = 1.0) -> Room:
        return Room(
            self.cpu + times * other.cpu, self.memory + times * other.memory, self.pods + times * other.pods
        )  # fmt: skip

    def holds(self, other: Room) -> bool:
        # Sums of 0.05 and the like are not exact.
        return self.cpu + 1e-9 >= other.cpu and self.memory >= other.memory and self.pods >= other.pods

    def __str__(self) -> str:
        return f"{self.cpu:.2f} CPU and {self.memory / 2**30:.1f} GiB"


NOTHING = Room(0.0, 0.0)


def quantity(text: str | float) -> float:
    """`100m`, `1.5Gi`, `2` or `1e3` as a number. Raises ValueError.

    Source: kubernetes.io, "Quantity": a decimal number with a suffix of base 10 or 2.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is no quantity")
    return float(match.group(1)) * _SIZES[match.group(2) or ""]


def requested(pod: Object) -> Room:
    """What a pod's specification requests: its containers together, or the largest init container where that is more.

    Init containers that go on running (restartPolicy Always) count with the containers. Source: kubernetes.io,
    "Sidecar Containers", resource sharing.
    """
    steady, largest = NOTHING, NOTHING
    for container in pod.get("initContainers") or []:
        wants = _requests(container)
        if container.get("restartPolicy") == "Always":
            steady = steady.plus(wants)
            wants = NOTHING
        alone = steady.plus(wants)
        largest = Room(max(largest.cpu, alone.cpu), max(largest.memory, alone.memory))
    for container in pod.get("containers") or []:
        steady = steady.plus(_requests(container))
    over = pod.get("overhead") or {}
    most = Room(max(steady.cpu, largest.cpu), max(steady.memory, largest.memory), 1.0)
    return most.plus(Room(quantity(over.get("cpu", 0)), quantity(over.get("memory", 0))))


def _requests(container: Object) -> Room:
    """What is not requested, but limited, counts as requested up to the limit."""
    resources = container.get("resources") or {}
    wants = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return Room(quantity(wants.get("cpu", 0)), quantity(wants.get("memory", 0)))


def free(nodes: Sequence[Object], pods: Iterable[Object]) -> dict[str, Room]:
    """What each node that takes new pods can still give; pods that have ended take nothing."""
    rooms = {
        node["metadata"]["name"]: _allocatable(node)
        for node in nodes
        if ready(node) and not (node.get("spec") or {}).get("unschedulable")
    }
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node in rooms and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            rooms[node] = rooms[node].plus(requested(pod["spec"]), -1.0)
    return rooms


def _allocatable(node: Object) -> Room:
    gives = (node.get("status") or {}).get("allocatable") or {}
    return Room(quantity(gives.get("cpu", 0)), quantity(gives.get("memory", 0)), quantity(gives.get("pods", 110)))


def ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def unplaced(rooms: Mapping[str, Room], coming: Iterable[tuple[str, Room]]) -> list[tuple[str, Room]]:
    """The (name, room) that find no node, the largest placed first, each where the least is left over."""
    left = dict(rooms)
    without = []
    for name, wants in sorted(coming, key=lambda entry: (-entry[1].cpu, -entry[1].memory)):
        fitting = [node for node, room in left.items() if room.holds(wants)]
        if not fitting:
            without.append((name, wants))
            continue
        node = min(fitting, key=lambda name: left[name].cpu)
        left[node] = left[node].plus(wants, -1.0)
    return without


def coming(objects: Iterable[Object], there: Mapping[str, int]) -> list[tuple[str, Room]]:
    """The pods that a manifest's workloads and Jobs want beyond those that are `there` (Kind/name → pods)."""
    found: list[tuple[str, Room]] = []
    for object in objects:
        spec = object.get("spec") or {}
        template = (spec.get("template") or {}).get("spec") if isinstance(spec.get("template"), Mapping) else None
        if object.get("kind") not in ("Deployment", "StatefulSet", "Job") or not template:
            continue
        title = f"{object['kind']}/{object['metadata']['name']}"
        wanted = 1 if object["kind"] == "Job" else spec.get("replicas", 1)
        found += [(title, requested(template))] * max(0, int(wanted or 0) - there.get(title, 0))
    return found
