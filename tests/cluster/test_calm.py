"""No false alarm: healthy rollouts while every processor is busy, one after the other, in some namespaces side by side.

What is rolled out each time is slow in all the ways in which healthy things are: a hook first, a Job, a program that
starts late, one that crashes once before what it waits for is there, one without a readiness probe.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devenv.broken import SERVE, Object, app, job, python
from devenv.clients import shell
from devenv.failures import chart
from tests.cluster.conftest import Environment
from tests.conftest import measured

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ROLLOUTS, SIDE_BY_SIDE = 50, 3
BURNERS = os.cpu_count() or 1
PROBE: Object = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
LATE = f"import time; time.sleep(4); {SERVE}"
ONCE_MORE = f"import os, sys\nif not os.path.exists('/s/x'): open('/s/x', 'w'); sys.exit('not yet')\n{SERVE}"


@pytest.fixture
def busy() -> Iterator[None]:
    """Every processor is wanted by a program that does nothing else, beside all that the rollouts do."""
    burners = [shell.Running([sys.executable, "-c", "while True: pass"]) for _ in range(BURNERS)]
    yield
    for burner in burners:
        burner.stop()
        burner.wait()


def healthy(number: int) -> list[Object]:
    """The same objects, all of them new for each number."""
    env = [{"name": "NUMBER", "value": str(number)}]
    crashes = app(
        "crashes-once",
        command=python(ONCE_MORE),
        env=env,
        readinessProbe=PROBE,
        pod={"volumes": [{"name": "s", "emptyDir": {}}]},
    )
    crashes["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "s", "mountPath": "/s"}]
    hook, once = job("print('a hook')", hook="pre-install,pre-upgrade"), job("print('a Job')")
    hook["metadata"]["name"], once["metadata"]["name"] = "hook", f"once-{number}"
    return [
        app("late", command=python(LATE), env=env, readinessProbe=PROBE),
        app("unprobed", env=env),
        crashes,
        hook,
        once,
    ]


def test_50_healthy_rollouts_under_load_raise_no_alarm(
    make_environment: Callable[[str], Environment], busy: None, tmp_path: Path
) -> None:
    alarms: list[str] = []
    seconds: list[float] = []

    def roll(place: int) -> None:
        env = make_environment(f"calm-{place}")
        for number in range(place, ROLLOUTS, SIDE_BY_SIDE):
            began = time.monotonic()
            folder = chart(tmp_path / f"{place}-{number}", healthy(number))
            output = env.inv("redeploy", "--chart", folder, "--output", "json", temporal=False)
            seconds.append(time.monotonic() - began)
            if output.code != 0:
                alarms.append(json.dumps(json.loads(output.stdout).get("failure")))

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(roll, range(SIDE_BY_SIDE)))
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    measured.append(
        f"{len(seconds)} healthy rollouts under load {load:.1f}: {len(alarms)} false alarms, "
        f"{min(seconds):.1f} to {max(seconds):.1f} s each"
    )
    assert len(seconds) == ROLLOUTS
    assert alarms == []
