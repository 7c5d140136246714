"""The local clusters that are not ours, kind, k3d, minikube and Docker's own: which one it is, what it has, and the way
in for an image. Edge out: runs their programs.

In: a kubeconfig, or nodes as the cluster describes them. Out: `Local`. What their programs take and say is recorded in
tests/test_others.py, with where it was read. Each load is checked afterwards: minikube ends with 0 where nothing was
loaded (kubernetes/minikube#21393, #23471).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from devenv import reference
from devenv.clients import shell
from devenv.errors import InputWrong, Refused, StepFailed
from devenv.model import Node

Waits = Callable[[str], None]

PATIENCE = 600.0  # seconds for one image
LOOK_PATIENCE = 5.0
SITES = {
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "k3d": "https://k3d.io/stable/#installation",
    "minikube": "https://minikube.sigs.k8s.io/docs/start/",
    "docker": "https://docs.docker.com/get-started/get-docker/",
}
DEFAULTS = {"kind": "kind", "k3d": "k3s-default", "minikube": "minikube", "docker": "docker-desktop"}
DOCKERS = ("docker-desktop", "rancher-desktop", "orbstack", "colima")  # contexts whose cluster shares Docker's images


class Local(NamedTuple):
    """A local cluster: whose it is, and its name there; `engine` runs the containers that are its nodes."""

    tool: str
    name: str
    engine: str = "docker"

    def __str__(self) -> str:
        return self.name if self.tool == "docker" else f"{self.tool} cluster {self.name}"

    @property
    def load_command(self) -> str:
        """What to type to bring our images there."""
        named = "" if self.tool == "docker" or self.name == DEFAULTS[self.tool] else f" --name {self.name}"
        return f"./inv cluster.images --load {self.tool}{named}"


def of_context(entry: Mapping[str, Any]) -> Local | None:
    """The cluster that an entry of a kubeconfig's `contexts` means, by the names that the tools give."""
    name = str(entry.get("name") or "")
    extensions = (entry.get("context") or {}).get("extensions") or []
    if any((extension.get("extension") or {}).get("provider") == "minikube.sigs.k8s.io" for extension in extensions):
        return Local("minikube", name)
    if name == "minikube":
        return Local("minikube", name)
    if name in DOCKERS:
        return Local("docker", name)
    tool, dash, rest = name.partition("-")
    return Local(tool, rest) if dash and rest and tool in ("kind", "k3d") else None


def of_nodes(nodes: Iterable[Node]) -> Local | None:
    """The cluster that the nodes say they are of, whatever the context is called."""
    for node in nodes:
        if match := re.fullmatch(r"kind://([^/]+)/([^/]+)/[^/]+", node.provider):
            desktop = match[2] == "desktop"  # Docker Desktop makes its cluster with a kind that is hidden inside it
            return Local("docker", DEFAULTS["docker"]) if desktop else Local("kind", match[2], match[1])
        if match := re.fullmatch(r"k3s://k3d-(.+)-(?:server|agent)-\d+", node.provider):
            return Local("k3d", match[1])
        if node.minikube:
            return Local("minikube", node.minikube)
        name = node.name.removeprefix("lima-")
        if name in DOCKERS and node.runtime.startswith("docker://"):  # with containerd inside, they share nothing
            return Local("docker", name)
    return None


def choose(tool: str, name: str, config: Mapping[str, Any]) -> Local:
    """The cluster of `tool` that is meant: by name, else the current context's, else the only one. Raises Refused."""
    if tool not in SITES:
        raise InputWrong(f"--load {tool} is not known", where="--load", next=f"--load {'|'.join(SITES)}")
    if name or tool == "docker":
        return Local(tool, name or DEFAULTS[tool])
    entries = [entry for entry in config.get("contexts") or [] if isinstance(entry, dict)]
    found = {str(entry.get("name")): local for entry in entries if (local := of_context(entry)) and local.tool == tool}
    current = found.get(str(config.get("current-context") or ""))
    if current or len(found) == 1:
        return current or next(iter(found.values()))
    names = sorted(local.name for local in found.values())
    raise Refused(
        f"which {tool} cluster is meant?" if names else f"no context of the kubeconfig is a {tool} cluster",
        where=f"--load {tool}",
        why=f"there are {', '.join(names)}" if names else "",
        next=f"./inv cluster.images --load {tool} --name {names[0] if names else DEFAULTS[tool]}",
    )


def check(local: Local) -> None:
    """Raises Refused where the cluster's own program is not there."""
    if shell.which(local.tool) is None:
        raise Refused(
            f"{local.tool} is not on PATH", where=f"--load {local.tool}", next=f"install it: {SITES[local.tool]}"
        )


def _loading(local: Local, file: Path) -> list[str | Path]:
    match local.tool:
        case "kind":
            return ["kind", "load", "image-archive", file, "--name", local.name]
        case "k3d":
            return ["k3d", "image", "import", file, "--cluster", local.name]
        case "minikube":
            return ["minikube", "image", "load", file, "--profile", local.name]
        case _:
            return ["docker", "load", "--input", file]


def load(local: Local, file: Path, name: str, nodes: Sequence[str] = ()) -> None:
    """Brings an archive into the cluster, where its image is `name` then. Raises StepFailed."""
    argv = _loading(local, file)
    output = shell.run(argv, timeout=PATIENCE)
    if output.code == 0 and has(local, [name], nodes).get(name) is not False:
        return
    raise StepFailed(
        f"{local.tool} did not load the image {name}",
        where=str(local),
        why=output.last_line if output.code else f"it ended with 0, but {local} does not have the image",
        next=" ".join(str(word) for word in argv),
    )


def has(local: Local, names: Iterable[str], nodes: Sequence[str] = ()) -> dict[str, bool | None]:
    """For each full name whether the cluster has the image right now; None where nobody says.

    Nodes report their images to the API server up to 40 s late; this asks what runs the containers. `nodes` are their
    names; without them kind's and k3d's first node is asked.
    """
    wanted = list(names)
    if local.tool == "docker":
        return {name: _docker_has(name) for name in wanted}
    listed = [_listed(argv) for argv in _listing(local, nodes)]
    there = set().union(*(found for found in listed if found is not None))
    complete = bool(listed) and all(found is not None for found in listed)
    return {name: True if name in there else (False if complete else None) for name in wanted}


def _listing(local: Local, nodes: Sequence[str]) -> list[list[str]]:
    if local.tool == "minikube":
        return [["minikube", "image", "ls", "--format", "json", "--profile", local.name]]
    first = f"{local.name}-control-plane" if local.tool == "kind" else f"k3d-{local.name}-server-0"
    return [[local.engine, "exec", node, "crictl", "images", "--output", "json"] for node in nodes or [first]]


def _listed(argv: Sequence[str]) -> set[str] | None:
    """The full names that crictl or minikube lists; None where the program is not there, fails or says other things."""
    output = shell.run(argv, timeout=LOOK_PATIENCE)
    try:
        answer = json.loads(output.stdout)
        entries = answer["images"] if isinstance(answer, dict) else answer
        names = [(*(entry.get("repoTags") or ()), *(entry.get("repoDigests") or ())) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return {reference.full(str(name)) for some in names for name in some} if output.code == 0 else None


def _docker_has(name: str) -> bool | None:
    output = shell.run(["docker", "image", "inspect", "--format", "{{.Id}}", name], timeout=LOOK_PATIENCE)
    if output.code == 0:
        return True
    return False if "no such image" in output.stderr.lower() else None


def by_hand(local: Local, image: str) -> str:
    """What to type to bring an image that Docker has into the cluster."""
    match local.tool:
        case "kind":
            return f"kind load docker-image {image} --name {local.name}"
        case "k3d":
            return f"k3d image import {image} --cluster {local.name}"
        case "minikube":
            return f"minikube image load {image} --profile {local.name}"
        case _:
            return f"docker build --tag {image} ."
