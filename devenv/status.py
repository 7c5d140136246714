"""What is running, on one screen: components with versions, databases, how to reach all of it. Edge in and out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from devenv import databases, forward, health, look, secret, usage
from devenv.clients import helm as helming
from devenv.clients.kube import KINDS, Object
from devenv.environment import Session
from devenv.errors import Failure
from devenv.model import Desired, Pod, Release, Snapshot, Workload
from devenv.plan import WORKLOADS
from devenv.show import columns
from devenv.usage import Usage

PATIENCE = 10.0  # seconds for psql


def read(desired: Desired, session: Session) -> dict[str, Any]:
    """The record of `inv status`: the release, its components, databases, volumes, and how to reach it."""
    kube, namespace = session.kube, desired.namespace
    used = usage.asked(kube, namespace, session.target.embedded)
    release = look.releases(kube, namespace).get(desired.release)
    content = helming.content(kube, namespace, release.name, release.revision) if release else {}
    snapshot = look.once(kube, namespace)
    workloads = [workload for workload in snapshot.workloads if workload.kind in WORKLOADS]
    verdict = health.judge(snapshot, [workload.key for workload in workloads], [])
    now = time.time()
    databases_seen = _databases(desired, session, snapshot, content)
    services = kube.get(KINDS[("v1", "Service")].path(namespace)).get("items") or []
    pods_use = used()
    return {
        "schema": "devenv/status/v1",
        "namespace": namespace,
        "context": session.target.context,
        "kubernetes": session.version,
        "release": _release(release, content),
        "ready": bool(workloads) and verdict.ready,
        "components": [
            {**_component(workload, state, pods, now), "usage": _usage(pods, pods_use)}
            for workload, (_, state) in zip(workloads, verdict.lines, strict=True)
            for pods in [health.newest(snapshot, workload)]
        ],
        "databases": databases_seen,
        "jobs": [
            {"object": job.key, "state": "complete" if job.succeeded else "failed" if job.failed else "active"}
            for job in snapshot.jobs
        ],
        "volumes": [{"name": claim.name, "phase": claim.phase} for claim in snapshot.claims],
        "ways": ways(services, desired),
    }


def _release(release: Release | None, content: Object) -> dict[str, Any] | None:
    if release is None:
        return None
    chart = (content.get("chart") or {}).get("metadata") or {}
    named = f"{chart.get('name', '')} {chart.get('version', '')}".strip()
    return {"name": release.name, "revision": release.revision, "status": release.status, "chart": named}


def _component(workload: Workload, state: str, pods: Sequence[Pod], now: float) -> dict[str, Any]:
    images = sorted({container.image for pod in pods for container in pod.containers if not container.init})
    return {
        "component": workload.component,
        "object": workload.key,
        "ready": f"{workload.ready}/{workload.wanted}",
        "state": state,
        "restarts": sum(container.restarts for pod in pods for container in pod.containers),
        "sinceSeconds": round(max((look.age(pod.created, now) for pod in pods), default=0.0)),
        "version": ", ".join(dict.fromkeys(version(image) for image in images)),
        "images": images,
    }


def _usage(pods: Sequence[Pod], used: Mapping[str, Usage]) -> dict[str, float] | None:
    """What the pods of a component use together; None where nobody tells of any of them."""
    told = [used[pod.name] for pod in pods if pod.name in used]
    if not told:
        return None
    all_of_them = usage.total(told)
    return {"cpuCores": round(all_of_them.cpu, 4), "memoryBytes": round(all_of_them.memory)}


def version(image: str) -> str:
    """An image's tag, or the beginning of its digest."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest[:19] or "latest"


def _databases(desired: Desired, session: Session, seen: Snapshot, content: Object) -> list[dict[str, Any]]:
    """Temporal's databases: at what the server needs where its schema Job is complete, which verifies it; else as
    PostgreSQL says, as far as it can be asked. `inv db.status` always asks."""
    if not (content and desired.bundled and desired.internal_postgres):
        return []
    objects = helming.objects(str(content.get("manifest") or ""), desired.namespace)
    wanted = databases.of(desired, objects)
    job = databases.schema_job(objects)
    if job is None:
        return []
    if any(one.succeeded and one.name == job["metadata"]["name"] for one in seen.jobs):
        return [_database(one, one.requires, "ok") for one in wanted if one.requires]
    if not secret.running(seen, desired):
        return []
    try:
        _, found = databases.seen(partial(secret.postgres(session, desired).run, timeout=PATIENCE), wanted)
    except Failure:
        return []
    return [_database(one.wanted, one.version, one.state) for one in found if one.wanted.requires]


def _database(wanted: databases.Wanted, version: str, state: str) -> dict[str, Any]:
    return {"name": wanted.name, "version": version, "requires": wanted.requires, "state": state}


def ways(services: Sequence[Object], desired: Desired) -> list[dict[str, str]]:
    """How to reach web and gRPC ports: inside the cluster by their names, from here by a task."""
    return [
        {
            "service": way.service,
            "scheme": way.scheme,
            "inside": f"{'http://' if way.scheme == 'http' else ''}{way.service}.{desired.namespace}:{way.port}",
            "fromHere": "inv temporal.ui" if way.service == f"{desired.release}-temporal-web" else "inv forward",
        }
        for way in forward.ways(services, lambda port: port)
    ]


def show(record: Mapping[str, Any]) -> None:
    """The record to people, in 80 columns."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    release = record["release"]
    if release is None:
        console.print(f"no release in namespace {record['namespace']}: inv redeploy")
    else:
        told = f"release {release['name']}, revision {release['revision']}, {release['status']}"
        console.print(f"{told}, chart {release['chart']}", markup=False)
    if record["components"]:
        columns([(_row(entry), "green" if entry["state"] == "ok" else "yellow") for entry in record["components"]])
    for one in record["databases"]:
        needs = f", the server needs {one['requires']}" if one["requires"] not in ("", one["version"]) else ""
        schema = f", schema {one['version']}" if one["version"] else ""
        said = f"database {one['name']}: {one['state']}{schema}{needs}"
        console.print(said, style="dim" if one["state"] == "ok" else "red", markup=False)
    for job in record["jobs"]:
        console.print(f"{job['object']}: {job['state']}", style="red" if job["state"] == "failed" else "dim")
    for volume in record["volumes"]:
        console.print(f"volume {volume['name']}: {volume['phase'].lower()}", style="dim")
    for way in record["ways"]:
        console.print(f"reach {way['inside']} from here: {way['fromHere']}", markup=False)


def _row(entry: Mapping[str, Any]) -> dict[str, str]:
    used = entry["usage"]
    return {
        "component": entry["component"],
        "ready": entry["ready"],
        "state": entry["state"],
        "since": _duration(entry["sinceSeconds"]),
        "restarts": str(entry["restarts"] or ""),
        "cpu": f"{used['cpuCores']:.2f}" if used else "",
        "memory": f"{used['memoryBytes'] / 2**20:.0f} MiB" if used else "",
        "version": entry["version"],
    }


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
