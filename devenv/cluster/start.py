"""Brings the embedded cluster up with all that it needs, and its images in. Edge out.

Programs and images come from the cache, else they are built; the supervisor does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from devenv.cluster import embedded, images, programs, pulled, ready
from devenv.cluster.embedded import Cluster
from devenv.errors import Refused, StepFailed
from devenv.report import Note

Waits = Callable[[str], None]

WITHOUT_TEMPORAL = ("pause", "postgres", "backend")


def up(name: str, waits: Waits, simulated: int | None = None, renew: bool = False) -> Cluster:
    """The running cluster; built and started first where it is not. Raises InputWrong, Refused or StepFailed.

    `simulated`: how many nodes that do not exist; None: as many as there are, or were when it last ran. `renew`: one
    that runs well, but with other programs than those of now, is started anew; its pods with it.
    """
    nodes = embedded.simulated_nodes(name) if simulated is None else embedded.checked_simulated(simulated)
    found, wanted = embedded.find(name), embedded.needed(nodes)
    if found is not None and embedded.as_wanted(name, nodes, programs.places(wanted) if renew else None):
        return found
    embedded.check_host(name)
    waits("looking for the cluster's programs")
    try:
        cluster = embedded.up(name, programs.ensure(wanted, waits), waits, nodes)
    except StepFailed:
        spoilt = programs.forget_damaged(wanted)  # read whole only now: that takes a second
        if not spoilt:
            raise
        waits(Note(f"damaged in the cache, and made anew: {', '.join(spoilt)}"))
        have = programs.ensure(wanted, waits)
        embedded.down(name, waits)
        cluster = embedded.up(name, have, waits, nodes)
    _load(cluster, ("pause",), waits)
    return cluster


def running(name: str) -> Cluster:
    """The running cluster. Raises Refused where it is not running."""
    found = embedded.find(name)
    if found is None:
        raise Refused("the cluster is not running", where=f"cluster {name}", next=f"inv cluster.up --name {name}")
    return found


def load_images(name: str, waits: Waits, *, temporal: bool) -> tuple[str, ...]:
    """Builds and loads the images that the chart needs; the names of those that were new to the cluster."""
    wanted = images.names() if temporal else WITHOUT_TEMPORAL
    return _load(running(name), wanted, waits)


def load_named(name: str, waits: Waits, references: Collection[str], docker_config: Path) -> tuple[str, ...]:
    """Builds and loads those of our images that the references name, or pulls them all; those that were new."""
    if ready.sources().images == "pull":
        cluster = running(name)
        return pulled.load(cluster.containerd, programs.path("ctr", waits), references, docker_config, waits)
    wanted = tuple(image for image, reference in images.references().items() if reference in references)
    return _load(running(name), wanted, waits) if wanted else ()


def _load(cluster: Cluster, wanted: tuple[str, ...], waits: Waits) -> tuple[str, ...]:
    return images.ensure_loaded(cluster.containerd, programs.path("ctr", waits), waits, wanted)
