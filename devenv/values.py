"""Composes Helm values from layers and remembers who set what. Pure.

In: layers in order, each a list of leaves (path, value, origin); out: `Values`: the tree for Helm, each key's history.
Maps merge deep, lists are replaced, null stays: it reaches Helm, which removes the chart's default.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from devenv.documents import Document, KeyPath
from devenv.errors import InputWrong


class Origin(NamedTuple):
    """Who set a value: the layer ("profile dev", "toggle temporal", "--set") and the place."""

    layer: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.layer}, {self.place}" if self.place else self.layer


class Leaf(NamedTuple):
    """One value that is not a map (an empty map counts as a value)."""

    path: KeyPath
    value: Any
    origin: Origin


class Values(NamedTuple):
    """The composed values: `leaves` in force, and for each path all leaves that ever set it, oldest first."""

    leaves: tuple[Leaf, ...]
    history: Mapping[KeyPath, tuple[Leaf, ...]]

    def tree(self) -> dict[str, Any]:
        """The values as Helm takes them."""
        root: dict[str, Any] = {}
        for leaf in self.leaves:
            place = root
            for key in leaf.path[:-1]:
                place = place.setdefault(key, {})
            if leaf.value == {} and isinstance(place.get(leaf.path[-1]), dict):
                continue
            place[leaf.path[-1]] = copy.deepcopy(leaf.value)
        return root

    def get(self, path: KeyPath, default: Any = None) -> Any:
        """The value at a path, a map where the path is one."""
        place: Any = self.tree()
        for key in path:
            if not isinstance(place, dict) or key not in place:
                return default
            place = place[key]
        return place

    def under(self, path: KeyPath) -> tuple[Leaf, ...]:
        """The leaves in force at a path and below it."""
        return tuple(leaf for leaf in self.leaves if leaf.path[: len(path)] == path)


def leaves(tree: Mapping[str, Any], origin: Origin, document: Document | None = None, base: KeyPath = ()) -> list[Leaf]:
    """Flattens a map; with `document`, each leaf's origin names its line there (`base`: where the map stands in it)."""
    found: list[Leaf] = []

    def walk(node: Any, path: KeyPath) -> None:
        if isinstance(node, Mapping) and node:
            for key, child in node.items():
                walk(child, (*path, str(key)))
            return
        place = document.at((*base, *path)) if document else origin.place
        found.append(Leaf(path, node, Origin(origin.layer, place)))

    for key, child in tree.items():
        walk(child, (str(key),))
    return found


def compose(layers: Iterable[Iterable[Leaf]]) -> Values:
    """Merges layers, the later ones over the earlier."""
    values = Values((), {})
    for layer in layers:
        values = lay(values, layer)
    return values


def lay(values: Values, layer: Iterable[Leaf]) -> Values:
    """The values with one more layer over them."""
    force = {leaf.path: leaf for leaf in values.leaves}
    history = dict(values.history)
    for leaf in layer:
        history[leaf.path] = (*history.get(leaf.path, ()), leaf)
        _set(force, leaf)
    return Values(tuple(force.values()), history)


def _set(force: dict[KeyPath, Leaf], leaf: Leaf) -> None:
    path = leaf.path
    below = [other for other in force if len(other) > len(path) and other[: len(path)] == path]
    if leaf.value == {} and below:
        return
    for other in below:
        del force[other]
    for length in range(1, len(path) + 1):
        force.pop(path[:length], None)
    force[path] = leaf


def explain(values: Values, key: str) -> list[tuple[str, Any, list[Leaf]]]:
    """For `values --explain KEY`: (key, value, the leaves that set it, newest first) for the key and all below it."""
    path = split(key)
    found = [
        (".".join(leaf.path), leaf.value, list(reversed(values.history[leaf.path]))) for leaf in values.under(path)
    ]
    if not found:
        raise InputWrong(
            f"no layer sets {key}",
            where=key,
            why="the chart's own default is in force" if path else "",
            next="inv values",
        )
    return found


def split(key: str) -> KeyPath:
    """`a.b\\.c` → ("a", "b.c")."""
    parts, current, escaped = [], "", False
    for character in key:
        if escaped:
            current, escaped = current + character, False
        elif character == "\\":
            escaped = True
        elif character == ".":
            parts.append(current)
            current = ""
        else:
            current += character
    parts.append(current)
    if not all(parts):
        raise InputWrong(f"{key!r} is no key of the values", where=key, next="write it like global.temporal.enabled")
    return tuple(parts)
