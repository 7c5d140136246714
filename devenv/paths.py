"""Where devenv keeps files: cache (can be deleted at any time) and state (clusters, reports); what a path means."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PACKAGE = Path(__file__).parent
PROJECT = PACKAGE.parent
START = PACKAGE / "__main__.py"  # the program behind `./inv`


def cache() -> Path:
    """Programs and images; deleting it costs time only."""
    return Path.home() / ".cache" / "devenv"


def state() -> Path:
    """Clusters with their data, reports, the identities of clusters seen."""
    return Path.home() / ".local" / "state" / "devenv"


def runtime() -> Path:
    """Sockets and process ids: gone after a reboot, as they should be; short, because socket paths are limited."""
    return Path("/run/devenv")


def on_disk(text: str, base: Path) -> Path:
    """The path that a text means, `~` and links resolved; one that cannot be is taken as it is written."""
    with suppress(OSError, ValueError, RuntimeError):
        path = (base / Path(text).expanduser()).resolve()
        path.exists()  # raises where a name is too long
        return path
    return base / "there is no such path"
