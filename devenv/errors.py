"""What can go wrong, and the exit code that it ends with. Pure.

Every failure that a user can cause is a `Failure`, told in four lines: what, where, why, next.
The same record is the `failure` of every JSON output.

    Failure
    ├── InputWrong       2   a flag, variable, profile or `.env`
    ├── Refused          3   before the release was touched: cluster, context, secret, lock
    ├── StepFailed       4   a step before the rollout
    ├── RolloutFailed    5   the rollout or its proof
    └── Interrupted    130
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class Failure(Exception):
    """One failure: `what` happened, `where` (object or file), `why` (the evidence), and what to type `next`."""

    code: ClassVar[int] = 1
    kind: ClassVar[str] = "bug"

    def __init__(self, what: str, *, where: str = "", why: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next = next

    def record(self) -> dict[str, str]:
        """The failure as JSON shows it."""
        return {"class": self.kind, "object": self.where, "reason": self.what, "evidence": self.why, "hint": self.next}


class InputWrong(Failure):
    code = 2
    kind = "input"


class Refused(Failure):
    code = 3
    kind = "refused"


class StepFailed(Failure):
    code = 4
    kind = "step"


class RolloutFailed(Failure):
    code = 5
    kind = "rollout"


class Interrupted(Failure):
    code = 130
    kind = "interrupted"


def nearest(word: str, words: Iterable[str]) -> str:
    """The hint for a word that is not known: the one that was likely meant, or all there are."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(words), n=1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(sorted(words))
