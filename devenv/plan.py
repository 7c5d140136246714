"""What redeploy would do, and why. Pure.

In: what should be (objects as rendered), what is there (release, the objects of its manifest and their live state);
out: `Plan`. The same input gives the same plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from devenv import drift
from devenv.causes import BY_HAND
from devenv.model import Change, Field, Plan, Release, Setting

LABEL = "devenv.inputs"
PROVEN = "devenv.proven"
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
Object = dict[str, Any]
Key = tuple[str, str, str]


class Seen(NamedTuple):
    """What the cluster holds: the release, the objects that Helm applied last, and the live ones (None: not there);
    `settings`: how the values of now differ from the release's; `other_chart`: its chart, where it is not this one."""

    release: Release | None
    applied: tuple[Object, ...]
    live: Mapping[Key, Object | None]
    unready: tuple[str, ...]
    settings: tuple[Setting, ...] = ()
    other_chart: str = ""


def key(object: Mapping[str, Any]) -> Key:
    """What names an object in its release; of one in another namespace, the name is `namespace/name`."""
    meta = object["metadata"]
    own = meta.get("name") or meta["generateName"]
    name = f"{meta['namespace']}/{own}" if meta.get("namespace") else own
    return (object["apiVersion"], object["kind"], name)


def place(object_key: Key, home: str) -> tuple[str, str]:
    """Namespace and name of an object; `home` is the release's namespace."""
    namespace, _, name = object_key[2].rpartition("/")
    return namespace or home, name


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


def following(release: Release | None) -> int:
    """The revision that comes next."""
    return (release.revision if release else 0) + 1


def unchanged(release: Release | None, inputs: str) -> bool:
    """Whether the newest revision was deployed from these very inputs."""
    if release is None or release.status != "deployed":
        return False
    return release.labels.get(LABEL) == stamp(release.revision, inputs)


def proven(release: Release | None) -> bool:
    """Whether the newest revision was proven to work; the label counts only on the revision that it names."""
    return release is not None and release.labels.get(PROVEN) == str(release.revision)


def make(inputs: str, wanted: Sequence[Object], seen: Seen) -> Plan:
    """The plan that brings `seen` to `wanted`."""
    same = unchanged(seen.release, inputs)
    changes = [*_changes(wanted, seen, same), *_removals(wanted, seen)]
    return Plan(
        reasons=tuple(_reasons(changes, seen, same)),
        changes=tuple(changes),
        revision=following(seen.release),
        inputs=inputs,
        settings=seen.settings,
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


def _impossible(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        for field in change.fields:
            if field.path.startswith(IMMUTABLE.get(change.object.partition("/")[0], ("\0",))):
                yield f"{change.object}: {field.path} cannot be changed"


def _left_behind(changes: Sequence[Change]) -> Iterator[str]:
    """A StatefulSet that goes leaves its volume, and with it all data, unused."""
    for change in changes:
        if change.how == "remove" and change.object.startswith("StatefulSet/"):
            yield f"{change.object} goes; its volume and all that is in it stay behind"


def _changes(wanted: Sequence[Object], seen: Seen, same: bool) -> list[Change]:
    applied = {key(object): object for object in seen.applied}
    found = []
    for object in wanted:
        live, before = seen.live.get(key(object)), applied.get(key(object))
        if live is None and object["kind"] == "Job" and "ttlSecondsAfterFinished" in object["spec"] and same:
            continue  # done, and deleted by Kubernetes as it was to be
        if live is None:
            found.append(Change("create", title(key(object)), by=BY_HAND if before is not None else ""))
            continue
        fields = _fields(object, live, before, deployed=seen.release is not None and seen.release.status == "deployed")
        if fields:
            found.append(Change("change", title(key(object)), fields))
    return found


def _fields(wanted: Object, live: Object, before: Object | None, *, deployed: bool) -> tuple[Field, ...]:
    """The fields that change: edited by hand since Helm applied them, set otherwise now, or set no more.

    Of a revision that was not `deployed`, nobody knows what was applied: only what it does not set at all is by hand.
    """
    fields = drift.compare(wanted, live)
    if before is None:
        return tuple(field._replace(by=BY_HAND) for field in fields)
    edited = {field.path for field in drift.compare(before, live) if deployed or field.new is None}
    fields = tuple(field._replace(by=BY_HAND) if field.path in edited else field for field in fields)
    known = {field.path for field in fields}
    return (*fields, *(field for field in drift.dropped(before, wanted) if field.path not in known))


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
    if not same:
        reasons += [f"{setting.key} changed ({setting.layer})" for setting in seen.settings]
        reasons += [f"the chart is another: {seen.other_chart} before"] if seen.other_chart else []
    if release.status == "deployed":
        reasons += [edit for change in changes if (edit := _edited(change, same))]
    if same:
        return [*reasons, *(f"{name} is not ready" for name in seen.unready)]
    return reasons or [_unexplained(changes)]


def _unexplained(changes: Sequence[Change]) -> str:
    return "the chart's files, Helm or Kubernetes changed" + ("" if changes else ", the objects stay as they are")


def _edited(change: Change, same: bool) -> str:
    """What was done to an object by hand; with the inputs of before, everything was."""
    if change.how == "create":
        return f"{change.object} was deleted" if same or change.by == BY_HAND else ""
    paths = [field.path for field in change.fields if same or field.by == BY_HAND]
    return f"{change.object} was edited: {', '.join(paths[:3])}" if paths else ""


def counted(changes: Sequence[Change]) -> str:
    """`3 to create, 1 to change`; empty where there are none."""
    counts = {how: sum(change.how == how for change in changes) for how in ("create", "change", "remove")}
    return ", ".join(f"{count} to {how}" for how, count in counts.items() if count)


def differences(one: Sequence[Object], other: Sequence[Object]) -> frozenset[tuple[str, str]]:
    """(object's title, field's path) of all in which two renderings differ; the path is empty for a whole object."""
    there = {key(object): object for object in other}
    found = {(title(missing), "") for missing in there.keys() ^ {key(object) for object in one}}
    for object in one:
        twin = there.get(key(object))
        if twin is not None:
            fields = (*drift.compare(object, twin), *drift.dropped(twin, object))
            found |= {(title(key(object)), field.path) for field in fields}
    return frozenset(found)


def steps(plan: Plan, wanted: Sequence[Object], database: str, proof: str) -> tuple[str, ...]:
    """What redeploy would do, in order; `database` and `proof` say what these steps come to, empty: there is none."""
    when = "pre-upgrade" if plan.revision > 1 else "pre-install"
    hooks = [title(key(object)) for object in wanted if when in hook(object)]
    new = {change.object for change in plan.changes if change.how == "create"}
    objects = {title(key(object)): object for object in wanted}
    schema = [name for name in new if _component(objects.get(name)) == "schema" and name.startswith("Job/")]
    rolled = [change.object.partition("/")[2] for change in plan.changes if _rolls(change, objects.get(change.object))]
    lines = {
        "database": database,
        "hooks": ", ".join(hooks),
        "release": f"revision {plan.revision}: {counted(plan.changes) or 'the objects stay as they are'}",
        "schema": f"{', '.join(sorted(schema))} makes and migrates the databases" if schema else "",
        "rollout": f"new pods for {', '.join(rolled)}" if rolled else "",
        "proof": proof,
    }
    return tuple(f"{name}: {text}" for name, text in lines.items() if text)


def _component(object: Object | None) -> str:
    return str(((object or {"metadata": {}})["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))


def _rolls(change: Change, object: Object | None) -> bool:
    """Whether a workload gets new pods: it is new, or its pod template or the number of its pods changes."""
    if object is None or "template" not in (object.get("spec") or {}) or object["kind"] == "Job":
        return False
    changed = any(field.path.startswith(("spec.template", "spec.replicas")) for field in change.fields)
    return change.how == "create" or changed


def short(change: Change, width: int = 60) -> str:
    """One line: `~ Deployment/backend (env TEMPORAL_ADDRESS)`; as many names of fields as fit."""
    sign = {"create": "+", "change": "~", "remove": "-"}[change.how]
    names = list(dict.fromkeys(_leaf(field.path) for field in change.fields))
    for shown in (3, 2, 1):
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        told = f" ({', '.join(names[:shown])}{more})" if names else ""
        if len(told) <= width:
            break
    return f"{sign} {change.object}{told}"


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
