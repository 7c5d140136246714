"""What all tests share: a clean environment, so that no variable of the developer's machine decides a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.cluster import programs
from devenv.settings import KNOWN
from tests.fake_api import FakeApi

# Lines that tests measured, shown at the end of the run.
measured: list[str] = []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if measured:
        terminalreporter.section("measured")
        for line in measured:
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: Any) -> None:
    """What one of several processes measured goes to the one that shows it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["measured"] = measured


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    measured.extend(node.workeroutput.get("measured", []))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*KNOWN, "HELM_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    yield
    assert dict(os.environ).keys() >= before.keys() - {"PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="module")
def helm() -> Helm:
    """The real Helm, bound to no cluster."""
    return Helm(programs.path("helm"), Path("/nowhere"), "none", "none")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which Helm knows no repository and no login."""
    for name in ("HELM_CONFIG_HOME", "HELM_REPOSITORY_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An API server at the edge."""
    fake = FakeApi().start()
    yield fake
    fake.stop()


@pytest.fixture
def kube(api: FakeApi, tmp_path: Path) -> Kube:
    """A client of it."""
    return Kube(api.kubeconfig(tmp_path), "fake")
