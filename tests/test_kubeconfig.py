"""Our cluster's context in the user's kubeconfig: written when asked, once, and nothing else is touched."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from devenv import environment, kubeconfig, target
from devenv.errors import Refused
from devenv.settings import Flags

OURS = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "embedded",
    "clusters": [
        {"name": "embedded", "cluster": {"server": "https://10.0.0.1:6443", "certificate-authority-data": "Y2E="}}
    ],
    "users": [{"name": "embedded", "user": {"client-certificate-data": "Yw==", "client-key-data": "a2V5"}}],
    "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "embedded"}}],
}
THEIRS = """\
apiVersion: v1
kind: Config
current-context: prod   # mine
preferences: {colors: true}
x-mine: {since: 2026-01-02, on: yes}
users:
- name: me
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: ["0123", "1e3", "no"], env: null}
clusters:
- name: prod
  cluster: {server: https://prod, insecure-skip-tls-verify: true}
contexts:
- name: prod
  context: {cluster: prod, user: me, namespace: "2026-01-02"}
"""


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    file = tmp_path / "ours"
    file.write_text(json.dumps(OURS))
    return file


def read(file: Path) -> Any:
    return yaml.load(file.read_text(), Loader=kubeconfig._Loader)


def test_everything_else_stays_and_the_copy_is_what_was(ours: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(THEIRS)
    file.chmod(0o640)
    before = read(file)
    done = kubeconfig.merge(ours, "default", [file])
    after = read(file)
    assert (done.context, done.changed, done.current) == ("embedded", True, False)
    for kind in ("clusters", "users", "contexts"):
        assert after[kind] == [*before[kind], OURS[kind][0]]
    rest = after.keys() - {"clusters", "users", "contexts"}
    assert {key: after[key] for key in rest} == {key: before[key] for key in rest}
    assert list(after) == list(before)
    assert done.backup is not None and done.backup.read_text() == THEIRS
    assert {stat.S_IMODE(one.stat().st_mode) for one in (file, done.backup)} == {0o600}


def test_a_second_time_nothing_is_written(ours: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(THEIRS)
    kubeconfig.merge(ours, "default", [file])
    text, files = file.read_text(), sorted(tmp_path.iterdir())
    done = kubeconfig.merge(ours, "default", [file])
    assert (done.changed, done.backup, file.read_text(), sorted(tmp_path.iterdir())) == (False, None, text, files)


def test_a_cluster_that_was_made_anew_takes_the_place_of_the_old_one(ours: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(THEIRS)
    kubeconfig.merge(ours, "default", [file])
    ours.write_text(json.dumps(OURS).replace("10.0.0.1", "10.0.0.2"))
    assert kubeconfig.merge(ours, "default", [file]).changed
    clusters = read(file)["clusters"]
    assert [cluster["cluster"]["server"] for cluster in clusters] == ["https://prod", "https://10.0.0.2:6443"]


def test_without_a_kubeconfig_one_is_made_and_the_context_is_the_current_one(ours: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / ".kube" / "config"
    done = kubeconfig.merge(ours, "two", [file])
    assert (done.context, done.current, done.backup) == ("embedded-two", True, None)
    config = read(file)
    assert (config["apiVersion"], config["kind"], config["current-context"]) == ("v1", "Config", "embedded-two")
    assert config["contexts"] == [
        {"name": "embedded-two", "context": {"cluster": "embedded-two", "user": "embedded-two"}}
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_of_several_files_the_one_that_has_the_context_is_written_else_the_first(ours: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text(THEIRS)
    done = kubeconfig.merge(ours, "default", [first, second])
    assert (done.file, done.current) == (first, False)
    assert "current-context" not in read(first)
    first.rename(tmp_path / "away")
    kubeconfig.merge(ours, "default", [second])
    assert kubeconfig.merge(ours, "default", [first, second]).file == second


def test_a_link_stays_a_link(ours: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text(THEIRS)
    link.symlink_to(real)
    kubeconfig.merge(ours, "default", [link])
    assert link.is_symlink() and len(read(real)["contexts"]) == 2


@pytest.mark.parametrize("text", ["a: [", "- a", "contexts: {}\nclusters: x", "\x00"])
def test_a_kubeconfig_that_cannot_be_read_is_not_touched(ours: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(Refused, match="cannot be read"):
        kubeconfig.merge(ours, "default", [file])
    assert file.read_text() == text and sorted(tmp_path.iterdir()) == [file, ours]


def test_the_merged_context_means_our_own_cluster(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"
    kubeconfig.merge(ours, "two", [file])
    monkeypatch.setenv("KUBECONFIG", str(file))
    said = environment.describe(Flags())
    assert target.choose(said.settings, said.profile).embedded == "two"
