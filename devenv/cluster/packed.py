"""Reads image archives: OCI layout, what `docker save` writes, and our own, which are both. Edge in.

In: a tar file. Out: which image is in it, and its parts; or the same image under another name, in a new file.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from devenv.clients.registry import Blob
from devenv.errors import InputWrong

INDEX, DOCKER = "index.json", "manifest.json"
NAME, TAG = "io.containerd.image.name", "org.opencontainers.image.ref.name"


class Packed(NamedTuple):
    """The one image of an archive: its names, and `id`, the digest of its configuration, which tells contents apart."""

    file: Path
    names: tuple[str, ...]
    id: str


class Parts(NamedTuple):
    """What a registry takes: the manifest as it is, its media type, and the blobs that it names."""

    manifest: bytes
    kind: str
    blobs: tuple[Blob, ...]


def look(file: Path) -> Packed:
    """What is in an archive. Raises InputWrong where it is none, or holds several images."""
    try:
        with tarfile.open(file, "r:*") as tar:
            names = set(tar.getnames())
            if DOCKER in names:
                return _docker(file, _json(tar, DOCKER))
            if INDEX in names:
                return _oci(file, tar, _json(tar, INDEX))
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_image(file, str(error) or type(error).__name__) from None
    raise _no_image(file, f"it holds neither {DOCKER} nor {INDEX}")


def _no_image(file: Path, why: str) -> InputWrong:
    return InputWrong(
        f"{file} holds no image",
        where=str(file),
        why=why[:200],
        next=f"docker save REPO:TAG --output {file.name}",
    )


def _one(file: Path, entries: list[Any]) -> Any:
    if len(entries) == 1:
        return entries[0]
    raise _no_image(file, f"it holds {len(entries)} images, not one")


def _docker(file: Path, entries: list[Any]) -> Packed:
    entry = _one(file, entries)
    config = Path(entry["Config"]).name.removesuffix(".json")
    return Packed(file, tuple(entry.get("RepoTags") or ()), config)


def _oci(file: Path, tar: tarfile.TarFile, index: Mapping[str, Any]) -> Packed:
    entry = _one(file, index["manifests"])
    found = (entry.get("annotations") or {}).get(NAME)
    manifest = _json(tar, _place(entry["digest"]))
    config = (manifest.get("config") or {"digest": entry["digest"]})["digest"]
    return Packed(file, (found,) if found else (), config.partition(":")[2])


def parts(file: Path) -> Parts:
    """The parts of an archive in OCI layout with one image, as ours are."""
    with tarfile.open(file) as tar:
        [entry] = _json(tar, INDEX)["manifests"]
        data = _bytes(tar, _place(entry["digest"]))
        manifest = json.loads(data)
    wanted = [manifest["config"], *manifest["layers"]]
    blobs = [Blob(one["digest"], one["size"], partial(_opened, file, _place(one["digest"]))) for one in wanted]
    return Parts(data, manifest["mediaType"], tuple(blobs))


def renamed(file: Path, into: Path, reference: str) -> None:
    """Copies an archive; the image in it has this name and no other. The file `into` is there whole, or not at all."""
    unfinished = into.with_name(into.name + ".unfinished")
    try:
        with tarfile.open(file, "r:*") as old, tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as new:
            for entry in old:
                content = old.extractfile(entry) if entry.isreg() else None
                if content is not None and entry.name in (INDEX, DOCKER):
                    data = json.dumps(_named(entry.name, json.load(content), reference)).encode()
                    entry.size, content = len(data), io.BytesIO(data)
                if entry.name != "repositories":  # the names once more, as Docker wrote them before manifest.json
                    new.addfile(entry, content)
        unfinished.replace(into)
    finally:
        unfinished.unlink(missing_ok=True)


def _named(name: str, record: Any, reference: str) -> Any:
    if name == DOCKER:
        return [{**entry, "RepoTags": [reference]} for entry in record]
    names = {NAME: reference, TAG: reference.rpartition(":")[2]}
    manifests = [{**one, "annotations": {**(one.get("annotations") or {}), **names}} for one in record["manifests"]]
    return {**record, "manifests": manifests}


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _bytes(tar: tarfile.TarFile, name: str) -> bytes:
    content = tar.extractfile(name)
    if content is None:
        raise KeyError(f"{name} is no file")
    return content.read()


def _json(tar: tarfile.TarFile, name: str) -> Any:
    return json.loads(_bytes(tar, name))


class _Part(io.BufferedReader):
    """A file of an archive that closes the archive with it."""

    def __init__(self, tar: tarfile.TarFile, content: Any) -> None:
        super().__init__(content)
        self._tar = tar

    def close(self) -> None:
        super().close()
        self._tar.close()


def _opened(file: Path, name: str) -> BinaryIO:
    tar = tarfile.open(file)  # noqa: SIM115 closed by the part
    return _Part(tar, tar.extractfile(name))
