"""The one reader of the cluster. Edge in.

`once` gives one `Snapshot` of a namespace; `looks` gives a new one as soon as something changed (lists once, then
watches); `releases` reads what Helm keeps. Objects become records here and nowhere else.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

from devenv.clients.kube import METADATA_ONLY, Denied, Gone, Kube, NotThere, Object
from devenv.errors import Failure
from devenv.model import Claim, Container, Event, Job, Node, Pod, Release, ReplicaSet, Snapshot, Workload
from devenv.plan import place
from devenv.reference import full

T = TypeVar("T")
R = TypeVar("R")

COALESCE = 0.02  # seconds: changes that come together make one snapshot
STEP = 0.01  # seconds: to wake up for each of thousands of changes would cost more than to read them
LONGEST = 0.3  # seconds: where they never cease, there is one that often all the same
RARELY, RAREST = 100.0, 1.0  # where they never cease: judging takes at most 1 % of the time, but one comes each second
MOST = 0.1  # seconds of judging that are taken into account
SHARE = 20.0  # a snapshot that took a second to judge is followed by the next after so many seconds without a change
AT_ONCE = 4  # lists side by side, where the server is far
SEVERAL = 3  # nodes: more than so many are asked for together
NODE_IMAGES, NODE_NAMES = 50, 5  # the most that a kubelet tells: the largest images, and names of each


def component(meta: Mapping[str, Any]) -> str:
    labels = meta.get("labels") or {}
    return str(labels.get("app.kubernetes.io/component") or labels.get("app") or meta["name"])


def _owner(meta: Mapping[str, Any]) -> str:
    for reference in meta.get("ownerReferences") or []:
        if reference.get("controller"):
            return f"{reference['kind']}/{reference['name']}"
    return ""


def _pod_owner(meta: Mapping[str, Any]) -> str:
    """The Deployment rather than its ReplicaSet, whose name is the Deployment's and the template's hash."""
    owner = _owner(meta)
    template = (meta.get("labels") or {}).get("pod-template-hash")
    if owner.startswith("ReplicaSet/") and template and owner.endswith(f"-{template}"):
        return "Deployment/" + owner.removeprefix("ReplicaSet/").removesuffix(f"-{template}")
    return owner


def container(status: Mapping[str, Any], init: bool, probed: bool = True) -> Container:
    """A container's status as a record."""
    state, detail = next(iter((status.get("state") or {"waiting": {}}).items()))
    last = (status.get("lastState") or {}).get("terminated") or {}
    return Container(
        name=status["name"],
        init=init,
        image=status.get("image", ""),
        ready=bool(status.get("ready")),
        state=state,
        reason=detail.get("reason", ""),
        message=detail.get("message", ""),
        exit_code=detail.get("exitCode"),
        restarts=status.get("restartCount", 0),
        last_reason=last.get("reason", ""),
        last_exit=last.get("exitCode"),
        last_message=last.get("message", ""),
        started=detail.get("startedAt") or "",
        ended=detail.get("finishedAt") or "",
        probed=probed,
    )


def pod(object: Object) -> Pod:
    meta, status = object["metadata"], object.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    labels = meta.get("labels") or {}
    containers = [container(entry, True) for entry in status.get("initContainerStatuses") or []]
    spec = object.get("spec") or {}
    named = spec.get("containers") or []
    claims = [(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in spec.get("volumes") or []]
    blind = {entry["name"] for entry in named if not entry.get("readinessProbe")}
    statuses = status.get("containerStatuses") or []
    containers += [container(entry, False, probed=entry["name"] not in blind) for entry in statuses]
    return Pod(
        name=meta["name"],
        component=component(meta),
        owner=_pod_owner(meta),
        template=labels.get("pod-template-hash") or labels.get("controller-revision-hash") or "",
        phase=status.get("phase", "Unknown"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting="deletionTimestamp" in meta,
        unscheduled=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
        created=meta.get("creationTimestamp", ""),
        containers=tuple(containers),
        message=status.get("message", ""),
        scheduled=_since(scheduled),
        ready_since=_since(conditions.get("Ready", {})),
        node=spec.get("nodeName") or "",
        claims=tuple(str(name) for name in claims if name),
    )


def _since(condition: Mapping[str, Any]) -> str:
    return str(condition.get("lastTransitionTime") or "") if condition.get("status") == "True" else ""


def workload(object: Object) -> Workload:
    """A Deployment, StatefulSet or DaemonSet; each counts its pods under other names."""
    meta, spec, status, kind = object["metadata"], object["spec"], object.get("status", {}), object["kind"]
    if kind == "DaemonSet":
        wanted, total = status.get("desiredNumberScheduled", 0), status.get("currentNumberScheduled", 0)
        updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberReady", 0)
        available = status.get("numberAvailable", 0)
    else:
        wanted, total = spec.get("replicas", 1), status.get("replicas", 0)
        updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
        available = status.get("availableReplicas", 0)
    return Workload(
        kind=kind,
        name=meta["name"],
        component=component(meta),
        wanted=wanted,
        total=total,
        updated=updated,
        ready=ready,
        available=available,
        current=status.get("observedGeneration", 0) >= meta.get("generation", 0),
        template=status.get("updateRevision", ""),
        created=meta.get("creationTimestamp", ""),
    )


def replica_set(object: Object) -> ReplicaSet:
    meta = object["metadata"]
    revision = (meta.get("annotations") or {}).get("deployment.kubernetes.io/revision", "0")
    template = (meta.get("labels") or {}).get("pod-template-hash", "")
    return ReplicaSet(meta["name"], _owner(meta), template, int(revision))


def job(object: Object) -> Job:
    status = object.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions") or [] if entry.get("status") == "True"}
    return Job(
        name=object["metadata"]["name"],
        component=component(object["metadata"]),
        active=status.get("active", 0),
        succeeded="Complete" in conditions,
        failed="Failed" in conditions,
        message=conditions.get("Failed", {}).get("message", ""),
        uid=object["metadata"].get("uid", ""),
    )


def event(object: Object) -> Event:
    about = object.get("involvedObject") or object.get("regarding") or {}
    at = object.get("lastTimestamp") or object.get("eventTime") or object["metadata"].get("creationTimestamp", "")
    return Event(
        about=f"{about.get('kind', '')}/{about.get('name', '')}",
        reason=object.get("reason", ""),
        message=object.get("message", "").strip(),
        warning=object.get("type") == "Warning",
        at=at,
    )


def claim(object: Object) -> Claim:
    return Claim(
        name=object["metadata"]["name"],
        phase=object.get("status", {}).get("phase", ""),
        storage_class=object["spec"].get("storageClassName", ""),
    )


def node(object: Object) -> Node:
    """A node and its images. Source: kubelet, nodeStatusMaxImages, and nodestatus/setters.go, MaxNamesPerImage…."""
    meta = object["metadata"]
    named = [image.get("names") or [] for image in object.get("status", {}).get("images") or []]
    return Node(
        name=meta["name"],
        images=frozenset(full(name) for names in named for name in names),
        complete=len(named) < NODE_IMAGES and all(len(names) < NODE_NAMES for names in named),
        provider=object.get("spec", {}).get("providerID", ""),
        runtime=object.get("status", {}).get("nodeInfo", {}).get("containerRuntimeVersion", ""),
        minikube=(meta.get("labels") or {}).get("minikube.k8s.io/name", ""),
    )


Row = tuple[str, str, str, Callable[[Object], Any]]  # API path, plural, kind, how to read it

# What a snapshot is made of.
READS: tuple[Row, ...] = (
    ("/apis/apps/v1", "deployments", "Deployment", workload),
    ("/apis/apps/v1", "statefulsets", "StatefulSet", workload),
    ("/apis/apps/v1", "daemonsets", "DaemonSet", workload),
    ("/apis/apps/v1", "replicasets", "ReplicaSet", replica_set),
    ("/apis/batch/v1", "jobs", "Job", job),
    ("/api/v1", "pods", "Pod", pod),
    ("/api/v1", "persistentvolumeclaims", "PersistentVolumeClaim", claim),
    ("/api/v1", "events", "Event", event),
)

# What only says that all goes its way, several times for each pod, is not asked for. All of these are of type Normal.
ROUTINE = ("Scheduled", "Created", "Started", "SuccessfulCreate", "SuccessfulDelete", "ScalingReplicaSet")
FIELDS = {"events": ",".join(f"reason!={reason}" for reason in ROUTINE)}

FIGURES = frozenset({"deployments", "statefulsets", "daemonsets", "replicasets", "jobs"})  # what judges count by

METADATA = frozenset({"replicasets"})  # what is read of the metadata alone

Records = dict[str, dict[str, Any]]
Change = tuple[str, str, str, Any]  # plural, what happened (or reset, failed), uid, record (or records, Failure)


def _path(row: Row, namespace: str) -> str:
    return f"{row[0]}/namespaces/{namespace}/{row[1]}"


def _list(kube: Kube, row: Row, namespace: str) -> tuple[str, dict[str, Any]]:
    answer = kube.listed(_path(row, namespace), FIELDS.get(row[1], ""), row[1] in METADATA)
    records = {item["metadata"]["uid"]: row[3]({**item, "kind": row[2]}) for item in answer.get("items") or []}
    return answer["metadata"]["resourceVersion"], records


def _snapshot(namespace: str, records: Records) -> Snapshot:
    def of(*plurals: str) -> tuple[Any, ...]:
        return tuple(chain.from_iterable(records.get(plural, {}).values() for plural in plurals))

    return Snapshot(
        namespace=namespace,
        workloads=of("deployments", "statefulsets", "daemonsets"),
        replica_sets=of("replicasets"),
        pods=of("pods"),
        jobs=of("jobs"),
        events=of("events"),
        claims=of("persistentvolumeclaims"),
    )


def once(kube: Kube, namespace: str) -> Snapshot:
    """One picture of the namespace now."""
    return _listed(kube, namespace, READS)


def _each(kube: Kube, read: Callable[[T], R], what: Iterable[T], near: bool = False) -> list[R]:
    """What is read of each, in order: one after the other where the server is near, else side by side."""
    if near or kube.near:
        return [read(one) for one in what]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read, what))


def _listed(kube: Kube, namespace: str, rows: Sequence[Row], near: bool = False) -> Snapshot:
    lists = _each(kube, lambda row: _list(kube, row, namespace), rows, near)
    named = {row[1]: listed for row, listed in zip(rows, lists, strict=True)}
    return replace(_snapshot(namespace, {plural: records for plural, (_, records) in named.items()}), lists=named)


def again(kube: Kube, seen: Snapshot) -> Snapshot:
    """A watched picture with its workloads and Jobs listed: a watch may lag behind the last write, a list does not.
    Pods, which are many, need no list: they change before the figures of what they belong to. One after the other: the
    watches hold all connections but one."""
    listed = _listed(kube, seen.namespace, [row for row in READS if row[1] in FIGURES], near=True)
    return replace(seen, workloads=listed.workloads, replica_sets=listed.replica_sets, jobs=listed.jobs)


def looks(
    kube: Kube, namespace: str, stop: threading.Event, tick: float = 1.0, before: Snapshot | None = None
) -> Iterator[Snapshot]:
    """A new picture whenever something changed, and one each `tick` seconds; ends when `stop` is set.

    Goes on from the picture of `once` that was taken `before`, whose lists need not be asked for again.
    """
    changes: queue.SimpleQueue[Change] = queue.SimpleQueue()
    lists = before.lists if before else {}
    for row in READS:
        told = (kube, row, namespace, stop, changes, *lists.get(row[1], ("", {})))
        threading.Thread(target=_watch, args=told, daemon=True).start()
    records: Records = {plural: dict(listed) for plural, (_, listed) in lists.items()}
    judged = 0.0
    while not stop.is_set():
        for plural, what, uid, record in _news(changes, tick, judged):
            if what == "failed":
                raise record
            if what == "reset":
                records[plural] = record
            elif what == "DELETED":
                records.setdefault(plural, {}).pop(uid, None)
            else:
                records.setdefault(plural, {})[uid] = record
        if len(records) == len(READS):
            began = time.thread_time()
            yield _snapshot(namespace, records)
            judged = min(MOST, time.thread_time() - began)


def _news(changes: queue.SimpleQueue[Change], tick: float, judged: float) -> list[Change]:
    """What changed, once no more did for a moment; nothing where `tick` seconds went by without."""
    try:
        news = [changes.get(timeout=tick)]
    except queue.Empty:
        return []
    began = last = time.monotonic()
    longest, calm = min(max(LONGEST, RARELY * judged), RAREST), max(COALESCE, SHARE * judged)
    while (now := time.monotonic()) - began < longest and now - last < calm:
        time.sleep(max(STEP, calm / 5))
        while not changes.empty():
            news.append(changes.get())
            last = time.monotonic()
    return news


def _watch(
    kube: Kube,
    row: Row,
    namespace: str,
    stop: threading.Event,
    changes: queue.SimpleQueue[Change],
    version: str,
    listed: Mapping[str, Any],
) -> None:
    failures = 0
    known = dict(listed)
    while not stop.is_set():
        began = time.monotonic()
        try:
            if not version:
                version, known = _list(kube, row, namespace)
                changes.put((row[1], "reset", "", dict(known)))
            path, fields = _path(row, namespace), FIELDS.get(row[1], "")
            for what, object in kube.watch(path, version, stop, fields, row[1] in METADATA):
                version = object["metadata"]["resourceVersion"]
                if what == "BOOKMARK":
                    continue
                uid = object["metadata"]["uid"]
                record = None if what == "DELETED" else row[3]({**object, "kind": row[2]})
                if record != known.get(uid):  # else nothing changed that anybody looks at
                    changes.put((row[1], what, uid, record))
                if record is None:
                    known.pop(uid, None)
                else:
                    known[uid] = record
            failures = 0
            if time.monotonic() - began < 1.0:
                stop.wait(0.5)  # a server that ends each watch at once must not be asked without pause
        except Gone:
            version = ""
        except Failure as error:
            failures += 1
            if failures > 5:
                changes.put((row[1], "failed", "", error))
                return
            stop.wait(0.2 * 2**failures)


def nodes(kube: Kube) -> tuple[Node, ...]:
    """The cluster's nodes; none where they may not be seen."""
    try:
        return tuple(node(item) for item in kube.get("/api/v1/nodes").get("items") or [])
    except (Denied, NotThere):
        return ()


def unready(kube: Kube, snapshot: Snapshot) -> dict[str, str]:
    """The nodes that are not ready, of those on which pods of the snapshot wait: name → why; none where they may not
    be seen."""
    waiting = {pod.node for pod in snapshot.pods if pod.node and not pod.ready and pod.phase in ("Pending", "Running")}
    found = {}
    for name, status in _node_statuses(kube, waiting):
        ready: Mapping[str, Any] = next((one for one in status.get("conditions") or [] if one["type"] == "Ready"), {})
        if ready.get("status") != "True":
            found[name] = str(ready.get("message") or ready.get("reason") or "its kubelet never said that it is ready")
    return found


NO_NODE: Object = {"conditions": [{"type": "Ready", "status": "False", "message": "there is no node of that name"}]}


def _node_statuses(kube: Kube, names: Collection[str]) -> Iterator[tuple[str, Object]]:
    """The named nodes, where they may be seen: several with one request, which costs less than one for each."""
    if len(names) > SEVERAL:
        try:
            listed = kube.get("/api/v1/nodes").get("items") or []
        except (Denied, NotThere):
            return
        named = {str(one["metadata"]["name"]): one.get("status") or {} for one in listed}
        yield from ((name, named.get(name, NO_NODE)) for name in names)
        return
    for name in sorted(names):
        try:
            yield name, kube.get(f"/api/v1/nodes/{name}").get("status") or {}
        except NotThere:
            yield name, NO_NODE
        except Denied:
            continue


def pull_secrets(kube: Kube, namespace: str, accounts: Iterable[str]) -> bool:
    """Whether one of the service accounts has pull secrets, or may have: where it may not be seen."""
    try:
        found = [kube.find(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}") for account in accounts]
    except Denied:
        return True
    return any(account.get("imagePullSecrets") for account in found if account)


def releases(kube: Kube, namespace: str) -> dict[str, Release]:
    """The newest revision of each Helm release of a namespace, without reading its content."""
    try:
        path = f"/api/v1/namespaces/{namespace}/secrets"
        answer = kube.get(path, {"labelSelector": "owner=helm"}, accept=METADATA_ONLY)
    except NotThere:
        return {}
    newest: dict[str, Release] = {}
    for item in answer.get("items") or []:
        labels = item["metadata"].get("labels") or {}
        if not str(labels.get("version", "")).isdigit() or "name" not in labels:
            continue
        modified = labels.get("modifiedAt") or labels.get("createdAt") or "0"
        release = Release(labels["name"], int(labels["version"]), labels.get("status", ""), labels, float(modified))
        if release.name not in newest or newest[release.name].revision < release.revision:
            newest[release.name] = release
    return newest


def live(kube: Kube, namespace: str, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], Object | None]:
    """The live objects behind the keys of a plan; None where there is none. One list for each kind and namespace."""
    wanted = {key: place(key, namespace) for key in keys}
    kinds = sorted({(where, *key[:2]) for key, (where, _) in wanted.items()})
    lists = _each(kube, lambda kind: _objects(kube, *kind), kinds)
    there = {
        (*kind, object["metadata"]["name"]): object
        for kind, objects in zip(kinds, lists, strict=True)
        for object in objects
    }
    return {key: there.get((where, *key[:2], name)) for key, (where, name) in wanted.items()}


def _objects(kube: Kube, namespace: str, api_version: str, kind: str) -> list[Object]:
    try:
        found: list[Object] = kube.listed(kube.kind(api_version, kind).path(namespace)).get("items") or []
    except NotThere:
        return []
    return [{"apiVersion": api_version, "kind": kind, **object} for object in found]


def age(rfc3339: str, now: float) -> float:
    """Seconds since a time stamp of the cluster."""
    return max(0.0, now - datetime.fromisoformat(rfc3339).timestamp()) if rfc3339 else 0.0
