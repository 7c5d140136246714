"""The catalogue of broken environments: each is named right, in time, with its exit code.

`devenv/catalogue.py` has the rows; those that are asked for run side by side. The time is from the moment at which the
API server shows the fault to the exit of the command, less the grace that a fault of its class is given. The table of
times is printed at the end of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from devenv import environment, failures
from devenv.catalogue import CATALOGUE
from devenv.failures import Seen
from devenv.settings import Flags
from tests.cluster.conftest import CONTEXT
from tests.conftest import measured

pytestmark = pytest.mark.cluster

SIDE_BY_SIDE = 3
LATEST = 2.0  # seconds


@pytest.fixture(scope="module")
def catalogue(
    running: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Seen]]:
    """Runs the rows that are asked for, side by side."""
    session = environment.connect(environment.describe(Flags(context=CONTEXT)), lambda _: None, start=False)
    rows = [getattr(item, "callspec", None) for item in request.session.items]
    names = [row.params["name"] for row in rows if row and row.params.get("name") in CATALOGUE]
    # Those that take longest first.
    names.sort(key=lambda name: -CATALOGUE[name].grace)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        runs = {
            name: pool.submit(failures.run, session, name, "devenv", tmp_path_factory.mktemp("row")) for name in names
        }
    yield {name: done.result() for name, done in runs.items()}


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_named_in_time(name: str, catalogue: dict[str, Seen]) -> None:
    broken, seen = CATALOGUE[name], catalogue[name]
    late = "" if seen.late is None else f"{seen.late:.1f} s late"
    measured.append(
        f"{name:<38}{broken.kind:<14}{late:<14}{seen.seconds:6.1f} s in all, load {seen.load:4.1f}   {seen.said[:90]}"
    )
    assert seen.code == broken.code, seen.said
    assert broken.what in seen.failure["reason"]
    assert seen.named, seen.said
    for words in broken.never:
        assert words not in seen.said
    assert seen.failure["hint"]
    if broken.shown:
        assert seen.late is not None, "the fault never showed"
        # A machine that others use as well is slower by as much.
        assert seen.late <= LATEST * max(1.0, seen.load)
