"""The bench's arithmetic: medians, ratios of pairs without the proof, and the table for README."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import bench, benchtable
from devenv.benchtable import Measure
from devenv.errors import InputWrong
from devenv.report import Screen
from devenv.settings import Flags

MEASURES = (
    Measure("start-up (--list)", (0.3, 0.2, 0.4)),
    Measure("nothing changed", (1.0, 4.0, 2.0), (2.0, 4.0, 1.0)),
    Measure("one value changed", (6.0, 5.0), (5.0, 5.0), (1.0, 1.0)),
)


THREE_SIDES = (MEASURES[1]._replace(helmfile=(4.0, 6.0, 2.0)), MEASURES[2])
MANY = (Measure("many pods", (20.0, 22.0), (19.0, 20.0), cpu=(2.5, 2.7), memory=(100_000_000, 90_000_000)),)


def record(load: float = 0.5, measures: tuple[Measure, ...] = MEASURES) -> dict[str, Any]:
    """A record as `run` makes it."""
    helmfile = {"helmfile": "1.8.0"} if any(measure.helmfile for measure in measures) else {}
    return {
        "schema": "devenv/bench/v1",
        "machine": {"cpus": 2, "model": "Some CPU", "memoryMB": 8000, "system": "Linux", "load": load},
        "versions": {"kubernetes": "v1.34.4", "helm": "4.1.4", "python": "3.11.7", **helmfile},
        "temporal": False,
        "rounds": 3,
        "measures": [measure.record() for measure in measures],
    }


def test_a_ratio_is_the_median_of_the_pairs_and_does_not_count_the_proof() -> None:
    assert [measure.ratio for measure in MEASURES] == [None, 1.0, 0.9]


def test_the_table_is_markdown_with_the_machine() -> None:
    lines = benchtable.table(record()).splitlines()
    assert lines[2:5] == [
        "| start-up (--list) | 0.30 s |  |  |  |",
        "| nothing changed | 2.00 s |  | 2.00 s | 1.00 |",
        "| one value changed | 5.50 s | 1.00 s | 5.00 s | 0.90 |",
    ]
    assert lines[-1].startswith("Medians of 3 rounds; Temporal off; 2 CPUs (Some CPU), 8 GB, load 0.5 before;")


def test_helmfile_is_a_third_side_where_it_was_measured() -> None:
    lines = benchtable.table(record(measures=THREE_SIDES)).splitlines()
    assert lines[:4] == [
        "| | devenv | of it proof | helm | ratio without proof | helmfile | ratio |",
        "|---|---|---|---|---|---|---|",
        "| nothing changed | 2.00 s |  | 2.00 s | 1.00 | 4.00 s | 2.00 |",
        "| one value changed | 5.50 s | 1.00 s | 5.00 s | 0.90 |  |  |",
    ]
    assert "Helm 4.1.4, Helmfile 1.8.0, Python" in lines[-1]
    assert THREE_SIDES[0].told() == "nothing changed: 2.00 s, helm 2.00 s, ratio 1.0, helmfile 4.00 s"


def test_of_many_pods_our_own_process_is_measured() -> None:
    assert benchtable.table(record(measures=MANY)).splitlines()[2] == (
        "| many pods (our process: 2.60 s of CPU, 100 MB) | 21.00 s |  | 19.50 s | 1.08 |"
    )


@pytest.mark.parametrize(("rounds", "sides"), [(2, "ab ba"), (3, "abc cba abc")])
def test_the_sides_are_first_in_turns(rounds: int, sides: str) -> None:
    turns = "".join(side for _, side in bench._turns(sorted(set(sides) - {" "}), rounds))
    assert turns == sides.replace(" ", "")


def test_a_busy_machine_is_said() -> None:
    assert "busy" in benchtable.table(record(load=9.0)).splitlines()[-1]


@pytest.mark.parametrize("rounds", [0, -1, 101])
def test_a_number_of_rounds_that_cannot_be_is_wrong_input(rounds: int) -> None:
    with pytest.raises(InputWrong):
        bench.run(Flags(), Screen(plain=True, color=False), rounds)


def test_this_machine_has_cpus_and_memory() -> None:
    assert benchtable.machine()["cpus"] > 0
