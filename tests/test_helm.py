"""Helm is called with everything pinned, values by standard input, and its errors are read."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from devenv import environment
from devenv.apply import Upgrade
from devenv.clients import helm
from devenv.clients.helm import Helm
from devenv.clients.shell import Output
from devenv.errors import InputWrong, Refused
from devenv.model import Plan
from devenv.settings import Flags

DESIRED = environment.describe(Flags()).desired


def fake(folder: Path, script: str) -> Helm:
    """An executable `helm` that writes down how it was called, then does as the script says."""
    program = folder / "helm"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/argv"\nenv > "{folder}/env"\ncat > "{folder}/stdin"\n{script}\n'
    )
    program.chmod(0o755)
    return Helm(program, Path("/k/config"), "ctx", "ns")


def test_a_helm_that_stands_by_is_told_the_values_when_it_may_go_and_not_before(tmp_path: Path) -> None:
    with Upgrade(fake(tmp_path, f'touch "{tmp_path}/applied"'), DESIRED) as upgrade:
        upgrade.stand_by(3, "hash")
        standing = upgrade.stand_by(4, "hash")
        _written(tmp_path / "argv")
        time.sleep(0.2)
        assert not (tmp_path / "applied").exists()
        assert upgrade.stand_by(4, "hash") is standing
        applying = upgrade.go(Plan(("r",), (), 4, "hash"))
        while applying.busy():
            time.sleep(0.01)
    argv = _written(tmp_path / "argv")
    assert "4-hash" in argv[argv.index("--labels") + 1]
    assert json.loads((tmp_path / "stdin").read_text()) == DESIRED.values.tree()
    assert (tmp_path / "applied").exists()


def test_a_helm_that_stands_by_ends_with_the_run_that_started_it(tmp_path: Path) -> None:
    with pytest.raises(Refused), Upgrade(fake(tmp_path, f'touch "{tmp_path}/applied"'), DESIRED) as upgrade:
        upgrade.stand_by(3, "hash")
        _written(tmp_path / "argv")
        raise Refused("no")
    assert not (tmp_path / "applied").exists()


def _written(file: Path) -> list[str]:
    for _ in range(500):
        if file.exists() and file.read_text():
            break
        time.sleep(0.01)
    return file.read_text().split("\n")


def test_values_go_by_standard_input_and_never_by_argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM_NAMESPACE", "elsewhere")
    running = fake(tmp_path, "").upgrade("r", "chart", {"a": "b"}, 90.0, validate=False)
    running.feed('{"password": "hunter22"}')
    output = running.wait()
    argv = (tmp_path / "argv").read_text().split("\n")
    assert output.code == 0
    assert json.loads((tmp_path / "stdin").read_text()) == {"password": "hunter22"}
    assert "hunter22" not in "".join(argv)
    assert "hunter22" not in (tmp_path / "env").read_text()
    assert "HELM_NAMESPACE" not in (tmp_path / "env").read_text()
    for flag, value in (
        ("--kubeconfig", "/k/config"),
        ("--kube-context", "ctx"),
        ("--namespace", "ns"),
        ("--timeout", "90s"),
        ("--labels", "a=b"),
    ):
        assert argv[argv.index(flag) + 1] == value
    assert "--disable-openapi-validation" in argv


def test_a_chart_that_does_not_render_is_wrong_input_with_the_charts_own_words(tmp_path: Path) -> None:
    error = "Error: execution error at (x/templates/a.yaml:1:2): error calling fail: set global.x to y"
    with pytest.raises(InputWrong) as wrong:
        fake(tmp_path, f"echo '{error}' >&2; exit 1").render("r", "chart", {}, "v1.34.4")
    assert wrong.value.why == "set global.x to y"


@pytest.mark.parametrize("text", ["v2.17.0", "hello", ""])
def test_what_is_no_helm_3_or_4_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refused):
        fake(tmp_path, f"echo '{text}'").version()


REASONS = {
    "Error: UPGRADE FAILED: context deadline exceeded": "context deadline exceeded",
    "level=WARN msg=x\nError: INSTALLATION FAILED: no such chart": "no such chart",
    "boom": "boom",
    "": "exit code 1",
}


@pytest.mark.parametrize(("stderr", "reason"), REASONS.items())
def test_the_reason_is_helms_last_error_without_its_wrapping(stderr: str, reason: str) -> None:
    assert helm.reason(Output(1, "", stderr)) == reason


MANIFEST = """---
# empty
---
{apiVersion: v1, kind: A, metadata: {name: a, namespace: home}}
---
{kind: List, items: [{apiVersion: v1, kind: B, metadata: {name: b}}, {apiVersion: v1, kind: C, metadata: {name: c}}]}
---
{apiVersion: v1, kind: D, metadata: {name: d, namespace: abroad}}
"""


def test_only_an_object_of_another_namespace_says_its_own() -> None:
    assert [entry["metadata"].get("namespace") for entry in helm.objects(MANIFEST, "home")] == [
        None,
        None,
        None,
        "abroad",
    ]


def test_the_objects_of_a_manifest_those_of_a_list_one_by_one() -> None:
    assert [entry["kind"] for entry in helm.objects(MANIFEST, "home")] == ["A", "B", "C", "D"]


AS_GO = {
    "2024-01-01": "2024-01-01",
    "12:30": "12:30",
    "1:30.5": "1:30.5",
    "=": "=",
    "12": 12,
    "1.5": 1.5,
    "yes": True,
    "0x1f": 31,
}


@pytest.mark.parametrize(("text", "value"), AS_GO.items())
def test_yaml_is_read_as_go_reads_it(text: str, value: object) -> None:
    [found] = helm.objects(f"{{apiVersion: v1, kind: A, metadata: {{name: a}}, x: {text}}}", "home")
    assert found["x"] == value


@pytest.mark.parametrize(
    "text", ["just: this", "- a", "plain", "{apiVersion: v1, kind: A}", "{apiVersion: v1, kind: List, items: [x]}"]
)
def test_what_is_no_object_is_wrong_input(text: str) -> None:
    with pytest.raises(InputWrong):
        helm.objects(text, "home")
