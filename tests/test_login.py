"""Login plugins of a kubeconfig: run once, run again when what they gave expired, and never quoted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv.clients import login
from devenv.clients.kube import Denied, Kube
from devenv.errors import Refused
from tests.fake_api import FakeApi

API = "client.authentication.k8s.io/v1"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi().start()
    fake.answers["GET /version"] = (200, {"gitVersion": "v1.34.4"})
    yield fake
    fake.stop()


def plugin(folder: Path, script: str, **more: Any) -> dict[str, Any]:
    program = folder / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"apiVersion": API, "command": str(program), "interactiveMode": "Never", **more}


def credential(**status: str) -> str:
    return "echo '" + json.dumps({"apiVersion": API, "kind": "ExecCredential", "status": status}) + "'"


def kube(api: FakeApi, folder: Path, exec: dict[str, Any]) -> Kube:
    file = api.kubeconfig(folder)
    config = json.loads(file.read_text())
    config["users"][0]["user"] = {"exec": exec}
    file.write_text(json.dumps(config))
    return Kube(file, "fake")


REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "is not there": ("", {"command": "nope-plugin"}, "nope-plugin is not there", "no such program"),
    "may not be run": ("", {"command": __file__}, "is not there", "may not be run"),
    "is no program": ("", {"command": "{folder}/binary"}, "failed", "exit code 126"),
    "fails": ("echo hunter22; echo hunter22 >&2; exit 7", {}, "failed", "exit code 7"),
    "prints no credential": ("echo hunter22", {}, "gave no credential", "is no ExecCredential"),
    "prints another version": (credential(token="hunter22").replace("/v1", "/v1beta1"), {}, "gave no credential", API),
    "prints an empty credential": (credential(), {}, "gave no credential", API),
    "prints a list": ("echo '[]'", {}, "gave no credential", API),
    "wants a terminal": ("", {"interactiveMode": "Always"}, "wants a terminal", "Always"),
    "is not named": ("", {"command": ""}, "is not named", "needs command"),
    "never ends": ("echo hunter22; exec sleep 60", {}, "does not end", "wait for somebody to log in"),
}


@pytest.mark.parametrize(("script", "more", "what", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_plugin_is_refused_that(
    api: FakeApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    script: str,
    more: dict[str, Any],
    what: str,
    why: str,
) -> None:
    monkeypatch.setattr(login, "PATIENCE", 0.5)
    (tmp_path / "binary").write_bytes(b"\x7fNOPE")
    (tmp_path / "binary").chmod(0o755)
    given = {key: text.format(folder=tmp_path) for key, text in more.items()}
    with pytest.raises(Refused) as refused:
        kube(api, tmp_path, plugin(tmp_path, script, **given))
    told, shown = refused.value, capfd.readouterr()
    assert what in told.what
    assert why in told.why
    assert told.where == "context fake, exec"
    assert told.next
    assert "hunter22" not in str(told.record()) + shown.out + shown.err
    assert api.asked == []


def test_who_installs_a_plugin_is_said_by_the_kubeconfig(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        kube(api, tmp_path, {"apiVersion": API, "command": "nope", "installHint": "brew install nope\nor not"})
    assert refused.value.next == "brew install nope"


def test_what_a_plugin_prints_beside_its_credential_is_not_shown(
    api: FakeApi, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = f"echo hunter22 >&2; {credential(token='t')}"
    assert kube(api, tmp_path, plugin(tmp_path, script)).get("/version") == {"gitVersion": "v1.34.4"}
    shown = capfd.readouterr()
    assert shown.out + shown.err == ""


def test_a_plugin_is_told_what_it_asked_for(api: FakeApi, tmp_path: Path) -> None:
    script = f'printf %s "$KUBERNETES_EXEC_INFO" > {tmp_path}/info; echo "$1 $MINE" > {tmp_path}/words; {credential(token="t")}'
    kube(
        api,
        tmp_path,
        plugin(tmp_path, script, args=["one"], env=[{"name": "MINE", "value": "two"}], provideClusterInfo=True),
    )
    info = json.loads((tmp_path / "info").read_text())
    assert info["spec"]["cluster"]["server"].startswith("http://127.0.0.1:")
    assert info["spec"]["interactive"] is False
    assert (tmp_path / "words").read_text() == "one two\n"


def test_a_credential_that_expired_is_made_anew_once(api: FakeApi, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/runs; {credential(token='t')}"
    reached = kube(api, tmp_path, plugin(tmp_path, script))
    answers = iter([(200, {}), (401, {"message": "Unauthorized"}), (200, {"ok": True})])
    api.answers["GET /x"] = lambda _: next(answers)
    reached.get("/x")
    assert reached.get("/x") == {"ok": True}
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_a_credential_that_is_refused_again_ends_it(api: FakeApi, tmp_path: Path) -> None:
    reached = kube(api, tmp_path, plugin(tmp_path, f"echo x >> {tmp_path}/runs; {credential(token='t')}"))
    api.answers["GET /x"] = (401, {"message": "Unauthorized"})
    for _ in range(3):
        with pytest.raises(Denied, match="refuses these credentials") as denied:
            reached.get("/x")
    assert "log in again" in denied.value.next
    assert len((tmp_path / "runs").read_text().split()) == 2


def test_a_fixed_token_is_not_tried_twice(api: FakeApi, tmp_path: Path) -> None:
    reached = Kube(api.kubeconfig(tmp_path), "fake")
    api.answers["GET /x"] = (401, {"message": "Unauthorized"})
    with pytest.raises(Denied):
        reached.get("/x")
    assert api.asked == ["GET /x"]
