"""Compares an object as it should be with the one that is there. Pure.

Only fields that the manifest sets are compared: what the server adds (defaults, status) is its own. Of environment
variables and containers nothing more may be there than was applied: an entry added by hand is drift too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from devenv.model import Field

EMPTY: tuple[Any, ...] = (None, "", [], {})
EXACT = ("env", "containers", "initContainers")
IGNORED = frozenset({"status"})

_QUANTITY = re.compile(r"([0-9.]+)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_UNITS = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


def compare(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of `live` that are not as `wanted` says; secret data is shown as "changed" only."""
    fields = []
    for key, value in wanted.items():
        if key in IGNORED:
            continue
        if key == "stringData":
            continue
        fields += list(_differ(value, live.get(key), key))
    if wanted.get("kind") == "Secret":
        return tuple(Field(field.path, "(secret)", "(secret, changed)") for field in fields)
    return tuple(fields)


def _differ(wanted: Any, live: Any, path: str) -> Iterator[Field]:
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            yield from _differ(value, live.get(key), f"{path}.{key}")
        return
    if isinstance(wanted, list) and isinstance(live, list):
        yield from _lists(wanted, live, path)
        return
    if not _same(wanted, live, path):
        yield Field(path, live, wanted)


def _lists(wanted: list[Any], live: list[Any], path: str) -> Iterator[Field]:
    key = _merge_key([*wanted, *live])
    if not key:
        if len(wanted) != len(live):
            yield Field(path, live, wanted)
            return
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _differ(one, other, f"{path}[{index}]")
        return
    there = {str(item[key]): item for item in live}
    for item in wanted:
        name = str(item[key])
        if name in there:
            yield from _differ(item, there[name], f"{path}[{name}]")
        else:
            yield Field(f"{path}[{name}]", None, item)
    if path.rpartition(".")[2] in EXACT:
        known = {str(item[key]) for item in wanted}
        for name in there.keys() - known:
            yield Field(f"{path}[{name}]", there[name], None)


def _merge_key(items: list[Any]) -> str:
    """The key that names the items of a list, as Kubernetes merges it: `name`, or for ports and mounts their own."""
    for key in ("name", "mountPath", "containerPort", "port", "type"):
        if items and all(isinstance(item, Mapping) and key in item for item in items):
            return key
    return ""


def _same(wanted: Any, live: Any, path: str) -> bool:
    if wanted == live or (wanted in EMPTY and live in EMPTY):
        return True
    if wanted in EMPTY or live in EMPTY:
        return live in EMPTY and wanted in (False, 0)
    if isinstance(wanted, bool) or isinstance(live, bool):
        return False
    if ".resources." in path or path.endswith(("sizeLimit", "storage")):
        return _quantity(wanted) is not None and _quantity(wanted) == _quantity(live)
    return str(wanted) == str(live)


def _quantity(text: Any) -> Decimal | None:
    match = _QUANTITY.fullmatch(str(text))
    return Decimal(match.group(1)) * _UNITS[match.group(2) or ""] if match else None


_PART = re.compile(r"([^.\[\]]+)(?:\[([^\]]*)\])?")


def removal(paths: Sequence[str]) -> dict[str, Any]:
    """The strategic merge patch that removes list entries by name: `spec.containers[app].env[X]`.

    Source: kubernetes.io, "Update API Objects in Place Using kubectl patch", `$patch: delete`.
    """
    patch: dict[str, Any] = {}
    for path in paths:
        place: dict[str, Any] = patch
        for key, name in _PART.findall(path):
            if not name:
                place = place.setdefault(key, {})
                continue
            items: list[dict[str, Any]] = place.setdefault(key, [])
            found = next((item for item in items if item["name"] == name), None)
            if found is None:
                found = {"name": name}
                items.append(found)
            place = found
        place["$patch"] = "delete"
    return patch
