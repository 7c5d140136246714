"""Ring 3 runs on the embedded cluster: started once, by the same code that `inv cluster.up` runs.

On another than the default one where DEVENV_TEST_CLUSTER names it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devenv.clients import shell
from devenv.errors import Refused
from devenv.paths import START

PROJECT = Path(__file__).parent.parent.parent
CLUSTER = os.environ.get("DEVENV_TEST_CLUSTER", "default")
CONTEXT = "embedded" if CLUSTER == "default" else f"embedded-{CLUSTER}"


@pytest.fixture(scope="session")
def running() -> Any:
    """The running cluster with all images in it. Skipped with the reason where this machine cannot run it; never in CI."""
    from devenv.cluster import embedded, start

    try:
        embedded.check_host()
    except Refused as refused:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{refused.what}: {refused.next}")
    cluster = start.up(CLUSTER, lambda _: None)
    start.load_images(CLUSTER, lambda _: None, temporal=True)
    return cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A test that failed shows what its environment looks like then, for it is gone soon."""
    report = yield
    if report.when == "call" and report.failed:
        for one in {one for one in item.funcargs.values() if isinstance(one, Environment)}:  # type: ignore[attr-defined]
            report.sections.append((f"the namespace {one.namespace} then", one.now()))
    return report


@dataclass(frozen=True)
class Environment:
    """One namespace, and the command line bound to it."""

    namespace: str

    def inv(self, *words: str, temporal: bool = True, stdin: str | None = None, **env: str) -> shell.Output:
        """Runs a task in this namespace; what it printed is shown when the test fails."""
        task, rest = words[0], words[1:]
        argv: list[str | Path] = [
            sys.executable,
            START,
            task,
            "--context",
            CONTEXT,
            "--namespace",
            self.namespace,
            *rest,
        ]
        output = shell.run(argv, stdin=stdin, env={"ENABLE_TEMPORAL": str(temporal), **env})
        print(f"$ inv {' '.join(words)}\n{output.stdout}{output.stderr}[{output.code}]")
        return output

    def now(self) -> str:
        """Its pods and warnings, and what the pods that are not ready say."""

        def ask(*words: str) -> str:
            output = shell.run(
                [
                    sys.executable,
                    START,
                    "kubectl",
                    "--context",
                    CONTEXT,
                    "--namespace",
                    self.namespace,
                    "--",
                    *words,
                ]
            )
            return output.stdout + output.stderr

        pods = ask("get", "pods", "-o", "wide")
        waiting = [
            line.split()[0]
            for line in pods.splitlines()[1:]
            if re.search(r"\s(\d+)/(?!\1\s)\d+\s", line) and "Completed" not in line
        ]
        logs = [f"$ logs {name}\n{ask('logs', name, '--all-containers', '--tail=20')}" for name in waiting]
        events = ask("get", "events", "--sort-by=.metadata.creationTimestamp").splitlines()
        shown = [line[:160] for line in events if " Normal " not in line][-12:]
        return "\n".join([pods, *shown, *logs])

    def kubectl(self, *words: str) -> str:
        output = self.inv("kubectl", "--", *words)
        assert output.code == 0
        return output.stdout


@pytest.fixture(scope="module")
def make_environment(running: Any) -> Iterator[Callable[[str], Environment]]:
    """Makes environments in namespaces of their own; all go when the module's tests are over."""
    made: list[str] = []

    def make(name: str) -> Environment:
        namespace = f"test-{name}-{os.getpid()}"
        made.append(namespace)
        return Environment(namespace)

    yield make
    for namespace in made:
        Environment("default").inv(
            "kubectl", "--", "delete", "namespace", namespace, "--ignore-not-found", "--wait=false"
        )
