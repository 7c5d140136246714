"""Temporal: one client and two workers, in a thread with an event loop of its own; plain calls for the other threads.

One worker polls the queue that all pods share, so that any of them finishes what another began. The other polls a queue
of this pod template alone: a request pinned to it proves that this template works, whoever else is still around.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import TemporalError, WorkflowAlreadyStartedError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from .errors import Unavailable
from .flow import RequestFlow, finisher
from .settings import SHARED_QUEUE, Settings, Temporal

T = TypeVar("T")
CALL_SECONDS = 10
POLLING_SEEN_SECONDS = 5.0


class Runner:
    def __init__(self, settings: Settings, temporal: Temporal) -> None:
        self._settings = settings
        self._temporal = temporal
        # not the pod's name alone: the server remembers the pollers of a container that was restarted
        self._identity = f"{settings.pod}/{settings.template}/{uuid.uuid4().hex[:6]}"
        self._problem = f"Temporal at {temporal.address}: not connected yet"
        self._client: Client | None = None
        self._polling_seen = -POLLING_SEEN_SECONDS
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(),), name="temporal")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Lets activities under way end, then ends the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _live(self) -> None:
        while not self._stop.is_set():
            try:
                await self._work()
            except (RuntimeError, RPCError, TemporalError) as error:
                self._client = None
                problem = f"Temporal at {self._temporal.address}: {_short(error)}"
                if problem != self._problem:
                    print(problem, flush=True)
                self._problem = problem
                await _first(self._stop.wait(), asyncio.sleep(0.5))

    async def _work(self) -> None:
        """Connects and works until told to stop, or until a worker fails."""
        name = self._temporal.namespace
        client = await Client.connect(self._temporal.address, namespace=name, identity=self._identity)
        # A poll that comes before frontend's cache has a new namespace is put off for ten seconds. This asks whether
        # it has; to describe the namespace itself would ask the database.
        await self._not_polling(client)
        with ThreadPoolExecutor(8) as executor:
            workers = [
                Worker(
                    client,
                    task_queue=queue,
                    workflows=[RequestFlow],
                    activities=[finisher(self._settings)],
                    activity_executor=executor,
                    workflow_runner=UnsandboxedWorkflowRunner(),
                    max_concurrent_activities=4,
                    max_concurrent_workflow_task_polls=2,
                    max_concurrent_activity_task_polls=2,
                    graceful_shutdown_timeout=timedelta(seconds=10),
                )
                for queue in (SHARED_QUEUE, self._settings.own_queue)
            ]
            runs = [asyncio.create_task(worker.run()) for worker in workers]
            self._client = client
            self._problem = ""
            print(f"working for Temporal at {self._temporal.address} as {self._identity}", flush=True)
            await _first(self._stop.wait(), *runs)
            await asyncio.gather(*(worker.shutdown() for worker in workers if worker.is_running))
            await asyncio.gather(*runs)

    def problem(self) -> str:
        """Why requests would not be worked on by this process right now; empty when they would."""
        if self._client is None:
            return self._problem
        if time.monotonic() - self._polling_seen < POLLING_SEEN_SECONDS:
            return ""
        try:
            missing = self._call(self._not_polling(self._client), seconds=4)
        except Unavailable as error:
            return str(error)
        if missing:
            return f"Temporal at {self._temporal.address}: no worker of this pod polls {', '.join(missing)} yet"
        self._polling_seen = time.monotonic()
        return ""

    async def _not_polling(self, client: Client) -> list[str]:
        kinds = {
            "workflows": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
            "activities": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        }
        missing = []
        for queue in (SHARED_QUEUE, self._settings.own_queue):
            for kind, number in kinds.items():
                seen = await client.workflow_service.describe_task_queue(
                    DescribeTaskQueueRequest(
                        namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=number
                    )
                )
                if self._identity not in {poller.identity for poller in seen.pollers}:
                    missing.append(f"{queue} ({kind})")
        return missing

    def begin(self, request_id: uuid.UUID, *, pinned: bool) -> tuple[str, str]:
        """Starts the request's workflow, or finds it started; its workflow id and run id."""
        return self._call(self._begin(self._ready(), request_id, pinned), seconds=CALL_SECONDS)

    async def _begin(self, client: Client, request_id: uuid.UUID, pinned: bool) -> tuple[str, str]:
        workflow_id = f"request-{request_id}"
        try:
            handle = await client.start_workflow(
                "Request",
                str(request_id),
                id=workflow_id,
                task_queue=self._settings.own_queue if pinned else SHARED_QUEUE,
                # nobody may be left to poll the queue of an old template: then it is begun anew, on the shared one
                execution_timeout=timedelta(minutes=2) if pinned else timedelta(days=1),
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            )
        except WorkflowAlreadyStartedError as error:
            return workflow_id, error.run_id or ""
        return workflow_id, handle.result_run_id or ""

    def result(self, workflow_id: str, run_id: str) -> Future[Any]:
        """The workflow's result, to come."""
        handle = self._ready().get_workflow_handle(workflow_id, run_id=run_id)
        return asyncio.run_coroutine_threadsafe(handle.result(), self._loop)

    def listed(self, workflow_id: str, run_id: str) -> bool:
        """Whether visibility lists the run."""
        return self._call(self._listed(self._ready(), workflow_id, run_id), seconds=CALL_SECONDS)

    async def _listed(self, client: Client, workflow_id: str, run_id: str) -> bool:
        query = f"WorkflowId = '{workflow_id}' AND RunId = '{run_id}'"
        return any([True async for _ in client.list_workflows(query, limit=1)])

    def _ready(self) -> Client:
        if self._client is None:
            raise Unavailable(self._problem)
        return self._client

    def _call(self, work: Coroutine[Any, Any, T], *, seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            future.cancel()
            raise Unavailable(f"Temporal at {self._temporal.address}: no answer within {seconds:.0f} s") from error
        except (RPCError, RuntimeError, WorkflowFailureError) as error:
            raise Unavailable(f"Temporal at {self._temporal.address}: {_short(error)}") from error


async def _first(*works: Any) -> None:
    """Waits for the first to end; what else was only begun here is dropped, and a failure is raised."""
    tasks = {asyncio.ensure_future(work): isinstance(work, asyncio.Task) for work in works}
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        if not tasks[task]:
            task.cancel()
    for task in done:
        task.result()


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
