"""The proof beside a backend of the user's own: a workflow that Temporal's own worker finds and ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from devenv import environment, proof
from devenv.clients.shell import Output
from devenv.errors import RolloutFailed
from devenv.model import Desired
from devenv.settings import Flags


@pytest.fixture
def desired() -> Desired:
    described = environment.describe(Flags()).desired
    return described._replace(timeouts={"proof": 0.5})


class Temporal:
    """Answers the CLI's calls in order, each as often as it is asked; the last answer stays."""

    def __init__(self, **answers: Sequence[Output]) -> None:
        self.answers: dict[str, Iterator[Output]] = {name: iter(outputs) for name, outputs in answers.items()}
        self.last: dict[str, Output] = {}
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *words: str) -> Output:
        self.asked.append(words)
        name = words[1]
        self.last[name] = next(self.answers[name], self.last.get(name, Output(1, "", "unasked")))
        output = self.last[name]
        workflow = next((word for word in self.asked[0] if word.startswith("devenv-smoke-")), "")
        return output._replace(stdout=output.stdout.replace("WORKFLOW", workflow))


STARTED = Output(0, json.dumps({"runId": "run-1"}), "")
LISTED = Output(0, '[{"workflowId": "WORKFLOW"}]', "")
BATCH = Output(0, "Started batch for job ID: 1", "")
RUNNING = Output(0, '{"status": "WORKFLOW_EXECUTION_STATUS_RUNNING"}', "")
ENDED = Output(0, '{"status": "WORKFLOW_EXECUTION_STATUS_TERMINATED"}', "")
GOOD: dict[str, Sequence[Output]] = {
    "start": [STARTED], "list": [LISTED], "terminate": [BATCH], "describe": [RUNNING, ENDED]
}  # fmt: skip


def prove(desired: Desired, **answers: Sequence[Output]) -> tuple[proof.Proof, Temporal]:
    temporal = Temporal(**{**GOOD, **answers})
    return proof.own(temporal, desired, lambda _: None), temporal


def test_it_is_started_found_by_visibility_and_ended_by_a_batch(desired: Desired) -> None:
    proven, temporal = prove(desired)
    assert proven.workflow.startswith("devenv-smoke-")
    assert (proven.run, proven.request) == ("run-1", "")
    assert [words[1] for words in temporal.asked] == ["start", "list", "terminate", "describe", "describe"]
    assert all(words[words.index("--namespace") :][:2] == ("--namespace", "default") for words in temporal.asked)


PASSING: dict[str, dict[str, Sequence[Output]]] = {
    "the namespace is not known to all servers yet": {
        "start": [Output(1, "", "Namespace default is not found"), STARTED]
    },
    "visibility lists it late": {"list": [Output(0, "[]", ""), LISTED]},
}


@pytest.mark.parametrize("answers", PASSING.values(), ids=PASSING.keys())
def test_it_is_asked_again_when(desired: Desired, answers: dict[str, Any]) -> None:
    proven, _ = prove(desired, **answers)
    assert proven.run == "run-1"


FAILING: dict[str, tuple[dict[str, Sequence[Output]], str]] = {
    "no server answers": ({"start": [Output(1, "", "connection refused")]}, "workflow start: connection refused"),
    "the worker does not work": ({"describe": [RUNNING]}, "workflow describe"),
    "visibility never lists it": ({"list": [Output(0, "[]", "")]}, "workflow list"),
}


@pytest.mark.parametrize(("answers", "why"), FAILING.values(), ids=FAILING.keys())
def test_nothing_is_proven_when(desired: Desired, answers: dict[str, Any], why: str) -> None:
    with pytest.raises(RolloutFailed) as failed:
        prove(desired, **answers)
    assert why in failed.value.why
