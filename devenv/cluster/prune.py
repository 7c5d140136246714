"""Removes the images that nothing uses any more: archives in the cache, images in the embedded cluster. Edge out.

In use is: of the cache, what this devenv would build; of the cluster, that too, and what any workload's template or any
container names. Out: what went. An image that comes from a registry is pulled again where it is wanted again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from devenv import obtain, paths
from devenv.clients import shell
from devenv.clients.kube import Kube
from devenv.cluster import condition, images, store
from devenv.cluster.embedded import Cluster
from devenv.errors import StepFailed

Waits = Callable[[str], None]

WORKLOADS = (
    *(f"/apis/apps/v1/{kind}" for kind in ("deployments", "statefulsets", "daemonsets")),
    *(f"/apis/batch/v1/{kind}" for kind in ("jobs", "cronjobs")),
    "/api/v1/pods",
)
KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
KINDS |= {"jobs": "Job", "cronjobs": "CronJob", "pods": "Pod"}
LEFT = "image-*"  # where `redeploy --image` packs; one of a killed run
LEFT_AFTER = 3600.0  # seconds: no run packs for so long


def cache(waits: Waits) -> tuple[tuple[str, ...], int]:
    """The archives that went from the cache, and their bytes."""
    place = paths.cache() / "images"
    current = {images.place(image).parent for image in images.images()}
    old = [folder for folder in sorted(place.glob("*-*/")) if (folder / store.MADE).exists() and folder not in current]
    old += [folder for folder in place.glob(LEFT) if time.time() - folder.stat().st_mtime > LEFT_AFTER]
    freed = 0
    for folder in old:
        waits(f"removing {folder.name}")
        freed += condition.disk(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
    return tuple(folder.name for folder in old), freed


def cluster(running: Cluster, context: str, ctr: Path, waits: Waits) -> tuple[tuple[str, ...], int]:
    """The images that went from the cluster, and how much smaller that made its data on disk, in bytes."""
    waits("looking which images are in use")
    there = parse(images.listed(running.containerd, ctr))
    used = {*images.references().values(), *named(Kube(running.kubeconfig, context)), *contained(running, ctr)}
    old = unused(there, used)
    if not old:
        return (), 0
    before = condition.disk(running.state)
    waits(f"removing {len(old)} images from the cluster")
    output = shell.run(_ctr(running, ctr, "images", "rm", "--sync", *old), timeout=120)
    if output.code != 0:
        raise StepFailed(
            "the cluster's images could not be removed",
            where=str(running.containerd),
            why=output.last_line,
            next="./inv cluster.status",
        )
    (running.containerd.with_name(images.STAMP)).unlink(missing_ok=True)
    return tuple(name for name in old if not name.startswith("sha256:")), max(0, before - condition.disk(running.state))


def parse(table: str) -> dict[str, str]:
    """Name → digest of every image, from the table of `ctr images ls`. An image has several names. Pure."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2}


def unused(there: Mapping[str, str], used: Iterable[str]) -> list[str]:
    """The names to remove. That of an image's configuration (`sha256:…`) goes with the last of its others. Pure."""
    wanted = set(used)
    kept = {digest for name, digest in there.items() if name in wanted}
    return sorted(
        name
        for name, digest in there.items()
        if name not in wanted and not (name.startswith("sha256:") and digest in kept)
    )


def named(kube: Kube) -> frozenset[str]:
    """The images that the templates of all workloads and all pods name, in full."""
    lists = {KINDS[path.rpartition("/")[2]]: kube.get(path).get("items") or () for path in WORKLOADS}
    return obtain.names({**one, "kind": kind} for kind, items in lists.items() for one in items)


def contained(running: Cluster, ctr: Path) -> frozenset[str]:
    """What containerd's containers were made of, ended ones too; names or configurations."""
    output = shell.run(_ctr(running, ctr, "containers", "ls"), timeout=30)
    return frozenset(row[1] for line in output.stdout.splitlines()[1:] if len(row := line.split()) > 1)


def _ctr(running: Cluster, ctr: Path, *words: str) -> list[str | Path]:
    return [ctr, "--address", running.containerd, "-n", "k8s.io", *words]
