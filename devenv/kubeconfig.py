"""Writes a cluster of ours into the user's kubeconfig, when asked to. Edge out: one file, and a copy of it beside it.

In: our own kubeconfig of the cluster, the user's files. Out: what was written where. All else in the file stays: other
entries, unknown keys, their order, the current context where there is one; comments are kept in the copy only.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from devenv.errors import Refused

KINDS = ("clusters", "users", "contexts")
EMPTY = {"apiVersion": "v1", "kind": "Config", "preferences": {}}


class _Loader(yaml.SafeLoader):
    """Texts that look like dates stay texts: they would be written back as something else."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in entries if not tag.endswith(":timestamp")]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Merged(NamedTuple):
    """Where the context is now; `changed`: the file was written; `backup`: the copy of what it was, or None."""

    file: Path
    context: str
    changed: bool
    current: bool
    backup: Path | None


def context_name(cluster: str) -> str:
    """The context that means a cluster of ours, as `--context` takes it."""
    return "embedded" if cluster == "default" else f"embedded-{cluster}"


def merge(ours: Path, cluster: str, files: Sequence[Path]) -> Merged:
    """Writes the cluster's entries into the file that has them, else the first. Raises Refused."""
    name = context_name(cluster)
    contents = {file: _read(file) for file in files}
    file = next((file for file in files if _named(contents[file], "contexts", name)), files[0])
    old = contents[file]
    new = joined(old, _entries(_read(ours), name))
    current = next((str(one["current-context"]) for one in contents.values() if one.get("current-context")), "")
    if not current:
        new["current-context"] = name
    backup = _write(file, new) if new != old else None
    return Merged(file, name, new != old, current in ("", name), backup)


def _entries(config: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Our cluster, user and context, all under one name."""
    return {
        "clusters": {"name": name, "cluster": config["clusters"][0]["cluster"]},
        "users": {"name": name, "user": config["users"][0]["user"]},
        "contexts": {"name": name, "context": {"cluster": name, "user": name}},
    }


def joined(old: Mapping[str, Any], entries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The kubeconfig with the entries in it, each in the place of an older one of its name. Pure."""
    new = {**(old or EMPTY)}
    for kind, entry in entries.items():
        there = list(new.get(kind) or [])
        names = [one.get("name") if isinstance(one, dict) else None for one in there]
        if entry["name"] in names:
            there[names.index(entry["name"])] = entry
        else:
            there.append(entry)
        new[kind] = there
    return new


def _named(config: Mapping[str, Any], kind: str, name: str) -> bool:
    return any(isinstance(entry, dict) and entry.get("name") == name for entry in config.get(kind) or [])


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(), Loader=_Loader)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(file, error.strerror or "") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise _unreadable(file, str(error).splitlines()[0]) from None
    if content is not None and not isinstance(content, dict):
        raise _unreadable(file, "it is no map")
    wrong = [kind for kind in KINDS if not isinstance((content or {}).get(kind) or [], list)]
    if wrong:
        raise _unreadable(file, f"{wrong[0]} is no list")
    return content or {}


def _unreadable(file: Path, why: str) -> Refused:
    return Refused(
        f"the kubeconfig {file} cannot be read",
        where=str(file),
        why=why[:200],
        next=f"kubectl --kubeconfig {file} config view",
    )


def _write(file: Path, content: Mapping[str, Any]) -> Path | None:
    """Writes the file anew, at once and readable by its owner alone; what it was is kept beside it."""
    target = file.resolve()  # a link stays a link
    stamp = time.strftime("%Y%m%d-%H%M%S")
    backup = file.with_name(f"{file.name}.before-devenv-{stamp}") if file.exists() else None
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if backup is not None:
            _place(backup, target.read_bytes())
        _place(target, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=2**31).encode())
    except OSError as error:
        raise Refused(
            f"the kubeconfig {file} cannot be written", where=str(file), why=error.strerror or "", next=f"ls -l {file}"
        ) from None
    return backup


def _place(file: Path, data: bytes) -> None:
    handle, fresh = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as open_file:
            open_file.write(data)
        Path(fresh).replace(file)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
