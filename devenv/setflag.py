"""Parses `--set` as Helm's own parser does (helm.sh/helm/v4/pkg/strvals). Pure.

In: `a.b=c,d[0]=e,f={x,y}` and the values below; out: leaves for the top layer.
Integers, true, false and null are typed; everything else is text; a backslash takes a character as it is.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from devenv.documents import KeyPath
from devenv.errors import InputWrong
from devenv.values import Leaf, Origin, Values, lay

MAX_INDEX = 65536
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


def over(values: Values, expressions: tuple[str, ...]) -> Values:
    """The values with every `--set` expression laid over them, in order."""
    for expression in expressions:
        for path, value in parse(expression):
            values = lay(values, [_leaf(values, path, value, Origin("--set", expression.split("=", 1)[0]))])
    return values


def parse(expression: str) -> list[tuple[tuple[str | int, ...], Any]]:
    """The (path, value) pairs of one expression; an integer in a path is a list index."""
    reader = _Reader(expression)
    pairs: list[tuple[tuple[str | int, ...], Any]] = []
    while not reader.at_end:
        path = reader.path()
        pairs.append((path, reader.value()))
    if not pairs:
        raise _wrong(expression, "it is empty")
    return pairs


def _wrong(expression: str, why: str) -> InputWrong:
    key = expression.split("=", 1)[0]
    return InputWrong(f"--set {key}: {why}", where=f"--set {key}", next="--set key.path=value")


class _Reader:
    """One pass over an expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def until(self, stops: str) -> tuple[str, str]:
        """Text up to one of `stops` (unescaped), and the stop; the stop is "" at the end."""
        taken = ""
        while not self.at_end:
            character = self.text[self.position]
            self.position += 1
            if character == "\\" and not self.at_end:
                taken += self.text[self.position]
                self.position += 1
            elif character in stops:
                return taken, character
            else:
                taken += character
        return taken, ""

    def path(self) -> tuple[str | int, ...]:
        path: list[str | int] = []
        while True:
            key, stop = self.until("=.[,")
            if stop in ("", ","):
                raise _wrong(self.text, f"{key or 'a key'} has no value (= is missing)")
            after_index = bool(path) and isinstance(path[-1], int)
            if key:
                path.append(key)
            elif not (after_index and stop in ".=["):
                raise _wrong(self.text, "a part of the key is empty")
            if stop == "=":
                return tuple(path)
            if stop == "[":
                path.append(self.index())

    def index(self) -> int:
        digits, stop = self.until("]")
        if stop != "]" or not digits.isdigit() or int(digits) > MAX_INDEX:
            raise _wrong(self.text, f"[{digits}] is no list index from 0 to {MAX_INDEX}")
        return int(digits)

    def value(self) -> Any:
        if self.text[self.position : self.position + 1] == "{":
            self.position += 1
            return self.list()
        start = self.position
        text, _ = self.until(",")
        return typed(text) if "\\" not in self.text[start : self.position] else text

    def list(self) -> list[Any]:
        items: list[Any] = []
        while True:
            text, stop = self.until(",}")
            if stop == "":
                raise _wrong(self.text, "the list has no closing }")
            items.append(typed(text))
            if stop == "}":
                break
        if not self.at_end and self.text[self.position] == ",":
            self.position += 1
        return items


def typed(text: str) -> Any:
    """Text as Helm types it: true, false, null, whole numbers without leading zeros; else text."""
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return text


def _leaf(values: Values, path: tuple[str | int, ...], value: Any, origin: Origin) -> Leaf:
    index = next((place for place, part in enumerate(path) if isinstance(part, int)), len(path))
    keys: KeyPath = tuple(str(part) for part in path[:index])
    if index == len(path):
        return Leaf(keys, value, origin)
    base = values.get(keys)
    return Leaf(keys, _put(copy.deepcopy(base) if isinstance(base, list) else [], path[index:], value), origin)


def _put(node: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(first, int):
        items = node if isinstance(node, list) else []
        items.extend([None] * (first + 1 - len(items)))
        items[first] = _put(items[first], rest, value)
        return items
    keys = node if isinstance(node, dict) else {}
    keys[first] = _put(keys.get(first), rest, value)
    return keys
