"""For those who work on devenv itself: its tests and checks. Edge out."""

from __future__ import annotations

import sys

from devenv import paths
from devenv.clients import shell
from devenv.errors import Refused
from devenv.report import Screen

SIDE_BY_SIDE = ("-n", "6", "-q", "--ignore", "tests/cluster")  # more than there are cores: many wait for something
RINGS_1_AND_2 = ("-m", "not real", *SIDE_BY_SIDE)
WITHOUT_CLUSTER = SIDE_BY_SIDE
WITH_CLUSTER = ("-n", "3", "--dist", "loadfile", "-v", "--durations", "15")
RING_3 = ("-m", "cluster and not long", *WITH_CLUSTER)
LONG = ("-m", "long", "-v", "--durations", "15")  # one after the other: some compare the machine before and after


def _run(*words: str) -> int:
    """Runs a program of this environment; its output goes to the terminal as it comes."""
    argv = [sys.executable, "-m", *words]
    cached = {"PYTHONDONTWRITEBYTECODE": ""}  # pytest rewrites each test file, but only once where it may keep it
    output = shell.run(argv, cwd=paths.PROJECT, env=cached, on_line=lambda line: print(line, flush=True))
    return output.code


def test(screen: Screen, *, fast: bool, all: bool = False) -> int:
    """Rings 1 and 2, then ring 3: with real programs, and on the embedded cluster, then, with `all`, what takes long;
    0 when all passed."""
    code = _run("pytest", *(RINGS_1_AND_2 if fast else WITHOUT_CLUSTER))
    if code or fast:
        return code
    _start_cluster(screen)
    return _run("pytest", *RING_3) or (_run("pytest", *LONG) if all else 0)


def _start_cluster(screen: Screen) -> None:
    """Ring 3 needs the cluster with all images: built here, where it can be told what is waited for.

    Where this machine cannot run it, the tests themselves say why they are skipped (in CI they fail).
    """
    from devenv.cluster import embedded, start

    with screen.stage("cluster") as stage:
        try:
            embedded.check_host()
        except Refused as refused:
            stage.says(f"not here: {refused.what}")
            return
        start.up("default", stage.waits, renew=True)
        start.load_images("default", stage.waits, temporal=True)
        stage.says("ready, with all images")


def check() -> int:
    """ruff (lint and format) and mypy."""
    return _run("ruff", "check", ".") or _run("ruff", "format", "--check", ".") or _run("mypy")


def fix() -> int:
    return _run("ruff", "check", "--fix", ".") or _run("ruff", "format", ".")
