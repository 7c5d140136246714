"""kind, k3d, minikube and Docker's own clusters, against programs that behave as recorded, because none runs here.

What they take: `kind load image-archive FILE --name NAME` (sigs.k8s.io/kind, pkg/cmd/kind/load/image-archive);
`k3d image import FILE --cluster NAME` (k3d.io, "k3d image import"); `minikube image load FILE --profile NAME`
(minikube.sigs.k8s.io, "image"); `docker load --input FILE`. What they say: crictl's and minikube's JSON lists;
minikube ends with 0 where nothing was loaded (kubernetes/minikube#21393 and #23471).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devenv import look
from devenv.cluster import others
from devenv.cluster.others import Local
from devenv.errors import InputWrong, Refused, StepFailed

NAME = "devenv.local/backend:0.1.0"
CRICTL = {"images": [{"id": "sha256:1", "repoTags": [NAME], "repoDigests": [], "size": "1", "pinned": False}]}
MINIKUBE = [{"id": "1", "repoDigests": [], "repoTags": [NAME], "size": "1"}]

# One program for all names: notes its words, and answers as PROGRAM_answer says: exit code, then text.
FAKE = """#!/bin/sh
here=$(dirname "$0"); me=$(basename "$0")
echo "$me $*" >>"$here/asked"
case "$*" in
*exec*crictl*|*"image ls"*|*"image inspect"*) answer="$here/list" ;;
*) answer="$here/load" ;;
esac
read -r code <"$answer"
if [ "$code" = 0 ]; then tail -n +2 "$answer"; else tail -n +2 "$answer" >&2; fi
exit "$code"
"""


class Programs:
    """The programs of a machine, in a PATH of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.load()
        self.lists(json.dumps(CRICTL))

    def has(self, *names: str) -> None:
        for name in names:
            (self.folder / name).write_text(FAKE)
            (self.folder / name).chmod(0o755)

    def load(self, text: str = "", code: int = 0) -> None:
        (self.folder / "load").write_text(f"{code}\n{text}")

    def lists(self, text: str, code: int = 0) -> None:
        (self.folder / "list").write_text(f"{code}\n{text}")

    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return Programs(folder)


LOADS = {
    Local("kind", "foo"): ["kind load image-archive /a.tar --name foo", "docker exec foo-control-plane crictl images --output json"],
    Local("kind", "foo", "podman"): ["kind load image-archive /a.tar --name foo", "podman exec foo-control-plane crictl images --output json"],
    Local("k3d", "foo"): ["k3d image import /a.tar --cluster foo", "docker exec k3d-foo-server-0 crictl images --output json"],
    Local("minikube", "p"): ["minikube image load /a.tar --profile p", "minikube image ls --format json --profile p"],
    Local("docker", "docker-desktop"): ["docker load --input /a.tar", f"docker image inspect --format {{{{.Id}}}} {NAME}"],
}  # fmt: skip


@pytest.mark.parametrize(("local", "asked"), LOADS.items(), ids=[str(local) for local in LOADS])
def test_an_archive_goes_in_by_the_clusters_own_program_and_is_looked_for(
    programs: Programs, local: Local, asked: list[str]
) -> None:
    programs.has("kind", "k3d", "minikube", "docker", "podman")
    programs.lists(json.dumps(MINIKUBE if local.tool == "minikube" else CRICTL))
    others.load(local, Path("/a.tar"), NAME)
    assert programs.asked() == asked


def test_a_load_that_fails_says_the_programs_last_line(programs: Programs) -> None:
    programs.has("kind", "docker")
    programs.load('ERROR: no nodes found for cluster "foo"', 1)
    with pytest.raises(StepFailed) as failed:
        others.load(Local("kind", "foo"), Path("/a.tar"), NAME)
    assert failed.value.why == 'ERROR: no nodes found for cluster "foo"'
    assert failed.value.next == "kind load image-archive /a.tar --name foo"


def test_minikube_that_loaded_nothing_and_ended_with_0_is_found_out(programs: Programs) -> None:
    programs.has("minikube")
    programs.lists("[]")
    with pytest.raises(StepFailed, match="did not load") as failed:
        others.load(Local("minikube", "minikube"), Path("/a.tar"), NAME)
    assert "it ended with 0" in failed.value.why


@pytest.mark.parametrize(("text", "code"), [("", 127), ("no such container", 1), ("not json", 0), ("{}", 0), ("3", 0)])
def test_where_nobody_says_what_the_cluster_has_nothing_is_known(programs: Programs, text: str, code: int) -> None:
    programs.has("docker", "minikube")
    programs.lists(text, code)
    for local in (Local("kind", "foo"), Local("k3d", "foo"), Local("minikube", "foo"), Local("docker", "orbstack")):
        expected = True if local.tool == "docker" and code == 0 else None
        assert others.has(local, [NAME]) == {NAME: expected}


def test_without_the_program_nothing_is_known(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs.folder))
    for tool in ("kind", "minikube", "docker"):
        assert others.has(Local(tool, "foo"), [NAME]) == {NAME: None}


def test_all_nodes_are_asked_and_one_that_has_it_is_enough(programs: Programs) -> None:
    programs.has("docker")
    assert others.has(Local("kind", "foo"), [NAME, "docker.io/library/x:1"], ("a", "b")) == {
        NAME: True,
        "docker.io/library/x:1": False,
    }
    assert [line.split()[2] for line in programs.asked()] == ["a", "b"]


def test_docker_says_that_it_has_no_such_image(programs: Programs) -> None:
    programs.has("docker")
    programs.lists("Error response from daemon: No such image: x:1", 1)
    assert others.has(Local("docker", "docker-desktop"), ["x:1"]) == {"x:1": False}
    programs.lists("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", 1)
    assert others.has(Local("docker", "docker-desktop"), ["x:1"]) == {"x:1": None}


@pytest.mark.parametrize("tool", others.SITES)
def test_a_program_that_is_not_there_is_said_at_once(
    programs: Programs, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(programs.folder))
    with pytest.raises(Refused, match=f"{tool} is not on PATH") as refused:
        others.check(Local(tool, "foo"))
    assert refused.value.next == f"install it: {others.SITES[tool]}"


EXTENSION = {"name": "context_info", "extension": {"provider": "minikube.sigs.k8s.io", "version": "v1.36.0"}}
CONTEXTS: dict[str, tuple[dict[str, Any], Local | None]] = {
    "kind": ({"name": "kind-foo"}, Local("kind", "foo")),
    "kind of two words": ({"name": "kind-foo-bar"}, Local("kind", "foo-bar")),
    "k3d": ({"name": "k3d-foo"}, Local("k3d", "foo")),
    "minikube": ({"name": "minikube"}, Local("minikube", "minikube")),
    "a profile of minikube": ({"name": "mine", "context": {"extensions": [EXTENSION]}}, Local("minikube", "mine")),
    "Docker Desktop": ({"name": "docker-desktop"}, Local("docker", "docker-desktop")),
    "another": ({"name": "prod"}, None),
    "nothing behind the dash": ({"name": "kind-"}, None),
}


@pytest.mark.parametrize(("entry", "local"), CONTEXTS.values(), ids=CONTEXTS.keys())
def test_a_context_says_which_cluster_it_is(entry: dict[str, Any], local: Local | None) -> None:
    assert others.of_context(entry) == local


DOCKER = {"nodeInfo": {"containerRuntimeVersion": "docker://28.0.1"}}
CONTAINERD = {"nodeInfo": {"containerRuntimeVersion": "containerd://2.0.0"}}
NODES: dict[str, tuple[dict[str, Any], Local | None]] = {
    "kind": ({"spec": {"providerID": "kind://docker/foo/foo-control-plane"}}, Local("kind", "foo")),
    "kind on podman": ({"spec": {"providerID": "kind://podman/foo/foo-worker"}}, Local("kind", "foo", "podman")),
    "Docker Desktop's kind": ({"spec": {"providerID": "kind://docker/desktop/desktop-control-plane"}}, Local("docker", "docker-desktop")),
    "k3d": ({"spec": {"providerID": "k3s://k3d-foo-server-0"}}, Local("k3d", "foo")),
    "k3d with a dash": ({"spec": {"providerID": "k3s://k3d-a-b-agent-12"}}, Local("k3d", "a-b")),
    "k3s without k3d": ({"spec": {"providerID": "k3s://box"}}, None),
    "minikube": ({"metadata": {"name": "n", "labels": {"minikube.k8s.io/name": "p"}}}, Local("minikube", "p")),
    "Docker Desktop": ({"metadata": {"name": "docker-desktop"}, "status": DOCKER}, Local("docker", "docker-desktop")),
    "Rancher Desktop": ({"metadata": {"name": "lima-rancher-desktop"}, "status": DOCKER}, Local("docker", "rancher-desktop")),
    "Rancher Desktop with containerd": ({"metadata": {"name": "lima-rancher-desktop"}, "status": CONTAINERD}, None),
    "EKS": ({"spec": {"providerID": "aws:///eu-central-1a/i-0"}}, None),
}  # fmt: skip


@pytest.mark.parametrize(("object", "local"), NODES.values(), ids=NODES.keys())
def test_a_node_says_which_cluster_it_is_of(object: dict[str, Any], local: Local | None) -> None:
    assert others.of_nodes([look.node({"metadata": {"name": "n"}, **object})]) == local


def config(*names: str, current: str = "") -> dict[str, Any]:
    return {"current-context": current, "contexts": [{"name": name, "context": {}} for name in names]}


CHOICES: dict[str, tuple[tuple[str, str], dict[str, Any], str]] = {
    "the current context": (("kind", ""), config("kind-a", "kind-b", current="kind-b"), "b"),
    "the only one": (("kind", ""), config("kind-a", "prod", current="prod"), "a"),
    "a name": (("k3d", "x"), config(), "x"),
    "Docker has but one": (("docker", ""), config(), "docker-desktop"),
}


@pytest.mark.parametrize(("asked", "kubeconfig", "name"), CHOICES.values(), ids=CHOICES.keys())
def test_the_cluster_that_is_meant(asked: tuple[str, str], kubeconfig: dict[str, Any], name: str) -> None:
    assert others.choose(*asked, kubeconfig).name == name


REFUSALS: dict[str, tuple[Callable[[], Local], str, str]] = {
    "two and neither is current": (
        lambda: others.choose("kind", "", config("kind-a", "kind-b")),
        "which kind",
        "--name a",
    ),
    "none": (lambda: others.choose("k3d", "", config("kind-a")), "is a k3d cluster", "--name k3s-default"),
}


@pytest.mark.parametrize(("choose", "what", "next"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_is_not_clear_is_refused(choose: Callable[[], Local], what: str, next: str) -> None:
    with pytest.raises(Refused, match=what) as refused:
        choose()
    assert refused.value.next.endswith(next)


def test_an_unknown_tool_is_wrong_input() -> None:
    with pytest.raises(InputWrong, match="--load docker-compose is not known"):
        others.choose("docker-compose", "", {})


COMMANDS = {
    Local("kind", "kind"): "./inv cluster.images --load kind",
    Local("kind", "foo"): "./inv cluster.images --load kind --name foo",
    Local("docker", "orbstack"): "./inv cluster.images --load docker",
}


@pytest.mark.parametrize(("local", "command"), COMMANDS.items(), ids=str)
def test_the_command_that_loads_ours(local: Local, command: str) -> None:
    assert local.load_command == command
