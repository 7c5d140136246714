"""The bench's arithmetic: medians, ratios of pairs without the proof, and the table for README."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import bench
from devenv.bench import Measure
from devenv.errors import InputWrong
from devenv.report import Screen
from devenv.settings import Flags

MEASURES = (
    Measure("start-up (--list)", (0.3, 0.2, 0.4)),
    Measure("nothing changed", (1.0, 4.0, 2.0), (2.0, 4.0, 1.0)),
    Measure("one value changed", (6.0, 5.0), (5.0, 5.0), (1.0, 1.0)),
)


def record(load: float = 0.5) -> dict[str, Any]:
    """A record as `run` makes it."""
    return {
        "schema": "devenv/bench/v1",
        "machine": {"cpus": 2, "model": "Some CPU", "memoryMB": 8000, "system": "Linux", "load": load},
        "versions": {"kubernetes": "v1.34.4", "helm": "4.1.4", "python": "3.11.7"},
        "temporal": False,
        "rounds": 3,
        "measures": [measure.record() for measure in MEASURES],
    }


def test_a_ratio_is_the_median_of_the_pairs_and_does_not_count_the_proof() -> None:
    assert [measure.ratio for measure in MEASURES] == [None, 1.0, 0.9]


def test_the_table_is_markdown_with_the_machine() -> None:
    lines = bench.table(record()).splitlines()
    assert lines[2:5] == [
        "| start-up (--list) | 0.30 s |  |  |  |",
        "| nothing changed | 2.00 s |  | 2.00 s | 1.00 |",
        "| one value changed | 5.50 s | 1.00 s | 5.00 s | 0.90 |",
    ]
    assert lines[-1].startswith("Medians of 3 rounds; Temporal off; 2 CPUs (Some CPU), 8 GB, load 0.5 before;")


def test_a_busy_machine_is_said() -> None:
    assert "busy" in bench.table(record(load=9.0)).splitlines()[-1]


@pytest.mark.parametrize("rounds", [0, -1, 101])
def test_a_number_of_rounds_that_cannot_be_is_wrong_input(rounds: int) -> None:
    with pytest.raises(InputWrong):
        bench.run(Flags(), Screen(plain=True, color=False), rounds)


def test_this_machine_has_cpus_and_memory() -> None:
    assert bench.machine()["cpus"] > 0
