"""Changes the cluster: namespace, database password, release. Edge out.

Each step can be run again at any time and says what it did. Nothing here deletes data.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass

from devenv import drift
from devenv import plan as planning
from devenv.clients.helm import Helm, failed
from devenv.clients.kube import KINDS, Conflict, Kube, Object
from devenv.errors import Refused
from devenv.model import Desired, Plan, Release, Snapshot

MANAGED = {"app.kubernetes.io/managed-by": "devenv"}
PASSWORD_BYTES = 24


def namespace(kube: Kube, name: str) -> bool:
    """Makes the namespace where it is not there; True when it was made."""
    path = f"/api/v1/namespaces/{name}"
    if kube.find(path) is not None:
        return False
    try:
        kube.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": MANAGED}})
    except Conflict:
        return False
    return True


def database_name(release: str) -> str:
    """The internal database's Service, Secret and StatefulSet."""
    return f"{release}-postgresql"


@dataclass(frozen=True)
class Password:
    """The internal database's password: made just now, or kept; `version` of its Secret."""

    made: bool
    version: str
    value: str


def password(kube: Kube, desired: Desired, seen: Snapshot) -> Password:
    """The Secret of the internal database: made once, outside the release, never overwritten.

    Raises Refused where a volume is there without its Secret: a new password would not open it.
    """
    name = database_name(desired.release)
    path = f"/api/v1/namespaces/{desired.namespace}/secrets"
    secret = kube.find(f"{path}/{name}")
    made = False
    if secret is None:
        _refuse_orphaned_volume(desired, seen, name)
        try:
            secret = kube.create(path, _secret(name, desired))
            made = True
        except Conflict:
            secret = kube.get(f"{path}/{name}")
    data = secret.get("data") or {}
    if not data.get("password"):
        raise Refused(
            f"Secret {name} has no key password",
            where=f"Secret {name} in namespace {desired.namespace}",
            next=f"inv kubectl -- describe secret {name}",
        )
    value = base64.b64decode(data["password"]).decode("utf-8", "replace")
    return Password(made, secret["metadata"]["resourceVersion"], value)


def _secret(name: str, desired: Desired) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {**MANAGED, "app.kubernetes.io/instance": desired.release}},
        "type": "Opaque",
        "stringData": {
            "host": name,
            "port": "5432",
            "username": "postgres",
            "password": secrets.token_urlsafe(PASSWORD_BYTES),
        },
    }


def volume_of(seen: Snapshot, release: str) -> str:
    """The name of the internal database's volume claim, or empty."""
    prefix = f"-{database_name(release)}-0"
    return next((claim.name for claim in seen.claims if claim.name.endswith(prefix)), "")


def _refuse_orphaned_volume(desired: Desired, seen: Snapshot, name: str) -> None:
    claim = volume_of(seen, desired.release)
    if not claim:
        return
    raise Refused(
        "the database's volume is there, but the Secret with its password is gone",
        where=f"PersistentVolumeClaim {claim}, Secret {name} in namespace {desired.namespace}",
        why="a new password would not open the data that is in it",
        next=f"put Secret {name} back, or give the data up: inv destroy --delete-data",
    )


def remove_failed_jobs(kube: Kube, desired: Desired, seen: Snapshot, jobs: tuple[str, ...]) -> None:
    """Deletes the release's own Jobs that failed before: Helm finds them unchanged and would not run them again."""
    for job in seen.jobs:
        if job.failed and job.key in jobs:
            kube.delete(KINDS[("batch/v1", "Job")].path(desired.namespace, job.name))


def remove_additions(kube: Kube, desired: Desired, plan: Plan) -> None:
    """Removes what was added by hand to lists that Helm's apply would leave as they are: variables, containers."""
    for change in plan.changes:
        kind, _, name = change.object.partition("/")
        added = [field.path for field in change.fields if field.new is None and field.path.endswith("]")]
        if added and ("apps/v1", kind) in KINDS:
            path = KINDS[("apps/v1", kind)].path(desired.namespace, name)
            kube.patch(path, drift.removal(added), how="strategic")


class Applying:
    """Helm at work in the background; `busy` tells when it is over and raises its failure."""

    def __init__(self, helm: Helm, desired: Desired, plan: Plan, *, server_side: bool) -> None:
        labels = {planning.LABEL: planning.stamp(plan.revision, plan.inputs)}
        timeout = desired.timeouts["rollout"]
        values = desired.values.tree()
        self._desired = desired
        self._helm = helm.upgrade(desired.release, desired.chart, values, labels, timeout, server_side)

    def busy(self) -> bool:
        """Whether Helm still runs. Raises StepFailed with its reason when it ended with one."""
        if self._helm.alive:
            return True
        output = self._helm.wait()
        if output.code != 0:
            raise failed(output, self._desired.release, self._desired.namespace)
        return False

    def stop(self) -> None:
        """Asks Helm once to end, and waits for it, so that it marks its release as failed."""
        self._helm.stop()
        self._helm.wait()


def tidy_jobs(kube: Kube, desired: Desired, seen: Snapshot, wanted: tuple[str, ...]) -> list[str]:
    """Deletes schema Jobs of earlier inputs, which Helm keeps: the finished, and those that never got to run.

    One whose container runs is left alone: it may be in the middle of a migration.
    """
    gone = []
    for job in seen.jobs:
        ours = job.component == "schema" and job.name.startswith(f"{desired.release}-") and job.key not in wanted
        if ours and (job.succeeded or job.failed or not _runs(seen, job.key)):
            kube.delete(KINDS[("batch/v1", "Job")].path(desired.namespace, job.name))
            gone.append(job.name)
    return gone


def _runs(seen: Snapshot, owner: str) -> bool:
    return any(container.state == "running" for pod in seen.pods_of(owner) for container in pod.containers)


def heal_pending(kube: Kube, namespace: str, release: Release) -> None:
    """Marks a release that a killed run left half-done as failed; its history stays.

    Helm reads the status from the release's content, so the label alone would not do: both are changed.
    """
    import gzip
    import json

    path = f"/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.{release.name}.v{release.revision}"
    secret = kube.get(path)
    content = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    content["info"]["status"] = "failed"
    content["info"]["description"] = "marked failed by devenv: the run that held it has ended"
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(content).encode()))).decode()
    secret["data"]["release"] = packed
    secret["metadata"]["labels"]["status"] = "failed"
    kube.replace(path, secret)
