"""Profiles: named descriptions of an environment in profiles/<name>.yaml, and the overlays of the toggles. Edge in.

In: a name and the settings; out: `Profile` and its value layers. A profile's name, its `extends` and its chart never
lead out of the project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from devenv import documents, paths, toggles
from devenv.documents import Document, KeyPath
from devenv.errors import InputWrong, nearest
from devenv.settings import LABEL, seconds
from devenv.values import Leaf, Origin, leaves

DEFAULT = "dev"
NAME = re.compile(r"[a-z0-9][-a-z0-9]{0,39}")
RELEASE = re.compile(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?")

# key → the type its value must have
KEYS: Mapping[str, type | tuple[type, ...]] = {
    "extends": str,
    "description": str,
    "chart": (str, dict),
    "release": str,
    "namespace": str,
    "contexts": list,
    "toggles": dict,
    "values": dict,
    "timeouts": dict,
    "secretSources": list,
    "clusters": dict,
}
PINS = ("server", "ca", "uid")
TIMEOUTS = ("rollout", "proof")
TYPES = {str: "text", dict: "a map", list: "a list", (str, dict): "text or a map"}


class Profile(NamedTuple):
    """A profile with everything that it extends merged in; `layers` oldest first; timeouts in seconds."""

    name: str
    chart: str
    chart_version: str
    release: str
    namespace: str
    contexts: tuple[str, ...]
    toggles: Mapping[str, tuple[bool | str, str]]
    timeouts: Mapping[str, float]
    secret_sources: tuple[str, ...]
    pins: Mapping[str, Mapping[str, str]]
    layers: tuple[tuple[Leaf, ...], ...]


def load(name: str, folder: Path, origin: str) -> Profile:
    """Loads profiles/<name>.yaml with all that it extends. Raises InputWrong with file and line."""
    chain = _chain(name, folder, origin)
    merged: dict[str, Any] = {}
    defaults: dict[str, tuple[bool | str, str]] = {}
    timeouts: dict[str, float] = {"rollout": 600.0, "proof": 60.0}
    layers: list[tuple[Leaf, ...]] = []
    for document in chain:
        layer = f"profile {Path(document.file).stem}"
        merged.update({key: document.tree[key] for key in document.tree if document.tree[key] is not None})
        defaults.update(_toggles(document, layer))
        timeouts.update(_timeouts(document))
        layers.append(tuple(leaves(document.tree.get("values") or {}, Origin(layer), document, ("values",))))
    last = chain[-1]
    chart = merged.get("chart", "environment")
    chart_name = chart if isinstance(chart, str) else str(chart.get("name", ""))
    return Profile(
        name=name,
        chart=_inside(chart_name, folder.parent, last),
        chart_version="" if isinstance(chart, str) else str(chart.get("version", "")),
        release=_matching(merged.get("release", "backend"), RELEASE, last, "release"),
        namespace=_matching(merged.get("namespace", "devenv"), LABEL, last, "namespace"),
        contexts=tuple(str(pattern) for pattern in merged.get("contexts", ["embedded"])),
        toggles=defaults,
        timeouts=timeouts,
        pins=_pins(merged.get("clusters", {}), last),
        secret_sources=tuple(
            _matching(source, LABEL, last, "secretSources") for source in merged.get("secretSources", [])
        ),
        layers=tuple(layers),
    )


def overlay(choice: toggles.Choice, folder: Path) -> tuple[Leaf, ...]:
    """The value layer that a toggle adds when it is on."""
    file = folder / "toggles" / f"{choice.toggle.name}.yaml"
    document = documents.read(file, f"profiles/toggles/{file.name}")
    tree = toggles.fill(document.tree, choice.value)
    return tuple(leaves(tree, Origin(f"toggle {choice.toggle.variable}"), document))


def names(folder: Path) -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _chain(name: str, folder: Path, origin: str) -> list[Document]:
    """The profile's documents, the one that extends nothing first."""
    chain: list[Document] = []
    seen: list[str] = []
    while name:
        if not NAME.fullmatch(name) or not (folder / f"{name}.yaml").exists():
            raise InputWrong(
                f"there is no profile {name[:40]!r}",
                where=origin,
                why=nearest(name, names(folder)),
                next="--profile " + " or --profile ".join(names(folder)),
            )
        if name in seen:
            raise InputWrong("profiles extend each other in a circle", where=origin, why=" → ".join([*seen, name]))
        seen.append(name)
        path = folder / f"{name}.yaml"
        if folder.resolve() not in path.resolve().parents:
            raise InputWrong(f"profile {name} leads out of the project", where=f"profiles/{name}.yaml")
        document = documents.read(path, f"profiles/{name}.yaml")
        _check(document)
        chain.insert(0, document)
        name = str(document.tree.get("extends") or "")
        origin = document.at(("extends",))
    return chain


def _check(document: Document) -> None:
    for key, value in document.tree.items():
        if key not in KEYS:
            raise InputWrong(
                f"{key!r} is no key of a profile",
                where=document.at((key,)),
                why=nearest(key, KEYS),
                next=f"remove or rename it in {document.file}",
            )
        wanted = KEYS[key]
        if value is not None and not isinstance(value, wanted):
            raise InputWrong(f"{key} must be {TYPES[wanted]}", where=document.at((key,)), next=f"mend {document.file}")


def _toggles(document: Document, layer: str) -> dict[str, tuple[bool | str, str]]:
    found: dict[str, tuple[bool | str, str]] = {}
    for key, value in (document.tree.get("toggles") or {}).items():
        place = document.at(("toggles", key))
        if key not in toggles.BY_NAME:
            raise InputWrong(
                f"there is no toggle {key!r}",
                where=place,
                why=nearest(key, toggles.BY_NAME),
                next=f"remove or rename it in {document.file}",
            )
        toggle = toggles.BY_NAME[key]
        if toggle.takes == "switch" and not isinstance(value, bool):
            raise InputWrong(f"toggle {key} is true or false", where=place, next=f"mend {place}")
        found[key] = (value if isinstance(value, bool) else toggles.parse(toggle, str(value or ""), place), layer)
    return found


def _timeouts(document: Document) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in (document.tree.get("timeouts") or {}).items():
        place = document.at(("timeouts", key))
        if key not in TIMEOUTS:
            raise InputWrong(
                f"there is no timeout {key!r}", where=place, why=nearest(key, TIMEOUTS), next=f"mend {place}"
            )
        found[key] = seconds(str(value), place)
    return found


def _pins(clusters: Mapping[str, Any], document: Document) -> dict[str, dict[str, str]]:
    """`clusters: {context: {server, ca, uid}}`: what a context's cluster must be."""
    for context, pins in clusters.items():
        wrong = [key for key in pins if key not in PINS] if isinstance(pins, dict) else ["not a map"]
        if wrong:
            raise InputWrong(
                f"clusters.{context} takes {', '.join(PINS)}",
                where=document.at(("clusters", context)),
                why=f"not {', '.join(wrong)}",
                next=f"mend {document.file}",
            )
    return {context: {key: str(value) for key, value in pins.items()} for context, pins in clusters.items()}


def _matching(value: Any, pattern: re.Pattern[str], document: Document, key: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        path: KeyPath = (key,)
        raise InputWrong(
            f"{key} {str(value)[:80]!r} is no DNS label", where=document.at(path), next=f"mend {document.file}"
        )
    return value


def _inside(chart: str, project: Path, document: Document) -> str:
    """A chart that a profile names by path must lie in the project."""
    if not chart:
        raise InputWrong("chart has no name", where=document.at(("chart",)), next=f"mend {document.file}")
    path = paths.on_disk(chart, project)
    by_path = chart.startswith((".", "/", "~")) or ".." in Path(chart).parts or path.exists()
    if by_path and "://" not in chart:
        inside = project.resolve() in path.parents
        if not inside:
            raise InputWrong(
                "a profile's chart must lie in the project",
                where=document.at(("chart",)),
                next="name it with --chart instead",
            )
    return chart
