"""The images of the embedded cluster: what is in each, and the way into containerd without a registry.

In: names of images, and containerd's socket. Out: archives below the cache directory, images in the cluster.
An image's key is a hash over all that goes into it; it is built once per key, and imported where the cluster
does not have that key. Touches the cache directory, and containerd through `ctr`.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from devenv import paths
from devenv.clients import shell
from devenv.cluster import archive, contents, fetch, gobuild, hostfiles, programs, store
from devenv.cluster.archive import Config, Tree
from devenv.errors import StepFailed

Waits = Callable[[str], None]

REGISTRY = "devenv.local"
PINNED = "io.cri-containerd.pinned=pinned"  # keeps the kubelet's garbage collection away: nobody could pull it again
KEY_LABEL = "devenv.local/key"
STAMP = "images.json"  # beside containerd's socket: what it has, so that it need not be asked
PATH = "/usr/local/bin:/usr/bin:/bin"
HOST_LIBRARIES = f"/{hostfiles.OTHER_LIBRARIES}"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Image(NamedTuple):
    """One image: the programs in it (by their name in `programs`), its layers, and how it runs."""

    name: str
    tag: str
    config: Config
    layers: Callable[[Mapping[str, Path], Waits], list[Tree]]
    programs: tuple[str, ...] = ()
    requirements: str = ""
    from_host: bool = False

    @property
    def reference(self) -> str:
        return f"{REGISTRY}/{self.name}:{self.tag}"


def _module(module: str) -> str:
    go_mod = (gobuild.MODULES / "temporal/go.mod").read_text()
    return gobuild.module_version(go_mod, module).removeprefix("v")


def images() -> tuple[Image, ...]:
    """The table, in the order in which a cluster wants them."""
    server = _module("go.temporal.io/server")
    tools = {"PATH": PATH, "LD_LIBRARY_PATH": HOST_LIBRARIES}
    postgres = {"PATH": f"/opt/postgresql/bin:{PATH}", "LD_LIBRARY_PATH": f"/opt/postgresql/libs:{HOST_LIBRARIES}"}
    python = {"PATH": f"/opt/python/bin:{PATH}", "LD_LIBRARY_PATH": HOST_LIBRARIES, "PYTHONPATH": "/app:/opt/site"}
    python |= {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/home/backend"}
    ui = {"PATH": PATH, "TEMPORAL_ROOT": "/home/ui-server", "TEMPORAL_ENVIRONMENT": "docker"}
    return (
        Image("pause", "1", Config(65535, ("/pause",)), contents.pause, ("pause",)),
        Image(
            "postgres",
            "18.6",
            Config(999, command=("postgres",), env=postgres),
            contents.postgres,
            ("postgresql", "postgresql-libs", "libpq"),
            from_host=True,
        ),
        Image(
            "backend",
            "0.1.0",
            Config(1000, ("python3", "-m", "backend"), env=python, folder="/app"),
            contents.backend,
            requirements="backend",
            from_host=True,
        ),
        Image(
            "temporal-server",
            server,
            Config(1000, ("/usr/local/bin/temporal-server", "start"), env={"PATH": PATH, "HOME": "/home/temporal"}),
            contents.temporal_server,
            ("temporal-server",),
        ),
        Image(
            "temporal-admin-tools",
            server,
            Config(1000, command=("sleep", "infinity"), env={**tools, "HOME": "/home/temporal"}),
            contents.temporal_admin_tools,
            ("temporal-server", "temporal"),
            from_host=True,
        ),
        Image(
            "temporal-ui",
            _module("github.com/temporalio/ui-server/v2"),
            Config(1000, ("/usr/local/bin/ui-server", "start"), env=ui),
            contents.temporal_ui,
            ("temporal-ui-server", "temporal-ui.yaml"),
        ),
    )


def names() -> tuple[str, ...]:
    return tuple(image.name for image in images())


def references() -> dict[str, str]:
    """Name → the reference under which the chart finds the image."""
    return {image.name: image.reference for image in images()}


def key(image: Image) -> str:
    """What the image depends on, as one word: known without building anything."""
    parts: list[str | bytes] = [image.reference, repr(image.config), *programs.keys(image.programs)]
    parts += [Path(module).read_bytes() for module in (contents.__file__, hostfiles.__file__, archive.__file__)]
    if image.requirements:
        parts += [(fetch.WHEELS / f"{image.requirements}.txt").read_text(), *store.sources(contents.BACKEND)]
    if image.from_host:
        parts += [sys.version, sys.base_prefix, programs.system(), *_stamps("/bin/sh", "/bin/ls", *_c_libraries())]
    return store.digest(*parts, platform.machine())


def _c_libraries() -> list[str]:
    places = ("/lib64", "/usr/lib64", *(f"{lib}/{platform.machine()}-linux-gnu" for lib in ("/lib", "/usr/lib")))
    return [f"{place}/libc.so.6" for place in places]


def _stamps(*files: str) -> list[str]:
    facts = [(name, Path(name).stat()) for name in files if Path(name).exists()]
    return [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in facts]


def place(image: Image) -> Path:
    """Where the image's archive is, once it is built."""
    return paths.cache() / "images" / f"{image.name}-{key(image)}" / f"{image.name}.tar"


def built(image: Image) -> int:
    """The size of the image's archive in bytes; 0 where it is not built."""
    file = place(image)
    return file.stat().st_size if store.sound(file.parent, [file.name]) else 0


def archived(image: Image, waits: Waits) -> Path:
    """The image's archive, built if it is not there."""
    folder, file = place(image).parent, place(image).name

    def fill(into: Path) -> None:
        found = programs.ensure(image.programs, waits)
        waits(f"building the image {image.name}")
        architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
        archive.write(into / file, image.reference, architecture, image.layers(found, waits), image.config)

    return store.make(folder, fill, what=f"the image {image.name}", waits=waits, wanted=[file]) / file


def ensure_loaded(
    containerd_socket: Path, ctr: Path, waits: Waits, only: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Brings the images into the cluster, all or `only` those named; returns the names of those that were imported."""
    wanted = [image for image in images() if only is None or image.name in set(only)]
    keys = {image.reference: key(image) for image in wanted}
    stamp = containerd_socket.with_name(STAMP)
    if not containerd_socket.exists():
        raise StepFailed("containerd is not running", where=str(containerd_socket), next="./inv cluster.up")
    born = containerd_socket.stat().st_ctime_ns  # another containerd, another socket
    known = _read(stamp, born)
    if all(known.get(reference) == value for reference, value in keys.items()):
        return ()
    known = loaded(containerd_socket, ctr)
    missing = [image for image in wanted if known.get(image.reference) != keys[image.reference]]
    for image in missing:
        file = archived(image, waits)
        waits(f"importing the image {image.name}")
        _import(containerd_socket, ctr, file, keys[image.reference])
        known[image.reference] = keys[image.reference]
    stamp.write_text(json.dumps({"born": born, "images": known}))
    return tuple(image.name for image in missing)


def _read(stamp: Path, born: int) -> dict[str, str]:
    try:
        record = json.loads(stamp.read_text())
        return dict(record["images"]) if record["born"] == born else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def loaded(socket: Path, ctr: Path) -> dict[str, str]:
    """Reference → key of each image of ours that containerd has."""
    return parse_images(listed(socket, ctr))


def all_present(socket: Path, ctr: Path) -> frozenset[str]:
    """The names of all images that containerd has."""
    return frozenset(line.split()[0] for line in listed(socket, ctr).splitlines()[1:] if line.split())


def listed(socket: Path, ctr: Path) -> str:
    """The table of `ctr images ls`."""
    output = shell.run([ctr, "--address", socket, "-n", "k8s.io", "images", "ls"], timeout=30)
    if output.code != 0:
        raise StepFailed(
            "the cluster's containerd does not list its images",
            where=str(socket),
            why=output.last_line,
            next="./inv cluster.status",
        )
    return output.stdout


def parse_images(text: str) -> dict[str, str]:
    """The table of `ctr images ls`: the first column is the reference, the last holds the labels."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        labels = dict(label.partition("=")[::2] for label in words[-1].split(",")) if words else {}
        if KEY_LABEL in labels:
            found[words[0]] = labels[KEY_LABEL]
    return found


def bring(socket: Path, ctr: Path, file: Path) -> None:
    """Imports an image that is not ours; the kubelet may remove it where nothing uses it and the disk is full."""
    _run_import(socket, ctr, file, [])


@contextmanager
def alias(cluster: str, reference: str, other: str) -> Iterator[None]:
    """Another name for an image in the embedded cluster, for as long as it is needed. Raises StepFailed."""
    from devenv.cluster import embedded, programs

    found = embedded.find(cluster)
    if found is None:
        raise StepFailed(f"cluster {cluster} does not run", where=cluster, next="inv cluster.up")
    ctr: list[str | Path] = [programs.path("ctr"), "--address", found.containerd, "-n", "k8s.io", "images"]
    output = shell.run([*ctr, "tag", "--force", reference, other], timeout=60)
    if output.code != 0:
        raise StepFailed(f"the image {reference} gets no other name", where=str(found.containerd), why=output.last_line)
    try:
        yield
    finally:
        shell.run([*ctr, "rm", other], timeout=60)


def _import(socket: Path, ctr: Path, file: Path, value: str) -> None:
    _run_import(socket, ctr, file, ["--label", PINNED, "--label", f"{KEY_LABEL}={value}"])


def _run_import(socket: Path, ctr: Path, file: Path, labels: list[str]) -> None:
    output = shell.run([ctr, "--address", socket, "-n", "k8s.io", "images", "import", *labels, file], timeout=300)
    if output.code != 0:
        raise StepFailed(
            f"the image {file.stem} could not be imported",
            where=str(socket),
            why=output.last_line,
            next="df -h, then the same command again",
        )
