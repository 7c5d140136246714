"""What the backend does with a request, whoever asks. Reaches PostgreSQL through store and Temporal through runner."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import CancelledError
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from . import store
from .errors import Unavailable, Unusable
from .settings import Settings

if TYPE_CHECKING:
    from .runner import Runner

ANSWER_SECONDS = 30.0
INTERRUPTED_SECONDS = 15.0


@dataclass(frozen=True)
class Service:
    """`runner` is None where Temporal is off: then the process that takes a request also does its work."""

    settings: Settings
    runner: Runner | None
    stopping: Event


def ready(service: Service) -> list[str]:
    """Why requests cannot be served here now; empty when they can."""
    if service.stopping.is_set():
        return ["stopping"]
    problems = []
    try:
        store.check(service.settings.database)
    except Unusable as error:
        problems.append(str(error))
    if service.runner is not None and (problem := service.runner.problem()):
        problems.append(problem)
    return problems


def take(service: Service, name: str, *, pinned: bool) -> dict[str, Any]:
    """Stores the request, has it worked on, and waits for that; `state` says whether it was done in time."""
    settings = service.settings
    request = store.add(settings.database, name, temporal=service.runner is not None, served_by=settings.template)
    if service.runner is None:
        return _row(store.finish(settings.database, request.id, settings.template, temporal=False))
    try:
        workflow_id, run_id = service.runner.begin(request.id, pinned=pinned)
    except Unavailable as error:
        raise Unavailable(f"request {request.id} is kept, and runs as soon as it can: {error}") from error
    store.started(settings.database, request.id, workflow_id, run_id)
    _await(service, workflow_id, run_id)
    return _row(store.get(settings.database, request.id))


def _await(service: Service, workflow_id: str, run_id: str) -> None:
    """Waits for the workflow's end, but not longer than the client and a stop of this process allow."""
    assert service.runner is not None
    future = service.runner.result(workflow_id, run_id)
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline and not (service.stopping.is_set() and future.done()):
        try:
            future.result(0.25)
        except TimeoutError:
            if service.stopping.is_set():
                deadline = min(deadline, time.monotonic() + 5)
            continue
        except CancelledError:
            return
        except Exception as error:  # the workflow failed, in whatever way: the row tells how far it came
            raise Unavailable(f"workflow {workflow_id} failed: {error}") from error
        return
    future.cancel()


def show(service: Service, request_id: uuid.UUID) -> dict[str, Any] | None:
    """The row, and whether Temporal's visibility lists its run."""
    request = store.get(service.settings.database, request_id)
    if request is None:
        return None
    listed = False
    if service.runner is not None and request.workflow_id and request.run_id:
        listed = service.runner.listed(request.workflow_id, request.run_id)
    return {**request.json(), "listed": listed}


def latest(service: Service) -> list[dict[str, Any]]:
    return [request.json() for request in store.latest(service.settings.database, 50)]


def keep(service: Service, seconds: float) -> None:
    """Makes the table where it is missing, and takes up requests that were interrupted `seconds` ago or earlier."""
    database = service.settings.database
    try:
        requests = store.unfinished(database, seconds)
    except Unusable:
        store.prepare(database)
        requests = store.unfinished(database, seconds)
    for request in requests:
        if service.runner is None:
            store.finish(database, request.id, service.settings.template, temporal=False)
        else:
            workflow_id, run_id = service.runner.begin(request.id, pinned=False)
            if run_id != request.run_id:
                store.started(database, request.id, workflow_id, run_id)
                print(f"request {request.id} is taken up again by {workflow_id}", flush=True)


def _row(request: store.Request | None) -> dict[str, Any]:
    if request is None:
        raise Unusable("the request's row is gone: the table was emptied meanwhile")
    return request.json()
