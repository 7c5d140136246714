"""Services that lead nowhere: no pod that is ready stands behind them. Pure.

In: the Services of a manifest, and the EndpointSlices of their namespace; out: those without a ready endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Object = Mapping[str, Any]

PODS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")


class Lost(NamedTuple):
    """A Service without a ready endpoint; `matches`: some workload of its manifest has pods with its labels.

    `ports`: the names of ports that no container of those pods has.
    """

    name: str
    selector: str
    matches: bool
    ports: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        if not self.matches:
            return f"no pod has the labels of its selector, {self.selector}"
        if self.ports:
            return f"no container of its pods has a port named {', '.join(self.ports)}"
        return f"no pod with the labels {self.selector} is ready"


def selecting(objects: Iterable[Object]) -> list[Object]:
    """The Services of a manifest that choose pods by labels."""
    return [
        object
        for object in objects
        if object.get("kind") == "Service"
        and (object.get("spec") or {}).get("selector")
        and object["spec"].get("type") != "ExternalName"
    ]


def serve(slices: Iterable[Object]) -> bool:
    """Whether a ready endpoint is among them."""
    return any(
        entry.get("ports") and any(_ready(endpoint) for endpoint in entry.get("endpoints") or []) for entry in slices
    )


def lost(objects: Sequence[Object], slices: Iterable[Object]) -> list[Lost]:
    """The Services without a ready endpoint, save those whose workloads want no pods at all."""
    reached = {
        (entry["metadata"].get("labels") or {}).get("kubernetes.io/service-name") for entry in slices if serve([entry])
    }
    found = []
    for service in selecting(objects):
        name, selector = service["metadata"]["name"], service["spec"]["selector"]
        behind = [object for object in objects if _chosen(object, selector)]
        if name in reached or not service["spec"].get("ports"):
            continue
        if behind and all(_rests(object) for object in behind):
            continue
        words = ", ".join(f"{key}={value}" for key, value in selector.items())
        found.append(Lost(name, words, bool(behind), _nameless(service, behind)))
    return found


def surely(objects: Sequence[Object], lost: Iterable[Lost]) -> list[Lost]:
    """Those that no waiting will mend: nothing in the manifest could make a pod for them, or name their port.

    Where it has objects of kinds that are not Kubernetes' own, an operator may make the pods.
    """
    foreign = any("." in group and not group.endswith(".k8s.io") for group in map(_group, objects))
    return [one for one in lost if one.ports or (not one.matches and not foreign)]


def _group(object: Object) -> str:
    return str(object.get("apiVersion", "")).rpartition("/")[0]


def _ready(endpoint: Object) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _pod(object: Object) -> Object:
    """The pod, or the template of pods, that an object is or has."""
    if object.get("kind") == "Pod":
        return object
    spec = object.get("spec") or {}
    if object.get("kind") == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"] if object.get("kind") in PODS else {}


def _chosen(object: Object, selector: Mapping[str, str]) -> bool:
    labels = (_pod(object).get("metadata") or {}).get("labels") or {}
    return all(str(labels.get(key)) == str(value) for key, value in selector.items())


def _rests(object: Object) -> bool:
    """Whether it wants no pods now: scaled to nothing, or made for a while only."""
    return object["kind"] in ("Job", "CronJob") or (object.get("spec") or {}).get("replicas", 1) == 0


def _nameless(service: Object, behind: Iterable[Object]) -> tuple[str, ...]:
    """The target ports given by a name that no container behind has."""
    named = {str(port["targetPort"]) for port in service["spec"]["ports"] if isinstance(port.get("targetPort"), str)}
    there = {
        port.get("name")
        for object in behind
        for container in _pod(object)["spec"].get("containers") or []
        for port in container.get("ports") or []
    }
    return tuple(sorted(name for name in named - there if not name.isdigit())) if behind else ()
