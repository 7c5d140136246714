"""Where devenv keeps files: cache (can be deleted at any time) and state (clusters, reports). Touches nothing."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
PROJECT = PACKAGE.parent


def cache() -> Path:
    """Programs and images; deleting it costs time only."""
    return Path.home() / ".cache" / "devenv"


def state() -> Path:
    """Clusters with their data, reports, the identities of clusters seen."""
    return Path.home() / ".local" / "state" / "devenv"


def runtime() -> Path:
    """Sockets and process ids: gone after a reboot, as they should be; short, because socket paths are limited."""
    return Path("/run/devenv")
