"""The image just built: what may be typed, what it is called in the cluster, and how it gets there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devenv import built, environment
from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.cluster import archive, packed
from devenv.environment import Environment, Session
from devenv.errors import InputWrong, Refused, StepFailed
from devenv.settings import Flags
from devenv.target import Target
from tests.fake_api import FakeApi
from tests.test_images import CONFIG, TREE

WRONG = ["", "backend", "backend=", "frontend=x:1", "backend=A:1", "backend=x:1:2", "backend=two words"]


@pytest.mark.parametrize("expression", WRONG)
def test_what_names_no_image_is_wrong_input(expression: str) -> None:
    with pytest.raises(InputWrong) as wrong:
        built.parse([expression])
    assert wrong.value.next == "--image backend=REPO:TAG   (or backend=FILE.tar)"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.tar"
    archive.write(file, "acme/mine:dev", "amd64", [TREE], CONFIG)
    return file


FAKE_DOCKER = """#!/bin/sh
here=$(dirname "$0")
echo "$(basename "$0") $*" >>"$here/asked"
case "$1 $2" in
"image inspect") [ "$5" = acme/mine:dev ] && echo sha256:0123456789abcdef && exit 0
    echo "Error response from daemon: No such image: $5" >&2; exit 1 ;;
"save acme/mine:dev") [ -e "$here/image.tar" ] && exec cp "$here/image.tar" "$4"
    echo "Error response from daemon: no space left on device" >&2; exit 1 ;;
"load image-archive") cp "$3" "$here/loaded.tar" ;;
"exec foo-control-plane") cat "$here/list" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker, which has acme/mine:dev, and kind, whose node has no image at first."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    for name in ("docker", "kind"):
        (tmp_path / name).write_text(FAKE_DOCKER)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "list").write_text('{"images": []}')
    return tmp_path


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """A cluster whose node says of which cluster it is."""
    api = FakeApi().start()
    kubeconfig = api.kubeconfig(tmp_path)

    def on(provider: str) -> Session:
        node = {"metadata": {"name": "foo-control-plane"}, "spec": {"providerID": provider}}
        api.answers["GET /api/v1/nodes"] = (200, {"items": [node]})
        helm = Helm(Path("helm"), kubeconfig, "fake", "n")
        return Session(Target("fake", kubeconfig, "", ""), Kube(kubeconfig, "fake"), helm, "v1.34.4")

    yield on
    api.stop()


KIND, FAR = "kind://docker/foo/foo-control-plane", "aws:///eu-central-1a/i-0"
Sessions = Callable[[str], Session]


def described(*words: str) -> Environment:
    return environment.describe(Flags(sets=words))


def find(text: str, session: Session) -> built.Built:
    (found,) = built.find(built.parse([f"backend={text}"]), described(), session)
    return found


def test_an_image_of_dockers_has_its_content_in_the_tag(machine: Path, session: Sessions) -> None:
    found = find("acme/mine:dev", session(KIND))
    assert (found.name.name, found.source) == ("docker.io/acme/mine:dev-0123456789ab", "docker")


def test_a_file_has_the_name_that_it_says_and_its_content_in_the_tag(
    machine: Path, image: Path, session: Sessions
) -> None:
    found = find(str(image), session(KIND))
    assert found.name.name.startswith("docker.io/acme/mine:dev-") and found.source == str(image)


NOT_LOADED = {
    "one that Docker does not have": ("ghcr.io/acme/other:1", KIND),
    "one for a cluster that is elsewhere": ("acme/mine:dev", FAR),
    "one by its digest": (f"acme/mine@sha256:{'0' * 64}", KIND),
}


@pytest.mark.parametrize(("text", "provider"), NOT_LOADED.values(), ids=NOT_LOADED.keys())
def test_left_to_its_registry_is(machine: Path, session: Sessions, text: str, provider: str) -> None:
    found = find(text, session(provider))
    assert (found.name, found.source) == (found.given.named, "")


def test_a_file_cannot_go_to_a_cluster_that_is_elsewhere(machine: Path, image: Path, session: Sessions) -> None:
    with pytest.raises(Refused, match="cannot be brought into the cluster of context fake"):
        find(str(image), session(FAR))


def test_a_file_that_is_not_there_is_said(machine: Path, session: Sessions) -> None:
    with pytest.raises(InputWrong, match=r"nope\.tar holds no image"):
        find("nope.tar", session(KIND))


def test_another_chart_has_no_such_values(machine: Path, session: Sessions, tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text("name: mine\nversion: 1.0.0\n")
    mine = environment.describe(Flags(chart=str(tmp_path)))
    with pytest.raises(InputWrong, match="this is another one"):
        built.find(built.parse(["backend=x:1"]), mine, session(KIND))


def test_it_is_the_top_layer_of_the_values_and_says_who_set_it(machine: Path, session: Sessions) -> None:
    before = described("backend.image.tag=9,backend.image.digest=x,backend.image.pullPolicy=Always")
    after = built.over(before, [find("acme/mine:dev", session(KIND))]).desired.values
    assert after.get(("backend", "image")) == {
        "registry": "docker.io", "repository": "acme/mine", "tag": "dev-0123456789ab", "digest": "",
        "pullPolicy": "IfNotPresent",
    }  # fmt: skip
    newest, older = reversed(after.history["backend", "image", "tag"])
    assert (str(newest.origin), older.value) == ("--image, backend=acme/mine:dev", 9)


def test_with_an_image_of_its_own_the_backend_is_not_the_sample(machine: Path, session: Sessions) -> None:
    assert described().desired.sample_backend
    assert not built.over(described(), [find("acme/mine:dev", session(KIND))]).desired.sample_backend


def test_it_is_loaded_under_its_name_and_nothing_is_left_behind(machine: Path, image: Path, session: Sessions) -> None:
    on, name = session(KIND), "docker.io/acme/mine:dev-0123456789ab"
    one = find("acme/mine:dev", on)
    with pytest.raises(StepFailed, match="kind did not load"):  # the node is asked, and does not have it
        built.load([one], on, lambda _: None)
    listed = {"images": [{"repoTags": [name]}]}
    (machine / "kind").write_text(FAKE_DOCKER + f"echo '{json.dumps(listed)}' >\"$here/list\"\n")
    assert built.load([one], on, lambda _: None) == (name,)
    assert packed.look(machine / "loaded.tar").names == (name,)
    assert list((machine / "home/.cache/devenv/images").iterdir()) == []
    (machine / "asked").unlink()
    assert built.load([one], on, lambda _: None) == ()
    assert "save" not in (machine / "asked").read_text()


def test_a_docker_that_cannot_save_it_says_why(machine: Path, session: Sessions) -> None:
    on = session(KIND)
    with pytest.raises(StepFailed) as failed:
        built.load([find("acme/mine:dev", on)], on, lambda _: None)
    assert "no space left" in failed.value.why
