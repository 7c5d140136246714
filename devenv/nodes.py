"""Refuses a release that the nodes have no room for, before it is touched. Edge in.

What surely does not fit is refused, nothing else: what runs already counts where it is, what a rollout replaces and
what is ending gives its room back, and where somebody adds nodes, or they may not be listed, nobody is refused.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from devenv import capacity
from devenv import plan as planning
from devenv.capacity import Coming
from devenv.clients.kube import Denied, Kube
from devenv.errors import Refused
from devenv.model import Snapshot

Object = dict[str, Any]
NODES, PODS = "/api/v1/nodes", "/api/v1/pods"
# What stands in a cluster to which somebody adds nodes: cluster-autoscaler (GKE's and AKS's too), Karpenter.
AUTOSCALERS = ("/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status", "/apis/karpenter.sh")
AUTOSCALED = (
    "karpenter.sh/",
    "eks.amazonaws.com/compute-type",
    "eks.amazonaws.com/fargate",
    "cloud.google.com/gke-autopilot",
)


def check(kube: Kube, wanted: Sequence[Object], applied: Sequence[Object], snapshot: Snapshot) -> None:
    """Raises Refused where a pod of the release finds no node."""
    lasting = [object for object in wanted if not planning.hook(object)]
    kept = _kept(lasting, applied, snapshot)
    new = capacity.coming(lasting, kept)
    if not new:
        return
    try:
        nodes = kube.get(NODES).get("items") or []
        pods = [pod for pod in kube.listed(PODS).get("items") or [] if "deletionTimestamp" not in pod["metadata"]]
    except Denied:
        return
    own = _owners(lasting, applied, snapshot)
    elsewhere = [pod for pod in pods if _name(pod) not in own]
    staying = [pod for pod in pods if own.get(_name(pod)) in kept]
    rooms = capacity.free(nodes, [*elsewhere, *staying], asleep=True)
    without = capacity.unplaced(rooms, new, nodes)
    if not without:
        return
    everything = capacity.coming(lasting, _finished(snapshot))
    if not capacity.unplaced(capacity.free(nodes, elsewhere, asleep=True), everything, nodes):
        return
    if not _grows(kube, nodes):
        raise _refused(without[0], new, rooms, nodes)


def _kept(wanted: Sequence[Object], applied: Sequence[Object], snapshot: Snapshot) -> dict[str, int]:
    """Pods by workload (Kind/name) that may stay where they are, as they want what they wanted."""
    before: dict[str, list[Coming]] = {}
    for one in capacity.coming(applied, {}):
        before.setdefault(one.name, []).append(one)
    same = {one.name for one in capacity.coming(wanted, {}) if one in before.get(one.name, ())}
    placed = Counter(pod.owner for pod in snapshot.pods if pod.scheduled and not pod.deleting)
    return {**{name: count for name, count in placed.items() if name in same}, **_finished(snapshot)}


def _finished(snapshot: Snapshot) -> dict[str, int]:
    return {job.key: 1 for job in snapshot.jobs if job.succeeded}


def _owners(wanted: Sequence[Object], applied: Sequence[Object], snapshot: Snapshot) -> dict[tuple[str, str], str]:
    """(namespace, pod) → the release's workload that it is of."""
    titles = {planning.title(planning.key(object)) for object in (*wanted, *applied)}
    return {(snapshot.namespace, pod.name): pod.owner for pod in snapshot.pods if pod.owner in titles}


def _name(pod: Mapping[str, Any]) -> tuple[str, str]:
    return pod["metadata"].get("namespace", ""), pod["metadata"]["name"]


def _grows(kube: Kube, nodes: Sequence[Object]) -> bool:
    """Whether somebody adds nodes when pods find none."""
    if any(label.startswith(AUTOSCALED) for node in nodes for label in node["metadata"].get("labels") or {}):
        return True
    with contextlib.suppress(Denied):
        return any(kube.find(path) is not None for path in AUTOSCALERS)
    return True


def _refused(
    one: Coming, new: Sequence[Coming], rooms: Mapping[str, capacity.Room], nodes: Sequence[Object]
) -> Refused:
    return Refused(
        "the nodes have no room for it",
        where=f"{one.name}, which wants {one.wants}",
        why=capacity.shortfall(one, new, rooms, nodes),
        next="larger or more nodes, or smaller requests; --yes where nodes are added by somebody devenv does not see",
    )
