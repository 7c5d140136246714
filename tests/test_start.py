"""Which clusters `redeploy` and `cluster.up` take as they are, and which they mend; the supervisor is a file or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devenv import environment, target
from devenv.cluster import embedded, images, programs, start
from devenv.errors import StepFailed
from devenv.report import Note
from devenv.target import Target
from tests.test_embedded import document, living, place

__all__ = ["place"]  # a fixture
ROWS = {
    "runs": (document(), []),
    "is sick": (document(phase="degraded"), ["up"]),
    "still starts": (document(phase="starting"), ["up"]),
}


@pytest.fixture
def started(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was started in the place of a real cluster."""
    calls: list[str] = []

    def up(name: str, have: Any, waits: Any, simulated: int) -> embedded.Cluster:
        calls.append("up")
        return embedded.Cluster(name, place / "kubeconfig", "https://10.213.0.2:6443", place / "socket", place)

    monkeypatch.setattr(embedded, "up", up)
    monkeypatch.setattr(programs, "ensure", lambda names, waits: dict.fromkeys(names, place))
    monkeypatch.setattr(images, "ensure_loaded", lambda *_: ())
    return calls


@pytest.mark.parametrize(("seen", "calls"), ROWS.values(), ids=ROWS.keys())
def test_redeploy_mends_a_cluster_unless_it(started: list[str], seen: dict[str, Any], calls: list[str]) -> None:
    with living(seen):
        environment._embedded(Target(target.EMBEDDED, None, "default", "asked"), programs.quiet, start=True)
    assert started == calls


@pytest.mark.parametrize(("had", "calls"), [("/now", []), ("/before", ["up"])], ids=["of now", "of before"])
def test_cluster_up_starts_a_cluster_anew_where_its_programs_are_not_those(
    started: list[str], monkeypatch: pytest.MonkeyPatch, had: str, calls: list[str]
) -> None:
    monkeypatch.setattr(programs, "places", lambda names: {name: Path("/now") / name for name in names})
    with living(document(programs={name: f"{had}/{name}" for name in embedded.PROGRAMS})):
        start.up("default", programs.quiet, renew=True)
        assert started == calls
        start.up("default", programs.quiet)
    assert started == calls


def test_what_changes_nothing_mends_nothing(started: list[str]) -> None:
    with living(document(phase="degraded")):
        environment._embedded(Target(target.EMBEDDED, None, "default", "asked"), programs.quiet, start=False)
    assert started == []


def test_a_start_that_failed_is_tried_again_only_where_programs_are_damaged(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, tries = embedded.up, []

    def fails_once(name: str, have: Any, waits: Any, simulated: int) -> embedded.Cluster:
        tries.append(name)
        if len(tries) == 1:
            raise StepFailed("cluster default does not start")
        return right(name, have, waits, simulated)

    monkeypatch.setattr(embedded, "up", fails_once)
    monkeypatch.setattr(programs, "forget_damaged", lambda names: [])
    with pytest.raises(StepFailed):
        start.up("default", programs.quiet)
    tries.clear()
    told: list[str] = []
    monkeypatch.setattr(programs, "forget_damaged", lambda names: ["devenv-node"])
    start.up("default", told.append)
    assert len(tries) == 2
    assert [line for line in told if isinstance(line, Note)] == ["damaged in the cache, and made anew: devenv-node"]
