"""A rollback refuses what it cannot bring back, and its failures are told as a redeploy's are. In order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devenv.broken import app
from devenv.failures import chart
from tests.cluster.conftest import Environment

pytestmark = pytest.mark.cluster

GONE = "devenv.local/gone:1"


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment]) -> Environment:
    return make_environment("rollback")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> str:
    return chart(tmp_path_factory.mktemp("good"), [app()])


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return chart(tmp_path_factory.mktemp("gone"), [app(image=GONE)])


def answer(env: Environment, *words: str, code: int = 0) -> dict[str, Any]:
    output = env.inv(*words, "--output", "json", temporal=False)
    assert output.code == code
    record: dict[str, Any] = json.loads(output.stdout)
    return record


def test_a_plan_refuses_an_image_that_nobody_gives_as_a_redeploy_does(env: Environment, gone: str) -> None:
    for task in ("plan", "redeploy"):
        failure = answer(env, task, "--chart", gone, code=3)["failure"]
        assert failure["reason"] == f"the image {GONE} cannot be had"


def test_so_does_a_rollback_and_nothing_is_touched(env: Environment, good: str, gone: str) -> None:
    answer(env, "redeploy", "--chart", good)
    assert env.inv("helm", "--", "upgrade", "backend", gone, temporal=False).code == 0
    answer(env, "redeploy", "--chart", good)
    failure = answer(env, "rollback", "2", "--chart", good, code=3)["failure"]
    assert failure["reason"] == f"the image {GONE} cannot be had"
    assert answer(env, "history", "--chart", good)["revisions"][-1]["revision"] == 3


def test_a_rollback_says_what_it_does_not_undo(env: Environment, good: str) -> None:
    output = env.inv("rollback", "1", "--chart", good, temporal=False)
    assert output.code == 0
    assert "a rollback does not undo schemas and data" in output.stderr


def test_terminal_json_and_report_tell_one_failure(env: Environment, good: str, tmp_path: Path) -> None:
    folder = chart(tmp_path, [app(command=["no-such-program"])])
    failure = answer(env, "redeploy", "--chart", folder, code=5)["failure"]
    shown = env.inv("redeploy", "--chart", folder, temporal=False)
    assert shown.code == 5
    report = next(line.split()[-1] for line in shown.stderr.splitlines() if line.startswith("report "))
    kept = json.loads((Path(report).expanduser().parent / "report.json").read_text())["failure"]
    for key in ("class", "reason", "hint"):
        assert kept[key] == failure[key]
    told = " ".join(shown.stderr.split())
    for key in ("reason", "object", "evidence", "hint"):
        assert " ".join(kept[key].split()) in told
