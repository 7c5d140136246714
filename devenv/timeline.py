"""The lives of the pods that a run saw: folded out of snapshots, one after another. Pure.

Times are those of the cluster (RFC 3339, to the second); only a pod that vanished ends at the moment it was missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from devenv.model import Container, Pod, Snapshot


class Life(NamedTuple):
    """One pod; times are empty for what has not happened. `state` says how it was when last seen."""

    name: str
    component: str
    created: str
    scheduled: str = ""
    started: str = ""
    ready: str = ""
    ended: str = ""
    restarts: int = 0
    state: str = ""


def fold(lives: Iterable[Life], seen: Snapshot, now: str, before: Snapshot | None = None) -> tuple[Life, ...]:
    """The lives after one more snapshot: what once was true stays, even when a container starts anew.

    `before` is the snapshot before this one: a record that is still the same one has nothing new.
    """
    known = {life.name: life for life in lives}
    same = set(map(id, before.pods)) if before else set()
    for pod in [pod for pod in seen.pods if id(pod) not in same]:
        known[pod.name] = _grown(known.get(pod.name), pod)
    for name in known.keys() - set(map(attrgetter("name"), seen.pods)):
        known[name] = known[name] if known[name].ended else known[name]._replace(ended=now)
    return tuple(known.values())


def _grown(before: Life | None, pod: Pod) -> Life:
    main = [container for container in pod.containers if not container.init]
    old = before or Life(pod.name, pod.component, pod.created)
    over = bool(main) and pod.phase in ("Succeeded", "Failed")
    return old._replace(
        scheduled=old.scheduled or pod.scheduled,
        started=old.started or min((container.started for container in main if container.started), default=""),
        ready=old.ready or pod.ready_since,
        ended=max((container.ended for container in main), default="") if over else "",
        restarts=sum(container.restarts for container in pod.containers),
        state=_state(pod),
    )


def _state(pod: Pod) -> str:
    if pod.deleting:
        return "ending"
    if pod.ready:
        return "ready"
    if pod.unscheduled:
        return "no node has room"
    failing = next((text for text in map(_failing, pod.containers) if text), "")
    return failing or {"Succeeded": "complete", "Running": "not ready"}.get(pod.phase, pod.phase.lower())


def _failing(container: Container) -> str:
    if container.state == "terminated" and container.exit_code:
        return f"exit code {container.exit_code}"
    quiet = ("", "PodInitializing", "ContainerCreating")
    return container.reason if container.state == "waiting" and container.reason not in quiet else ""
