"""Writes Temporal's SQL schemas into the bundled chart: those of the pinned server, as its own makers keep them.

In: the Go module of the server, of the version that the images are built from. Out: files below the chart's
`temporal/sql-schemas/`, which the schema Job then uses; without them it uses those inside temporal-sql-tool. Edge out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from devenv import paths
from devenv.cluster import gobuild, programs

Waits = Callable[[str], None]

MODULE = "go.temporal.io/server"
SOURCE = "schema/postgresql/v12"
DATABASES = ("temporal", "visibility")
CHART = paths.PACKAGE / "charts/environment/charts/backend/temporal/sql-schemas"


class Written(NamedTuple):
    """What was written where: the server's version, and the newest schema version of each database."""

    folder: Path
    server: str
    newest: tuple[str, ...]


def write(waits: Waits, into: Path = CHART) -> Written:
    """Writes the schemas, in the place of others that were there."""
    recipe = next(one for one in programs.RECIPES if "temporal-server" in one.makes)
    assert isinstance(recipe, gobuild.GoBuild)
    source = gobuild.module_folder(recipe, programs.path("go", waits), MODULE, waits) / SOURCE
    for database in DATABASES:
        shutil.rmtree(into / database, ignore_errors=True)
        shutil.copytree(source / database / "versioned", into / database / "versioned", copy_function=shutil.copyfile)
    for folder in (into, *(path for path in into.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # those of the module cache are read-only
    version = gobuild.module_version((recipe.folder / "go.mod").read_text(), MODULE)
    return Written(into, version, tuple(newest(into / database / "versioned") for database in DATABASES))


def newest(versioned: Path) -> str:
    """The highest version of `v1.2` and so on, by number."""
    return max((path.name for path in versioned.iterdir()), key=gobuild.parse_version).removeprefix("v")
