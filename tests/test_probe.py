"""The pod that asks an external PostgreSQL: only where it was not asked before, always removed, never in anybody's way."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from devenv import environment, preflight, probe
from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.environment import Session
from devenv.errors import Refused
from devenv.model import Desired, External
from devenv.report import Screen
from devenv.settings import Flags
from devenv.target import Target
from tests.fake_api import FakeApi
from tests.test_environment_chart import EXTERNAL, render

PODS = "/api/v1/namespaces/devenv/pods"
MEMORY = "/api/v1/namespaces/devenv/configmaps/backend-external-postgresql"
TEXTS = {"host": "db.example.com", "password": "hunter22"}
GIVEN = External("devenv/managed", "managed", copied=False, version="v1", texts=TEXTS)


@pytest.fixture
def ask(api: FakeApi, tmp_path: Path) -> Any:
    kubeconfig = api.kubeconfig(tmp_path)
    session = Session(
        Target("fake", kubeconfig, "", ""),
        Kube(kubeconfig, "fake"),
        Helm(Path("helm"), kubeconfig, "fake", "devenv"),
        "v1",
    )

    def run(given: External | None = GIVEN, *, worked: bool = True) -> str:
        desired: Desired = environment.describe(Flags()).desired._replace(external=given)
        out = io.StringIO()
        probe.ask(session, desired, Screen(plain=True, color=False, stream=out), render(EXTERNAL), worked=worked)
        return out.getvalue()

    return run


def pod(**status: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"metadata": {"name": "p", "creationTimestamp": ""}, "status": status}


def created(api: FakeApi, **status: Any) -> list[dict[str, Any]]:
    """Takes any pod; it is then seen with this status."""
    made: list[dict[str, Any]] = []

    def create(body: dict[str, Any]) -> tuple[int, Any]:
        made.append(body)
        api.answers[f"GET {PODS}/{body['metadata']['name']}"] = pod(**status)
        return 201, body

    api.answers[f"POST {PODS}"] = create
    return made


def pods_touched(api: FakeApi) -> list[str]:
    return [line for line in api.asked if PODS in line and not line.startswith("GET")]


def test_an_internal_database_is_not_asked(api: FakeApi, ask: Any) -> None:
    ask(None)
    assert api.asked == []


def test_what_served_before_with_this_version_of_the_secret_is_not_asked_again(api: FakeApi, ask: Any) -> None:
    question = preflight.question(render(EXTERNAL), {"Secret/managed": TEXTS}, GIVEN.source)
    assert question is not None
    api.answers[f"GET {MEMORY}"] = (200, {"data": {probe.ASKED: question.key("v1")}})
    ask()
    assert pods_touched(api) == []
    api.answers[f"POST {PODS}"] = (403, {"message": "no"})
    ask(GIVEN._replace(version="v2"))
    assert api.asked.count(f"POST {PODS}") == 1
    ask(worked=False)  # a release that failed may have left the database as it was not before
    assert api.asked.count(f"POST {PODS}") == 2


def test_where_no_pod_may_be_made_that_is_said_and_the_run_goes_on(api: FakeApi, ask: Any) -> None:
    api.answers[f"POST {PODS}"] = (403, {"message": "pods is forbidden"})
    told = ask()
    assert "could not be asked beforehand" in told
    assert "pods is forbidden" in told
    assert not [line for line in api.asked if "configmaps" in line and not line.startswith("GET")]


def test_an_image_that_is_not_to_be_had_is_refused_and_the_pod_goes(api: FakeApi, ask: Any) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}
    status = {"name": "preflight", "image": "devenv.local/postgres:18.6", "state": waiting}
    [] = made = created(api, phase="Pending", containerStatuses=[status])
    with pytest.raises(Refused, match="image to ask the database with") as refused:
        ask()
    assert refused.value.why == "no such host"
    name = made[0]["metadata"]["name"]
    assert f"DELETE {PODS}/{name}" in [line.partition("?")[0] for line in api.asked]


SERVER = {"of": "server", "number": 180006, "version": "18.6", "limit": 200, "reserved": 3, "others": 0}
SERVER |= {"gin": True, "createdb": True, "role_limit": -1}
NO_DATABASE = 'psql: error: FATAL:  database "x" does not exist\nfailed'
SERVES = f"in admin\n{json.dumps(SERVER)}\nin store\n{NO_DATABASE}\nin visibility\n{NO_DATABASE}\n"
WRONG = 'in admin\npsql: error: FATAL:  password authentication failed for user "postgres"\nfailed\n'


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, first on PATH; prints the file `answer`, keeps its arguments and its standard input."""
    program = tmp_path / "bin/kubectl"
    program.parent.mkdir()
    version = json.dumps({"clientVersion": {"gitVersion": "v1.34.4"}})
    program.write_text(
        f"""#!/bin/sh
case "$1" in version) echo '{version}'; exit 0;; esac
printf '%s\\n' "$@" >{tmp_path}/arguments
cat >{tmp_path}/stdin
cat {tmp_path}/answer
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_the_password_goes_in_by_standard_input_only_and_the_pod_goes(api: FakeApi, ask: Any, kubectl: Path) -> None:
    made = created(api, phase="Running")
    kept: list[dict[str, Any]] = []

    def keep(body: dict[str, Any]) -> tuple[int, Any]:
        kept.append(body)
        return 201, body

    api.answers[f"POST {MEMORY.rpartition('/')[0]}"] = keep
    left = [{"metadata": {"name": "left"}, "status": {"phase": "Failed"}}]
    other = [{"metadata": {"name": "other"}, "status": {"phase": "Running"}}]
    api.answers[f"GET {PODS}"] = (200, {"items": [*left, *other]})
    (kubectl / "answer").write_text(SERVES)
    told = ask()
    assert "db.example.com opens for postgres" in told
    assert "PostgreSQL 18.6, TLS, 60 of 200 connections" in told
    assert "hunter22" in (kubectl / "stdin").read_text()
    assert "hunter22" not in (kubectl / "arguments").read_text() + json.dumps([made, kept]) + told
    gone = {line.partition("?")[0].rpartition("/")[2] for line in api.asked if line.startswith("DELETE")}
    assert gone == {made[0]["metadata"]["name"], "left"}


def test_what_does_not_serve_is_refused_and_not_remembered_and_the_pod_goes(
    api: FakeApi, ask: Any, kubectl: Path
) -> None:
    [] = made = created(api, phase="Running")
    (kubectl / "answer").write_text(WRONG)
    with pytest.raises(Refused, match="the password does not open the database") as refused:
        ask()
    assert refused.value.where == "PostgreSQL at db.example.com:5432, from devenv/managed"
    assert pods_touched(api)[-1].startswith(f"DELETE {PODS}/{made[0]['metadata']['name']}")
    assert not [line for line in api.asked if "configmaps" in line and not line.startswith("GET")]
