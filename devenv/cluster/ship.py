"""Our images on their way: which are built and where they are, into another local cluster, to a registry. Edge out.

In: what was asked for. Out: one record for people and programs; `next` is what to type then.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from devenv import target
from devenv.clients import registry
from devenv.cluster import embedded, images, others, packed, programs
from devenv.cluster.images import Image
from devenv.errors import InputWrong, Refused
from devenv.report import Screen
from devenv.settings import Settings
from devenv.target import EMBEDDED

Waits = Callable[[str], None]

SCHEMA = "devenv/cluster-images/v1"
OURS_ONLY = ("pause",)  # what the embedded cluster's containerd itself needs


class Sent(NamedTuple):
    """An image: its archive's `size` (0: not built), whether it is `there` (None: not known), bytes `sent` just now."""

    reference: str
    size: int
    there: bool | None
    sent: int = 0

    def record(self) -> dict[str, Any]:
        return {"reference": self.reference, "built": self.size > 0, "size": self.size, "there": self.there,
                "sent": self.sent}  # fmt: skip


class Shipment(NamedTuple):
    """What was done: `how` is list, load, push or prune; `where` the cluster or the registry; what was `removed` from
    the cache and from the cluster, and the bytes that made free."""

    how: str
    where: str
    images: tuple[Sent, ...]
    next: str = ""
    removed: Mapping[str, tuple[str, ...]] = {}
    freed: int = 0

    def record(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "action": self.how,
            "target": self.where,
            "images": [image.record() for image in self.images],
            "next": self.next,
            "removed": {place: list(names) for place, names in self.removed.items()},
            "freed": self.freed,
        }


def ship(said: Settings, screen: Screen, *, name: str, load: str, push: str, prune: bool = False) -> Shipment:
    """What `cluster.images` does: lists, loads, pushes or prunes. Raises InputWrong, Refused, StepFailed."""
    asked = [flag for flag, given in (("--load", load), ("--push", push), ("--prune", prune)) if given]
    if len(asked) > 1:
        first, second = asked[:2]
        raise InputWrong(f"{first} and {second} are two runs", where=second, next=f"{first} first, then {second}")
    if not asked:
        return listed(name or "default")
    with screen.stage("images") as stage:
        if prune:
            return cleared(name or "default", stage.waits)
        if load:
            local = others.choose(load, name, target.merged(said))
            return bring(local, stage.waits)
        return publish(push, said.docker_config, stage.waits)


def listed(name: str) -> Shipment:
    """All images, built or not, in the embedded cluster or not. Changes nothing."""
    cluster = embedded.find(name)
    keys: Mapping[str, str] = images.loaded(cluster.containerd, programs.path("ctr")) if cluster else {}
    found = tuple(
        Sent(image.reference, images.built(image), keys.get(image.reference) == images.key(image) if cluster else None)
        for image in images.images()
    )
    return Shipment("list", f"cluster {name}", found, "" if cluster else f"./inv cluster.up --name {name}")


def cleared(name: str, waits: Waits) -> Shipment:
    """Removes what nothing uses from the cache, and from the cluster where it runs."""
    from devenv.cluster import prune

    running = embedded.find(name)
    archives, freed = prune.cache(waits)
    removed = {"cache": archives}
    if running:
        context = EMBEDDED if name == "default" else f"{EMBEDDED}-{name}"
        removed["cluster"], more = prune.cluster(running, context, programs.path("ctr"), waits)
        freed += more
    left = listed(name)
    return Shipment("prune", left.where, left.images, left.next, removed, freed)


def bring(local: others.Local, waits: Waits) -> Shipment:
    """Builds what is missing and brings all images of the chart into another local cluster."""
    others.check(local)
    sent = []
    for image, file in _archives(waits):
        waits(f"{local.tool} loads the image {image.name}")
        others.load(local, file, image.reference)
        size = file.stat().st_size
        sent.append(Sent(image.reference, size, True, size))
    return Shipment("load", str(local), tuple(sent), "ENABLE_TEMPORAL=true ./inv redeploy")


def publish(where: str, config: Path, waits: Waits) -> Shipment:
    """Builds what is missing and pushes all images of the chart; parts that the registry has are not sent again."""
    host, path = registry.place(where)
    client = registry.Registry(host, config)
    sent = []
    for image, file in _archives(waits):
        repository = f"{path}/{image.name}" if path else image.name
        waits(f"pushing {host}/{repository}:{image.tag}")
        parts = packed.parts(file)
        count = client.push(repository, image.tag, parts.manifest, parts.kind, parts.blobs)
        sent.append(Sent(f"{host}/{repository}:{image.tag}", file.stat().st_size, True, count))
    return Shipment("push", where, tuple(sent), f"--set global.imageRegistry={where.rstrip('/')}")


def _archives(waits: Waits) -> Iterable[tuple[Image, Path]]:
    """The images that the chart names, each built when its turn comes."""
    wanted = [image for image in images.images() if image.name not in OURS_ONLY]
    if platform.system() != "Linux" and not all(images.built(image) for image in wanted):
        raise Refused(
            "our images are made from the programs of a Linux machine",
            where=platform.system(),
            next="run it on Linux, with --push REGISTRY, then here: ./inv redeploy --set global.imageRegistry=REGISTRY",
        )
    for image in wanted:
        yield image, images.archived(image, waits)


def rows(done: Shipment) -> list[dict[str, str]]:
    """The table that people see: image, archive, what became of it."""
    sizes = [megabytes(one.size) if one.size else "not built" for one in done.images]
    return [
        {"image": one.reference, "archive": size, "state": _state(done, one)}
        for one, size in zip(done.images, sizes, strict=True)
    ]


def _state(done: Shipment, one: Sent) -> str:
    if done.how == "push":
        return f"{megabytes(one.sent)} sent" if one.sent else "was there"
    if done.how == "load":
        return "loaded"
    return {True: "in the cluster", False: "not in the cluster", None: ""}[one.there]


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
