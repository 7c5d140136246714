"""The Go parts of the embedded cluster pass their own tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from devenv.clients import shell
from devenv.cluster import gobuild, programs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="the supervisor's tests mount, and make cgroups"
    ),
]


def test_the_parts_of_the_node_pass_their_own_tests() -> None:
    """With the flags of the programs, so that Go compiles nothing twice."""
    command: list[str | Path] = [programs.path("go"), "test", gobuild.COMPILER_FLAGS, "./..."]
    output = shell.run(command, env=gobuild._environment(), cwd=gobuild.MODULES / "node")
    print(output.stdout)
    assert output.code == 0, output.stdout + output.stderr
    for part in ("balancer", "policy", "provisioner", "quiet", "supervisor"):
        assert f"ok  \tdevenv/node/{part}" in output.stdout
