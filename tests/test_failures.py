"""The catalogue of broken environments is whole, and what its runs come to is told as it was."""

from __future__ import annotations

from typing import Any

import pytest

from devenv import failures
from devenv.broken import Broken, bound, made
from devenv.catalogue import AFTER_A_GRACE, AT_ONCE, CATALOGUE, WAITED_FOR
from devenv.clients import shell
from devenv.errors import StepFailed
from devenv.failures import Seen
from tests.test_bench import record as bench_record
from tests.test_schemas import validate

OURS = Seen(5, 11.04, "…", True, {"reason": "Deployment/app gets no image"}, 1.26)
HELMS = Seen(1, 60.2, "context deadline exceeded", False)
CONTENT = Seen(0, 7.0, "STATUS: deployed", False)


def record() -> dict[str, Any]:
    rows = [failures.record("a wrong image", OURS, HELMS), failures.record("a crash at start", OURS, CONTENT)]
    rest = {key: bench_record()[key] for key in ("machine", "versions")}
    return {"schema": "devenv/bench-failures/v1", **rest, "helmTimeout": 60.0, "rows": rows}


def test_the_record_is_as_its_schema_says() -> None:
    validate("bench-failures", record())


def test_the_table_says_of_both_how_long_it_took_and_whether_the_cause_was_named() -> None:
    assert failures.table(record()).splitlines() == [
        "| fault | class | devenv | named | helm | named |",
        "|---|---|---|---|---|---|",
        "| a wrong image | after 20 s | 11.0 s | yes | 60.2 s | no |",
        "| a crash at start | at once | 11.0 s | yes | 7.0 s, exit code 0 | no |",
        "",
        "Of 2, devenv named 2, helm 0.",
    ]


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_row_says_what_names_its_cause(name: str) -> None:
    broken = CATALOGUE[name]
    assert broken.what
    assert all(broken.cause)
    assert broken.cause
    assert broken.objects


def test_the_class_of_a_row_is_where_it_stands() -> None:
    assert {broken.kind for broken in AT_ONCE.values()} == {"at once", "refused"}
    assert {broken.kind for broken in WAITED_FOR.values()} == {"waited for"}
    assert {broken.kind.partition(" ")[0] for broken in AFTER_A_GRACE.values()} == {"after"}


def test_a_row_is_bound_to_its_namespace() -> None:
    broken = Broken((made("Node", "NAMESPACE-x"),), "what", ("on NAMESPACE-x",), "node='NAMESPACE-x'")
    assert bound(broken, "n") == Broken((made("Node", "n-x"),), "what", ("on n-x",), "node='n-x'")


def test_a_cause_is_named_only_where_all_of_it_is_said() -> None:
    broken = Broken((), "what", ("one", "two"))
    assert failures.names(broken, "one and two")
    assert not failures.names(broken, "one alone")


def test_a_redeploy_that_answers_nothing_is_no_outcome() -> None:
    with pytest.raises(StepFailed, match="did not answer"):
        failures._failure(shell.Output(1, "", "Traceback\nboom"))
