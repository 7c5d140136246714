"""Ring 3 runs on the embedded cluster: started once, by the same code that `inv cluster.up` runs.

On another than the default one where DEVENV_TEST_CLUSTER names it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devenv.clients import shell
from devenv.errors import Refused

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


@dataclass(frozen=True)
class Environment:
    """One namespace, and the command line bound to it."""

    namespace: str

    def inv(self, *words: str, temporal: bool = True, stdin: str | None = None, **env: str) -> shell.Output:
        """Runs a task in this namespace; what it printed is shown when the test fails."""
        task, rest = words[0], words[1:]
        argv: list[str | Path] = [
            sys.executable,
            PROJECT / "tasks.py",
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
