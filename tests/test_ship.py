"""Our images: listed, loaded into another cluster, pushed; and archives, opened and renamed."""

from __future__ import annotations

import json
import os
import platform
import tarfile
from pathlib import Path
from typing import Any

import pytest

from devenv import settings
from devenv.clients.kube import Kube
from devenv.cluster import archive, images, packed, programs, prune, ship, store
from devenv.errors import InputWrong, Refused
from devenv.report import Screen
from devenv.settings import Flags
from tests.fake_api import FakeApi
from tests.fake_registry import FakeRegistry, running
from tests.test_images import CONFIG, TREE, read
from tests.test_others import FAKE


@pytest.fixture(autouse=True)
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small images, of which the first is our cluster's own, and a home without anything."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = tuple(images.Image(name, "1", CONFIG, lambda found, waits: [TREE]) for name in ("pause", "one", "two"))
    monkeypatch.setattr(images, "images", lambda: made)


def run(**asked: Any) -> dict[str, Any]:
    said = settings.read(Flags(), Path("/nowhere"))
    return ship.ship(said, Screen(plain=True, color=False), **{"name": "", "load": "", "push": "", **asked}).record()


def test_listed_without_a_cluster_nothing_is_built_and_nothing_started() -> None:
    (first, *_) = images.images()
    images.archived(first, programs.quiet)
    record = run(name="nowhere")
    assert [(one["reference"], one["built"], one["there"]) for one in record["images"]] == [
        ("devenv.local/pause:1", True, None), ("devenv.local/one:1", False, None), ("devenv.local/two:1", False, None)
    ]  # fmt: skip
    assert record["next"] == "./inv cluster.up --name nowhere"


def test_loaded_are_those_of_the_chart_each_built_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kind", "docker"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "load").write_text("0\n")
    listed = {"images": [{"repoTags": ["devenv.local/one:1", "devenv.local/two:1"]}]}
    (tmp_path / "list").write_text(f"0\n{json.dumps(listed)}")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    record = run(load="kind", name="foo")
    assert (record["action"], record["target"]) == ("load", "kind cluster foo")
    assert [one["there"] for one in record["images"]] == [True, True]
    loads = [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("kind")]
    files = [images.place(image) for image in images.images()[1:]]
    assert loads == [f"kind load image-archive {file} --name foo" for file in files]
    assert all(file.exists() for file in files) and not images.built(images.images()[0])


def test_without_the_program_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="k3d is not on PATH"):
        run(load="k3d", name="foo")
    assert not (tmp_path / "home").exists()


def test_pushed_under_the_registrys_path_and_the_next_line_names_it() -> None:
    with running(FakeRegistry()) as fake:
        record = run(push=f"{fake.name}/acme/")
        assert set(fake.manifests) == {"acme/one:1", "acme/two:1"}
        assert [one["sent"] > 0 for one in record["images"]] == [True, False]  # the second has the same parts
        assert record["next"] == f"--set global.imageRegistry={fake.name}/acme"
        assert [one["sent"] for one in run(push=f"{fake.name}/acme")["images"]] == [0, 0]
        assert [one["sent"] > 0 for one in run(push=f"{fake.name}")["images"]] == [False, False]


def test_to_load_and_to_push_are_two_runs() -> None:
    with pytest.raises(InputWrong):
        run(load="kind", push="ghcr.io/acme")


def test_elsewhere_than_on_linux_images_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with running(FakeRegistry()) as fake, pytest.raises(Refused, match="programs of a Linux machine"):
        run(push=fake.name)


# -- archives ----------------------------------------------------------------------------------------------------------


def packing(folder: Path, name: str = "devenv.local/tool:1") -> Path:
    file = folder / "image.tar"
    archive.write(file, name, "amd64", [TREE], CONFIG)
    return file


def test_an_archive_says_which_image_it_holds(tmp_path: Path) -> None:
    found = packed.look(packing(tmp_path))
    assert found.names == ("devenv.local/tool:1",)
    assert found.id == packed.parts(found.file).blobs[0].digest.removeprefix("sha256:")


@pytest.mark.parametrize("gone", ["manifest.json", "index.json"])
def test_either_layout_alone_will_do(tmp_path: Path, gone: str) -> None:
    whole = packed.look(packing(tmp_path))
    half = tmp_path / "half.tar"
    with tarfile.open(whole.file) as old, tarfile.open(half, "w") as new:
        for entry in old:
            if entry.name != gone:
                new.addfile(entry, old.extractfile(entry))
    found = packed.look(half)
    assert (found.names, found.id) == (whole.names, whole.id)


def test_renamed_it_is_the_same_image_under_one_other_name(tmp_path: Path) -> None:
    old = packed.look(packing(tmp_path))
    packed.renamed(old.file, tmp_path / "new.tar", "devenv.local/other:2")
    new = packed.look(tmp_path / "new.tar")
    assert (new.names, new.id) == (("devenv.local/other:2",), old.id)
    before, after = read(old.file), read(new.file)
    assert {name: data for name, data in after.items() if name.startswith("blobs/")} == {
        name: data for name, data in before.items() if name.startswith("blobs/")
    }
    (entry,) = json.loads(after["index.json"])["manifests"]
    assert entry["annotations"] == {
        "io.containerd.image.name": "devenv.local/other:2", "org.opencontainers.image.ref.name": "2"
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 1024])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputWrong, match="holds no image"):
        packed.look(tmp_path / "x.tar")
    with pytest.raises(InputWrong, match="holds no image"):
        packed.look(tmp_path / "nowhere.tar")


def test_an_archive_of_two_images_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        archive._add(tar, "manifest.json", archive.File(b'[{"Config": "a.json"}, {"Config": "b.json"}]'))
    with pytest.raises(InputWrong) as refused:
        packed.look(tmp_path / "x.tar")
    assert refused.value.why == "it holds 2 images, not one"


def test_a_part_that_is_read_leaves_no_file_open(tmp_path: Path) -> None:
    made = packed.parts(packing(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with made.blobs[0].opened() as part:
        assert len(part.read()) == made.blobs[0].size
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- pruned ------------------------------------------------------------------------------------------------------------


def test_pruned_from_the_cache_is_what_this_version_would_not_build() -> None:
    (_, one, two) = images.images()
    kept = images.archived(one, programs.quiet)
    old = images.place(two).parent.with_name("two-0123456789ab")
    old.mkdir()
    (old / "two.tar").write_bytes(b"x" * 50_000)
    (old / store.MADE).write_text('{"two.tar": 50000}')
    old.with_name(f".{old.name}.lock").touch()
    left, fresh = old.with_name("image-killed"), old.with_name("image-at-work")
    for folder in (left, fresh):
        folder.mkdir()
    os.utime(left, (0, 0))
    record = run(prune=True, name="nowhere")
    assert (record["action"], record["removed"]) == ("prune", {"cache": ["two-0123456789ab", "image-killed"]})
    assert 50_000 <= record["freed"] < 100_000
    assert kept.exists() and fresh.exists() and not old.exists() and not left.exists()
    assert not old.with_name(".two-0123456789ab.lock").exists()
    assert run(prune=True, name="nowhere")["removed"] == {"cache": []}


TABLE = {  # name → digest, as containerd has them: each image under its name and under its configuration's
    "devenv.local/one:1": "sha256:a", "sha256:conf-a": "sha256:a",
    "devenv.local/one:0": "sha256:b", "sha256:conf-b": "sha256:b",
    "ghcr.io/acme/app:1": "sha256:c", "ghcr.io/acme/app:2": "sha256:c", "sha256:conf-c": "sha256:c",
    "sha256:conf-d": "sha256:d",
    "sha256:conf-e": "sha256:e",
}  # fmt: skip


@pytest.mark.parametrize(
    ("used", "gone"),
    [
        (set(TABLE), []),
        (
            {"devenv.local/one:1", "ghcr.io/acme/app:2", "sha256:conf-e"},
            ["devenv.local/one:0", "ghcr.io/acme/app:1", "sha256:conf-b", "sha256:conf-d"],
        ),
        (set(TABLE) - {"ghcr.io/acme/app:1", "ghcr.io/acme/app:2", "sha256:conf-c"},
         ["ghcr.io/acme/app:1", "ghcr.io/acme/app:2", "sha256:conf-c"]),
    ],
)  # fmt: skip
def test_an_image_goes_with_the_last_name_that_is_used(used: set[str], gone: list[str]) -> None:
    assert prune.unused(TABLE, used) == gone


def test_in_use_is_what_any_template_or_pod_names(kube: Kube, api: FakeApi) -> None:
    def templated(image: str) -> dict[str, Any]:
        return {
            "metadata": {"name": "x"},
            "spec": {"replicas": 0, "template": {"spec": {"containers": [{"image": image}]}}},
        }

    for path in prune.WORKLOADS:
        api.answers[f"GET {path}"] = (200, {"items": []})
    api.answers["GET /apis/apps/v1/deployments"] = (200, {"items": [templated("app:1")]})
    cron = {"metadata": {"name": "c"}, "spec": {"jobTemplate": templated("ghcr.io/acme/cron:1")}}
    api.answers["GET /apis/batch/v1/cronjobs"] = (200, {"items": [cron]})
    pod = {"metadata": {"name": "p"}, "spec": {"initContainers": [{"image": "busybox"}]}}
    api.answers["GET /api/v1/pods"] = (200, {"items": [pod]})
    assert prune.named(kube) == {"docker.io/library/app:1", "ghcr.io/acme/cron:1", "docker.io/library/busybox:latest"}
