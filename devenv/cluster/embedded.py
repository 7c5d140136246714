"""The life of an embedded cluster: up, find, status, down, delete. Edge out: processes and files.

The work is done by the supervisor inside `devenv-node`, which keeps one status file; this module starts it, follows
that file, and turns what goes wrong into one message. The user's kubeconfig is not touched: each cluster has its own.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from devenv import paths
from devenv.clients import shell
from devenv.cluster import condition, host, versions
from devenv.cluster.condition import Condition, Status
from devenv.errors import InputWrong, StepFailed
from devenv.report import Note

Waits = Callable[[str], None]

PROGRAMS = (
    *("devenv-node", "containerd", "containerd-shim-runc-v2", "ctr"),
    *("ptp", "host-local", "portmap"),
    *("runc", "nft"),
)
PATIENCE = 120.0  # seconds until a cluster that does not become ready counts as failed
LOOK_EVERY = 0.05
CERTIFICATE_AGE = 335 * 86400.0  # seconds: after that a start makes them anew (go/node/supervisor/certificates.go)
MOST_SIMULATED = 500


class Cluster(NamedTuple):
    """A running cluster, and how to reach it."""

    name: str
    kubeconfig: Path
    server: str
    containerd: Path
    state: Path


def up(name: str, programs: Mapping[str, Path], waits: Waits, simulated: int | None = None) -> Cluster:
    """The cluster, ready: at once when it runs so already, else started, or mended, and followed.

    `simulated`: how many nodes that do not exist, with the program `simulate`; None: as many as last time.
    """
    check_name(name)
    simulated = simulated_nodes(name) if simulated is None else simulated
    wanted = {program: str(programs[program]) for program in needed(simulated)}
    seen = condition.read(name)
    why = _outdated(name, seen, wanted, simulated) if seen else ""
    if seen is not None and seen.ready and not why:
        return _cluster(name, seen)
    check_host(name)
    if why:
        waits(Note(f"{name} is started anew: {why}"))
        _end(name, programs["devenv-node"], programs["nft"], waits)
    new = not (state(name) / "etcd").exists()
    if not condition.alive(name):
        _start(name, wanted, simulated, waits)
    seen = _follow(name, waits)
    if seen.mended and not new:
        waits(Note(f"made anew: certificates {', '.join(seen.mended)}"))
    return _cluster(name, seen)


def _outdated(name: str, seen: Condition, wanted: Mapping[str, str], simulated: int) -> str:
    """Why a cluster that runs is to be ended and started anew; empty where it is not."""
    if seen.crashing:
        return f"{seen.crashing.name} crashes"
    if seen.simulated != simulated:
        return f"{simulated} simulated nodes, not {seen.simulated}"
    if seen.programs != wanted:
        return "its programs changed"
    return "its certificates end soon" if certificates_end(name) else ""


def certificates_end(name: str) -> bool:
    """Whether a certificate of the cluster is so old that it soon ends; by its file, which is written with it."""
    made = [file.stat().st_mtime for file in (state(name) / "pki").glob("*.crt") if not file.stem.endswith("ca")]
    return bool(made) and time.time() - min(made) > CERTIFICATE_AGE


def needed(simulated: int) -> tuple[str, ...]:
    """The programs of a cluster with so many simulated nodes."""
    return (*PROGRAMS, "simulate") if simulated else PROGRAMS


def simulated_nodes(name: str) -> int:
    """How many simulated nodes the cluster has, or had when it last ran."""
    try:
        return int((state(name) / "simulated-nodes").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def checked_simulated(count: int) -> int:
    """The count, if it is one. Each node costs a lease, renewed every half minute; hundreds of them are enough."""
    if 0 <= count <= MOST_SIMULATED:
        return count
    raise InputWrong(
        f"{count} nodes cannot be simulated",
        where="--simulated-nodes",
        why=f"at least 0 (none), at most {MOST_SIMULATED}",
        next="inv cluster.up --simulated-nodes 10",
    )


def find(name: str) -> Cluster | None:
    """The cluster, when its API server can be asked."""
    check_name(name)
    seen = condition.read(name)
    if seen is None or seen.phase not in ("ready", "degraded"):
        return None
    return _cluster(name, seen)


def ready(name: str) -> bool:
    """Whether the cluster runs, and nothing of it is amiss."""
    seen = condition.read(name)
    return seen is not None and seen.ready


def as_wanted(name: str, simulated: int, programs: Mapping[str, Path] | None = None) -> bool:
    """Whether the cluster runs, nothing of it is amiss, and it need not be started anew. `programs`: those that it is
    to have; None: whichever it has."""
    seen = condition.read(name)
    if seen is None or not seen.ready:
        return False
    wanted = seen.programs if programs is None else {program: str(path) for program, path in programs.items()}
    return not _outdated(name, seen, wanted, simulated)


def down(name: str, waits: Waits) -> None:
    """Ends the cluster and keeps its data. Whatever a killed one left on the host is removed too."""
    check_name(name)
    if condition.directory(name).exists():
        _end(name, *_tools(name, waits), waits)


def delete(name: str, waits: Waits) -> None:
    """Ends the cluster and deletes its data: nothing of it is left."""
    down(name, waits)
    waits(f"deleting the data of {name}")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(state(name))
    with contextlib.suppress(OSError):  # another cluster's is still in it
        state(name).parent.rmdir()


def status(name: str) -> Status:
    """What there is to know about the cluster, running or not."""
    check_name(name)
    seen = condition.read(name)
    kubeconfig = state(name) / "kubeconfig"
    return Status(
        name=name,
        running=condition.alive(name),
        ready=seen is not None and seen.ready,
        waiting=seen.waiting if seen else "",
        kubeconfig=str(kubeconfig) if kubeconfig.exists() else "",
        server=seen.server if seen else "",
        version=seen.version if seen else "",
        components=_components(name, seen) if seen else (),
        memory=condition.memory_of_all(name) if seen else 0,
        disk=condition.disk(state(name)),
        images=_images(name, seen) if seen else (),
    )


def _components(name: str, seen: Condition) -> tuple[Mapping[str, Any], ...]:
    parts = condition.described(seen, _supervisor(name))
    return tuple({**part, "version": versions.of(part["name"], seen.programs, seen.version)} for part in parts)


def _images(name: str, seen: Condition) -> tuple[str, ...]:
    """What the cluster's containerd has; nothing where it cannot say that now."""
    from devenv.cluster import images

    try:
        found = images.all_present(condition.directory(name) / "containerd.sock", Path(seen.programs["ctr"]))
    except (StepFailed, KeyError):
        return ()
    return tuple(sorted(image for image in found if not image.startswith("sha256:")))


def check_host(name: str = "default") -> None:
    """Raises Refused where no embedded cluster can run, with what to do instead."""
    least = host.KEPT_CLUSTER_GB if (state(name) / "etcd").exists() else host.NEW_CLUSTER_GB
    host.judge(host.look((paths.state(), paths.cache())), least)


def check_name(name: str) -> None:
    """A cluster's name is a DNS label, short enough for socket paths and interface names."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", name):
        raise InputWrong(
            f"{name!r} cannot be a cluster's name",
            where="--name",
            why="at most 20 small letters, digits and hyphens, with a letter or digit at both ends",
            next="inv cluster.up --name default",
        )


def state(name: str) -> Path:
    """The directory with all that a cluster keeps."""
    return paths.state() / "clusters" / name


def _cluster(name: str, seen: Condition) -> Cluster:
    socket = condition.directory(name) / "containerd.sock"
    return Cluster(name, state(name) / "kubeconfig", seen.server, socket, state(name))


def _supervisor(name: str) -> int:
    try:
        return int((condition.directory(name) / "pid").read_text())
    except (OSError, ValueError):
        return 0


def _tools(name: str, waits: Waits) -> tuple[Path, Path]:
    """What ends a cluster: the programs that it was started with, or new ones where the cache is gone."""
    from devenv.cluster import programs

    try:
        used = json.loads((state(name) / "programs.json").read_text())
    except FileNotFoundError:
        used = {}
    tools = [Path(used.get(program, "/nowhere")) for program in ("devenv-node", "nft")]
    if all(tool.exists() for tool in tools):
        return tools[0], tools[1]
    have = programs.ensure(("devenv-node", "nft"), waits)
    return have["devenv-node"], have["nft"]


def _start(name: str, programs: Mapping[str, str], simulated: int, waits: Waits) -> None:
    waits(f"starting {name}")
    where = state(name)
    where.mkdir(parents=True, exist_ok=True)
    (where / "programs.json").write_text(json.dumps(programs))
    (where / "simulated-nodes").write_text(str(simulated))
    settings = {
        "name": name,
        "state": str(where),
        "run": str(condition.directory(name)),
        "programs": programs,
        "simulated": simulated,
    }
    output = shell.run([programs["devenv-node"], "up"], stdin=json.dumps(settings), timeout=60)
    if output.code == 0 or condition.alive(name):  # alive: another `up` was quicker, and we follow that one
        return
    raise StepFailed(
        f"cluster {name} does not start",
        where=str(where / "logs" / "supervisor.log"),
        why=output.last_line,
        next=f"inv cluster.up --name {name}",
    )


def _follow(name: str, waits: Waits) -> Condition:
    """The condition once it is ready; tells what it waits for until then."""
    deadline, told = time.monotonic() + PATIENCE, ""
    while time.monotonic() < deadline:
        if not condition.alive(name):
            raise _failed(name, "supervisor", "the supervisor ended")
        seen = condition.read(name)
        if seen is not None and seen.ready:
            return seen
        if seen is not None and (part := seen.crashing):
            raise _failed(name, part.name, f"{part.name} ended {part.restarts + 1} times, last with {part.exit}")
        text = f"waiting for {seen.waiting}" if seen else f"starting {name}"
        if text != told:
            waits(text)
            told = text
        time.sleep(LOOK_EVERY)
    raise _failed(name, "supervisor", f"not ready after {PATIENCE:.0f} s: {told}")


def _failed(name: str, part: str, what: str) -> StepFailed:
    log = state(name) / "logs" / f"{part}.log"
    return StepFailed(
        f"cluster {name} does not become ready: {what}",
        where=str(log),
        why=condition.last_lines(log),
        next=f"inv cluster.down --name {name} && inv cluster.up --name {name}",
    )


def _end(name: str, node: Path, nft: Path, waits: Waits) -> None:
    waits(f"ending {name}")
    argv: list[str | Path] = [node, "down", "--run", condition.directory(name), "--nft", nft]
    output = shell.run(argv, on_line=lambda line: waits(f"waiting for {line}"), timeout=90)
    if output.code != 0:
        raise StepFailed(
            f"cluster {name} does not end",
            where=f"process {_supervisor(name)}",
            why=output.last_line,
            next=f"inv cluster.down --name {name}",
        )
