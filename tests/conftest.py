"""What all tests share: a clean environment, so that no variable of the developer's machine decides a test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from devenv.settings import KNOWN


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*KNOWN, "HELM_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    yield
    assert dict(os.environ).keys() >= before.keys() - {"PYTEST_CURRENT_TEST"}
