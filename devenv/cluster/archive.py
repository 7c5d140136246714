"""Writes container images as archives for containerd, Docker and the like. Deterministic: same files, same bytes.

In: trees of files, one per layer, and the image's configuration. Out: one tar file in OCI layout (with Docker's
manifest.json beside it), its layers compressed. Touches the files it reads and the one it writes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

LEVEL = 4  # of 9: a tenth larger than 6, in half the time
OCI = "application/vnd.oci.image"
LAYOUT = {"imageLayoutVersion": "1.0.0"}


class File(NamedTuple):
    """A file's content: bytes, or a file of the host (links followed)."""

    source: Path | bytes
    mode: int = 0o644
    owner: int = 0


class Link(NamedTuple):
    target: str


class Folder(NamedTuple):
    mode: int = 0o755
    owner: int = 0


Tree = Mapping[str, File | Link | Folder]  # path inside the image, without the leading slash


class Config(NamedTuple):
    """What runs in the image, as whom, and with which environment."""

    user: int
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    folder: str = "/"

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"User": f"{self.user}:{self.user}", "WorkingDir": self.folder}
        record["Env"] = [f"{name}={value}" for name, value in (self.env or {}).items()]
        if self.entrypoint:
            record["Entrypoint"] = list(self.entrypoint)
        if self.command:
            record["Cmd"] = list(self.command)
        return record


class Blob(NamedTuple):
    """A finished part of the archive, by the digest of its bytes; for a layer also that of the bytes unpacked."""

    kind: str
    digest: str
    size: int
    content: Path | bytes
    unpacked: str = ""

    @property
    def place(self) -> str:
        return f"blobs/sha256/{self.digest}"

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": f"{OCI}.{self.kind}", "digest": f"sha256:{self.digest}", "size": self.size}


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Hashing(io.RawIOBase):
    """Passes bytes on and keeps their SHA-256 and number."""

    def __init__(self, into: Sink) -> None:
        self.into = into
        self.sha = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha.update(data)
        self.size += len(data)
        self.into.write(data)
        return len(data)


def write(target: Path, reference: str, architecture: str, layers: Sequence[Tree], config: Config) -> None:
    """Writes one image; the layers pass through files beside the target, which are gone at the end."""
    blobs: list[Blob] = []
    try:
        for number, tree in enumerate(layers):
            blobs.append(write_layer(tree, target.with_name(f"{target.name}.layer{number}")))
        _assemble(target, reference, _config(architecture, blobs, config), blobs)
    finally:
        for blob in blobs:
            if isinstance(blob.content, Path):
                blob.content.unlink(missing_ok=True)


def write_layer(tree: Tree, target: Path) -> Blob:
    """Packs a tree, sorted by path, folders above each file added, all at time zero."""
    with target.open("wb") as file:
        packed = Hashing(file)
        with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=LEVEL, mtime=0) as compressed:
            unpacked = Hashing(compressed)
            with tarfile.open(fileobj=unpacked, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
                for path, node in sorted(with_folders(tree).items()):
                    _add(tar, path, node)
    digest = packed.sha.hexdigest()
    return Blob("layer.v1.tar+gzip", digest, packed.size, target, unpacked.sha.hexdigest())


def with_folders(tree: Tree) -> dict[str, File | Link | Folder]:
    """The tree and every folder that its paths lie in."""
    full = dict(tree)
    for path in tree:
        for folder in Path(path).parents:
            if str(folder) != ".":
                full.setdefault(str(folder), Folder())
    return full


def _add(tar: tarfile.TarFile, path: str, node: File | Link | Folder) -> None:
    entry = tarfile.TarInfo(path)
    match node:
        case Link():
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, node.target, 0o777
            tar.addfile(entry)
        case Folder():
            entry.type, entry.mode = tarfile.DIRTYPE, node.mode
            entry.uid = entry.gid = node.owner
            tar.addfile(entry)
        case File():
            entry.mode = node.mode
            entry.uid = entry.gid = node.owner
            _add_content(tar, entry, node.source)


def _add_content(tar: tarfile.TarFile, entry: tarfile.TarInfo, source: Path | bytes) -> None:
    if isinstance(source, bytes):
        entry.size = len(source)
        tar.addfile(entry, io.BytesIO(source))
        return
    with source.open("rb") as content:
        entry.size = source.stat().st_size
        tar.addfile(entry, content)


def _config(architecture: str, layers: Sequence[Blob], config: Config) -> Blob:
    return _json(
        "config.v1+json",
        {
            "architecture": architecture,
            "os": "linux",
            "config": config.record(),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.unpacked}" for layer in layers]},
        },
    )


def _json(kind: str, record: Any) -> Blob:
    data = json.dumps(record, sort_keys=True).encode()
    return Blob(kind, hashlib.sha256(data).hexdigest(), len(data), data)


def wrap(target: Path, reference: str, kind: str, manifest: bytes, blobs: Mapping[str, Path]) -> None:
    """Writes an image that is there in parts, as a registry gives them: blobs by their digests, in OCI layout only."""
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    index = _index(reference, {"mediaType": kind, "digest": digest, "size": len(manifest)})
    parts: dict[str, Path | bytes] = {digest: manifest, **blobs}
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, record in {"oci-layout": LAYOUT, "index.json": index}.items():
            _add(tar, name, File(json.dumps(record, sort_keys=True).encode()))
        for name, content in parts.items():
            _add(tar, f"blobs/{name.replace(':', '/')}", File(content))


def _index(reference: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference.rpartition(":")[2]}
    return {"schemaVersion": 2, "manifests": [{**manifest, "annotations": names}]}


def _assemble(target: Path, reference: str, config: Blob, layers: Sequence[Blob]) -> None:
    manifest = _json(
        "manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": config.descriptor(),
            "layers": [layer.descriptor() for layer in layers],
        },
    )
    index = _index(reference, manifest.descriptor())
    docker = [{"Config": config.place, "RepoTags": [reference], "Layers": [layer.place for layer in layers]}]
    texts = {"oci-layout": LAYOUT, "index.json": index, "manifest.json": docker}
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, record in texts.items():
            _add(tar, name, File(json.dumps(record, sort_keys=True).encode()))
        for blob in {blob.place: blob for blob in (manifest, config, *layers)}.values():
            _add(tar, blob.place, File(blob.content))
