"""The catalogue of broken environments: each is named right, in time, with its exit code.

Every row is a small chart of its own in a namespace of its own; all rows run side by side. The time is from the moment
at which the API server shows the fault (a watch of ours sees it) to the exit of the command, less the grace that a
fault of its class is given. The table of times is printed at the end of the run.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devenv import health, look, watch
from devenv.clients import shell
from devenv.clients.kube import Kube
from devenv.cluster import start
from tests.cluster.conftest import Environment
from tests.conftest import measured

pytestmark = pytest.mark.cluster

Object = dict[str, Any]

IMAGE = "devenv.local/backend:0.1.0"
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"
SIDE_BY_SIDE = 3
LATEST = 2.0  # seconds
WAITS = 12.0  # seconds of --timeout for what is waited for to the end


def python(script: str) -> list[str]:
    return ["python3", "-c", script]


def app(name: str = "app", *, pod: Object | None = None, init: Object | None = None, **container: Any) -> Object:
    """A Deployment with one container that serves, with changes to the container and to the pod."""
    main = {"name": "main", "image": IMAGE, "command": python(SERVE), "workingDir": "/tmp", **container}
    spec: Object = {"terminationGracePeriodSeconds": 0, "containers": [main], **(pod or {})}
    if init is not None:
        spec["initContainers"] = [{"name": "wait", "image": IMAGE, **init}]
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }  # fmt: skip


def job(script: str, *, hook: str = "", **spec: Any) -> Object:
    container = {"name": "once", "image": IMAGE, "command": python(script)}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    marks = {"helm.sh/hook": hook, "helm.sh/hook-delete-policy": "before-hook-creation"} if hook else {}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "annotations": marks},
        "spec": {"backoffLimit": 0, **spec, "template": {"spec": pod}},
    }  # fmt: skip


def from_secret(name: str, key: str) -> list[Object]:
    return [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}]


def requests(**resources: str) -> Object:
    return {"requests": resources}


def claim(storage_class: str) -> Object:
    spec = {
        "storageClassName": storage_class, "accessModes": ["ReadWriteOnce"], "resources": requests(storage="1Mi")
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}


def volume(mount: str, **source: Any) -> tuple[Object, list[Object]]:
    return {"volumes": [{"name": "v", **source}]}, [{"name": "v", "mountPath": mount}]


def made(kind: str, name: str, api: str = "v1", **rest: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **rest.pop("metadata", {})}, **rest}


def mounted(mount: str, source: Object, script: str = SERVE, **container: Any) -> Object:
    pod, mounts = volume(mount, **source)
    return app(pod=pod, volumeMounts=mounts, command=python(script), **container)


@dataclass(frozen=True)
class Broken:
    """An environment that cannot come up.

    `says`: what reason, object and evidence must hold, in one line; `shown`: a pattern over what the API server says
    that marks the moment from which the time counts; `grace`: what the fault's class is given; `before`: objects that
    are there first; `first`: what is deployed, and works, before the fault; `code`: the exit code.
    """

    objects: tuple[Object, ...]
    says: tuple[str, ...]
    shown: str = ""
    grace: float = 0.0
    code: int = 5
    before: tuple[Object, ...] = ()
    first: tuple[Object, ...] = ()
    timeout: float = 150.0
    never: tuple[str, ...] = ()
    namespace: Object = field(default_factory=dict)


CRASHED = r"reason='CrashLoopBackOff'.{0,500}?restarts=2"
NOWHERE = "registry.invalid/nothing:1"
PULL = r"reason='Failed', message='Failed to pull"
REFUSED = "reason='FailedCreate'"
UNSCHEDULED = r"unscheduled=.0/"
NODE = "devenv-test-tainted"
FULL = mounted(
    "/full", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, "open('/full/x', 'wb').write(b'x' * 2**22)"
)
WEBHOOK: Object = {
    "name": "down.devenv.test", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    "clientConfig": {"service": {"name": "nobody", "namespace": "NAMESPACE", "path": "/"}},
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "NAMESPACE"}}, "timeoutSeconds": 3,
}  # fmt: skip
TAINTED: Object = made(
    "Node", NODE, metadata={"labels": {"devenv.test/tainted": "yes"}},
    spec={"taints": [{"key": "dedicated", "value": "database", "effect": "NoSchedule"}]},
)  # fmt: skip
SERVICE = made("Service", "web", spec={"selector": {"app": "wbe"}, "ports": [{"port": 80, "targetPort": 8080}]})
DOUBLE = app(env=[{"name": "TWICE", "value": "1"}, {"name": "TWICE", "value": "2"}])
OTHER_LABELS = json.loads(json.dumps(app()).replace('"app": "app"', '"app": "other"'))
PROBE = {"tcpSocket": {"port": 9999}, "periodSeconds": 1}

CATALOGUE: dict[str, Broken] = {
    # At once
    "a missing Secret": Broken(
        (app(env=from_secret("nope", "a")),),
        ("Deployment/app cannot be started", 'secret "nope" not found'), "CreateContainerConfigError",
    ),
    "a missing key": Broken(
        (app(env=from_secret("there", "nope")),),
        ("Deployment/app cannot be started", "couldn't find key nope in Secret"), "CreateContainerConfigError",
        before=(made("Secret", "there", stringData={"a": "b"}),),
    ),
    "a missing Secret as a volume": Broken(
        (mounted("/s", {"secret": {"secretName": "nope"}}),),
        ("Deployment/app cannot be started", 'secret "nope" not found'), "FailedMount",
    ),
    "an image's name that is none": Broken(
        (app(image="NOT/A:name:1"),), ("the image NOT/A:name:1 cannot be had", "no name of an image"), code=3,
    ),
    "a program that is not in the image": Broken(
        (app(command=["no-such-program"]),),
        ("Deployment/app cannot be started", '"no-such-program": executable file not found'), "executable file not found",
    ),
    "a crash at start": Broken(
        (app(command=python("raise SystemExit('no luck today')")),),
        ("Deployment/app does not start", "no luck today"), CRASHED,
    ),
    "killed for its memory": Broken(
        (app(command=python("x = b'x' * 2**30"), resources={"limits": {"memory": "64Mi"}}),),
        ("Deployment/app does not start", "OOMKilled"), CRASHED,
    ),
    "a read-only file system": Broken(
        (app(command=python("open('/etc/x', 'w')"), securityContext={"readOnlyRootFilesystem": True}),),
        ("Deployment/app does not start", "Read-only file system"), CRASHED,
    ),
    "a full volume": Broken((FULL,), ("Deployment/app does not start", "the volume is full"), CRASHED),
    "a quota": Broken(
        (app(),), ("Deployment/app may not make its pods", "exceeded quota"), REFUSED,
        before=(made("ResourceQuota", "none", spec={"hard": {"pods": "0"}}),),
    ),
    "a LimitRange": Broken(
        (app(resources={"limits": {"cpu": "2"}}),),
        ("Deployment/app may not make its pods", "maximum cpu usage per Container is 100m"), REFUSED,
        before=(made("LimitRange", "small", spec={"limits": [{"type": "Container", "max": {"cpu": "100m"}}]}),),
    ),
    "Pod Security": Broken(
        (app(),), ("Deployment/app may not make its pods", "violates PodSecurity"), REFUSED,
        namespace={"pod-security.kubernetes.io/enforce": "restricted"},
    ),
    "a missing StorageClass": Broken(
        (claim("nope"), mounted("/d", {"persistentVolumeClaim": {"claimName": "data"}})),
        ("Deployment/app has no volume", 'storageclass.storage.k8s.io "nope" not found'), "ProvisioningFailed",
    ),
    "a hook that fails": Broken(
        (app(), job("raise SystemExit('the hook has no luck')", hook="pre-install")),
        ("Job/once failed", "the hook has no luck"), "failed=True", code=4,
    ),
    "a Job's deadline": Broken(
        (app(), job("import time; time.sleep(600)", activeDeadlineSeconds=3)),
        ("Job/once failed", "longer than specified deadline"), "failed=True",
    ),
    "two variables of one name": Broken((DOUBLE,), ("TWICE",), code=4),
    "an immutable field": Broken(
        (OTHER_LABELS,), ("cannot be made in place", "selector"), code=3, first=(app(),),
    ),
    # After a grace
    "a Service that leads nowhere": Broken(
        (app(), SERVICE), ("Service/web leads nowhere", "app=wbe"), r"available=1", watch.SERVICE_GRACE + watch.STEADY,
    ),
    "a wrong image": Broken((app(image=NOWHERE),), ("Deployment/app gets no image", NOWHERE, "no such host"), PULL, health.PULL_GRACE),
    "a wrong tag on one of two": Broken(
        (app("web"), app("api", image="registry.invalid/backend:9.9.9")),
        ("Deployment/api gets no image", "registry.invalid/backend:9.9.9"), PULL, health.PULL_GRACE, never=("web",),
    ),
    "an admission webhook that is down": Broken(
        (app(),), ("Deployment/app may not make its pods", "failed calling webhook"), REFUSED, health.WEBHOOK_GRACE,
        before=(
            made("ValidatingWebhookConfiguration", "NAMESPACE", "admissionregistration.k8s.io/v1", webhooks=[WEBHOOK]),
        ),
    ),
    "no node with the CPU": Broken(
        (app(resources=requests(cpu="500")),), ("Deployment/app finds no node", "Insufficient cpu"), UNSCHEDULED, health.SCHEDULING_GRACE,
    ),
    "no node with the memory": Broken(
        (app(resources=requests(memory="9Ti")),), ("Deployment/app finds no node", "Insufficient memory"), UNSCHEDULED, health.SCHEDULING_GRACE,
    ),
    "no node with the label": Broken(
        (app(pod={"nodeSelector": {"disk": "none"}}),), ("Deployment/app finds no node", "node affinity/selector"), UNSCHEDULED, health.SCHEDULING_GRACE,
    ),
    "a taint": Broken(
        (app(pod={"nodeSelector": {"devenv.test/tainted": "yes"}}),),
        ("Deployment/app finds no node", "untolerated taint"), UNSCHEDULED, health.SCHEDULING_GRACE, before=(TAINTED,),
    ),
    "a port that is taken": Broken(
        (app("one", ports=[{"containerPort": 8080, "hostPort": 39217}]), app("two", ports=[{"containerPort": 8080, "hostPort": 39217}])),
        ("finds no node", "free ports"), UNSCHEDULED, health.SCHEDULING_GRACE,
    ),
    "a crash after 20 seconds": Broken(
        (app(command=python("import time; time.sleep(20); raise SystemExit('lost it')"), readinessProbe={**PROBE, "initialDelaySeconds": 30}),),
        ("Deployment/app does not start", "lost it"), CRASHED,
    ),
    "evicted for its volume's size": Broken(
        (mounted("/e", {"emptyDir": {"sizeLimit": "1Mi"}}, "open('/e/x', 'wb').write(b'x' * 2**23); import time; time.sleep(600)", readinessProbe=PROBE),),
        ("Deployment/app is put out", "exceeds the limit"), "phase='Failed'",
    ),
    # Waited for, to the end
    "a probe that never passes": Broken(
        (app(readinessProbe=PROBE),), ("waiting for its readiness probe", "connection refused"), timeout=WAITS,
    ),
    "an init container that hangs": Broken(
        (app(init={"command": python("import time; time.sleep(600)")}),), ("init container wait runs",), timeout=WAITS,
    ),
    "a hook that hangs": Broken(
        (app(), job("import time; print('waiting for Godot', flush=True); time.sleep(600)", hook="pre-install")),
        ("Job/once, a hook, is not over", "at work", "waiting for Godot"), code=4, timeout=WAITS,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """How a row ended: the command's answer, the seconds from the fault's showing, and from the start, to its exit, and
    how many processes wanted each processor of this machine then."""

    output: shell.Output
    late: float | None
    took: float
    load: float

    @property
    def failure(self) -> dict[str, str]:
        answer: dict[str, str] = json.loads(self.output.stdout).get("failure", {})
        return answer

    @property
    def line(self) -> str:
        return " | ".join(self.failure.get(part, "") for part in ("reason", "object", "evidence"))


class Eye:
    """Watches a namespace beside the command, and notes when the API server first shows what a pattern says."""

    def __init__(self, kube: Kube, namespace: str, pattern: str) -> None:
        self.at: float | None = None
        self._stop = threading.Event()
        self._pattern = re.compile(pattern)
        self._thread = threading.Thread(target=self._look, args=(kube, namespace), daemon=True)
        self._thread.start()

    def _look(self, kube: Kube, namespace: str) -> None:
        for snapshot in look.looks(kube, namespace, self._stop):
            if self.at is None and self._pattern.search(repr(snapshot)):
                self.at = time.monotonic()

    def close(self) -> None:
        self._stop.set()


def text(objects: tuple[Object, ...], namespace: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}).replace("NAMESPACE", namespace)


def chart(folder: Path, objects: tuple[Object, ...]) -> str:
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: broken\nversion: 0.1.0\n")
    (folder / "templates" / "all.yaml").write_text("\n---\n".join(json.dumps(one) for one in objects))
    return str(folder)


def run(name: str, broken: Broken, kube: Kube, kubectl: Callable[..., shell.Output], folder: Path) -> Seen:
    namespace = f"test-broken-{list(CATALOGUE).index(name)}-{os.getpid()}"
    labels = {"devenv.test/run": str(os.getpid()), **broken.namespace}
    kubectl("apply", "-f", "-", stdin=text((made("Namespace", namespace, metadata={"labels": labels}),), namespace))
    if broken.before:
        applied = kubectl("-n", namespace, "apply", "-f", "-", stdin=text(broken.before, namespace))
        assert applied.code == 0, applied.stderr
    words = ("--output", "json", "--timeout", f"{broken.timeout:.0f}s")
    env = Environment(namespace)
    if broken.first:
        assert env.inv("redeploy", "--chart", chart(folder / "first", broken.first), *words, temporal=False).code == 0
    eye = Eye(kube, namespace, broken.shown or "$never")
    began = time.monotonic()
    output = env.inv("redeploy", "--chart", chart(folder / "chart", broken.objects), *words, temporal=False)
    over = time.monotonic()
    eye.close()
    late = over - eye.at - broken.grace if eye.at is not None else None
    kubectl("delete", "namespace", namespace, "--wait=false")
    return Seen(output, late, over - began, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="module")
def catalogue(
    running: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Seen]]:
    """Runs the rows that are asked for, side by side."""
    cluster = start.running("default")
    kube = Kube(cluster.kubeconfig, _context(cluster.kubeconfig))

    def kubectl(*words: str, stdin: str = "") -> shell.Output:
        from devenv.cluster import programs

        return shell.run([programs.path("kubectl"), "--kubeconfig", cluster.kubeconfig, *words], stdin=stdin)

    rows = [getattr(item, "callspec", None) for item in request.session.items]
    names = [row.params["name"] for row in rows if row and row.params.get("name") in CATALOGUE]
    # Those that take longest first.
    names.sort(key=lambda name: -CATALOGUE[name].grace)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        runs = {
            name: pool.submit(run, name, CATALOGUE[name], kube, kubectl, tmp_path_factory.mktemp("row"))
            for name in names
        }
    yield {name: done.result() for name, done in runs.items()}
    for kind in ("node", "validatingwebhookconfiguration"):
        for name in kubectl("get", kind, "-o", "name").stdout.split():
            if NODE in name or f"-{os.getpid()}" in name:
                kubectl("delete", name)


def _context(kubeconfig: Path) -> str:
    import yaml

    return str(yaml.safe_load(kubeconfig.read_text())["current-context"])


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_named_in_time(name: str, catalogue: dict[str, Seen]) -> None:
    broken, seen = CATALOGUE[name], catalogue[name]
    late = "" if seen.late is None else f"{seen.late:.1f} s late"
    grace = f"grace {broken.grace:.0f} s" if broken.grace else "at once" if broken.timeout != WAITS else "waited for"
    measured.append(
        f"{name:<38}{grace:<14}{late:<14}{seen.took:6.1f} s in all, load {seen.load:4.1f}   {seen.line[:90]}"
    )
    assert seen.output.code == broken.code, seen.line
    for words in broken.says:
        assert words in seen.line
    for words in broken.never:
        assert words not in seen.line
    assert seen.failure["hint"]
    if broken.shown:
        assert seen.late is not None, "the fault never showed"
        # A machine that others use as well is slower by as much.
        assert seen.late <= LATEST * max(1.0, seen.load)
