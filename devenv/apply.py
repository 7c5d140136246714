"""Changes the cluster: namespace, release, Jobs. Edge out.

Each step can be run again at any time and says what it did. Nothing here deletes data.
"""

from __future__ import annotations

import base64
import json

from devenv import drift
from devenv import plan as planning
from devenv.causes import BY_HAND
from devenv.clients import shell
from devenv.clients.helm import Helm, failed
from devenv.clients.kube import KINDS, Conflict, Kube
from devenv.model import Desired, Plan, Release, Snapshot

MANAGED = {"app.kubernetes.io/managed-by": "devenv"}


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


def volume_of(seen: Snapshot, release: str) -> str:
    """The name of the internal database's volume claim, or empty."""
    prefix = f"-{database_name(release)}-0"
    return next((claim.name for claim in seen.claims if claim.name.endswith(prefix)), "")


def remove_failed_jobs(kube: Kube, desired: Desired, seen: Snapshot, jobs: tuple[str, ...]) -> None:
    """Deletes the release's own Jobs that failed before: Helm finds them unchanged and would not run them again."""
    for job in seen.jobs:
        if job.failed and job.key in jobs:
            kube.delete(KINDS[("batch/v1", "Job")].path(desired.namespace, job.name))


def remove_additions(kube: Kube, desired: Desired, plan: Plan) -> None:
    """Removes what was added by hand to lists that Helm's apply would leave as they are: variables, containers."""
    for change in plan.changes:
        kind, _, name = change.object.partition("/")
        added = [
            field.path
            for field in change.fields
            if field.new is None and field.by == BY_HAND and field.path.endswith("]")
        ]
        if added and ("apps/v1", kind) in KINDS:
            path = KINDS[("apps/v1", kind)].path(*planning.place(("apps/v1", kind, name), desired.namespace))
            kube.patch(path, drift.removal(added), how="strategic")


def remember_proof(kube: Kube, desired: Desired, revision: int) -> None:
    """Notes at the release that this revision was proven: until then the next run does not take it for done."""
    secret = f"/api/v1/namespaces/{desired.namespace}/secrets/sh.helm.release.v1.{desired.release}.v{revision}"
    kube.patch(secret, {"metadata": {"labels": {planning.PROVEN: str(revision)}}})


class Upgrade:
    """`helm upgrade` of one environment: from `stand_by` on it is started, and changes nothing before `go`."""

    def __init__(self, helm: Helm, desired: Desired) -> None:
        self._helm = helm
        self._desired = desired
        self._running: shell.Running | None = None
        self._stamp = ""

    def stand_by(self, revision: int, inputs: str) -> shell.Running:
        """Starts it for the revision that these inputs give, where it is not; anew, where it was started for another.
        The bundled chart needs no validation by Helm: its values have a schema."""
        desired, stamp = self._desired, planning.stamp(revision, inputs)
        if self._running is None or stamp != self._stamp:
            self._end()
            timeout, validate = desired.timeouts["rollout"], not desired.bundled
            labels = {planning.LABEL: stamp}
            self._running = self._helm.upgrade(desired.release, desired.chart, labels, timeout, validate)
            self._stamp = stamp
        return self._running

    def go(self, plan: Plan) -> Applying:
        """Lets it apply the plan's revision."""
        running = self.stand_by(plan.revision, plan.inputs)
        running.feed(json.dumps(self._desired.values.tree()))
        return Applying(running, self._desired)

    def __enter__(self) -> Upgrade:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running.wait()


class Applying:
    """Helm at work in the background; `busy` tells when it is over and raises its failure."""

    def __init__(self, helm: shell.Running, desired: Desired) -> None:
        self._desired = desired
        self._helm = helm

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

    path = f"/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.{release.name}.v{release.revision}"
    secret = kube.get(path)
    content = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    content["info"]["status"] = "failed"
    content["info"]["description"] = "marked failed by devenv: the run that held it has ended"
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(content).encode()))).decode()
    secret["data"]["release"] = packed
    secret["metadata"]["labels"]["status"] = "failed"
    kube.replace(path, secret)
