"""Proves that the environment works: a request through the backend, run as a workflow, stored and listed. Edge out.

The answer names the pod template that worked on it, so that an old worker cannot pass for the new one. Beside a backend
of the user's own, whose answers nobody here understands, it is a workflow of Temporal's own worker.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from devenv import charttest, look, watch
from devenv.clients import shell
from devenv.clients.kube import Kube
from devenv.clients.shell import Output
from devenv.environment import Session, kubectl_argv
from devenv.errors import Failure, RolloutFailed, StepFailed
from devenv.model import Desired, Snapshot
from devenv.report import Screen

PAUSE = 0.3  # seconds between two tries
Waits = Callable[[str], None]


class Proof(NamedTuple):
    """What was seen: the request, its workflow run (empty without Temporal), the pod template that ran it."""

    request: str
    workflow: str
    run: str
    template: str

    @property
    def lines(self) -> tuple[str, str]:
        if not self.request:
            return "workflow ran on Temporal's own worker, found by visibility", self.workflow
        if self.workflow:
            return "workflow ran through backend, listed by visibility", self.workflow
        return "request answered by backend from PostgreSQL", self.request


def prove(
    desired: Desired, session: Session, screen: Screen, *, temporal: bool, seen: Snapshot | None = None
) -> Proof | None:
    """A request through the backend, with `temporal` as a workflow; None where there is nothing that could be asked. A
    user's own chart is proven by the tests that it brings. `seen`: a picture of the pods that are to answer."""
    if not desired.bundled:
        charttest.prove(session, desired, screen)
        return None
    if not (desired.sample_backend or temporal):
        return None
    with screen.stage("proof") as stage:
        seen = seen or look.once(session.kube, desired.namespace)
        try:
            proven = _proven(desired, session, seen, stage.waits, temporal=temporal)
        except Failure:
            component = "backend" if desired.sample_backend else "worker"
            screen.tell(logs=watch.tails(session.kube, seen, component))
            raise
        stage.says(*proven.lines)
        screen.tell(proof=proven)
    return proven


def _proven(
    desired: Desired, session: Session, seen: Snapshot, waits: Callable[[str], None], *, temporal: bool
) -> Proof:
    if not desired.sample_backend:
        return own(partial(admintools, session, desired), desired, waits)
    waits("asking the backend")
    template = newest_template(seen, desired.release)
    return smoke(session.kube, desired, template, waits, temporal=temporal)


def admintools(session: Session, desired: Desired, *words: str) -> Output:
    """The temporal CLI in the admin tools pod, with these words."""
    target = f"deployment/{desired.release}-temporal-admintools"
    argv = kubectl_argv(session, desired.namespace, "exec", target, "-c", "admintools", "--", "temporal", *words)
    return shell.run(argv, timeout=30)


def newest_template(seen: Snapshot, release: str) -> str:
    """The newest pod template hash of the backend's Deployment; empty where there is none."""
    sets = [entry for entry in seen.replica_sets if entry.owner == f"Deployment/{release}"]
    return max(sets, key=lambda entry: entry.revision).template if sets else ""


def smoke(kube: Kube, desired: Desired, template: str, waits: Waits, *, temporal: bool) -> Proof:
    """Sends a request and follows it to its row and to Temporal's list. Raises RolloutFailed."""
    base = f"/api/v1/namespaces/{desired.namespace}/services/{desired.release}:http/proxy"
    deadline = time.monotonic() + desired.timeouts["proof"]
    why = ""
    while time.monotonic() < deadline:
        try:
            answer = kube.call(f"{base}/requests", "POST", {"name": "smoke", "pinned": True})
            why = _judge(answer, temporal, template)
            if not why:
                return _listed(kube, base, answer, temporal, deadline, waits)
        except StepFailed as error:
            why = error.why or error.what
        waits(f"waiting for a workflow through backend: {why}")
        time.sleep(PAUSE)
    raise _failed(desired, temporal, why)


def _judge(answer: dict[str, object], temporal: bool, template: str) -> str:
    """Empty when the answer is good, else what is wrong with it."""
    if not answer.get("result"):
        return f"the answer has no result: state {answer.get('state')}"
    if template and answer.get("template") != template:
        return f"still answered by the old pods (template {answer.get('template')})"
    if temporal and not (answer.get("temporal") and answer.get("runId")):
        return "the backend answered without Temporal"
    return ""


def _listed(kube: Kube, base: str, answer: dict[str, object], temporal: bool, deadline: float, waits: Waits) -> Proof:
    """The row must be there, and with Temporal on, visibility must list the run."""
    request = str(answer["id"])
    why = "the request's row is not there"
    while time.monotonic() < deadline:
        try:
            row = kube.call(f"{base}/requests/{request}")
            if row.get("result") == answer.get("result") and (row.get("listed") or not temporal):
                workflow, run = str(answer.get("workflowId") or ""), str(answer.get("runId") or "")
                return Proof(request, workflow, run, str(answer.get("template") or ""))
            why = "the workflow ran, but visibility does not list it yet"
        except Failure as error:
            why = error.why or error.what
        waits(why)
        time.sleep(PAUSE)
    raise StepFailed(why)


Cli = Callable[..., Output]  # the temporal CLI with these words


def own(cli: Cli, desired: Desired, waits: Waits) -> Proof:
    """Starts a workflow that nobody works on, and has Temporal's batch workflow find and end it. Raises RolloutFailed.

    That takes frontend, history, matching, the worker with its system workflow and activity, and visibility.
    Source: go.temporal.io/server/service/worker/batcher.
    """
    workflow = f"devenv-smoke-{uuid.uuid4()}"
    deadline = time.monotonic() + desired.timeouts["proof"]
    start = ("--type", "devenv-smoke", "--task-queue", "devenv-smoke", "--execution-timeout", "10m")
    waits("starting a workflow")
    started = _until(cli, ("workflow", "start", "--workflow-id", workflow, *start), "", deadline, desired)
    waits("waiting until a batch of Temporal's own worker ends it")
    query = ("--query", f"WorkflowId = '{workflow}'")
    _until(cli, ("workflow", "list", *query), workflow, deadline, desired)
    _until(cli, ("workflow", "terminate", *query, "--reason", "devenv's proof", "--yes"), "job ID", deadline, desired)
    _until(cli, ("workflow", "describe", "--workflow-id", workflow), "TERMINATED", deadline, desired)
    return Proof("", workflow, str(json.loads(started.stdout).get("runId", "")), "")


def _until(cli: Cli, words: tuple[str, ...], told: str, deadline: float, desired: Desired) -> Output:
    """The answer of a call that went well and tells what it must; asked again until then."""
    while True:
        output = cli(*words, "--namespace", "default", *(() if "terminate" in words else ("--output", "json")))
        if output.code == 0 and told in output.stdout + output.stderr:
            return output
        if time.monotonic() > deadline:
            raise RolloutFailed(
                f"no workflow could be proven within {desired.timeouts['proof']:.0f} s",
                where=f"Temporal of release {desired.release} in namespace {desired.namespace}",
                why=f"temporal {' '.join(words[:2])}: {output.last_line or 'it does not come to an end'}",
                next="inv temporal.health",
            )
        time.sleep(PAUSE)


def _failed(desired: Desired, temporal: bool, why: str) -> RolloutFailed:
    return RolloutFailed(
        f"no {'workflow' if temporal else 'request'} could be proven within {desired.timeouts['proof']:.0f} s",
        where=f"Deployment/{desired.release} in namespace {desired.namespace}",
        why=why,
        next="inv logs backend",
    )
