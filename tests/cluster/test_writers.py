"""One writer at a time, killed at any moment, with the least rights: the next run always goes on. On a small chart."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devenv.clients import shell
from devenv.paths import START
from tests.chart_servers import write
from tests.cluster.conftest import Environment
from tests.cluster.test_own_chart import WEB

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("web"), WEB)


def redeploy(env: Environment, chart: str, text: str) -> shell.Output:
    return env.inv("redeploy", "--chart", chart, "--set", f"text={text}", "--output", "json", temporal=False)


def started(env: Environment, chart: str, text: str) -> int:
    """A redeploy in the background: its pid."""
    argv = [
        sys.executable,
        str(START),
        "redeploy",
        "--context",
        "embedded",
        "--namespace",
        env.namespace,
    ]
    return os.spawnv(os.P_NOWAIT, sys.executable, [*argv, "--chart", chart, "--set", f"text={text}"])


def until_held(env: Environment) -> None:
    """Waits until a run is at work: it holds the Lease."""
    deadline = time.monotonic() + 30
    while not env.kubectl("get", "lease", "devenv-backend", "-o", "jsonpath={.spec.holderIdentity}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


MOMENTS = (0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.7, 2.2)


def test_killed_at_any_moment_the_next_run_goes_on(make_environment: Callable[[str], Environment], chart: str) -> None:
    env = make_environment("kill")
    redeploy(env, chart, "zero")
    for number, moment in enumerate(MOMENTS):
        pid = started(env, chart, f"killed-{number}")
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        left = env.inv("helm", "--", "history", "backend", "--max", "1", "-o", "json").stdout
        print(f"killed after {moment} s, left: {json.loads(left)[0]['status']}")
        output = redeploy(env, chart, f"next-{number}")
        assert output.code == 0
    assert (
        env.inv("plan", "--chart", chart, "--set", f"text=next-{number}", "--detailed-exitcode", temporal=False).code
        == 0
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_it_ends_with_130_and_leaves_no_release_pending(
    name: str, make_environment: Callable[[str], Environment], chart: str
) -> None:
    env = make_environment(name.lower())
    redeploy(env, chart, "zero")
    pid = started(env, chart, "interrupted")
    until_held(env)
    os.kill(pid, getattr(signal, name))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (130, 0)
    left = env.inv("helm", "--", "history", "backend", "--max", "1", "-o", "json").stdout
    assert not json.loads(left)[0]["status"].startswith("pending")
    assert redeploy(env, chart, "next").code == 0


def test_the_second_ctrl_c_ends_it_at_once_and_the_next_run_goes_on(
    make_environment: Callable[[str], Environment], chart: str
) -> None:
    env = make_environment("twice")
    redeploy(env, chart, "zero")
    pid = started(env, chart, "interrupted")
    until_held(env)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.02)
    asked = time.monotonic()
    os.kill(pid, signal.SIGINT)
    _, status = os.waitpid(pid, 0)
    assert time.monotonic() - asked < 0.5
    assert os.waitstatus_to_exitcode(status) in (130, 0)
    assert redeploy(env, chart, "next").code == 0


def test_two_at_once_both_succeed_one_after_the_other(
    make_environment: Callable[[str], Environment], chart: str
) -> None:
    env = make_environment("two")
    redeploy(env, chart, "zero")
    outputs: dict[str, shell.Output] = {}

    def run(text: str) -> None:
        outputs[text] = redeploy(env, chart, text)

    threads = [threading.Thread(target=run, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [output.code for output in outputs.values()] == [0, 0]
    assert sorted(json.loads(output.stdout)["revision"] for output in outputs.values()) == [2, 3]


@pytest.mark.parametrize("own", [False, True], ids=["of the bundled chart", "of one's own chart, and for its tests"])
def test_the_printed_role_is_enough_for_a_redeploy(
    make_environment: Callable[[str], Environment], chart: str, tmp_path: Path, running: Any, own: bool
) -> None:
    env = make_environment(f"rbac-{'own' if own else 'bundled'}")
    words = ["--chart", chart] if own else []
    env.inv("kubectl", "--", "create", "namespace", env.namespace)
    manifest = tmp_path / "rbac.yaml"
    manifest.write_text(env.inv("rbac", *words).stdout)
    env.kubectl("apply", "-f", str(manifest))
    token = env.kubectl("create", "token", "devenv").strip()
    admin = json.loads(env.inv("kubectl", "--", "config", "view", "--raw", "-o", "json").stdout)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "kind-ci",
        "clusters": [{"name": "c", "cluster": admin["clusters"][0]["cluster"]}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "kind-ci", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    file = tmp_path / "config"
    file.write_text(json.dumps(config))
    argv: list[str | Path] = [sys.executable, START, "redeploy", "--namespace", env.namespace, *words]
    output = shell.run(argv, env={"KUBECONFIG": str(file), "HOME": str(tmp_path), "ENABLE_TEMPORAL": "false"})
    print(output.stderr)
    assert output.code == 0
    env.inv(
        "kubectl", "--", "delete", f"clusterrole/devenv-{env.namespace}", f"clusterrolebinding/devenv-{env.namespace}"
    )
