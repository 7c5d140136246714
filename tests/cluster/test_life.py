"""A cluster's life when things go wrong, and what it leaves: on clusters of these tests' own, in a home of their own.

Their programs come from a wheel, as a team would have them, and no Go is at hand: whatever is mended is not compiled.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devenv import paths, settings
from devenv.clients import shell
from devenv.cluster import condition, embedded, host, images, programs, start, wheel
from devenv.cluster.embedded import Cluster
from devenv.errors import Refused
from devenv.paths import START
from devenv.report import Note
from devenv.settings import Given, Sources
from tests.cluster import machine

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="the embedded cluster needs Linux and root"
    ),
]

NAME = f"mend-{os.getpid()}"
POD = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999}
  containers:
  - name: keeper
    image: devenv.local/postgres:18.6
    command: [sh, -c, "trap exit TERM; echo started >> /data/starts; while :; do sleep 1 & wait; done"]
    readinessProbe: {exec: {command: [sh, -c, "test -s /data/starts"]}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"""


def quiet(text: str) -> None:
    """The tests wait in silence."""


def until(true: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def home(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home; the wheel of our programs at an address; a PATH without Go; only what needs apt is copied."""
    home = tmp_path_factory.mktemp("home")
    patch.setattr(wheel, "KIND", zipfile.ZIP_STORED)  # packing takes half a minute, which tests nothing
    written = wheel.write(programs.built(quiet), home / "dist", quiet)
    images.archived(_postgres(), quiet)
    for source in (programs.path("runc"), programs.path("nft"), images.place(_postgres())):
        folder = next((one for one in source.parents if one.parent.parent == paths.cache()), None)
        if folder is not None:  # else it is on PATH
            shutil.copytree(folder, home / folder.relative_to(Path.home()), symlinks=True)
    patch.setenv("HOME", str(home))
    (home / "address").write_text(f"{written.file.as_uri()}#sha256={written.sha256}")
    said = Sources("download", "auto", Given((home / "address").read_text(), "these tests"))
    patch.setattr(settings, "sources", lambda *_: said)  # not by the environment, which is clean for each test
    return home


def _postgres() -> images.Image:
    return next(image for image in images.images() if image.name == "postgres")


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Cluster]:
    """A cluster with a pod that writes to its volume whenever it starts."""
    try:
        running = start.up(NAME, quiet)
        images.ensure_loaded(running.containerd, programs.path("ctr"), quiet, ("postgres",))
        until(lambda: shell.run(_kubectl("get", "serviceaccount", "default")).code == 0)
        kubectl("apply", "-f", "-", stdin=POD)
        wait_for_pod()
        yield running
    finally:
        embedded.delete(NAME, quiet)


def _kubectl(*words: str, name: str = NAME) -> list[str | Path]:
    return [programs.path("kubectl"), "--kubeconfig", embedded.state(name) / "kubeconfig", *words]


def kubectl(*words: str, stdin: str | None = None, name: str = NAME) -> str:
    output = shell.run(_kubectl(*words, name=name), stdin=stdin, timeout=90)
    assert output.code == 0, output.stderr
    return output.stdout


def starts() -> int:
    """How often the pod has started, by what it wrote to its volume: 0 where the volume is lost."""
    return len(kubectl("exec", "keeper", "--", "cat", "/data/starts").splitlines())


def wait_for_pod() -> None:
    kubectl("wait", "--for=condition=Ready", "pod/keeper", "--timeout=60s")


def supervisor() -> int:
    return int((condition.directory(NAME) / "pid").read_text())


def kill_all() -> None:
    """What a power cut does to the processes: all of them end at once, with their namespaces."""
    os.kill(supervisor(), signal.SIGKILL)
    until(lambda: not condition.alive(NAME))


def up() -> list[str]:
    """Brings the cluster up; the notes that it made, which stay to be read."""
    told: list[str] = []
    start.up(NAME, told.append)
    return [line for line in told if isinstance(line, Note)]


def mended(before: int) -> None:
    """The pod runs again, on the volume of before."""
    until(lambda: shell.run(_kubectl("get", "pod", "keeper")).code == 0)
    until(lambda: shell.run(_kubectl("exec", "keeper", "--", "sh", "-c", "true")).code == 0)
    wait_for_pod()
    assert starts() > before


# -- faults, each mended by `up` ---------------------------------------------------------------------------------------


def test_programs_of_a_wheel_at_an_address_start_a_cluster_without_go(cluster: Cluster, home: Path) -> None:
    seen = condition.read(NAME)
    assert seen is not None
    ours = [seen.programs[name] for name in embedded.PROGRAMS if name not in ("runc", "nft")]
    assert all(path.startswith(f"{home}/.cache/devenv/programs/ready-") for path in ours)
    assert not list((home / ".cache/devenv/programs").glob("node-*"))


def test_all_components_come_back(cluster: Cluster) -> None:
    def pids() -> dict[str, int]:
        seen = condition.read(NAME)
        assert seen is not None
        return {part["name"]: part["pid"] for part in condition.described(seen, supervisor())}

    for component in pids():
        before = pids()[component]
        os.kill(before, signal.SIGKILL)
        until(lambda: pids()[component] not in (0, before))  # noqa: B023
        until(lambda: (seen := condition.read(NAME)) and seen.ready)
    assert starts() == 1  # the pod never noticed


def test_a_killed_supervisor_and_a_stale_pid_that_is_another_process_now(cluster: Cluster) -> None:
    before = starts()
    kill_all()
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        (condition.directory(NAME) / "pid").write_text(str(stranger.pid))
        assert not embedded.status(NAME).running
        up()
        mended(before)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_reboot(cluster: Cluster) -> None:
    """All ends at once; /run, cgroups, interface and nftables table are gone; what is on disk is as it was left."""
    before = starts()
    kill_all()
    shutil.rmtree(condition.directory(NAME))
    cgroup = f"devenv-{condition.directory(NAME).name}"
    for folder in (*Path("/sys/fs/cgroup").glob(cgroup), *Path("/sys/fs/cgroup").glob(f"*/{cgroup}")):
        for below, _, _ in os.walk(folder, topdown=False):
            until(lambda: _removed(below))  # noqa: B023 the kernel takes a moment to bury the dead
    table = f"devenv_{condition.directory(NAME).name.replace('-', '_')}"
    assert shell.run([programs.path("nft"), "delete", "table", "ip", table]).code == 0
    assert len(_networks()) == 1  # stale: that pod's network is gone
    up()
    mended(before)
    until(lambda: len(_networks()) == 1)


def _removed(folder: str) -> bool:
    with contextlib.suppress(OSError):
        Path(folder).rmdir()
    return not Path(folder).exists()


def _networks() -> list[Path]:
    """The pods' networks that containerd has made and not removed, as its files say."""
    return list((embedded.state(NAME) / "cni/results").glob("*"))


def test_a_certificate_near_its_end(cluster: Cluster) -> None:
    before = starts()
    pki = embedded.state(NAME) / "pki"
    _sign(pki, "apiserver", days=10)
    os.utime(pki / "apiserver.crt", (time.time() - 355 * 86400,) * 2)
    notes = up()
    assert notes == [
        f"{NAME} is started anew: its certificates end soon", "made anew: certificates apiserver"
    ]  # fmt: skip
    openssl("x509", "-noout", "-in", pki / "apiserver.crt", "-checkend", str(300 * 86400))
    mended(before)
    assert up() == []


def _sign(pki: Path, name: str, days: int) -> None:
    """The same certificate for the same key, of another life."""
    old, key, scratch = pki / f"{name}.crt", pki / f"{name}.key", pki.parent
    hosts = openssl("x509", "-noout", "-in", old, "-ext", "subjectAltName").splitlines()[1].replace("IP Address", "IP")
    (scratch / "more").write_text(f"subjectAltName={hosts.strip()}\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("x509", "-x509toreq", "-in", old, "-signkey", key, "-out", scratch / "request")
    signer = ("-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-set_serial", "7")
    asked = ("-req", "-in", scratch / "request", "-extfile", scratch / "more")
    openssl("x509", *asked, *signer, "-days", str(days), "-out", old)


def openssl(*words: str | Path) -> str:
    output = shell.run(["openssl", *words])
    assert output.code == 0, output.stderr
    return output.stdout


@pytest.mark.parametrize("moment", [0.5, 1.5, 4.0], ids="killed after {} s".format)
def test_a_half_finished_up(cluster: Cluster, home: Path, moment: float) -> None:
    before = starts()
    embedded.down(NAME, quiet)
    said = {"DEVENV_PROGRAMS": "download", "DEVENV_PROGRAMS_URL": (home / "address").read_text()}
    argv: list[str | Path] = [sys.executable, START, "cluster.up", "--name", NAME]
    running = subprocess.Popen(argv, env={**os.environ, **said}, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    running.kill()
    running.wait()
    up()
    mended(before)


def test_the_cache_deleted_while_it_runs_and_then_it_ends(cluster: Cluster, home: Path) -> None:
    before = starts()
    (ready,) = (home / ".cache/devenv/programs").glob("ready-*")
    ready.rename(home / "kept-elsewhere")  # as good as deleted
    _, old = next((name, part) for name, part in _parts().items() if name == "kube-scheduler")
    os.kill(old, signal.SIGKILL)
    until(lambda: _parts()["kube-scheduler"] not in (0, old))
    embedded.down(NAME, quiet)
    up()
    assert ready.is_dir()
    mended(before)


def _parts() -> dict[str, int]:
    seen = condition.read(NAME)
    return {part["name"]: part["pid"] for part in condition.described(seen, supervisor())} if seen else {}


@pytest.mark.parametrize("damage", ["cut short", "other bytes"])
def test_a_damaged_program_in_the_cache(cluster: Cluster, damage: str) -> None:
    before = starts()
    embedded.down(NAME, quiet)
    program = programs.path("devenv-node")
    whole = program.stat().st_size
    with program.open("r+b") as file:
        if damage == "cut short":
            file.truncate(1000)
        else:
            file.write(b"\0" * 4096)
    notes = up()
    assert any("damaged" in note for note in notes)
    assert programs.path("devenv-node").stat().st_size == whole
    mended(before)


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home's state on a file system of 2 GB."""
    image, place = home / "disk.img", home / "small"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(2 << 30)
    make: list[str | Path] = ["mkfs.ext4", "-q", "-F", "-m", "0", image]
    mount: list[str | Path] = ["mount", "-o", "loop", image, place]
    for argv in (make, mount):
        done = shell.run(argv)
        if done.code != 0:
            pytest.skip(f"no file system in a file here: {done.last_line}")
    monkeypatch.setattr(paths, "state", lambda: place)
    monkeypatch.setattr(host, "NEW_CLUSTER_GB", 1)
    yield place
    shell.run(["umount", place])
    image.unlink()


def test_a_disk_that_was_full_and_is_not_any_more(small_disk: Path) -> None:
    name = f"full-{os.getpid()}"
    try:
        start.up(name, quiet)
        kubectl("create", "configmap", "before", name=name)
        filler = small_disk / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * (1 << 22))
        os.kill(int((condition.directory(name) / "pid").read_text()), signal.SIGKILL)
        until(lambda: not condition.alive(name))
        with pytest.raises(Refused, match="GB of free disk") as refused:
            start.up(name, quiet)
        assert refused.value.where == str(small_disk)
        filler.unlink()
        start.up(name, quiet)
        assert kubectl("get", "configmap", "before", name=name)
        kubectl("create", "configmap", "after", name=name)
    finally:
        embedded.delete(name, quiet)


# -- what it leaves ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def taken(ports: list[int]) -> Iterator[list[int]]:
    """Other programs' servers on the ports that Kubernetes likes, on all addresses of the host."""
    with contextlib.ExitStack() as stack:
        free = []
        for port in ports:
            listening = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # somebody has it already, which is as good
                listening.bind(("0.0.0.0", port))
                listening.listen()
                free.append(port)
        yield free


def test_the_machine_is_as_before_once_the_cluster_is_deleted_and_taken_ports_do_not_matter(home: Path) -> None:
    name = f"trace-{os.getpid()}"
    programs.ensure((*embedded.PROGRAMS, "kubectl"), quiet)
    before = machine.look(name)
    with taken([53, 2379, 2380, 6443, 10250, 10257, 10259]) as ports:
        assert ports
        try:
            running = start.up(name, quiet)
            images.ensure_loaded(running.containerd, programs.path("ctr"), quiet, ("postgres",))
            until(lambda: shell.run(_kubectl("get", "serviceaccount", "default", name=name)).code == 0)
            kubectl("apply", "-f", "-", stdin=POD, name=name)
            kubectl("wait", "--for=condition=Ready", "pod/keeper", "--timeout=60s", name=name)
            during = machine.look(name).beyond(before)
        finally:
            embedded.delete(name, quiet)
    with contextlib.suppress(AssertionError):  # the host's process 1 may take its time to reap what has ended
        until(lambda: not machine.look(name).beyond(before), 10)
    after = machine.look(name)
    seen = {"processes", "namespaces", "links", "routes", "nftables", "cgroups", "files"}
    assert seen <= during.keys(), "the look sees what a cluster makes"
    assert "mounts" not in during, "the host does not see the cluster's mounts even while it runs"
    assert after.beyond(before) == {}
    assert before.beyond(after) == {}
