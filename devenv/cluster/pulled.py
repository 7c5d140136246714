"""Pulls images from their registries with the user's Docker login, and brings them into the embedded cluster. Edge out.

For `DEVENV_IMAGES=pull`: nothing is built. In: full names, and containerd's socket. Out: the images in the cluster.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from devenv import paths, reference
from devenv.clients.registry import Registry
from devenv.cluster import archive, images
from devenv.errors import Refused
from devenv.reference import Reference

Waits = Callable[[str], None]


def load(socket: Path, ctr: Path, names: Collection[str], config: Path, waits: Waits) -> tuple[str, ...]:
    """Pulls those that the cluster does not have; their names. Raises Refused, StepFailed."""
    missing = sorted(set(names) - images.all_present(socket, ctr))
    ours = [name for name in missing if name.startswith(f"{images.REGISTRY}/")]
    if ours:
        raise Refused(
            f"the image {ours[0]} is not built, and no registry serves {images.REGISTRY}",
            where="DEVENV_IMAGES=pull",
            next="./inv cluster.images --push REGISTRY, then ./inv redeploy --set global.imageRegistry=REGISTRY",
        )
    for name in missing:
        if named := reference.parse(name):
            _bring(socket, ctr, named, config, waits)
    return tuple(missing)


def _bring(socket: Path, ctr: Path, named: Reference, config: Path, waits: Waits) -> None:
    place = paths.cache() / "images"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix="image-") as folder:
        waits(f"pulling {named.name}")
        file = pull(Registry(named.registry, config), named, Path(folder))
        waits(f"importing {named.name}")
        images.bring(socket, ctr, file)


def pull(client: Registry, named: Reference, folder: Path) -> Path:
    """An archive of the image, made in the folder. Raises Refused, StepFailed."""
    architecture = images.ARCHITECTURES.get(platform.machine(), platform.machine())
    kind, manifest = client.manifest(named.repository, named.version, architecture)
    record = json.loads(manifest)
    blobs = {}
    for digest in {part["digest"]: part for part in (record["config"], *record["layers"])}:
        blobs[digest] = folder / digest.replace(":", "-")
        client.blob(named.repository, digest, blobs[digest])
    archive.wrap(folder / "image.tar", named.name, kind, manifest, blobs)
    return folder / "image.tar"
