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
HIDDEN, HIDDEN_NEW = "(secret)", "(secret, changed)"

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
        return tuple(_hidden(field) for field in fields)
    return tuple(_hidden(field) if _names_a_secret(field) else field for field in fields)


def dropped(applied: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields that were applied before and that the manifest does not set any more."""
    return tuple(field._replace(old=field.new, new=None) for field in compare(applied, wanted) if field.old is None)


_SECRET = re.compile(r"(pass(word|wd|phrase)?|token|secret|api_?key|private_?key|credentials?)$", re.IGNORECASE)


def secret_name(name: str) -> bool:
    """Whether a key or variable of this name holds a secret; `existingSecret` holds the name of one."""
    return bool(_SECRET.search(name)) and name != "existingSecret"


def _names_a_secret(field: Field) -> bool:
    parts = re.findall(r"[^.\[\]]+", field.path)
    if parts[-1] == "value":
        return secret_name(parts[-2])
    texts = [item for item in (field.old, field.new) if item is not None]
    return any(concealed(item) != item for item in texts) or (
        secret_name(parts[-1]) and not any(isinstance(item, Mapping | list) for item in texts)
    )


def concealed(value: Any) -> Any:
    """The value with what is a secret by the name of its key, or of its variable, hidden at any depth."""
    if isinstance(value, list):
        return [concealed(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    variable = "value" in value and secret_name(str(value.get("name", "")))
    return {
        key: HIDDEN if _plain(child) and (secret_name(str(key)) or (variable and key == "value")) else concealed(child)
        for key, child in value.items()
    }


def _plain(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping | list)


def _hidden(field: Field) -> Field:
    old, new = (None if value is None else shown for value, shown in ((field.old, HIDDEN), (field.new, HIDDEN_NEW)))
    return field._replace(old=old, new=new)


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
