"""What a destroy waits for."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from devenv import destroy, environment, look
from devenv.clients.kube import Kube
from devenv.settings import Flags
from tests.fake_api import FakeApi

DESIRED = environment.describe(Flags()).desired._replace(namespace="n")
PODS = "/api/v1/namespaces/n/pods"
JOB = "backend-temporal-schema-setup-1"
MOMENT = 0.4  # seconds until the pod is gone

# A pod of the Job: what is known of it → whether it keeps a destroy waiting.
STATES: dict[str, tuple[str, bool, bool]] = {
    "runs": ("Running", False, True),
    "is told to end": ("Running", True, True),
    "ended, and its kubelet has not let go of it": ("Succeeded", True, True),
    "failed, and its kubelet has not let go of it": ("Failed", True, True),
    "ended, and nobody deletes it": ("Succeeded", False, False),
}


def listed(*items: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"metadata": {"resourceVersion": "1"}, "items": list(items)}


@pytest.mark.parametrize(("phase", "deleting", "waits"), STATES.values(), ids=STATES)
def test_it_waits_for_a_pod_that(api: FakeApi, kube: Kube, phase: str, deleting: bool, waits: bool) -> None:
    for path, plural, _, _ in look.READS:
        api.answers[f"GET {path}/namespaces/n/{plural}"] = listed()
    meta = {"name": JOB, "uid": "j", "labels": {"app.kubernetes.io/component": "schema"}}
    api.answers["GET /apis/batch/v1/namespaces/n/jobs"] = listed({"metadata": meta})
    api.answers[f"DELETE /apis/batch/v1/namespaces/n/jobs/{JOB}"] = (200, {})
    pod: dict[str, Any] = {"metadata": {"name": f"{JOB}-x", "uid": "p", "resourceVersion": "2"}}
    pod["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}
    pod["status"] = {"phase": phase}
    api.answers[f"GET {PODS}"] = listed(pod)

    def gone(_: Any) -> tuple[int, str]:
        time.sleep(MOMENT)
        return 200, json.dumps({"type": "DELETED", "object": pod}) + "\n"

    api.answers[f"WATCH {PODS}"] = gone
    said: list[str] = []
    began = time.monotonic()
    destroy.forget(kube, DESIRED, look.once(kube, "n"), said.append, clients=False)
    assert time.monotonic() - began >= MOMENT or not waits
    assert said[:1] == [f"waiting for 1 pods to end: {JOB}-x"][: int(waits)]
