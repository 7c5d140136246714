"""Where a change comes from: a value and the layer that set it, the chart, or a hand. Pure.

In: the values of the revision before and those of now, objects as rendered, applied and live; out: `Setting` records,
and changes whose fields say what they come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from devenv import drift
from devenv.model import Change, Setting
from devenv.values import Values

BY_HAND = "by hand"
NOWHERE = "set by no layer any more"

Path = tuple[str, ...]
Fields = frozenset[tuple[str, str]]  # (object's title, field's path)


def settings(before: Mapping[str, Any], now: Values) -> tuple[Setting, ...]:
    """The values that are not what the revision before had, each with the layer that sets it now."""
    old = dict(_flat(before))
    new = {leaf.path: leaf for leaf in now.leaves}
    found = []
    for path, leaf in new.items():
        if _plain(leaf.value) != _plain(old.get(path)):
            found.append(_setting(path, old.get(path), leaf.value, str(leaf.origin)))
    for path, value in old.items():
        if path not in new and _plain(value) is not None and not _covered(path, new):
            found.append(_setting(path, value, None, NOWHERE))
    return tuple(sorted(found, key=lambda setting: setting.key))


def _covered(path: Path, new: Mapping[Path, Any]) -> bool:
    """Whether another value stands at a key above: that one is told of already."""
    return any(path[:length] in new for length in range(1, len(path)))


def _setting(path: Path, old: Any, new: Any, origin: str) -> Setting:
    if drift.secret_name(path[-1]):
        old, new = (None if old is None else drift.HIDDEN), (None if new is None else drift.HIDDEN_NEW)
    key = ".".join(part.replace(".", "\\.") for part in path)
    return Setting(key, drift.concealed(old), drift.concealed(new), origin)


def _flat(tree: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _plain(value: Any) -> Any:
    """A value as Helm keeps it: an empty map and null say nothing."""
    return None if value == {} else value


def without(tree: Mapping[str, Any], setting: Setting, before: Mapping[str, Any]) -> dict[str, Any]:
    """The values with one setting as it was before: what is rendered otherwise comes from it."""
    path = tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", setting.key))
    there, value = _at(before, path)
    return _put(tree, path, value, there=there)


def _at(tree: Any, path: Path) -> tuple[bool, Any]:
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return False, None
        tree = tree[key]
    return True, tree


def _put(tree: Any, path: Path, value: Any, *, there: bool) -> dict[str, Any]:
    first, rest = path[0], path[1:]
    copied = dict(tree) if isinstance(tree, Mapping) else {}
    if rest:
        copied[first] = _put(copied.get(first), rest, value, there=there)
    elif there:
        copied[first] = value
    else:
        copied.pop(first, None)
    return copied


def attribute(changes: Sequence[Change], by: Mapping[str, Fields], rest: str) -> tuple[Change, ...]:
    """The changes with a source for each field that has none yet: the settings (source → fields), else `rest`."""

    def source(title: str, path: str) -> str:
        named = [name for name, fields in by.items() if _in(fields, title, path)]
        return ", ".join(named[:2]) + (f" and {len(named) - 2} more" if len(named) > 2 else "") or rest

    def sourced(change: Change) -> Change:
        fields = tuple(field._replace(by=field.by or source(change.object, field.path)) for field in change.fields)
        return change._replace(fields=fields, by=change.by or source(change.object, ""))

    return tuple(sourced(change) for change in changes)


def _in(fields: Fields, title: str, path: str) -> bool:
    """Whether a field, one around it or one below it is among them; an empty path means the object as a whole."""
    return any(
        title == other and (not path or not there or path.startswith(there) or there.startswith(path))
        for other, there in fields
    )
