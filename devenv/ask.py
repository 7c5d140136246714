"""Asks before what cannot be undone. Edge in."""

from __future__ import annotations

import sys

from devenv.errors import Refused
from devenv.report import Screen


def confirm(screen: Screen, question: str, *, yes: bool, where: str, command: str) -> None:
    """Returns when the answer is yes, by `--yes` or typed. Raises Refused otherwise; without a terminal it says so."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(
            "nobody can be asked here, and this cannot be undone", where=where, why=question, next=f"{command} --yes"
        )
    screen.line(f"{question} [y/N]", "bold yellow")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not done, as answered", where=where, next=f"{command}   (asks again)")
