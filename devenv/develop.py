"""For those who work on devenv itself: its tests and checks. Edge out."""

from __future__ import annotations

import sys
from typing import Any

from devenv import paths
from devenv.clients import shell

RINGS_1_AND_2 = ("-m", "not cluster", "-n", "2", "-q")
RING_3 = ("-m", "cluster", "-v")


def _run(*words: str) -> int:
    """Runs a program of this environment; its output goes to the terminal as it comes."""
    output = shell.run([sys.executable, "-m", *words], cwd=paths.PROJECT, on_line=lambda line: print(line, flush=True))
    return output.code


def test(screen: Any, *, fast: bool) -> int:
    """Rings 1 and 2, then ring 3 on the embedded cluster; 0 when all passed."""
    code = _run("pytest", *RINGS_1_AND_2)
    if code or fast:
        return code
    return _run("pytest", *RING_3)


def check() -> int:
    """ruff (lint and format) and mypy."""
    return _run("ruff", "check", ".") or _run("ruff", "format", "--check", ".") or _run("mypy")


def fix() -> int:
    return _run("ruff", "check", "--fix", ".") or _run("ruff", "format", ".")
