"""The context is the user's choice, is allowed by the profile, and is copied so that nobody can switch it meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from devenv import environment, target
from devenv.errors import Refused
from devenv.settings import Flags
from devenv.target import Target

CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "kind-one",
    "contexts": [
        {"name": "kind-one", "context": {"cluster": "one", "user": "me"}},
        {"name": "prod", "context": {"cluster": "prod", "user": "me"}},
        {"name": "kind-lost", "context": {"cluster": "lost", "user": "me"}},
    ],
    "clusters": [
        {"name": "one", "cluster": {"server": "https://127.0.0.1:1", "certificate-authority": "ca.crt"}},
        {"name": "prod", "cluster": {"server": "https://127.0.0.1:2"}},
    ],
    "users": [{"name": "me", "user": {"token": "t"}}, {"name": "you", "user": {"token": "u"}}],
}


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config"
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----")
    path.write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def choose(**flags: str) -> Target:
    said = environment.describe(Flags(**flags))  # type: ignore[arg-type]
    return target.choose(said.settings, said.profile)


def test_the_current_context_is_taken_when_the_profile_allows_it(kubeconfig: Path) -> None:
    chosen = choose()
    assert (chosen.context, chosen.embedded) == ("kind-one", "")


def test_the_copy_holds_one_context_with_absolute_files_and_is_private(kubeconfig: Path) -> None:
    copy = choose().kubeconfig
    assert copy is not None
    assert copy.stat().st_mode & 0o077 == 0
    config = json.loads(copy.read_text())
    assert [entry["name"] for entry in config["contexts"]] == ["kind-one"]
    assert [entry["name"] for entry in config["users"]] == ["me"]
    assert config["clusters"][0]["cluster"]["certificate-authority"] == str(kubeconfig.parent / "ca.crt")


REFUSED = {
    "not allowed by the profile": ("prod", "may not touch context prod"),
    "not in any kubeconfig": ("kind-nope", "no kubeconfig has a context kind-nope"),
    "without its cluster": ("kind-lost", "names a cluster that is not there"),
}


@pytest.mark.parametrize(("context", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_a_context_is_refused_when_it_is(kubeconfig: Path, context: str, what: str) -> None:
    with pytest.raises(Refused, match=what):
        choose(context=context)


def test_a_switch_in_another_terminal_changes_nothing(kubeconfig: Path) -> None:
    copy = choose().kubeconfig
    assert copy is not None
    kubeconfig.write_text(yaml.safe_dump({**CONFIG, "current-context": "prod"}))
    assert json.loads(copy.read_text())["current-context"] == "kind-one"


def test_embedded_always_means_our_own(kubeconfig: Path) -> None:
    assert choose(context="embedded") == Target("embedded", None, "default", "--context")
    assert choose(context="embedded-two").embedded == "two"


def test_without_any_kubeconfig_it_is_the_embedded_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choose().embedded == "default"


def test_a_kubeconfig_that_was_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    with pytest.raises(Refused, match="is not there"):
        choose()


@pytest.mark.parametrize(("text", "what"), [("a: [", "is not YAML"), ("- 1", "is no map")])
def test_a_broken_kubeconfig_is_named(kubeconfig: Path, text: str, what: str) -> None:
    kubeconfig.write_text(text)
    with pytest.raises(Refused, match=what) as refused:
        choose()
    assert str(kubeconfig) in refused.value.where
