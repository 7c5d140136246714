"""Which cluster: the context that the user named, the current one, or our own. Edge in.

In: settings and profile; out: `Target` with a private copy of one context, so that no other terminal can change it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from devenv import context as one_context
from devenv.errors import Refused
from devenv.profiles import Profile
from devenv.settings import Settings

EMBEDDED = "embedded"


class Target(NamedTuple):
    """The chosen cluster; `embedded` is the name of our own cluster, or empty."""

    context: str
    kubeconfig: Path | None
    embedded: str
    why: str


def choose(settings: Settings, profile: Profile) -> Target:
    """Chooses a context. Raises Refused where it is unknown or not allowed. Asks no cluster anything."""
    wanted = settings.context.text
    if wanted == EMBEDDED or wanted.startswith(f"{EMBEDDED}-"):
        return Target(wanted, None, _cluster_name(wanted), settings.context.origin)
    config = merged(settings)
    context = wanted or str(config.get("current-context") or "")
    if context == EMBEDDED or context.startswith(f"{EMBEDDED}-"):  # from `cluster.kubeconfig --merge`
        _check_allowed(context, profile, "current context")
        return Target(context, None, _cluster_name(context), "current context")
    if not context:
        _check_allowed(EMBEDDED, profile, "the default")
        return Target(EMBEDDED, None, _cluster_name(EMBEDDED), "no kubeconfig names a cluster")
    origin = settings.context.origin or "current context"
    _check_allowed(context, profile, origin)
    return Target(context, _private_copy(config, context, origin), "", origin)


def _cluster_name(context: str) -> str:
    return context.removeprefix(EMBEDDED).removeprefix("-") or "default"


def _check_allowed(context: str, profile: Profile, origin: str) -> None:
    if any(fnmatch(context, pattern) for pattern in profile.contexts):
        return
    raise Refused(
        f"profile {profile.name} may not touch context {context}",
        where=f"{context} ({origin})",
        why=f"its contexts are: {', '.join(profile.contexts) or 'none'}",
        next=f"--context embedded, or add {context!r} to contexts in profiles/{profile.name}.yaml",
    )


def merged(settings: Settings) -> dict[str, Any]:
    """The kubeconfig files as one: the first that names something wins, as kubectl does it."""
    merged: dict[str, Any] = {"contexts": [], "clusters": [], "users": []}
    for path in settings.kubeconfigs:
        config = _parse(path, must=settings.kubeconfig_given and len(settings.kubeconfigs) == 1)
        if not merged.get("current-context"):
            merged["current-context"] = config.get("current-context") or ""
        for key in ("contexts", "clusters", "users"):
            known = {entry["name"] for entry in merged[key]}
            listed = config.get(key) if isinstance(config.get(key), list) else []
            entries = [entry for entry in listed or [] if isinstance(entry, dict) and entry.get("name")]
            merged[key] += [_absolute(entry, path.parent) for entry in entries if entry["name"] not in known]
    return merged


def _parse(path: Path, *, must: bool) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        if must:
            raise Refused(f"the kubeconfig {path} is not there", where="KUBECONFIG", next="unset KUBECONFIG")
        return {}
    try:
        config = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise Refused(
            f"the kubeconfig {path} cannot be read", where=str(path), why=str(why), next=f"ls -l {path}"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise Refused(f"the kubeconfig {path} is not YAML", where=place, next="kubectl config view") from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise Refused(f"the kubeconfig {path} is no map", where=str(path), next="kubectl config view")
    return config


def _absolute(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """File names of a kubeconfig are relative to it."""
    whole = dict(entry)
    for part in ("cluster", "user"):
        if isinstance(whole.get(part), dict):
            inner = dict(whole[part])
            inner.update({key: str(folder / str(inner[key])) for key in one_context.FILES if inner.get(key)})
            plugin = inner.get("exec")
            if isinstance(plugin, dict) and "/" in str(plugin.get("command") or ""):
                inner["exec"] = {**plugin, "command": str(folder / plugin["command"])}
            whole[part] = inner
    return whole


def _private_copy(config: Mapping[str, Any], context: str, origin: str) -> Path:
    named = {entry["name"]: entry.get("context") for entry in config["contexts"]}
    if context not in named:
        raise Refused(
            f"no kubeconfig has a context {context}",
            where=origin,
            why="there are: " + (", ".join(sorted(named)) or "none"),
            next="kubectl config get-contexts",
        )
    entry = named[context] if isinstance(named[context], dict) else {}
    cluster = _part(config, entry, context, "cluster")
    user = _part(config, entry, context, "user") if entry.get("user") else {}
    one_context.check(context, origin, cluster, user)
    copy = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": entry}],
        "clusters": [{"name": entry["cluster"], "cluster": cluster}],
        "users": [{"name": entry["user"], "user": user}] if entry.get("user") else [],
    }
    folder = Path(tempfile.mkdtemp(prefix="devenv-"))
    atexit.register(_remove, folder)
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(copy))
    return path


def _part(config: Mapping[str, Any], entry: Mapping[str, Any], context: str, kind: str) -> dict[str, Any]:
    """The cluster or user that a context names. Raises Refused."""
    name = entry.get(kind)
    found = next((one.get(kind) for one in config[f"{kind}s"] if one["name"] == name), None)
    if not isinstance(found, dict):
        raise Refused(
            f"context {context} names a {kind} that is not there",
            where=f"context {context}, {kind} {name or '(none)'}",
            why="there are: " + (", ".join(one["name"] for one in config[f"{kind}s"]) or "none"),
            next="kubectl config view",
        )
    return found


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
