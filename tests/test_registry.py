"""Registries, over real HTTP: is an image there, may we push, what is sent; and whose credentials go where."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import reference
from devenv.clients import registry
from devenv.clients.registry import Blob, Login, Registry
from devenv.cluster import archive, packed
from devenv.errors import InputWrong, Refused, StepFailed
from tests.fake_registry import PASSWORD, REFRESH, USER, FakeRegistry, running
from tests.test_images import CONFIG, TREE


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running(FakeRegistry()) as started:
        yield started


def parts(folder: Path) -> packed.Parts:
    file = folder / "image.tar"
    archive.write(file, "devenv.local/tool:1", "amd64", [TREE, {"etc/more": archive.File(b"more")}], CONFIG)
    return packed.parts(file)


def push(fake: FakeRegistry, folder: Path, config: Path | None = None) -> int:
    made = parts(folder)
    client = Registry(fake.name, config or folder / "none.json")
    return client.push("acme/tool", "1", made.manifest, made.kind, made.blobs)


def look(fake: FakeRegistry, name: str, config: Path = Path("/nowhere")) -> bool | None:
    repository, version = name.split(":")
    return Registry(fake.name, config, 2.0).look(repository, version)


def test_a_pushed_image_is_there_whole_and_is_not_sent_again(fake: FakeRegistry, tmp_path: Path) -> None:
    sent = push(fake, tmp_path)
    made = parts(tmp_path)
    assert sent == sum(blob.size for blob in made.blobs) > 0
    assert fake.manifests["acme/tool:1"] == (made.kind, made.manifest)
    assert {digest: len(data) for digest, data in fake.blobs.items()} == {one.digest: one.size for one in made.blobs}
    assert look(fake, "acme/tool:1") is True
    fake.asked.clear()
    assert push(fake, tmp_path) == 0
    assert not [line for line in fake.asked if "uploads" in line]


def test_only_what_the_registry_lacks_is_sent(fake: FakeRegistry, tmp_path: Path) -> None:
    push(fake, tmp_path)
    lost = parts(tmp_path).blobs[1]
    del fake.blobs[lost.digest]
    assert push(fake, tmp_path) == lost.size


def test_a_missing_image_is_missing_and_its_manifest_is_pulled_only_to_hear_why(fake: FakeRegistry) -> None:
    assert look(fake, "acme/tool:2") is False
    assert fake.asked == ["HEAD /v2/acme/tool/manifests/2", "GET /v2/acme/tool/manifests/2"]


def test_a_web_server_that_is_no_registry_says_nothing(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fake_registry.Handler.manifest", lambda self, *_: self.say(404, b"<html>not found"))
    assert look(fake, "acme/tool:2") is None


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_with_a_login_one_may_push_and_without_one_not(auth: str, tmp_path: Path) -> None:
    with running(FakeRegistry(auth)) as fake:
        with pytest.raises(Refused, match="does not let us push") as refused:
            push(fake, tmp_path)
        assert refused.value.next == f"docker login {fake.name}"
        assert push(fake, tmp_path, fake.docker_config(tmp_path)) > 0


def test_an_identity_token_is_as_good_as_a_password(tmp_path: Path) -> None:
    with running(FakeRegistry("bearer", public=False)) as fake:
        config = fake.docker_config(tmp_path, auths={f"https://{fake.name}/v1/": {"identitytoken": REFRESH}})
        assert push(fake, tmp_path, config) > 0


def test_anybody_may_look_where_a_token_is_given_to_anybody(tmp_path: Path) -> None:
    with running(FakeRegistry("bearer")) as fake:
        assert look(fake, "acme/tool:1") is False
        push(fake, tmp_path, fake.docker_config(tmp_path))
        assert look(fake, "acme/tool:1") is True


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_where_we_may_not_look_nothing_is_known(auth: str, tmp_path: Path) -> None:
    with running(FakeRegistry(auth, public=False)) as fake:
        assert look(fake, "acme/tool:1") is None
        assert look(fake, "acme/tool:1", fake.docker_config(tmp_path)) is False


def test_a_wrong_password_is_said_with_the_registrys_words(tmp_path: Path) -> None:
    with running(FakeRegistry("basic")) as fake:
        word = base64.b64encode(b"ada:wrong").decode()
        config = fake.docker_config(tmp_path, auths={fake.name: {"auth": word}})
        with pytest.raises(Refused) as refused:
            push(fake, tmp_path, config)
    assert refused.value.why == "401 unauthorized"
    assert word not in json.dumps(refused.value.record())


def test_a_registry_that_is_not_there_is_named(tmp_path: Path) -> None:
    made = parts(tmp_path)
    with pytest.raises(StepFailed, match=r"127\.0\.0\.1:1/x:1 could not be pushed") as failed:
        Registry("127.0.0.1:1", tmp_path / "none").push("x", "1", made.manifest, made.kind, made.blobs)
    assert "refused" in failed.value.why
    assert Registry("127.0.0.1:1", tmp_path / "none").look("x", "1") is None


def test_a_blob_that_the_registry_refuses_fails_with_its_words(fake: FakeRegistry, tmp_path: Path) -> None:
    made = parts(tmp_path)
    broken = [Blob(one.digest, one.size, lambda size=one.size: io.BytesIO(b"x" * size)) for one in made.blobs]  # type: ignore[misc]
    with pytest.raises(StepFailed) as failed:
        Registry(fake.name, tmp_path / "none").push("x", "1", made.manifest, made.kind, broken)
    assert "400 digest invalid" in failed.value.why
    assert fake.manifests == {}


def test_all_are_asked_at_once_and_the_slow_one_is_not_waited_for(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(fake, tmp_path)
    answer = fake.manifests.get
    slow = {"acme/slow:1": 20.0, "acme/tool:1": 0.2, "acme/other:1": 0.2}

    class Slow(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            time.sleep(slow[name])
            return answer(name, default)

    fake.manifests = Slow()
    wanted = [reference.parse(f"{fake.name}/{name}") for name in slow]
    started = time.monotonic()
    answers = registry.look_all([one for one in wanted if one], tmp_path / "none", 2.5)
    assert answers == [None, True, False]
    assert time.monotonic() - started < 10


def test_without_tls_only_this_machine_is_asked() -> None:
    schemes = {
        name: Registry(name, Path()).base for name in ("localhost:5000", "127.0.0.1", "[::1]:5", "10.0.0.1:5000")
    }
    assert {name for name, base in schemes.items() if base.startswith("http://")} == {
        "localhost:5000",
        "127.0.0.1",
        "[::1]:5",
    }
    assert Registry("docker.io", Path()).base == "https://registry-1.docker.io"


def test_a_password_is_not_sent_to_a_realm_without_tls(fake: FakeRegistry, tmp_path: Path) -> None:
    client = Registry(fake.name, fake.docker_config(tmp_path))
    assert client._authorize('Bearer realm="http://192.0.2.1/token",service="x"', "repository:x:pull") == ""


AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
LOGINS: dict[str, tuple[str, dict[str, Any], Login]] = {
    "nothing": ("ghcr.io", {}, Login()),
    "its own entry": ("ghcr.io", {"auths": {"ghcr.io": {"auth": AUTH}}}, Login(USER, PASSWORD)),
    "an entry with a scheme": ("ghcr.io", {"auths": {"https://ghcr.io/v2/": {"auth": AUTH}}}, Login(USER, PASSWORD)),
    "another's entry": ("ghcr.io", {"auths": {"quay.io": {"auth": AUTH}}}, Login()),
    "Docker Hub": ("docker.io", {"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}}, Login(USER, PASSWORD)),
    "an entry that says nothing": ("ghcr.io", {"auths": {"ghcr.io": {}}}, Login()),
    "an entry that is no base64": ("ghcr.io", {"auths": {"ghcr.io": {"auth": "é"}}}, Login()),
    "a helper for it": ("ghcr.io", {"credHelpers": {"ghcr.io": "test"}}, Login("helper", "of ghcr.io")),
    "a store for all": ("docker.io", {"credsStore": "test"}, Login("helper", "of https://index.docker.io/v1/")),
    "a token from a helper": ("token.io", {"credsStore": "test"}, Login(token="of token.io")),
    "a helper that fails": ("fails.io", {"credsStore": "test"}, Login()),
    "a helper that is not there": ("ghcr.io", {"credsStore": "nope"}, Login()),
    "a helper with a path": ("ghcr.io", {"credsStore": "../../bin/sh"}, Login()),
    "a list": ("ghcr.io", {"auths": []}, Login()),
}
HELPER = """#!/bin/sh
read -r host || true
case "$1 $host" in
*fails*) echo "credentials not found in native keychain"; exit 1 ;;
*token*) user="<token>" ;;
*) user=helper ;;
esac
printf '{"ServerURL":"%s","Username":"%s","Secret":"of %s"}' "$host" "$user" "$host"
"""


@pytest.mark.parametrize(("name", "content", "expected"), LOGINS.values(), ids=LOGINS.keys())
def test_dockers_configuration_gives(
    name: str, content: dict[str, Any], expected: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(content))
    assert registry.login(config, name) == expected


def test_a_broken_configuration_is_as_good_as_none(tmp_path: Path) -> None:
    for text in ("{", "[]", "\xff"):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        assert registry.login(tmp_path / "config.json", "ghcr.io") == Login()


PLACES = {
    "ghcr.io/acme": ("ghcr.io", "acme"),
    "ghcr.io/acme/dev/": ("ghcr.io", "acme/dev"),
    "localhost:5001": ("localhost:5001", ""),
    "registry.example.com:5000": ("registry.example.com:5000", ""),
}


@pytest.mark.parametrize(("text", "place"), PLACES.items())
def test_a_registry_is_a_host_and_perhaps_a_path(text: str, place: tuple[str, str]) -> None:
    assert registry.place(text) == place


@pytest.mark.parametrize("text", ["https://ghcr.io", "acme", "", "ghcr.io/Acme", "ghcr.io/a b", "/x"])
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(InputWrong, match="is no registry"):
        registry.place(text)
