"""The embedded cluster's life as far as it needs no cluster: the supervisor is a program of a few lines."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devenv import paths
from devenv.cluster import condition, embedded, host, versions
from devenv.errors import Failure, InputWrong, Refused, StepFailed

GB = 10**9
FINE = host.Host(
    system="linux",
    root=True,
    namespaces=frozenset(host.NAMESPACES),
    controllers=frozenset(host.CONTROLLERS),
    free=((Path("/state"), 50 * GB),),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, a /run and a machine that could carry a cluster."""
    monkeypatch.setattr(paths, "state", lambda: tmp_path / "state")
    monkeypatch.setattr(paths, "runtime", lambda: tmp_path / "run")
    monkeypatch.setattr(host, "look", lambda directories: FINE)
    monkeypatch.setattr(embedded, "PATIENCE", 2.0)
    return tmp_path


def document(**changes: Any) -> dict[str, Any]:
    """A status file as the supervisor writes it."""
    part = {"name": "etcd", "state": "running", "pid": 7, "since": "2026-01-01T00:00:00Z", "restarts": 0}
    return {
        "name": "default",
        "phase": "ready",
        "waiting": "",
        "server": "https://10.213.0.2:6443",
        "version": "v1.34.4",
        "node": "devenv",
        "mended": None,
        "components": [{**part, "exit": "", "log": "/logs/etcd.log"}],
        "programs": {},
        "a field of tomorrow": 1,
    } | changes


@contextmanager
def living(document: Mapping[str, Any], name: str = "default") -> Iterator[Path]:
    """A supervisor that holds its lock and has written its status."""
    where = condition.directory(name)
    where.mkdir(parents=True)
    (where / "status.json").write_text(json.dumps(document))
    (where / "pid").write_text(str(os.getpid()))
    with (where / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield where


def programs(folder: Path, script: str = "exit 0") -> dict[str, Path]:
    """Programs that all do what the script says."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return dict.fromkeys(embedded.PROGRAMS, program)


def words(have: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in have.items()}


@pytest.mark.parametrize("name", ["default", "a", "two-words", "x" * 20])
def test_a_cluster_may_be_called(name: str) -> None:
    embedded.check_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "../x", "x" * 21, "a\n"])
def test_a_cluster_may_not_be_called(name: str) -> None:
    with pytest.raises(InputWrong):
        embedded.check_name(name)


@pytest.mark.parametrize(
    ("machine", "what", "next"),
    [
        (FINE._replace(system="darwin"), "Linux only", "--context"),
        (FINE._replace(root=False), "needs root", "sudo ./inv cluster.up"),
        (FINE._replace(namespaces=frozenset({"mnt"})), "kernel lacks", "--context"),
        (FINE._replace(controllers=frozenset({"cpu", "pids", "devices"})), "kernel lacks", "--context"),
        (FINE._replace(free=((Path("/small"), 9 * GB),)), "10 GB of free disk", "du -xh"),
    ],
)
def test_a_machine_that_cannot_carry_a_cluster_is_refused_with_a_way_out(
    machine: host.Host, what: str, next: str
) -> None:
    with pytest.raises(Refused) as refused:
        host.judge(machine, host.NEW_CLUSTER_GB)
    assert what in refused.value.what
    assert next in refused.value.next
    assert refused.value.where


def test_a_missing_controller_is_named() -> None:
    with pytest.raises(Refused, match="kernel lacks") as refused:
        host.judge(FINE._replace(controllers=frozenset({"cpu", "pids", "devices"})), 1)
    assert refused.value.why == "missing: cgroup controller memory"


def test_a_fine_machine_passes_and_a_kept_cluster_needs_less_room() -> None:
    host.judge(FINE, host.NEW_CLUSTER_GB)
    host.judge(FINE._replace(free=((Path("/small"), 2 * GB),)), host.KEPT_CLUSTER_GB)


def test_the_look_at_a_machine_knows_both_versions_of_cgroups(tmp_path: Path) -> None:
    for folder in ("cpu,cpuacct", "memory", "net_cls"):
        (tmp_path / "v1" / folder).mkdir(parents=True)
        (tmp_path / "v1" / folder / "cgroup.procs").touch()
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "cgroup.controllers").write_text("cpu memory pids\n")
    old = host.look([tmp_path / "not" / "yet"], proc=tmp_path, cgroups=tmp_path / "v1")
    assert old.controllers == {"cpu", "cpuacct", "memory", "net_cls"}
    assert old.namespaces == frozenset()
    assert old.free[0][1] > 0
    assert host.look([], cgroups=tmp_path / "v2").controllers == {"cpu", "memory", "pids", "devices"}


def test_a_status_file_without_a_living_supervisor_is_history(place: Path) -> None:
    with living(document()):
        assert embedded.find("default") is not None
    assert not condition.alive("default")
    assert embedded.find("default") is None
    seen = embedded.status("default")
    assert (seen.running, seen.ready, seen.components) == (False, False, ())


def test_a_cluster_that_still_starts_is_not_found(place: Path) -> None:
    with living(document(phase="starting", waiting="etcd to answer")):
        assert embedded.find("default") is None
        assert embedded.status("default").waiting == "etcd to answer"


def test_a_running_cluster_is_found_with_all_that_is_needed_to_reach_it(place: Path) -> None:
    with living(document(), "two") as where:
        found = embedded.find("two")
    assert found == embedded.Cluster(
        name="two",
        kubeconfig=place / "state" / "clusters" / "two" / "kubeconfig",
        server="https://10.213.0.2:6443",
        containerd=where / "containerd.sock",
        state=place / "state" / "clusters" / "two",
    )


def test_a_cluster_of_the_same_name_in_another_home_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "state", lambda: Path(pwd.getpwuid(0).pw_dir) / ".local/state/devenv")
    assert condition.directory("a") == Path("/run/devenv/a")
    found = {condition.directory("a")}
    for home in ("one", "two"):
        monkeypatch.setattr(paths, "state", lambda home=home: tmp_path / home)
        found.add(condition.directory("a"))
    assert len(found) == 3
    assert all(len(str(path / "containerd.sock")) < 100 for path in found)


def test_a_half_written_status_counts_as_none(place: Path) -> None:
    with living(document()) as where:
        (where / "status.json").write_text('{"phase": "rea')
        assert condition.read("default") is None
        assert embedded.status("default").running


def test_the_record_is_plain_json_with_its_schema(place: Path) -> None:
    with living(document()):
        record = json.loads(json.dumps(embedded.status("default").record()))
    assert record["schema"] == "devenv/cluster/v1"
    assert record["running"] and record["ready"]
    assert record["components"][0].keys() == {
        *("name", "version", "state", "pid", "since", "restarts", "memory", "log")
    }


def test_up_returns_at_once_when_the_cluster_is_ready(place: Path) -> None:
    have = programs(place, "echo started >&2; exit 1")
    with living(document(programs=words(have))):
        assert embedded.up("default", have, told_nothing).name == "default"


def told_nothing(text: str) -> None:
    raise AssertionError(f"nothing should be waited for, but: {text}")


def test_up_starts_the_supervisor_with_settings_on_standard_input_and_tells_why_it_did_not_start(place: Path) -> None:
    have = programs(place, 'echo "$1" >&2; cat > "$0.stdin"; echo "nft: no such device" >&2; exit 1')
    with pytest.raises(StepFailed, match="does not start") as failed:
        embedded.up("default", have, lambda text: None)
    assert failed.value.why == "nft: no such device"
    settings = json.loads((place / "program.stdin").read_text())
    assert settings["name"] == "default"
    assert settings["run"] == str(condition.directory("default"))
    assert settings["programs"] == words(have)


def test_a_supervisor_that_ends_is_told_with_the_end_of_its_log(place: Path) -> None:
    logs = embedded.state("default") / "logs"
    logs.mkdir(parents=True)
    (logs / "supervisor.log").write_text("one\n\nthe last words\n")
    with pytest.raises(StepFailed, match="supervisor ended") as failed:
        embedded.up("default", programs(place), lambda text: None)
    assert failed.value.why.endswith("the last words")
    assert failed.value.where == str(logs / "supervisor.log")


def crashed(restarts: int) -> dict[str, Any]:
    part: dict[str, Any] = document()["components"][0]
    return part | {"state": "crashed", "restarts": restarts, "exit": "exit code 1"}


def test_a_component_that_does_not_come_up_is_named_with_its_log(place: Path) -> None:
    have = programs(place)
    logs = embedded.state("default") / "logs"
    logs.mkdir(parents=True)
    (logs / "etcd.log").write_text("no space left on device\n")
    seen = document(phase="starting", waiting="etcd", components=[crashed(2)], programs=words(have))
    told: list[str] = []
    with living(seen) as where:

        def crash_again(text: str) -> None:
            told.append(text)
            changed = seen | {"components": [crashed(3)]}
            (where / "status.json").write_text(json.dumps(changed))

        with pytest.raises(StepFailed, match="etcd ended 4 times, last with exit code 1") as failed:
            embedded.up("default", have, crash_again)
    assert told == ["waiting for etcd"]
    assert failed.value.why == "no space left on device"
    assert failed.value.where == str(logs / "etcd.log")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"phase": "degraded", "components": [crashed(9)]}, "etcd crashes"),
        ({"programs": {"devenv-node": "/the/one/of/before"}}, "its programs changed"),
    ],
)
def test_a_cluster_that_is_not_as_wanted_is_ended_first(place: Path, changes: dict[str, Any], why: str) -> None:
    have = programs(place, 'echo "$@" >> "$0.calls"; exit 1')
    told: list[str] = []
    with living(document(programs=words(have)) | changes), pytest.raises(StepFailed, match="does not end"):
        embedded.up("default", have, told.append)
    assert why in told[0]
    assert (place / "program.calls").read_text().startswith("down --run")


def test_simulated_nodes_are_remembered_and_another_number_of_them_is_a_new_start(place: Path) -> None:
    have = {**programs(place, 'echo "$1" >> "$0.calls"; exit 1'), "simulate": place / "program"}
    assert embedded.simulated_nodes("default") == 0
    told: list[str] = []
    with living(document(programs=words(have), simulated=3)), pytest.raises(StepFailed):
        embedded.up("default", have, told.append, 5)
    assert told[0] == "default is started anew: 5 simulated nodes, not 3"
    embedded.state("default").mkdir(parents=True)
    (embedded.state("default") / "simulated-nodes").write_text("3")
    assert embedded.simulated_nodes("default") == 3
    assert "simulate" in embedded.needed(3) and "simulate" not in embedded.needed(0)


@pytest.mark.parametrize("count", [-2, 501])
def test_a_number_of_simulated_nodes_that_is_none_is_refused(count: int) -> None:
    with pytest.raises(InputWrong, match="cannot be simulated"):
        embedded.checked_simulated(count)


def test_down_passes_on_what_is_waited_for(place: Path) -> None:
    told: list[str] = []
    _down_with(place, 'echo "2 containers to end"', told)
    assert told == ["ending default", "waiting for 2 containers to end"]


def _down_with(place: Path, script: str, told: list[str]) -> None:
    have = programs(place, script)
    condition.directory("default").mkdir(parents=True)
    embedded.state("default").mkdir(parents=True)
    (embedded.state("default") / "programs.json").write_text(json.dumps(words(have)))
    embedded.down("default", told.append)


def test_down_of_a_cluster_that_was_never_up_does_nothing(place: Path) -> None:
    embedded.down("default", told_nothing)


def test_delete_leaves_nothing_and_can_be_repeated(place: Path) -> None:
    _down_with(place, f"rm -rf '{condition.directory('default')}'", [])
    embedded.delete("default", lambda text: None)
    embedded.delete("default", lambda text: None)
    assert not embedded.state("default").exists()


def test_the_pid_inside_is_shown_as_the_host_sees_it(tmp_path: Path) -> None:
    processes = {100: ("pid:[1]", "100\t1"), 107: ("pid:[1]", "107\t7"), 300: ("pid:[2]", "300\t7"), 400: ("", "400")}
    for number, (namespace, numbers) in processes.items():
        folder = tmp_path / str(number)
        (folder / "ns").mkdir(parents=True)
        if namespace:
            (folder / "ns" / "pid").symlink_to(namespace)
        (folder / "status").write_text(f"Name:\tx\nNSpid:\t{numbers}\n")
        (folder / "smaps_rollup").write_text("Rss: 9 kB\nPss:          42 kB\nPss_Dirty: 5 kB\n")
    assert condition.pids(100, tmp_path) == {1: 100, 7: 107}
    (part,) = condition.described(condition.parse(document()), 100, tmp_path)
    assert (part["pid"], part["memory"]) == (107, 42 * 1024)


def test_the_memory_of_a_cluster_is_that_of_all_processes_in_its_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(condition, "directory", lambda name: Path("/run/devenv") / name)
    groups = {1: "3:memory:/", 2: "3:memory:/devenv-a/system", 3: "0::/devenv-a/kubepods/x", 4: "0::/devenv-ab/system"}
    for number, group in groups.items():
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cgroup").write_text(f"{group}\n")
        (tmp_path / str(number) / "smaps_rollup").write_text(f"Pss: {number} kB\n")
    assert condition.memory_of_all("a", tmp_path) == 5 * 1024


def test_disk_counts_what_is_below_and_not_what_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "a" / "link").symlink_to("/")
    assert 100_000 <= condition.disk(tmp_path) < 200_000


def test_every_failure_has_where_and_next(place: Path) -> None:
    raising: list[Callable[[], object]] = [
        lambda: embedded.check_name("A"),
        lambda: embedded.up("default", programs(place), lambda text: None),
        lambda: host.judge(FINE._replace(root=False), 1),
    ]
    for call in raising:
        with pytest.raises(Failure) as failed:
            call()
        assert failed.value.where
        assert failed.value.next


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("etcd Version: 3.6.4", "v3.6.4"),
        ("CoreDNS-1.12.4", "v1.12.4"),
        ("containerd github.com/containerd/containerd/v2 2.4.2+unknown ", "v2.4.2"),
        ("Kubernetes v1.34.4", "v1.34.4"),
        ("no such flag", ""),
    ],
)
def test_a_components_version_is_read(text: str, version: str) -> None:
    assert versions.parse(text) == version


def test_a_components_version_is_asked_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "cache", lambda: place / "cache")
    have = words(programs(place, 'echo "$@" >> "$0.asked"; echo etcd Version: 3.6.4'))
    assert [versions.of("etcd", have, "v1.34.4") for _ in range(3)] == ["v3.6.4"] * 3
    assert (place / "program.asked").read_text() == "etcd --version\n"
    assert versions.of("kubelet", have, "v1.34.4") == "v1.34.4"
    assert versions.of("etcd", {"devenv-node": str(place / "gone")}, "v1.34.4") == ""


def test_up_starts_a_cluster_anew_whose_certificates_end_soon(place: Path) -> None:
    have = programs(place, "exit 1")
    (embedded.state("default") / "pki").mkdir(parents=True)
    told: list[str] = []
    for name, age in (("ca", 3000), ("etcd", 334), ("kubelet", 10)):
        file = embedded.state("default") / "pki" / f"{name}.crt"
        file.touch()
        os.utime(file, (time.time() - age * 86400,) * 2)
    with living(document(programs=words(have))):
        assert embedded.up("default", have, told_nothing).name == "default"
        os.utime(embedded.state("default") / "pki/etcd.crt", (time.time() - 336 * 86400,) * 2)
        with pytest.raises(StepFailed, match="does not end"):
            embedded.up("default", have, told.append)
    assert told[0] == "default is started anew: its certificates end soon"


def test_a_sick_cluster_is_found_but_is_not_ready(place: Path) -> None:
    with living(document(phase="degraded", waiting="coredns")):
        assert embedded.find("default") is not None
        assert not embedded.ready("default")
    assert not embedded.ready("default")
