# mypy: disable-error-code="untyped-decorator,no-any-return"
"""The workflow and its activity. The activity is where the outside is touched: the request's row.

A workflow that an old worker began is finished by a new one: keep the workflow's steps as they are, or version them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from . import store
from .settings import Settings


@workflow.defn(name="Request")
class RequestFlow:
    @workflow.run
    async def run(self, request_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = await workflow.execute_activity(
            "finish",
            request_id,
            result_type=dict[str, Any],
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10)),
        )
        return answer


def finisher(settings: Settings) -> Callable[[str], dict[str, Any]]:
    """The activity: does the work of the row and says which pod template did it."""

    @activity.defn(name="finish")
    def finish(request_id: str) -> dict[str, Any]:
        request = store.finish(settings.database, uuid.UUID(request_id), settings.template, temporal=True)
        if request is None:
            raise ApplicationError(f"request {request_id} is not in the table", non_retryable=True)
        return request.json()

    return finish
