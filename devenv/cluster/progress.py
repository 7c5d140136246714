"""Words for how far a long step is, and how long it still takes. Pure but for the clock.

In: counts and seconds. Out: one short line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Waits = Callable[[str], None]


def time_left(done: int, total: int, elapsed: float, declared: float) -> float:
    """Seconds still to go: by the declared duration at first, by the observed rate the more, the further it is."""
    if total <= 0:
        return 0.0
    share = min(done / total, 1.0)
    expected = declared * (1 - share)
    if done <= 0:
        return max(declared - elapsed, declared * 0.5)
    observed = elapsed / share * (1 - share)
    trust = min(1.0, share * 2)
    return trust * observed + (1 - trust) * expected


def in_words(seconds: float) -> str:
    if seconds < 10:
        return "a few seconds left"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} s left"
    return f"about {round(seconds / 60)} min left"


def packages(what: str, done: int, total: int, elapsed: float, declared: float) -> str:
    """The line of a running build."""
    if done >= total:
        return f"{what}: all {total:,} packages, linking"
    left = in_words(time_left(done, total, elapsed, declared))
    return f"{what}: {done:,} of {total:,} packages, {left}"


def megabytes(what: str, line: str) -> str | None:
    """The line of a running download, from pip's "Progress DONE of TOTAL" (bytes); None for any other line."""
    words = line.split()
    if len(words) != 4 or words[0] != "Progress" or words[2] != "of":
        return None
    done, total = words[1], words[3]
    return share(what, int(done), int(total)) if done.isdigit() and total.isdigit() else None


def share(what: str, done: int, total: int) -> str:
    """The line of a running download; `total` is 0 where it is not known."""
    return f"{what}: {done / 1e6:.0f}" + (f" of {total / 1e6:.0f} MB" if total else " MB")


@dataclass
class Throttle:
    """Hands lines on to `waits`: only new ones, and at most five a second."""

    waits: Waits
    every: float = 0.2
    clock: Callable[[], float] = time.monotonic
    _last: float = field(default=float("-inf"))
    _text: str = ""

    def __call__(self, text: str, *, must: bool = False) -> None:
        now = self.clock()
        if text == self._text or (now - self._last < self.every and not must):
            return
        self._last, self._text = now, text
        self.waits(text)
