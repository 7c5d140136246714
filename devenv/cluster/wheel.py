"""Writes our own Go programs as a wheel, which a team can put on its index, or anywhere. Deterministic. Edge out.

In: the folders of the programs, as the cache has them. Out: one `.whl` with the package `devenv_programs`, tagged for
machines of this kind (packaging.python.org, "Platform compatibility tags"): with either C library, as it needs none.
"""

from __future__ import annotations

import base64
import hashlib
import io
import platform
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from devenv import __version__, paths
from devenv.cluster import gobuild, programs, ready, store
from devenv.cluster.gobuild import GoBuild
from devenv.cluster.ready import PACKAGE

Waits = Callable[[str], None]

SCHEMA = "devenv/cluster-build/v1"
BORN = (1980, 1, 1, 0, 0, 0)  # the time of every entry: equal programs make equal wheels
KIND = zipfile.ZIP_DEFLATED


class Written(NamedTuple):
    """A wheel that was written: its content's sum is what `DEVENV_PROGRAMS_URL` pins."""

    file: Path
    version: str
    size: int
    sha256: str

    def record(self) -> dict[str, Any]:
        return {"file": str(self.file), "version": self.version, "size": self.size, "sha256": self.sha256}


class Built(NamedTuple):
    """What `cluster.build` came to: each program's folder, and the wheel where one was asked for."""

    folders: tuple[tuple[str, Path], ...]
    wheel: Written | None = None

    @property
    def told(self) -> str:
        """What was made, in one line."""
        if self.wheel is None:
            return f"{len(self.folders)} programs are there"
        return f"{len(self.folders)} programs in a wheel of {self.wheel.size / 1e6:.0f} MB"

    @property
    def next(self) -> tuple[str, ...]:
        """What to type then, each by itself: start the cluster; have the wheel from a file, or from any address."""
        if self.wheel is None:
            return ("./inv cluster.up",)
        address = f"https://HOST/{quote(self.wheel.file.name)}#sha256={self.wheel.sha256}"
        return (f".venv/bin/pip install {self.wheel.file}", f"export {ready.VARIABLE}='{address}'")

    def record(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "programs": [{"name": name, "folder": str(folder)} for name, folder in self.folders],
            "wheel": self.wheel.record() if self.wheel else None,
            "next": list(self.next),
        }


def build(waits: Waits, *, wheel: bool, into: Path = paths.PROJECT / "dist") -> Built:
    """Makes every Go program that is not there yet; writes them as a wheel where that is wanted."""
    made = programs.built(waits)
    folders = tuple((name, folder) for recipe, folder in made for name in recipe.makes)
    return Built(folders, write(made, into, waits) if wheel else None)


def write(made: Sequence[tuple[GoBuild, Path]], into: Path, waits: Waits) -> Written:
    """Writes the wheel; its version has a word that stands for all the programs' sources."""
    version = f"{__version__}+s{store.digest(*(folder.name for _, folder in made))}"
    tag = _tag(platform.machine())
    into.mkdir(parents=True, exist_ok=True)
    file = into / f"{PACKAGE}-{version}-{tag}.whl"
    unfinished = file.with_name(file.name + ".unfinished")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            _fill(archive, made, f"{PACKAGE}-{version}.dist-info", version, tag, waits)
        with unfinished.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return Written(file, version, file.stat().st_size, digest)


def _tag(machine: str) -> str:
    """Python, ABI and platforms: Linux with either C library, as the programs use none."""
    return f"py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}"


def _fill(
    archive: zipfile.ZipFile, made: Sequence[tuple[GoBuild, Path]], info: str, version: str, tag: str, waits: Waits
) -> None:
    lines = []
    for place, content, mode in _entries(made, info, version, tag):
        waits(f"packing {place}")
        lines.append(f"{place},{_put(archive, place, content, mode)}\n")
    record = "".join(lines) + f"{info}/RECORD,,\n"
    _put(archive, f"{info}/RECORD", record.encode(), 0o644)


def _entries(
    made: Sequence[tuple[GoBuild, Path]], info: str, version: str, tag: str
) -> Iterator[tuple[str, Path | bytes, int]]:
    """Every file of the wheel but its record: place, content, mode."""
    yield f"{PACKAGE}/__init__.py", b'"""The Go programs of devenv\'s embedded cluster."""\n', 0o644
    for recipe, folder in made:
        for name in recipe.makes:
            yield f"{PACKAGE}/{folder.name}/{name}", folder / name, 0o755 if name in recipe.programs else 0o644
        for name, text in {ready.GO: _go(folder), **store.records(folder, recipe.makes)}.items():
            yield f"{PACKAGE}/{folder.name}/{name}", text.encode(), 0o644
    python, abi, platforms = tag.split("-")
    tags = "".join(f"Tag: {python}-{abi}-{one}\n" for one in platforms.split("."))
    yield f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: devenv\nRoot-Is-Purelib: false\n{tags}".encode(), 0o644
    summary = f"Summary: The Go programs of devenv's embedded cluster: {', '.join(gobuild.TITLES.values())}\n"
    metadata = f"Metadata-Version: 2.1\nName: devenv-programs\nVersion: {version}\n{summary}"
    yield f"{info}/METADATA", metadata.encode(), 0o644


def _go(folder: Path) -> str:
    """Which Go a folder's programs were built with: one that came in a wheel says it itself."""
    said = folder / ready.GO
    return said.read_text() if said.exists() else programs.go_version()


def _put(archive: zipfile.ZipFile, place: str, content: Path | bytes, mode: int) -> str:
    """Adds one file; its sum and size, as a wheel's RECORD has them."""
    entry = zipfile.ZipInfo(place, BORN)
    entry.external_attr = (0o100000 | mode) << 16
    entry.compress_type = KIND
    total = hashlib.sha256()
    source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
    with source, archive.open(entry, "w", force_zip64=True) as target:
        while piece := source.read(1 << 20):
            total.update(piece)
            target.write(piece)
        size = source.tell()
    return f"sha256={encoded(total.digest())},{size}"


def encoded(digest: bytes) -> str:
    """A sum as a wheel's RECORD has it."""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
