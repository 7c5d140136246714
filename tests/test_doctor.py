"""doctor works on what is half broken: each reading stands for itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from devenv import doctor, look
from devenv.checks import FAIL, PASS, WARN, Answer
from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.doctor import Finding, Readings
from devenv.environment import Session, describe
from devenv.errors import Refused, StepFailed
from devenv.report import Screen
from devenv.settings import Flags
from devenv.target import Target
from tests.fake_api import FakeApi
from tests.test_schemas import validate
from tests.test_watch import deployment, listed

NAMESPACE = "/namespaces/devenv"
REVIEW = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi().start()
    for path, plural, _, _ in look.READS:
        fake.answers[f"GET {path}{NAMESPACE}/{plural}"] = listed()
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "2", "memory": "4Gi"}}
    fake.answers |= {
        "GET /version": (200, {"gitVersion": "v1.34.4"}),
        REVIEW: (201, {"status": {"allowed": True}}),
        "GET /api/v1/nodes": listed({"metadata": {"name": "one"}, "spec": {}, "status": ready}),
        "GET /api/v1/pods": listed(),
        f"GET /api/v1{NAMESPACE}/services": listed(),
        f"GET /apis/discovery.k8s.io/v1{NAMESPACE}/endpointslices": listed(),
        f"GET /api/v1{NAMESPACE}/secrets": listed(),
        "GET /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices": listed(),
    }
    yield fake
    fake.stop()


def readings(api: FakeApi, folder: Path) -> Readings:
    kubeconfig = api.kubeconfig(folder)
    helm = folder / "helm"
    helm.write_text("#!/bin/sh\ncase $1 in version) echo v4.1.4 ;; esac\n")
    helm.chmod(0o755)
    session = Session(
        Target("fake", kubeconfig, "", "a test"),
        Kube(kubeconfig, "fake"),
        Helm(helm, kubeconfig, "fake", "devenv"),
        "v1.34.4",
    )
    return Readings(describe(Flags()), session, doctor.READS)


def examine(api: FakeApi, folder: Path) -> list[Finding]:
    return doctor.examine(readings(api, folder))


def outcomes(found: list[Finding], check: str) -> list[str]:
    return [one.answer.outcome for one in found if one.check == check]


def test_an_empty_cluster_fails_in_nothing_and_says_what_is_not_there(api: FakeApi, tmp_path: Path) -> None:
    found = examine(api, tmp_path)
    assert [one for one in found if one.answer.outcome == FAIL] == []
    assert outcomes(found, "release") == [WARN]
    assert outcomes(found, "clock") == outcomes(found, "rights") == outcomes(found, "nodes") == [PASS]


def test_one_reading_that_fails_is_one_line_that_fails_and_the_others_go_on(api: FakeApi, tmp_path: Path) -> None:
    api.answers[f"GET /api/v1{NAMESPACE}/pods"] = (418, {"message": "no pods today"})
    found = examine(api, tmp_path)
    failed = [one for one in found if one.answer.outcome == FAIL]
    assert len(failed) == 1
    assert "no pods today" in failed[0].answer.says
    unknown = [one for one in found if one.answer.says.startswith("not known: ")]
    assert {"images", "volume"} <= {one.check for one in unknown}
    assert {one.answer.outcome for one in unknown} == {WARN}
    assert outcomes(found, "clock") == outcomes(found, "nodes") == [PASS]


def test_what_may_not_be_seen_is_no_failure(api: FakeApi, tmp_path: Path) -> None:
    api.answers["GET /api/v1/nodes"] = (403, {"message": "nodes is forbidden"})
    found = examine(api, tmp_path)
    assert outcomes(found, "nodes") == [WARN]
    assert not any(one.answer.outcome == FAIL for one in found)


def test_a_right_that_is_missing_is_named(api: FakeApi, tmp_path: Path) -> None:
    def review(body: Any) -> tuple[int, Any]:
        asked = body["spec"]["resourceAttributes"]
        allowed = asked["resource"] not in ("*", "leases") and asked["subresource"] != "exec"
        return 201, {"status": {"allowed": allowed}}

    api.answers[REVIEW] = review
    [rights] = [one for one in examine(api, tmp_path) if one.check == "rights"]
    assert rights.answer.outcome == FAIL
    assert rights.answer.says == "these credentials may not: create pods/exec, get leases, create leases, update leases"


def test_a_release_that_is_not_ready_fails(api: FakeApi, tmp_path: Path) -> None:
    import base64
    import gzip

    manifest = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app}\nspec: {}\n"
    content = {"version": 1, "info": {"status": "deployed"}, "manifest": manifest}
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(content).encode()))).decode()
    meta = {
        "name": "sh.helm.release.v1.backend.v1",
        "labels": {"owner": "helm", "name": "backend", "version": "1", "status": "deployed"},
    }
    api.answers[f"GET /api/v1{NAMESPACE}/secrets"] = listed({"metadata": meta})
    api.answers[f"GET /api/v1{NAMESPACE}/secrets/{meta['name']}"] = (
        200,
        {"metadata": meta, "data": {"release": packed}},
    )
    api.answers[f"GET /apis/apps/v1{NAMESPACE}/deployments"] = listed(deployment(0))
    found = examine(api, tmp_path)
    assert outcomes(found, "components") == [FAIL]
    assert outcomes(found, "release") == [PASS]


def test_a_reading_that_never_ends_is_not_waited_for(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.5)
    monkeypatch.setitem(doctor.READS, "helm", lambda _: time.sleep(30))
    began = time.monotonic()
    found = examine(api, tmp_path)
    assert time.monotonic() - began < 5
    [versions] = [one for one in found if one.check == "versions"]
    assert versions.answer.says.startswith("no answer within")


def test_the_servers_clock_is_read_from_its_answer(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from http.server import BaseHTTPRequestHandler

    monkeypatch.setattr(
        BaseHTTPRequestHandler, "date_time_string", lambda *_: formatdate(time.time() + 60, usegmt=True)
    )
    [clock] = [one for one in examine(api, tmp_path) if one.check == "clock"]
    assert clock.answer.outcome == WARN
    assert "ahead of" in clock.answer.says


FOUND = [
    Finding("clock", Answer(PASS, "in step")),
    Finding("nodes", Answer(WARN, "not ready: one", "kubectl describe node one")),
    Finding("nodes", Answer(FAIL, "a long story " * 12, "a long command " * 8)),
]


def test_the_record_is_as_its_schema_says() -> None:
    record = doctor.record(describe(Flags()).desired, FOUND, 1.23)
    validate("doctor", record)
    assert record["healthy"] is False
    validate("doctor", doctor.record(describe(Flags()).desired, FOUND[:2], 1.0))
    assert doctor.record(describe(Flags()).desired, FOUND[:2], 1.0)["healthy"] is True


def test_80_columns_and_no_colour_are_enough(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    doctor.show(doctor.record(describe(Flags()).desired, FOUND, 1.23), Screen(plain=True, color=False))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[:3] == [
        "clock      ok    in step",
        "nodes      warn  not ready: one",
        "                 next  kubectl describe node one",
    ]
    assert lines[-1] == "1 ok, 1 warning, 1 failed · 1.2 s"


def test_a_cause_that_several_checks_share_fails_once() -> None:
    first = doctor._broken(Refused("PostgreSQL does not run", where="pod x", next="inv logs postgresql"), again=False)
    again = doctor._broken(StepFailed("PostgreSQL does not run", where="pod x"), again=True)
    assert (first.outcome, again.outcome) == (FAIL, WARN)
    assert first.next == "inv logs postgresql"
