"""The toggles: what a variable of the environment adds to the profile. Pure.

A new toggle is a row here, an overlay in profiles/toggles/ and a row in README.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from devenv.errors import InputWrong

ON = frozenset({"1", "true", "yes", "on"})
OFF = frozenset({"0", "false", "no", "off", ""})


class Toggle(NamedTuple):
    """`name` is its key in a profile's `toggles` and its overlay's file name; `needs` another toggle to count."""

    name: str
    variable: str
    takes: str = "switch"
    needs: str = ""


TOGGLES = (
    Toggle("temporal", "ENABLE_TEMPORAL"),
    Toggle("external-postgres", "TEMPORAL_EXTERNAL_SECRET", takes="secret", needs="temporal"),
)

BY_NAME: Mapping[str, Toggle] = {toggle.name: toggle for toggle in TOGGLES}


class Choice(NamedTuple):
    """What a toggle is set to, and by whom; `ignored` says why a set value does not count."""

    toggle: Toggle
    value: bool | str
    origin: str
    ignored: str = ""

    @property
    def on(self) -> bool:
        return bool(self.value) and not self.ignored


def parse(toggle: Toggle, text: str, origin: str) -> bool | str:
    """A variable's text as the toggle's value. Raises InputWrong."""
    return _switch(toggle, text, origin) if toggle.takes == "switch" else _secret(toggle, text, origin)


def _switch(toggle: Toggle, text: str, origin: str) -> bool:
    word = text.strip().lower()
    if word in ON:
        return True
    if word in OFF:
        return False
    raise InputWrong(
        f"{toggle.variable}={text.strip()[:40]} is neither on nor off",
        where=f"{toggle.variable}, from {origin}",
        why="on is 1, true, yes, on; off is 0, false, no, off or empty",
        next=f"{toggle.variable}=true ./inv redeploy",
    )


_NAME = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_SECRET = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9]{{0,61}}[a-z0-9])?/)?{_NAME}")


def _secret(toggle: Toggle, text: str, origin: str) -> str:
    name = text.strip()
    if name and not _SECRET.fullmatch(name):
        raise InputWrong(
            f"{toggle.variable} names no Secret",
            where=f"{toggle.variable}, from {origin}",
            why="it takes NAME or NAMESPACE/NAME",
            next=f"{toggle.variable}=managed-postgres-credentials ./inv redeploy",
        )
    return name


def decide(defaults: Mapping[str, tuple[bool | str, str]], given: Mapping[str, tuple[str, str]]) -> tuple[Choice, ...]:
    """The choice for each toggle: `given` (variable → text, origin) over a profile's `defaults` (by name)."""
    choices: dict[str, Choice] = {}
    for toggle in TOGGLES:
        default: bool | str = False if toggle.takes == "switch" else ""
        value, origin = defaults.get(toggle.name, (default, "default"))
        if toggle.variable in given:
            text, origin = given[toggle.variable]
            value = parse(toggle, text, origin)
        needed = choices.get(toggle.needs)
        ignored = f"{needed.toggle.variable} is off" if value and needed and not needed.on else ""
        choices[toggle.name] = Choice(toggle, value, origin, ignored)
    return tuple(choices.values())


def fill(overlay: Any, value: bool | str) -> Any:
    """An overlay with `$value` replaced by the toggle's value (for a Secret: its name without the namespace)."""
    if isinstance(overlay, Mapping):
        return {key: fill(child, value) for key, child in overlay.items()}
    if isinstance(overlay, list):
        return [fill(child, value) for child in overlay]
    return str(value).rpartition("/")[2] if overlay == "$value" else overlay
