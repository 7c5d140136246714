"""Tells people what happens: a live line on a terminal, single lines in CI, JSON for programs. Edge out.

All of it goes to standard error, except what a task answers with. The last writer: secret values never pass it.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, NamedTuple, TextIO

from devenv.errors import Failure

WIDTH = 80
NAME = 10
PAUSE = 1.0  # seconds: in CI a wait is said when it changes, and again not before this


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without any secret value, plain or in the encodings that logs and URLs use."""
    for secret in secrets:
        for form in _forms(secret) if len(secret) >= 6 else ():
            text = text.replace(form, "•••")
    return text


@cache
def _forms(secret: str) -> tuple[str, ...]:
    """The encodings of a secret, the longest first."""
    import base64
    from urllib.parse import quote, quote_plus

    forms = {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    forms.add(base64.b64encode(secret.encode()).decode())
    return tuple(sorted(forms, key=len, reverse=True))


class Told(NamedTuple):
    """A step that is over: `start` on the wall clock; `outcome` is ok, failed or interrupted."""

    name: str
    start: float
    seconds: float
    outcome: str
    text: str
    more: tuple[str, ...]


def _shape(text: str) -> str:
    """The text without its numbers: two that differ in those only say the same."""
    return re.sub(r"[0-9,.]+", "#", text)


class Note(str):
    """What `waits` is told once and shall stay to be read: something was not as it should be, and what is done."""


class Stage:
    """One step as it is told: `waits` while it runs; the stage's last words are set by `says`."""

    def __init__(self, screen: Screen, name: str) -> None:
        self.screen = screen
        self.name = name
        self.text = ""
        self.more: list[str] = []
        self.started = time.monotonic()

    def waits(self, text: str) -> None:
        """What is waited for right now."""
        if isinstance(text, Note):
            self.screen.note(self, text)
        else:
            self.screen.live(self, text)

    def says(self, text: str, *more: str) -> None:
        """What the step came to: one line, and lines below it."""
        self.text = text
        self.more = list(more)


class Screen:
    """Where a run is told. `plain`: no live line and no colours (CI, a pipe)."""

    def __init__(self, *, plain: bool, color: bool, stream: TextIO | None = None) -> None:
        self.out = stream or sys.stderr
        self.plain = plain or not self.out.isatty()
        self.color = color
        self.secrets: set[str] = set()
        self.began = time.time()
        self.told: list[Told] = []
        self.facts: dict[str, Any] = {}
        self._said = ("", 0.0)
        self._later: threading.Timer | None = None
        self._live: Any = None

    @cached_property
    def console(self) -> Any:
        """For a terminal only: nothing else is worth what rich takes to load."""
        from rich.console import Console

        return Console(file=self.out, no_color=not self.color, highlight=False, soft_wrap=True)

    def _print(self, *parts: tuple[str, str]) -> None:
        """One line of texts with their styles."""
        if self.plain:
            self.out.write("".join(text for text, _ in parts) + "\n")
            self.out.flush()
            return
        from rich.text import Text

        self.console.print(Text.assemble(*parts))

    @property
    def width(self) -> int:
        return min(self.console.width, 110) if not self.plain else WIDTH

    def line(self, text: str, style: str = "") -> None:
        """One line, as it is."""
        self._print((redacted(text, self.secrets), style))

    def tell(self, **facts: Any) -> None:
        """What the run's report says beside its steps (devenv/runlog.py); nothing is shown here."""
        self.facts.update(facts)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A step: its line stays when it ends, with its time; on a failure, in red."""
        stage = Stage(self, name)
        self._start(stage)
        try:
            yield stage
        except BaseException as error:
            self._stop()
            told = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._over(stage, told)
            if isinstance(error, Failure | KeyboardInterrupt):
                self._row(stage.name, told, time.monotonic() - stage.started, "bold red")
            raise
        self._stop()
        self._over(stage, "ok")
        if stage.text:
            self._row(stage.name, stage.text, time.monotonic() - stage.started, "")
            for line in stage.more:
                self._below(line)

    def _over(self, stage: Stage, outcome: str) -> None:
        took = time.monotonic() - stage.started
        self.told.append(Told(stage.name, time.time() - took, took, outcome, stage.text, tuple(stage.more)))

    def _below(self, text: str) -> None:
        """Lines below a step, wrapped under it."""
        import textwrap

        for line in textwrap.wrap(redacted(text, self.secrets), self.width - NAME, break_on_hyphens=False) or [""]:
            self.line(" " * NAME + line, "dim")

    def live(self, stage: Stage, text: str) -> None:
        text = redacted(text, self.secrets)
        if not self.plain:
            if self._live is not None:
                self._live.update(self._running(stage, text))
            return
        self._hush()
        said, at = self._said
        shape, quiet = _shape(text), time.monotonic() - at
        if (shape != said and quiet >= PAUSE) or quiet >= 60.0:
            self._say(stage, text)
        elif shape != said:  # too soon after the line before: said in a moment, if it is still so then
            self._later = threading.Timer(PAUSE - quiet, self._say, (stage, text))
            self._later.daemon = True
            self._later.start()

    def _say(self, stage: Stage, text: str) -> None:
        self._said = (_shape(text), time.monotonic())
        self.line(f"{stage.name:<{NAME}}{text}")

    def note(self, stage: Stage, text: str) -> None:
        """A line of a running step that stays."""
        self._hush()
        self.line(f"{stage.name:<{NAME}}{text}")

    def _hush(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def failure(self, failure: Failure) -> None:
        """The four lines of a failure."""
        rows = (("what", failure.what), ("where", failure.where), ("why", failure.why), ("next", failure.next))
        for name, text in rows:
            if text:
                self._failure_row(name, redacted(" ".join(text.split()), self.secrets))

    def _failure_row(self, name: str, text: str) -> None:
        style = {"what": "bold red", "next": "bold"}.get(name, "")
        for place, line in enumerate(self._wrapped(name, text)):
            self._print((f"  {name:<{NAME - 2}}" if place == 0 else " " * NAME, "dim"), (line, style))

    def _wrapped(self, name: str, text: str) -> list[str]:
        """On a terminal a long row goes on below itself; what is to be pasted stays in one piece."""
        import textwrap

        if self.plain or name == "next":
            return [text]
        return textwrap.wrap(text, self.width - NAME, break_on_hyphens=False) or [""]

    def _row(self, name: str, text: str, took: float, style: str) -> None:
        text = redacted(text, self.secrets)
        time_text = f"{took:.1f} s" if took >= 0.05 else ""
        gap = max(2, self.width - NAME - len(text) - len(time_text))
        clock = " " * gap + time_text if time_text else ""
        self._print((f"{name:<{NAME}}", "bold cyan"), (text, style), (clock, "dim"))

    def _start(self, stage: Stage) -> None:
        if self.plain:
            return
        from rich.live import Live

        self._live = Live(console=self.console, refresh_per_second=8, transient=True)
        self._live.start()
        self._live.update(self._running(stage, ""))

    def _stop(self) -> None:
        self._hush()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _running(self, stage: Stage, text: str) -> Any:
        return _Running(self, stage, text)

    def answer(self, record: Any) -> None:
        """A program's answer: JSON, alone on standard output."""
        sys.stdout.write(redacted(json.dumps(record, indent=2, ensure_ascii=False, default=str), self.secrets) + "\n")
        sys.stdout.flush()


class _Running:
    """The live line; rendered anew at each refresh, so that its clock goes on."""

    FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

    def __init__(self, screen: Screen, stage: Stage, text: str) -> None:
        self.screen = screen
        self.stage = stage
        self.text = text

    def __rich__(self) -> Any:
        from rich.text import Text

        lasted = time.monotonic() - self.stage.started
        clock = f"{lasted:.0f} s"
        room = self.screen.width - NAME - len(clock) - 2
        text = self.text if len(self.text) <= room else self.text[: room - 1] + "…"
        frame = self.FRAMES[int(lasted * 8) % len(self.FRAMES)]
        name = f"{self.stage.name:<{NAME - 2}}"
        return Text.assemble((name, "bold cyan"), (f"{frame} ", "cyan"), text, (f"  {clock}", "dim"), no_wrap=True)
