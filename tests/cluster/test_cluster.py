"""The embedded cluster itself: a real one of its own, brought up, used, broken, ended and deleted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import paths
from devenv.clients import shell
from devenv.cluster import archive, condition, embedded, images, programs, prune
from devenv.cluster.archive import Config
from devenv.cluster.embedded import Cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="the embedded cluster needs Linux and root"
    ),
]

NAME = f"life-{os.getpid()}"
NAMESPACE = "life"
DATABASE = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: database}
spec: {selector: {app: database}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: database, labels: {app: database}}
spec:
  terminationGracePeriodSeconds: 5
  securityContext:
    runAsNonRoot: true
    runAsUser: 999
    runAsGroup: 999
    fsGroup: 999
    fsGroupChangePolicy: OnRootMismatch # else the kubelet opens PostgreSQL's directory to the group at each mount
    seccompProfile: {type: RuntimeDefault}
  containers:
  - name: postgres
    image: devenv.local/postgres:18.6
    command:
    - sh
    - -c
    - |
      if ! test -s $PGDATA/PG_VERSION; then
        initdb -A trust -U postgres
        echo 'host all all all trust' >> $PGDATA/pg_hba.conf
      fi
      exec postgres -k /tmp -h 0.0.0.0
    env: [{name: PGDATA, value: /data/pg}, {name: PGHOST, value: /tmp}, {name: PGUSER, value: postgres}]
    readinessProbe: {exec: {command: [pg_isready]}, periodSeconds: 1}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: data, mountPath: /data}, {name: tmp, mountPath: /tmp}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}, {name: tmp, emptyDir: {}}]
"""


def quiet(text: str) -> None:
    """The tests wait in silence."""


@pytest.fixture(scope="module")
def have() -> dict[str, Path]:
    return programs.ensure(embedded.PROGRAMS, quiet)


@pytest.fixture(scope="module")
def cluster(have: dict[str, Path]) -> Iterator[Cluster]:
    """A cluster of this module's own, with the images that its pods need, deleted at the end."""
    try:
        running = embedded.up(NAME, have, quiet)
        images.ensure_loaded(running.containerd, have["ctr"], quiet, ("pause", "postgres"))
        yield running
    finally:
        embedded.delete(NAME, quiet)


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> str:
    """A PostgreSQL under the restricted Pod Security Standard, with one row in it; the name of its pod."""
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("apply", "-f", "-", stdin=DATABASE)
    wait_for_database()
    sql("CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('still here')")
    return "database"


def kubectl(*words: str, stdin: str | None = None) -> str:
    argv: list[str | Path] = [programs.path("kubectl"), "--kubeconfig", embedded.state(NAME) / "kubeconfig"]
    output = shell.run([*argv, "--namespace", NAMESPACE, *words], stdin=stdin, timeout=90)
    assert output.code == 0, output.stderr
    return output.stdout


def wait_for_database() -> None:
    kubectl("wait", "--for=condition=Ready", "pod/database", "--timeout=60s")


def sql(*statements: str, host: str = "/tmp") -> str:
    words = [word for statement in statements for word in ("--command", statement)]
    return kubectl("exec", "database", "--", "psql", "--host", host, "--tuples-only", "--no-align", *words).strip()


def get(*words: str) -> Any:
    return json.loads(kubectl("get", *words, "--output", "json"))


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


def test_up_ends_with_a_ready_node_a_default_storage_class_and_names(cluster: Cluster) -> None:
    (node,) = get("nodes")["items"]
    ready = next(entry for entry in node["status"]["conditions"] if entry["type"] == "Ready")
    assert ready["status"] == "True"
    assert node["status"]["nodeInfo"]["kubeletVersion"] == condition.read(NAME).version  # type: ignore[union-attr]
    (storage,) = get("storageclasses")["items"]
    assert storage["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


def test_kubectl_and_helm_see_the_right_version(cluster: Cluster) -> None:
    assert json.loads(kubectl("version", "--output", "json"))["serverVersion"]["gitVersion"] == "v1.34.4"


def test_the_second_up_costs_nothing(cluster: Cluster, have: dict[str, Path]) -> None:
    began = time.monotonic()
    assert embedded.up(NAME, have, quiet) == cluster
    assert time.monotonic() - began < 0.05


def test_nobody_gets_in_without_a_certificate(cluster: Cluster) -> None:
    trusting = ssl._create_unverified_context()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.server}/api/v1/secrets", context=trusting, timeout=5)
    assert refused.value.code == 401
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
    assert cluster.state.stat().st_mode & 0o077 == 0


def test_a_restricted_pod_writes_to_its_volume(database: str) -> None:
    assert sql("SELECT word FROM kept") == "still here"
    assert kubectl("exec", database, "--", "id", "-u").strip() == "999"


def test_a_pod_reaches_a_service_by_name(database: str) -> None:
    assert sql("SELECT 1", host=f"database.{NAMESPACE}.svc.cluster.local") == "1"
    assert sql("SELECT 1", host="database") == "1"


def test_logs_are_there(database: str) -> None:
    assert "database system is ready to accept connections" in kubectl("logs", database)


def test_a_port_can_be_forwarded(database: str) -> None:
    argv: list[str | Path] = [programs.path("kubectl"), "--kubeconfig", embedded.state(NAME) / "kubeconfig"]
    lines: list[str] = []
    running = shell.Running([*argv, "--namespace", NAMESPACE, "port-forward", database, ":5432"], on_line=lines.append)
    try:
        until(lambda: any("->" in line for line in lines))
        port = int(lines[0].split("127.0.0.1:")[1].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))  # PostgreSQL's question for TLS
            assert connection.recv(1) == b"N"
    finally:
        running.stop()
        running.wait()


def test_a_volume_goes_with_its_claim(database: str) -> None:
    claim = DATABASE.split("---")[0].replace("name: data", "name: short")
    kubectl("apply", "-f", "-", stdin=claim)
    until(lambda: get("pvc", "short")["status"].get("phase") == "Bound")
    volume = get("pv", get("pvc", "short")["spec"]["volumeName"])
    path = Path(volume["spec"]["local"]["path"])
    assert path.is_dir()
    kubectl("delete", "pvc", "short")
    until(lambda: not path.exists())


def test_pruned_is_what_nothing_uses(cluster: Cluster, database: str, have: dict[str, Path], tmp_path: Path) -> None:
    def there() -> set[str]:
        return {name for name in images.all_present(cluster.containerd, have["ctr"]) if not name.startswith("sha256:")}

    before = there()
    for name in ("docker.io/acme/old:1", "devenv.local/postgres:1.0"):
        archive.write(
            tmp_path / "i.tar", name, "amd64", [{"file": archive.File(os.urandom(1 << 20))}], Config(1, ("/x",))
        )
        images.bring(cluster.containerd, have["ctr"], tmp_path / "i.tar")
    gone, freed = prune.cluster(cluster, f"embedded-{NAME}", have["ctr"], quiet)
    assert gone == ("devenv.local/postgres:1.0", "docker.io/acme/old:1")
    assert freed >= 2 << 20
    assert there() == before
    assert sql("SELECT word FROM kept") == "still here"
    assert prune.cluster(cluster, f"embedded-{NAME}", have["ctr"], quiet) == ((), 0)


def test_a_killed_supervisor_is_mended_by_up(database: str, have: dict[str, Path]) -> None:
    os.kill(int((condition.directory(NAME) / "pid").read_text()), signal.SIGKILL)
    until(lambda: not condition.alive(NAME))
    assert embedded.find(NAME) is None
    embedded.up(NAME, have, quiet)
    wait_for_database()
    assert sql("SELECT word FROM kept") == "still here"


def test_the_status_tells_each_components_version_memory_and_log_and_the_images(database: str) -> None:
    seen = embedded.status(NAME)
    parts = {part["name"]: part for part in seen.components}
    assert {"etcd", "kube-apiserver", "kubelet", "coredns", "containerd"} <= parts.keys()
    for part in parts.values():
        assert part["state"] == "running" and part["version"] and part["memory"] > 1 << 20, part
        assert Path(part["log"]).is_file(), part
    assert (parts["kubelet"]["version"], parts["etcd"]["version"][:2]) == (seen.version, "v3")
    assert {"devenv.local/pause:1", "devenv.local/postgres:18.6"} <= set(seen.images)
    assert seen.memory > sum(part["memory"] for part in parts.values()) * 0.9
    assert seen.disk > 50 << 20


def test_down_and_up_keep_the_data(database: str, have: dict[str, Path]) -> None:
    told: list[str] = []
    embedded.down(NAME, told.append)
    assert not footprint(NAME) - {"state"}
    assert embedded.status(NAME).record()["running"] is False
    (embedded.state(NAME) / "pki" / "coredns.crt").unlink()
    embedded.up(NAME, have, told.append)
    assert told[-1] == "made anew: certificates coredns"
    pod = get("pod", "database")
    assert all(not entry["ready"] for entry in pod["status"]["containerStatuses"]) or _restarted(pod)
    wait_for_database()
    assert sql("SELECT word FROM kept") == "still here"
    assert any("kube-apiserver" in line for line in told)


def _restarted(pod: Any) -> bool:
    return any(entry["restartCount"] > 0 for entry in pod["status"]["containerStatuses"])


def footprint(name: str) -> set[str]:
    """What of a cluster can be seen on this machine."""
    own = condition.directory(name).name
    links = [path.name for path in Path("/sys/class/net").glob("devenv*")]
    settings = condition.directory(name) / "settings.json"
    tables = shell.run([programs.path("nft"), "list", "tables"]).stdout
    found = {
        "cgroup": any(Path("/sys/fs/cgroup").glob(f"devenv-{own}"))
        or any(Path("/sys/fs/cgroup").glob(f"*/devenv-{own}")),
        "table": f"devenv_{own.replace('-', '_')}" in tables,
        "mount": name in Path("/proc/mounts").read_text(),
        "run": condition.directory(name).exists(),
        "link": settings.exists() and bool(links),
        "process": any(_mentions(path, name) for path in Path("/proc").glob("[0-9]*/cmdline")),
        "state": embedded.state(name).exists(),
    }
    return {what for what, there in found.items() if there}


def _mentions(path: Path, name: str) -> bool:
    with contextlib.suppress(OSError):
        return f"/{name}/".encode() in path.read_bytes()
    return False


def test_two_clusters_run_side_by_side_and_one_deleted_leaves_nothing(cluster: Cluster, have: dict[str, Path]) -> None:
    name = f"gone-{os.getpid()}"
    before = set(os.listdir("/sys/class/net")), set(os.listdir(paths.runtime()))  # noqa: PTH208
    other = embedded.up(name, have, quiet)
    try:
        assert other.server != cluster.server
        assert {"cgroup", "table", "run", "link", "process", "state"} <= footprint(name)
        assert embedded.find(NAME) == cluster
    finally:
        embedded.delete(name, quiet)
    assert not footprint(name)
    assert before == (set(os.listdir("/sys/class/net")), set(os.listdir(paths.runtime())))  # noqa: PTH208
    assert embedded.find(NAME) == cluster
    mounts = Path(f"/proc/{(condition.directory(NAME) / 'pid').read_text()}/mountinfo").read_text()
    assert " /var/lib/kubelet " in mounts and " /var/lib/cni " in mounts
