"""What the revisions of a release were, which one a rollback goes to, and what speaks against it."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from devenv import revisions
from devenv.clients import helm
from devenv.clients.kube import Kube
from devenv.databases import Database, Wanted
from devenv.errors import InputWrong, Refused, StepFailed
from devenv.revisions import Revision
from tests.fake_api import FakeApi
from tests.test_databases import MANIFEST

CONTENT: dict[str, Any] = {
    "name": "backend",
    "version": 3,
    "info": {
        "last_deployed": "2026-11-23T23:48:46.123456789Z",
        "status": "deployed",
        "description": "Upgrade complete",
    },
    "chart": {"metadata": {"name": "environment", "version": "0.1.0", "appVersion": "1.32"}},
    "config": {"global": {"temporal": {"enabled": True}, "postgresql": {"enabled": True}}},
    "manifest": "---\nkind: A\n",
}


def packed(content: dict[str, Any]) -> str:
    return base64.b64encode(base64.b64encode(gzip.compress(json.dumps(content).encode()))).decode()


def stored(api: FakeApi, folder: Path, data: str) -> list[tuple[dict[str, Any], dict[str, str]]]:
    secret = {"metadata": {"name": "sh.helm.release.v1.backend.v3", "labels": {"devenv.inputs": "3-abc"}}}
    api.answers["GET /api/v1/namespaces/n/secrets"] = (200, {"items": [{**secret, "data": {"release": data}}]})
    return helm.kept(Kube(api.kubeconfig(folder), "fake"), "n", "backend")


def test_a_revision_is_read_from_what_helm_keeps(api: FakeApi, tmp_path: Path) -> None:
    [(content, labels)] = stored(api, tmp_path, packed(CONTENT))
    one = revisions.read(content, labels, bundled=True)
    assert one.record() == {
        "revision": 3,
        "at": "2026-11-23T23:48:46.123456789Z",
        "status": "deployed",
        "description": "Upgrade complete",
        "chart": "environment 0.1.0",
        "appVersion": "1.32",
        "temporal": "on",
        "database": "internal",
        "byDevenv": True,
    }
    assert "labelSelector=owner%3Dhelm%2Cname%3Dbackend" in api.asked[0]


def test_a_label_that_helm_carried_forward_is_not_taken_for_devenvs() -> None:
    """A rollback by Helm has the labels of the revision that it goes back to."""
    assert not revisions.read({**CONTENT, "version": 5}, {"devenv.inputs": "3-abc"}, bundled=True).by_devenv


def test_a_chart_of_the_users_own_has_no_temporal_and_no_database() -> None:
    one = revisions.read({**CONTENT, "config": None}, {}, bundled=False)
    assert (one.temporal, one.database) == ("", "")


def test_what_cannot_be_read_is_named(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as failed:
        stored(api, tmp_path, base64.b64encode(b"nothing of Helm's").decode())
    assert failed.value.where == "Secret sh.helm.release.v1.backend.v3"


@pytest.mark.parametrize("at", ["2026-11-23T23:48:46.123456789Z", "2026-11-23T23:48:46+01:00"])
def test_the_time_is_told_to_the_second(at: str) -> None:
    assert len(revisions.moment(at)) == len("2026-11-23 23:48:46")


def test_a_time_that_is_none_stays() -> None:
    assert revisions.moment("whenever") == "whenever"


BASE = revisions.read(CONTENT, {}, bundled=True)


def some(*entries: tuple[int, str]) -> list[Revision]:
    return [BASE._replace(number=number, status=status) for number, status in entries]


THREE = some((1, "superseded"), (2, "failed"), (3, "deployed"))
CHOSEN: dict[str, tuple[list[Revision], str, int]] = {
    "the last good one": (THREE, "", 1),
    "the newest of the good": (some((1, "superseded"), (2, "superseded"), (3, "failed")), "", 2),
    "one by its number": (THREE, "2", 2),
}


@pytest.mark.parametrize(("there", "wanted", "number"), CHOSEN.values(), ids=CHOSEN.keys())
def test_a_rollback_goes_to(there: list[Revision], wanted: str, number: int) -> None:
    assert revisions.choose(there, wanted, "here").number == number


NOT_CHOSEN: dict[str, tuple[list[Revision], str, type[Exception]]] = {
    "the current one": (THREE, "3", Refused),
    "one that is not there": (THREE, "9", InputWrong),
    "what is no number": (THREE, "two", InputWrong),
    "a number in other letters": (THREE, "２", InputWrong),
    "anything, where there is one only": (some((1, "deployed")), "", Refused),
    "anything, where nothing ever worked": (some((1, "failed"), (2, "failed")), "", Refused),
}


@pytest.mark.parametrize(("there", "wanted", "error"), NOT_CHOSEN.values(), ids=NOT_CHOSEN.keys())
def test_a_rollback_does_not_go_to(there: list[Revision], wanted: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        revisions.choose(there, wanted, "here")


STORE = Wanted("temporal", "temporal")
OBJECTIONS: dict[str, tuple[str, bool]] = {
    "1.19": (("1.19"), False),
    "newer": ("1.25", False),
    "none": ("", False),
    "older": ("1.18", True),
}


@pytest.mark.parametrize(("version", "objects"), OBJECTIONS.values(), ids=OBJECTIONS.keys())
def test_a_server_starts_on_a_newer_schema_and_not_on_an_older_one(version: str, objects: bool) -> None:
    told = revisions.schema_objection(MANIFEST, [Database(STORE, bool(version), version)])
    assert bool(told) is objects


def test_what_a_rollback_does_not_undo_is_said_with_the_schemas() -> None:
    found = [Database(STORE, True, "1.19"), Database(Wanted("backend", "backend"), True)]
    said = "a rollback does not undo schemas and data: they stay as they are"
    assert revisions.stays(found) == f"{said} (temporal 1.19)"
    assert revisions.stays([]) == said


def test_a_target_without_temporal_objects_to_nothing() -> None:
    assert revisions.schema_objection([], [Database(STORE, True, "1.1")]) == ""


WARNED: dict[str, tuple[Revision, str]] = {
    "the same kind": (BASE._replace(temporal="off"), ""),
    "another database": (BASE._replace(database="external"), "stays behind"),
    "one that failed": (BASE._replace(status="failed"), "never worked"),
}


@pytest.mark.parametrize(("target", "told"), WARNED.values(), ids=WARNED.keys())
def test_a_yes_is_wanted_for(target: Revision, told: str) -> None:
    warned = revisions.warnings(BASE, target)
    assert (not warned) if not told else told in warned[0]
