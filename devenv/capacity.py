"""Whether the nodes have room: what pods request against what nodes can give. Pure.

In: nodes and pods as the API sends them, and the pods still to come; out: what is free, and what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Object = Mapping[str, Any]

_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(m|[kMGTPE]i?|Ki)?")
_SIZES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SIZES |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)}


class Room(NamedTuple):
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


def free(nodes: Sequence[Object], pods: Iterable[Object], *, asleep: bool = False) -> dict[str, Room]:
    """What each node that takes new pods can still give; pods that have ended take nothing. With `asleep` also those
    that are not ready now."""
    rooms = {
        node["metadata"]["name"]: _allocatable(node)
        for node in nodes
        if (asleep or ready(node)) and not (node.get("spec") or {}).get("unschedulable")
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


class Coming(NamedTuple):
    """A pod that a workload (Kind/name) will make: what it wants, and of what nodes."""

    name: str
    wants: Room
    selector: Mapping[str, str] = {}
    tolerations: Sequence[Mapping[str, Any]] = ()

    def refused_by(self, node: Object) -> str:
        """Why the node does not take it, whatever room it has; empty where it does."""
        labels = node["metadata"].get("labels") or {}
        for key, value in self.selector.items():
            if labels.get(key) != value:
                return f"it has no label {key}={value}"
        for taint in (node.get("spec") or {}).get("taints") or []:
            lasting = taint["effect"] != "PreferNoSchedule" and taint["key"] not in PASSING
            if lasting and not any(_tolerates(toleration, taint) for toleration in self.tolerations):
                value = f"={taint['value']}" if taint.get("value") else ""
                return f"it has the taint {taint['key']}{value}:{taint['effect']}"
        return ""


# Taints that Kubernetes itself sets for as long as a node is in trouble.
PASSING = frozenset(
    f"node.kubernetes.io/{trouble}"
    for trouble in (
        "not-ready",
        "unreachable",
        "memory-pressure",
        "disk-pressure",
        "pid-pressure",
        "network-unavailable",
    )
)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Source: kubernetes.io, "Taints and Tolerations": an empty key with Exists is all of them, an empty effect any."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")


_ORDERS: tuple[Callable[[Coming], tuple[float, float]], ...] = (
    lambda one: (-one.wants.cpu, -one.wants.memory),
    lambda one: (-one.wants.memory, -one.wants.cpu),
)
_CHOICES: tuple[Callable[[Room], float], ...] = (
    lambda left: left.cpu,
    lambda left: left.memory,
    lambda left: -left.memory,
)


def unplaced(rooms: Mapping[str, Room], coming: Sequence[Coming], nodes: Sequence[Object]) -> list[Coming]:
    """The pods that find no node, where the largest are placed first; of several such ways that one which leaves the
    fewest over."""
    takers = {id(one): [name for name in admitting(one, nodes) if name in rooms] for one in coming}
    found = list(coming)
    for order in _ORDERS:
        for choice in _CHOICES:
            without = _packed(rooms, sorted(coming, key=order), takers, choice)
            if not without:
                return []
            found = min(found, without, key=len)
    return found


def _packed(
    rooms: Mapping[str, Room],
    coming: Iterable[Coming],
    takers: Mapping[int, Sequence[str]],
    choice: Callable[[Room], float],
) -> list[Coming]:
    left, without = dict(rooms), []
    for one in coming:
        fitting = [name for name in takers[id(one)] if left[name].holds(one.wants)]
        if not fitting:
            without.append(one)
            continue
        node = min(fitting, key=lambda name: choice(left[name]))
        left[node] = left[node].plus(one.wants, -1.0)
    return without


def admitting(one: Coming, nodes: Sequence[Object]) -> list[str]:
    return [node["metadata"]["name"] for node in nodes if not one.refused_by(node)]


# A pod with one of these may go where this module does not look, or push others out of the way.
PECULIAR = (
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "schedulerName",
    "nodeName",
    "runtimeClassName",
)


def coming(objects: Iterable[Object], there: Mapping[str, int]) -> list[Coming]:
    """The pods that a manifest's workloads and Jobs want beyond those that are `there` (Kind/name → pods)."""
    found: list[Coming] = []
    for object in objects:
        spec = object.get("spec") or {}
        template = (spec.get("template") or {}).get("spec") if isinstance(spec.get("template"), Mapping) else None
        if object.get("kind") not in ("Deployment", "StatefulSet", "Job") or not template:
            continue
        if any(template.get(key) for key in PECULIAR):
            continue
        title = f"{object['kind']}/{object['metadata']['name']}"
        wanted = 1 if object["kind"] == "Job" else spec.get("replicas", 1)
        one = Coming(title, requested(template), template.get("nodeSelector") or {}, template.get("tolerations") or ())
        found += [one] * max(0, int(wanted or 0) - there.get(title, 0))
    return found


def shortfall(one: Coming, coming: Sequence[Coming], rooms: Mapping[str, Room], nodes: Sequence[Object]) -> str:
    """Why a pod finds no node: none takes it, there is too little in all, or nowhere enough in one place."""
    names = [name for name in admitting(one, nodes) if name in rooms]
    if not names:
        reasons = sorted(
            {f"{node['metadata']['name']}: {one.refused_by(node)}" for node in nodes if one.refused_by(node)}
        )
        return f"no node takes it ({'; '.join(reasons[:3]) or 'there is none'})"
    among = [other for other in coming if set(admitting(other, nodes)) & set(names)]
    total, left = _sum(other.wants for other in among), _sum(rooms[name] for name in names)
    told = f"{len(among)} pods want {total}, free on {len(names)} of {len(nodes)} nodes: {left}"
    short = [
        f"{total.cpu - left.cpu:.2f} CPU" if total.cpu > left.cpu + 1e-9 else "",
        f"{(total.memory - left.memory) / 2**30:.1f} GiB" if total.memory > left.memory else "",
        f"{total.pods - left.pods:.0f} places for pods" if total.pods > left.pods else "",
    ]
    lacking = " and ".join(filter(None, short))
    if lacking:
        return f"{told}: {lacking} too little"
    most = max((rooms[name] for name in names), key=lambda room: room.cpu)
    return f"{told}, but not on one node together (the most: {most})"


def _sum(rooms: Iterable[Room]) -> Room:
    total = NOTHING
    for room in rooms:
        total = total.plus(room)
    return total
