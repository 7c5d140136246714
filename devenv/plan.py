"""What redeploy would do, and why. Pure.

In: what should be (objects as rendered), what is there (release, the objects of its manifest and their live state);
out: `Plan`. The same input gives the same plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devenv import drift
from devenv.model import Change, Plan, Release

LABEL = "devenv.inputs"
Object = dict[str, Any]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Seen:
    """What the cluster holds: the release, the objects that Helm applied last, and the live ones (None: not there)."""

    release: Release | None
    applied: tuple[Object, ...]
    live: Mapping[Key, Object | None]
    unready: tuple[str, ...]


def key(object: Mapping[str, Any]) -> Key:
    return (object["apiVersion"], object["kind"], object["metadata"]["name"])


def hook(object: Mapping[str, Any]) -> str:
    """When Helm runs the object as a hook ("pre-install,pre-upgrade", "test"); empty where it is none."""
    return str((object["metadata"].get("annotations") or {}).get("helm.sh/hook", ""))


def title(object_key: Key) -> str:
    return f"{object_key[1]}/{object_key[2]}"


def fingerprint(parts: Iterable[object]) -> str:
    """One short hash of everything that goes into a release."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\0")
    return digest.hexdigest()[:40]


def stamp(revision: int, inputs: str) -> str:
    """The label's text. Helm carries labels forward, so the hash counts only on the revision that it was made for."""
    return f"{revision}-{inputs}"


def unchanged(release: Release | None, inputs: str) -> bool:
    """Whether the newest revision was deployed from these very inputs."""
    if release is None or release.status != "deployed":
        return False
    return release.labels.get(LABEL) == stamp(release.revision, inputs)


def make(inputs: str, wanted: Sequence[Object], seen: Seen) -> Plan:
    """The plan that brings `seen` to `wanted`."""
    same = unchanged(seen.release, inputs)
    changes = [*_changes(wanted, seen, same), *_removals(wanted, seen)]
    return Plan(
        reasons=tuple(_reasons(changes, seen, same)),
        changes=tuple(changes),
        revision=(seen.release.revision if seen.release else 0) + 1,
        inputs=inputs,
        impossible=tuple(_impossible(changes)),
        left_behind=tuple(_left_behind(changes)),
    )


# Fields that Kubernetes does not let change (apps/v1, batch/v1 and v1 API reference).
IMMUTABLE = {
    "StatefulSet": ("spec.volumeClaimTemplates", "spec.serviceName", "spec.selector", "spec.podManagementPolicy"),
    "Deployment": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "Job": ("spec.template", "spec.selector", "spec.completions", "spec.completionMode"),
    "PersistentVolumeClaim": ("spec.storageClassName", "spec.accessModes", "spec.volumeName"),
    "Service": ("spec.clusterIP",),
}
_SHARDS = re.compile(r"^\s*numHistoryShards:\s*(\d+)", re.M)


def _impossible(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        for field in change.fields:
            if field.path.startswith(IMMUTABLE.get(change.object.partition("/")[0], ("\0",))):
                yield f"{change.object}: {field.path} cannot be changed"
            old, new = (_SHARDS.search(str(text)) for text in (field.old, field.new))
            if old and new and old.group(1) != new.group(1):
                yield f"numHistoryShards is {old.group(1)} for the life of the database, not {new.group(1)}"


def _left_behind(changes: Sequence[Change]) -> Iterator[str]:
    """A StatefulSet that goes leaves its volume, and with it all data, unused."""
    for change in changes:
        if change.how == "remove" and change.object.startswith("StatefulSet/"):
            yield f"{change.object} goes; its volume and all that is in it stay behind"


def _changes(wanted: Sequence[Object], seen: Seen, same: bool) -> list[Change]:
    found = []
    for object in wanted:
        live = seen.live.get(key(object))
        if live is None and object["kind"] == "Job" and "ttlSecondsAfterFinished" in object["spec"] and same:
            continue  # done, and deleted by Kubernetes as it was to be
        if live is None:
            found.append(Change("create", title(key(object))))
            continue
        fields = drift.compare(object, live)
        if fields:
            found.append(Change("change", title(key(object)), fields))
    return found


def _removals(wanted: Sequence[Object], seen: Seen) -> list[Change]:
    kept = {key(object) for object in wanted}
    return [
        Change("remove", title(key(object)))
        for object in seen.applied
        if key(object) not in kept and seen.live.get(key(object)) is not None and not _stays(object)
    ]


def _stays(object: Mapping[str, Any]) -> bool:
    return (object["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"


def _reasons(changes: Sequence[Change], seen: Seen, same: bool) -> list[str]:
    release = seen.release
    if release is None:
        return ["the release is not there"]
    reasons = []
    if release.status != "deployed":
        reasons.append(f"revision {release.revision} is {release.status}")
    if same:
        reasons += [_edited(change) for change in changes]
        reasons += [f"{name} is not ready" for name in seen.unready]
        return reasons
    if changes:
        reasons.append(_count(changes))
    return reasons or ["the inputs changed (chart, values or Helm), the objects stay as they are"]


def _edited(change: Change) -> str:
    if change.how == "create":
        return f"{change.object} was deleted"
    return f"{change.object} was edited: {', '.join(field.path for field in change.fields[:3])}"


def _count(changes: Sequence[Change]) -> str:
    counts = {how: sum(change.how == how for change in changes) for how in ("create", "change", "remove")}
    return ", ".join(f"{count} to {how}" for how, count in counts.items() if count)


def short(change: Change, width: int = 60) -> str:
    """One line: `~ Deployment/backend (env TEMPORAL_ADDRESS)`."""
    sign = {"create": "+", "change": "~", "remove": "-"}[change.how]
    names = list(dict.fromkeys(_leaf(field.path) for field in change.fields))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{sign} {change.object}" + (f" ({', '.join(names[:3])}{more})" if names else "")[:width]


def _leaf(path: str) -> str:
    """The end of a path as people say it: "replicas", "env X", "label version"."""
    variable = re.search(r"\benv\[([^\]]+)\]", path)
    if variable:
        return f"env {variable.group(1)}"
    for kind in ("label", "annotation"):
        _, found, key = path.partition(f".{kind}s.")
        if found:
            return f"{kind} {key.rpartition('/')[2]}"
    parts = path.split(".")
    return " ".join(parts[-1].replace("]", "").split("[")) if "[" in parts[-1] else parts[-1]
