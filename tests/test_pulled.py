"""Images pulled from a registry over real HTTP: whole, as their digests say, with the login that the user has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import reference
from devenv.clients import registry
from devenv.clients.registry import Registry
from devenv.cluster import archive, images, packed, programs, pulled
from devenv.errors import Refused, StepFailed
from tests.fake_registry import FakeRegistry, running
from tests.test_images import CONFIG, TREE, Cluster, read

INDEX = registry.MANIFESTS[0]


@pytest.fixture(params=["none", "basic", "bearer"])
def fake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeRegistry]:
    """A registry with one image, which is pulled with its user's login."""
    with running(FakeRegistry(request.param, public=False)) as started:
        archive.write(
            tmp_path / "one.tar", "devenv.local/tool:1", "amd64", [TREE, {"more": archive.File(b"x")}], CONFIG
        )
        made = packed.parts(tmp_path / "one.tar")
        config = started.docker_config(tmp_path)
        Registry(started.name, config).push("acme/tool", "1", made.manifest, made.kind, made.blobs)
        yield started


def pull(fake: FakeRegistry, folder: Path, name: str = "acme/tool:1", config: str = "config.json") -> Path:
    named = reference.parse(f"{fake.name}/{name}")
    assert named is not None
    (folder / "pulled").mkdir(exist_ok=True)
    return pulled.pull(Registry(fake.name, folder / config, 2.0), named, folder / "pulled")


def blobs(file: Path) -> dict[str, bytes]:
    return {name: data for name, data in read(file).items() if name.startswith("blobs/")}


def test_what_is_pulled_is_what_was_pushed_under_its_name_there(fake: FakeRegistry, tmp_path: Path) -> None:
    file = pull(fake, tmp_path)
    assert blobs(file) == blobs(tmp_path / "one.tar")
    found = packed.look(file)
    assert (found.names, found.id) == ((f"{fake.name}/acme/tool:1",), packed.look(tmp_path / "one.tar").id)


def listed(fake: FakeRegistry, *machines: str) -> None:
    """The image stands in an index, for these architectures."""
    kind, data = fake.manifests.pop("acme/tool:1")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    fake.manifests[f"acme/tool:{digest}"] = (kind, data)
    entries = [{"digest": digest, "platform": {"os": "linux", "architecture": machine}} for machine in machines]
    other = {"digest": "sha256:" + "0" * 64, "platform": {"os": "windows", "architecture": "amd64"}}
    fake.manifests["acme/tool:1"] = (INDEX, json.dumps({"manifests": [other, *entries]}).encode())


def test_of_an_index_the_one_for_this_machine_is_taken(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "ARCHITECTURES", {})
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    listed(fake, "arm64")
    assert blobs(pull(fake, tmp_path)) == blobs(tmp_path / "one.tar")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(StepFailed) as failed:
        pull(fake, tmp_path)
    assert failed.value.why == "it has none for linux/riscv64"


def test_a_part_of_another_content_is_not_taken(fake: FakeRegistry, tmp_path: Path) -> None:
    digest = max(fake.blobs, key=lambda one: len(fake.blobs[one]))
    fake.blobs[digest] = b"x" * len(fake.blobs[digest])
    with pytest.raises(StepFailed, match="could not be pulled") as failed:
        pull(fake, tmp_path)
    assert digest in failed.value.what and failed.value.why == "it answered with another content"


def test_an_image_that_is_not_there_is_named(fake: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=f"{fake.name}/acme/tool:2 could not be pulled") as failed:
        pull(fake, tmp_path, "acme/tool:2")
    assert failed.value.why == "it answered 404 manifest unknown"


def test_without_a_login_the_one_to_make_is_said(fake: FakeRegistry, tmp_path: Path) -> None:
    if fake.auth == "none":
        assert pull(fake, tmp_path, config="none.json").exists()
        return
    with pytest.raises(Refused, match="does not let us pull") as refused:
        pull(fake, tmp_path, config="none.json")
    assert refused.value.next == f"docker login {fake.name}"


# -- into the cluster --------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Cluster(tmp_path)


def load(cluster: Cluster, *names: str) -> tuple[str, ...]:
    return pulled.load(cluster.socket, cluster.ctr, names, cluster.place / "config.json", programs.quiet)


@pytest.mark.parametrize("fake", ["bearer"], indirect=True)
def test_only_what_the_cluster_lacks_is_pulled_and_nothing_is_left_in_the_cache(
    fake: FakeRegistry, cluster: Cluster
) -> None:
    name = f"{fake.name}/acme/tool:1"
    assert load(cluster, name) == (name,)
    _, imported = cluster.asked()
    assert imported.endswith("image.tar") and "pinned" not in imported
    (cluster.place / "table").write_text(f"{name} manifest sha256:1 9.4 MiB linux/amd64 -\n")
    fake.asked.clear()
    assert load(cluster, name) == ()
    assert fake.asked == [] and len(cluster.asked()) == 1
    assert list((cluster.place / "home/.cache/devenv/images").iterdir()) == []


def test_our_own_names_are_refused_with_the_way_to_a_registry(cluster: Cluster) -> None:
    with pytest.raises(Refused) as refused:
        load(cluster, "devenv.local/backend:0.1.0")
    assert "global.imageRegistry=REGISTRY" in refused.value.next
    assert refused.value.where == "DEVENV_IMAGES=pull"


def test_a_blob_may_be_stored_elsewhere_where_the_login_does_not_go(tmp_path: Path) -> None:
    with running(FakeRegistry()) as store, running(FakeRegistry("basic")) as front:
        data = b"a layer"
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        store.blobs[digest] = data
        front.elsewhere = f"http://localhost:{store.port}"
        client = Registry(front.name, front.docker_config(tmp_path))
        client.blob("acme/tool", digest, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == data
    assert store.logins == [""]
    assert front.logins[-1] != ""


def test_records_of_other_makers_are_understood(tmp_path: Path) -> None:
    """Docker's own media types too: containerd imports both."""
    kinds: dict[str, Any] = {"mediaType": registry.MANIFESTS[3]}
    with running(FakeRegistry()) as fake:
        config, layer = b"{}", b"layer"
        for data in (config, layer):
            fake.blobs[f"sha256:{hashlib.sha256(data).hexdigest()}"] = data
        digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (config, layer)]
        record = {
            **kinds,
            "config": {"digest": digests[0], "size": 2},
            "layers": [{"digest": digests[1], "size": 5}] * 2,
        }
        fake.manifests["acme/tool:1"] = (registry.MANIFESTS[3], json.dumps(record).encode())
        index = json.loads(read(pull(fake, tmp_path))["index.json"])
    assert index["manifests"][0]["mediaType"] == registry.MANIFESTS[3]
