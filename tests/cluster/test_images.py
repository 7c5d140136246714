"""Images on the real cluster: refused before anything is touched, just built and rolled out, pushed and pulled."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv.clients import shell
from devenv.cluster import archive, images, programs
from devenv.cluster.archive import File
from devenv.paths import START
from tests.cluster.conftest import Environment
from tests.fake_registry import FakeRegistry
from tests.fake_registry import running as serving

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment]) -> Environment:
    return make_environment("images")


def plain(*words: str, **env: str) -> shell.Output:
    """Runs a task that is on no environment."""
    output = shell.run([sys.executable, START, *words], env=env)
    print(f"$ inv {' '.join(words)}\n{output.stdout}{output.stderr}[{output.code}]")
    return output


def redeploy(env: Environment, *words: str) -> tuple[int, dict[str, Any]]:
    output = env.inv("redeploy", "--output", "json", *words, temporal=False)
    return output.code, json.loads(output.stdout)


MISSING = {
    "a tag that we do not make": ("backend.temporal.server.image.tag=9.9.9", "devenv.local/temporal-server:9.9.9"),
    "a policy that asks a registry which is none": ("backend.image.pullPolicy=Always", "devenv.local/backend:0.1.0"),
    "a policy that asks no registry": (
        "backend.image.registry=docker.io,backend.image.pullPolicy=Never",
        "docker.io/backend:0.1.0",
    ),
}


@pytest.mark.parametrize(("setting", "image"), MISSING.values(), ids=MISSING.keys())
def test_refused_before_the_namespace_is_made_is(
    make_environment: Callable[[str], Environment], setting: str, image: str
) -> None:
    env = make_environment("refused")
    for task in ("plan", "redeploy"):
        output = env.inv(task, "--output", "json", "--set", setting)
        failure = json.loads(output.stdout)["failure"]
        assert (output.code, failure["class"]) == (3, "refused")
        assert failure["reason"] == f"the image {image} cannot be had"
    assert env.kubectl("get", "namespace", env.namespace, "--ignore-not-found") == ""


def test_a_registry_that_does_not_answer_is_no_reason_to_refuse(make_environment: Callable[[str], Environment]) -> None:
    env = make_environment("silent")
    setting = "backend.image.registry=registry.invalid,backend.image.tag=v1"
    code, record = redeploy(env, "--set", setting, "--timeout", "60s")
    assert code == 5
    assert record["failure"]["reason"] == "Deployment/backend gets no image"


@pytest.fixture
def build(tmp_path: Path) -> Callable[[str], Path]:
    """Our sample service as an image of the user's, with a mark in it."""
    sample = next(image for image in images.images() if image.name == "backend")
    layers = sample.layers(programs.ensure(sample.programs, programs.quiet), programs.quiet)

    def made(mark: str) -> Path:
        file = tmp_path / "mine.tar"
        architecture = images.ARCHITECTURES[os.uname().machine]
        archive.write(file, "acme/mine:dev", architecture, [*layers, {"app/MARK": File(mark.encode())}], sample.config)
        return file

    return made


def test_the_image_just_built_rolls_out_and_built_again_under_the_same_tag_too(
    env: Environment, build: Callable[[str], Path]
) -> None:
    image = f"backend={build('one')}"
    assert redeploy(env, "--image", image)[0] == 0
    assert env.kubectl("exec", "deployment/backend", "--", "cat", "/app/MARK") == "one"
    assert redeploy(env, "--image", image)[1]["nothingToDo"]
    image = f"backend={build('two')}"
    assert redeploy(env, "--image", image)[1]["revision"] == 2
    assert env.kubectl("exec", "deployment/backend", "--", "cat", "/app/MARK") == "two"


def test_all_of_our_images_are_in_the_cluster(running: Any) -> None:
    output = plain("cluster.images", "--output", "json")
    record = json.loads(output.stdout)
    assert {image["reference"] for image in record["images"]} == set(images.references().values())
    assert all(image["there"] and image["built"] for image in record["images"])


@pytest.fixture
def ctr(running: Any) -> Iterator[Callable[..., shell.Output]]:
    """The cluster's containerd, in a namespace of its own that the kubelet does not see."""
    name = f"test-{os.getpid()}"

    def run(*words: str) -> shell.Output:
        return shell.run([programs.path("ctr"), "--address", running.containerd, "-n", name, *words], timeout=60)

    yield run
    for image in run("images", "ls", "--quiet").stdout.split():
        run("images", "rm", "--sync", image)
    run("namespaces", "rm", name)


def test_what_is_pushed_containerd_can_pull(ctr: Callable[..., shell.Output], tmp_path: Path) -> None:
    with serving(FakeRegistry("bearer")) as fake:
        fake.docker_config(tmp_path)
        output = plain("cluster.images", "--push", f"{fake.name}/acme", DOCKER_CONFIG=str(tmp_path))
        assert output.code == 0
        assert f"--set global.imageRegistry={fake.name}/acme" in output.stdout
        name = f"{fake.name}/acme/postgres:18.6"
        pulled = ctr("images", "pull", "--local", "--plain-http", name)
    assert pulled.code == 0, pulled.stderr
    assert name in ctr("images", "ls").stdout


def test_what_is_pushed_redeploy_can_pull_with_the_users_login_and_build_nothing(
    make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    env = make_environment("pulled")
    with serving(FakeRegistry("bearer", public=False)) as fake:
        fake.docker_config(tmp_path)
        given = {"DOCKER_CONFIG": str(tmp_path), "DEVENV_IMAGES": "pull"}
        assert plain("cluster.images", "--push", f"{fake.name}/acme", **given).code == 0
        registry = ("--set", f"global.imageRegistry={fake.name}/acme")
        output = env.inv("redeploy", *registry, temporal=False, **given)
        assert output.code == 0
        assert f"{fake.name}/acme/backend:0.1.0, {fake.name}/acme/postgres:18.6 loaded" in output.stderr
    refused = env.inv("redeploy", "--output", "json", temporal=False, DEVENV_IMAGES="pull", DOCKER_CONFIG="/nowhere")
    assert refused.code in (0, 3)  # 0 where the cluster has them already


def test_kubectl_reaches_the_cluster_by_the_users_own_kubeconfig(running: Any, tmp_path: Path) -> None:
    mine = tmp_path / "config"
    mine.write_text("apiVersion: v1\nkind: Config\ncurrent-context: other\ncontexts: []\nclusters: []\nusers: []\n")
    merged = plain("cluster.kubeconfig", "--merge", KUBECONFIG=str(mine))
    assert merged.code == 0
    words: list[str | Path] = ["--kubeconfig", mine, "--context", "embedded", "get", "nodes", "-o", "name"]
    assert shell.run([programs.path("kubectl"), *words]).stdout.startswith("node/")
    current = shell.run([programs.path("kubectl"), *words[:2], "config", "current-context"])
    assert current.stdout.strip() == "other"
