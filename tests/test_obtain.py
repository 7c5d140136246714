"""Which images surely nobody gives; and all that is no reason to say so."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devenv import look, obtain
from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.cluster.others import Local
from devenv.environment import Session, describe
from devenv.errors import Refused
from devenv.model import Container, Pod, Snapshot
from devenv.obtain import There, Wanted
from devenv.settings import Flags
from devenv.target import Target
from tests.fake_api import FakeApi
from tests.fake_registry import FakeRegistry, running

HUB = "docker.io/acme/backend:1"
OURS = "devenv.local/backend:0.1.0"
NOTHING = Snapshot("n")
SECRETS = {"imagePullSecrets": [{"name": "registry"}]}


def deployment(*images: str, kind: str = "Deployment", name: str = "backend", **spec: Any) -> dict[str, Any]:
    containers = [{"name": f"c{place}", "image": image} for place, image in enumerate(images)]
    template = {"spec": {"containers": containers, **spec.pop("pod", {})}}
    return {"kind": kind, "metadata": {"name": name}, "spec": {"template": template, **spec}}


def test_each_image_is_wanted_once_by_all_that_want_it() -> None:
    init = {"pod": {"initContainers": [{"name": "i", "image": "b:1"}]}}
    found = obtain.wanted([deployment("a:1", "a:1"), deployment("a:1", kind="Job", name="setup", **init)])
    assert [(one.image, one.by) for one in found] == [
        ("a:1", ("Deployment/backend", "Job/setup")),
        ("b:1", ("Job/setup",)),
    ]


WANT_NOTHING: dict[str, dict[str, Any]] = {
    "a test": {
        "kind": "Pod",
        "metadata": {"name": "t", "annotations": {"helm.sh/hook": "test"}},
        "spec": {"containers": [{"image": "a:1"}]},
    },
    "what is scaled to nothing": deployment("a:1", replicas=0),
    "a Service": {"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": []}},
    "a custom resource": deployment("a:1", kind="Rollout"),
}


@pytest.mark.parametrize("object", WANT_NOTHING.values(), ids=WANT_NOTHING.keys())
def test_no_image_is_wanted_by(object: dict[str, Any]) -> None:
    assert obtain.wanted([object]) == ()


def test_what_is_idle_names_its_image_all_the_same() -> None:
    idle = [WANT_NOTHING["a test"] | {"spec": {"containers": [{"image": OURS}]}}, deployment("a:1", replicas=0)]
    assert obtain.names(idle) == {OURS, "docker.io/library/a:1"}


def test_pods_and_cron_jobs_want_theirs() -> None:
    pod = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}
    cron = {"kind": "CronJob", "metadata": {"name": "j"}, "spec": {"jobTemplate": {"spec": deployment("b:1")["spec"]}}}
    assert [one.by for one in obtain.wanted([pod, cron])] == [("Pod/p",), ("CronJob/j",)]


POLICIES = {"a:1": "IfNotPresent", "a": "Always", "a:latest": "Always", "a@sha256:" + "0" * 64: "IfNotPresent"}


@pytest.mark.parametrize(("image", "policy"), POLICIES.items())
def test_the_policy_is_the_api_servers_where_none_is_set(image: str, policy: str) -> None:
    assert obtain.wanted([deployment(image)])[0].policy == policy


def one(image: str = HUB, policy: str = "IfNotPresent", secrets: bool = False) -> Wanted:
    return Wanted(image, policy, ("Deployment/backend",), secrets)


def there(*images: str, complete: bool = True) -> There:
    return There(frozenset(images), complete)


JUDGED: dict[str, tuple[Wanted, There, bool | None, str]] = {
    "a node has it": (one(), there(HUB), False, ""),
    "the registry has it": (one(), there(), True, ""),
    "nobody gives it": (one(), there(), False, "the cluster does not have it, and docker.io says that there is none"),
    "the registry is silent": (one(), there(), None, ""),
    "the nodes do not tell all": (one(), there(complete=False), False, ""),
    "pull secrets": (one(secrets=True), there(), False, ""),
    "devenv.local": (one(OURS), there(), None, "the cluster does not have it, and no registry serves devenv.local"),
    "devenv.local, loaded": (one(OURS), there(OURS), None, ""),
    "devenv.local, pull secrets do not help": (
        one(OURS, secrets=True),
        there(),
        None,
        "no registry serves devenv.local",
    ),
    "devenv.local, the nodes do not tell all": (one(OURS), there(complete=False), None, ""),
    "Always, and the node's does not count": (one(policy="Always"), there(HUB), False, "asks the registry each time"),
    "Always, silent": (one(policy="Always"), there(HUB), None, ""),
    "Always, of devenv.local": (one(OURS, "Always"), there(OURS), None, "Always asks the registry each time"),
    "Never, and no node has it": (one(policy="Never"), there(), True, "Never asks no registry"),
    "Never, and a node has it": (one(policy="Never"), there(HUB), None, ""),
    "no name of an image": (one("Acme/Backend"), there(), None, "no name of an image"),
    "another way to write it": (one("acme/backend:1"), there(HUB), False, ""),
}


@pytest.mark.parametrize(("wanted", "cluster", "answer", "why"), JUDGED.values(), ids=JUDGED.keys())
def test_judged(wanted: Wanted, cluster: There, answer: bool | None, why: str) -> None:
    missing = obtain.judge([wanted], cluster, {wanted.name: answer})
    assert [why in found.why for found in missing] == ([True] if why else [])


KIND = There(frozenset(), True, Local("kind", "foo"))
HINTS: dict[str, tuple[Wanted, There, str]] = {
    "ours, on kind": (one(OURS), KIND, "./inv cluster.images --load kind --name foo"),
    "ours, far away": (one(OURS), there(), "./inv cluster.images --push REGISTRY, then ./inv redeploy --set global.imageRegistry=REGISTRY"),
    "ours of another tag": (one("devenv.local/backend:9"), KIND, f"mend the image's name: devenv makes {OURS}"),
    "none of ours": (one("devenv.local/nope:9"), there(), "mend the image's name: devenv makes pause, postgres, backend, temporal-server, temporal-admin-tools, temporal-ui"),
    "another's": (one(), there(), f"mend the image's name: {HUB}   (or --yes, if the nodes have a mirror that gives it)"),
    "another's, on kind": (one(), KIND, f"kind load docker-image {HUB} --name foo   (or mend the image's name: {HUB})"),
    "always, though it is there": (one(OURS, "Always"), there(OURS), f"imagePullPolicy IfNotPresent for {OURS}"),
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "cluster", "hint"), HINTS.values(), ids=HINTS.keys())
def test_the_hint_is_the_command_that_brings_it(wanted: Wanted, cluster: There, hint: str) -> None:
    assert obtain.hint(wanted, cluster) == hint


def test_a_refusal_names_all_images_and_those_that_want_the_first() -> None:
    by = tuple(f"Deployment/d{place}" for place in range(6))
    missing = [obtain.Missing(Wanted("a:1", "IfNotPresent", by), "w"), obtain.Missing(one("b:1"), "w")]
    refused = obtain.refusal(missing, there())
    assert refused.what == "the image a:1 cannot be had; nor b:1"
    assert refused.where == "Deployment/d0, Deployment/d1 and 4 more"
    assert refused.code == 3


# -- the whole of it, on an API server and a registry over HTTP ----------------------------------------------------------


def node(*images: str, provider: str = "", more: int = 0) -> dict[str, Any]:
    names = [*images, *(f"docker.io/library/x{number}:1" for number in range(more))]
    status = {"images": [{"names": [name], "sizeBytes": 1} for name in names]}
    return {"metadata": {"name": "foo-control-plane"}, "spec": {"providerID": provider}, "status": status}


@pytest.fixture
def check(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the check on a cluster with these nodes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    kubeconfig = api.kubeconfig(tmp_path)
    session = Session(
        Target("fake", kubeconfig, "", ""),
        Kube(kubeconfig, "fake"),
        Helm(Path("helm"), kubeconfig, "fake", "n"),
        "v1.34.4",
    )

    def run(*images: str, nodes: list[dict[str, Any]], seen: Snapshot = NOTHING, yes: bool = False) -> None:
        api.answers["GET /api/v1/nodes"] = (200, {"items": nodes}) if nodes else (403, {"message": "forbidden"})
        obtain.check(describe(Flags(yes=yes)), session, [deployment(*images)], seen, lambda _: None)

    return run


@pytest.fixture
def crictl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What crictl in the node of kind's cluster foo lists; it fails where that is nothing."""
    docker = tmp_path / "docker"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")

    def lists(*names: str) -> None:
        text = json.dumps({"images": [{"repoTags": list(names)}]})
        asked = "exec foo-control-plane crictl images --output json"
        docker.write_text(f"#!/bin/sh\n[ \"$*\" = '{asked}' ] && echo '{text}'\n" if names else "#!/bin/sh\nexit 1\n")
        docker.chmod(0o755)

    return lists


def test_an_image_that_no_node_and_no_registry_has_is_refused(
    check: Callable[..., None], crictl: Callable[..., None]
) -> None:
    crictl("docker.io/library/nginx:1")
    with running(FakeRegistry()) as fake:
        image = f"{fake.name}/acme/backend:2"
        with pytest.raises(Refused, match=f"the image {image} cannot be had"):
            check(image, nodes=[node(provider="kind://docker/foo/foo-control-plane")])


def test_an_image_that_a_registry_has_is_fine_and_one_of_a_node_is_not_asked_for(check: Callable[..., None]) -> None:
    with running(FakeRegistry(manifests={"acme/backend:1": ("k", b"{}")})) as fake:
        nodes = [node(f"{fake.name}/acme/other:1", provider="kind://docker/foo/foo-control-plane")]
        check(f"{fake.name}/acme/backend:1", f"{fake.name}/acme/other:1", nodes=nodes)
        assert fake.asked == ["HEAD /v2/acme/backend/manifests/1"]


def test_with_yes_no_registry_is_asked(check: Callable[..., None], crictl: Callable[..., None]) -> None:
    crictl("docker.io/library/nginx:1")
    with running(FakeRegistry()) as fake:
        check(f"{fake.name}/acme/x:2", nodes=[node(provider="kind://docker/foo/foo-control-plane")], yes=True)
        assert fake.asked == []
    with pytest.raises(Refused):
        check(OURS, nodes=[node()], yes=True)


def test_a_registry_of_this_machine_says_nothing_of_a_cluster_elsewhere(check: Callable[..., None]) -> None:
    with running(FakeRegistry()) as fake:
        check(f"{fake.name}/acme/backend:2", nodes=[node(provider="aws:///a/i-0")])
        assert fake.asked == []


def test_ours_are_refused_where_they_were_not_loaded(check: Callable[..., None]) -> None:
    with pytest.raises(Refused) as refused:
        check(OURS, nodes=[node("docker.io/library/nginx:1")])
    assert "--push REGISTRY" in refused.value.next


@pytest.mark.parametrize("nodes", [[], [node(more=50)]], ids=["may not be seen", "tell of the largest 50 only"])
def test_nodes_that_do_not_tell_all_are_no_reason(check: Callable[..., None], nodes: list[dict[str, Any]]) -> None:
    check(OURS, nodes=nodes)


def test_a_local_cluster_with_many_images_is_asked_for_the_one_in_doubt(
    check: Callable[..., None], crictl: Callable[..., None]
) -> None:
    crictl("docker.io/library/nginx:1")
    with pytest.raises(Refused):
        check(OURS, nodes=[node(more=50, provider="kind://docker/foo/foo-control-plane")])


@pytest.mark.parametrize(("account", "refused"), [((200, {}), True), ((200, SECRETS), False), ((403, {}), False)])
def test_pull_secrets_of_the_service_account_may_get_another_answer(
    check: Callable[..., None], crictl: Callable[..., None], api: FakeApi, account: tuple[int, Any], refused: bool
) -> None:
    crictl("docker.io/library/nginx:1")
    api.answers["GET /api/v1/namespaces/devenv/serviceaccounts/default"] = account
    with running(FakeRegistry()) as fake, pytest.raises(Refused) if refused else contextlib.nullcontext():
        check(f"{fake.name}/acme/backend:2", nodes=[node(provider="kind://docker/foo/foo-control-plane")])


def test_what_runs_in_the_namespace_is_there(check: Callable[..., None]) -> None:
    state = Container("c", False, OURS, True, "running")
    pod = Pod("p", "backend", "Deployment/backend", "t", "Running", True, False, "", "", (state,))
    check(OURS, nodes=[node()], seen=Snapshot("n", pods=(pod,)))


def test_a_local_cluster_is_asked_itself_before_anything_is_refused(
    check: Callable[..., None], crictl: Callable[..., None]
) -> None:
    nodes = [node(provider="kind://docker/foo/foo-control-plane")]
    crictl(OURS)  # loaded a moment ago: the kubelet has not told of it yet
    check(OURS, nodes=nodes)
    crictl("docker.io/library/nginx:1")
    with pytest.raises(Refused) as refused:
        check(OURS, nodes=nodes)
    assert refused.value.next == "./inv cluster.images --load kind --name foo"
    crictl()
    check(OURS, nodes=nodes)


def test_a_nodes_images_are_all_only_below_what_a_kubelet_tells() -> None:
    assert look.node(node(more=49)).complete
    assert not look.node(node(more=50)).complete
    many = {"metadata": {"name": "n"}, "status": {"images": [{"names": [f"x:{tag}" for tag in range(5)]}]}}
    assert not look.node(many).complete
    assert look.node({"metadata": {"name": "n"}}).images == frozenset()
