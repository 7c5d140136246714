"""Our own Go programs, ready-made: in a wheel that is installed beside us, or that an address gives.

In: a recipe. Out: the folder of its programs, where the wheel's are of the very sources that are here. `wheel.py`
writes such wheels. Touches the cache directory, and the network where an address was said.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from devenv import paths, settings
from devenv.cluster import fetch, gobuild, progress, store
from devenv.cluster.gobuild import GoBuild
from devenv.errors import Refused, StepFailed
from devenv.report import Note

if TYPE_CHECKING:
    from devenv.clients.download import Pinned

Waits = Callable[[str], None]

PACKAGE = "devenv_programs"
GO = "go.txt"  # which Go the programs beside it were built with: a part of their folder's name
VARIABLE = "DEVENV_PROGRAMS_URL"
WHAT = "the ready-made programs"


def sources() -> settings.Sources:
    """What the user said about where programs come from."""
    return settings.sources(paths.PROJECT)


def pinned() -> Pinned | None:
    """The wheel that an address gives, where one was said."""
    said = sources().address
    if not said:
        return None
    from devenv.clients import download

    return download.pinned(said.text, VARIABLE)


def installed() -> Path | None:
    """The package of an installed wheel."""
    found = importlib.util.find_spec(PACKAGE)
    return Path(found.origin).parent if found and found.origin else None


def place(wanted: Pinned) -> Path:
    """Where a downloaded wheel is unpacked."""
    return paths.cache() / "programs" / f"ready-{wanted.sha256[:12]}"


def folder_name(recipe: GoBuild, go_version: str) -> str:
    """A recipe's folder, in the cache and in a wheel: its name, and a hash of all that the programs depend on."""
    return f"{recipe.module}-{gobuild.key(recipe, go_version)}"


def within(package: Path, recipe: GoBuild) -> Path | None:
    """The recipe's programs in an unpacked wheel; None where they are of other sources, or not whole."""
    for file in package.glob(f"{recipe.module}-*/{GO}"):
        if file.parent.name == folder_name(recipe, file.read_text()) and store.sound(file.parent, recipe.makes):
            return file.parent
    return None


def kept(recipe: GoBuild) -> Path | None:
    """The recipe's programs in a wheel that was downloaded before."""
    wanted = pinned()
    found = within(place(wanted) / PACKAGE, recipe) if wanted else None
    if wanted and found:
        os.utime(place(wanted))  # used: not to be pruned
    return found


def fetched(recipe: GoBuild, waits: Waits) -> Path | None:
    """The recipe's programs from the address; None where they are to be compiled. Raises where they must not be."""
    wanted, only = pinned(), sources().programs == "download"
    try:
        package = _unpacked(wanted, waits) if wanted else None
    except StepFailed as failed:
        if only:
            raise
        waits(Note(f"compiling {gobuild.what(recipe)}: {WHAT} cannot be had: {failed.why} ({failed.where})"))
        return None
    found = within(package, recipe) if package else None
    if found is None and only:
        raise _nowhere(recipe, wanted)
    if found is None and (package or installed()):
        waits(Note(f"compiling {gobuild.what(recipe)}: {WHAT} are of other sources than these, or damaged"))
    return found


def _nowhere(recipe: GoBuild, wanted: Pinned | None) -> Refused:
    return Refused(
        f"{', '.join(recipe.makes)} must not be compiled, and cannot be downloaded",
        where="DEVENV_PROGRAMS=download",
        why=f"{wanted.url} holds programs of other sources" if wanted else f"{VARIABLE} is not set",
        next=f"{VARIABLE}=https://…#sha256=… of these sources (./inv cluster.build --wheel), or DEVENV_PROGRAMS=auto",
    )


def _unpacked(wanted: Pinned, waits: Waits) -> Path:
    """The package of the wheel at an address, downloaded if it is not there yet. Raises Refused, StepFailed."""
    from devenv.clients import download

    def fill(into: Path) -> None:
        told = progress.Throttle(waits)
        told(f"downloading {WHAT}")
        wheel = into / "wheel.zip"
        roots = None if fetch.host_certificates() else fetch.certificates()
        progressed = lambda here, whole: told(progress.share(f"downloading {WHAT}", here, whole))  # noqa: E731
        download.fetch(wanted, wheel, progressed, roots)
        waits(f"unpacking {WHAT}")
        _unpack(wheel, into, wanted)
        wheel.unlink()

    if any(not store.whole(folder) for folder in (place(wanted) / PACKAGE).glob("*-*/")):
        waits(Note(f"{WHAT}: the copy in the cache is damaged, it is downloaded anew"))
        shutil.rmtree(place(wanted))
    return store.make(place(wanted), fill, what=WHAT, waits=waits, wanted=[f"{PACKAGE}/__init__.py"]) / PACKAGE


def _unpack(wheel: Path, into: Path, wanted: Pinned) -> None:
    """Unpacks a wheel as pip does: what may be run may be run."""
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                file = Path(archive.extract(entry, into))
                if entry.external_attr >> 16 & 0o111 and file.is_file():
                    file.chmod(0o755)
    except zipfile.BadZipFile as error:
        raise Refused(f"{WHAT} are no wheel", where=wanted.url, why=str(error), next=f"mend {VARIABLE}") from None
    if not (into / PACKAGE / "__init__.py").is_file():
        raise Refused(f"the wheel holds no {PACKAGE}", where=wanted.url, next="./inv cluster.build --wheel makes one")
