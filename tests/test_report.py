"""What people see: one line a step, quiet in CI, never a secret."""

from __future__ import annotations

import base64
import io
import time
from urllib.parse import quote_plus

import pytest

from devenv.errors import RolloutFailed
from devenv.report import Screen, redacted

SECRET = 'pä$$ w"ord+/='


@pytest.mark.parametrize(
    "form",
    [SECRET, quote_plus(SECRET), base64.b64encode(SECRET.encode()).decode(), 'p\\u00e4$$ w\\"ord+/='],
    ids=["plain", "in a URL", "base64", "JSON"],
)
def test_a_secret_does_not_pass_in_any_form(form: str) -> None:
    assert redacted(f"a {form} b", [SECRET]) == "a ••• b"


def test_what_is_too_short_to_be_told_apart_is_left() -> None:
    assert redacted("postgres at port 5432", ["5432"]) == "postgres at port 5432"


def plain() -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    return Screen(plain=True, color=False, stream=stream), stream


def test_a_step_is_one_line_with_its_time_within_80_columns() -> None:
    screen, stream = plain()
    with screen.stage("database") as stage:
        stage.says("password kept", "below")
    line, below = stream.getvalue().splitlines()
    assert line.startswith("database  password kept")
    assert below == "          below"
    assert len(line) <= 80


def test_in_ci_a_wait_is_said_once_and_not_for_every_second_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, stream = plain()
    clock = iter(range(100, 200))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    with screen.stage("rollout") as stage:
        for second in range(20):
            stage.waits(f"backend: waiting for its readiness probe, {second} s")
        stage.waits("backend ok")
    assert stream.getvalue().splitlines() == [
        "rollout   backend: waiting for its readiness probe, 0 s",
        "rollout   backend ok",
    ]


def test_in_ci_what_is_waited_for_now_is_said_even_if_it_came_right_after_the_line_before() -> None:
    screen, stream = plain()
    with screen.stage("preflight") as stage:
        stage.waits("a pod to ask from")
        stage.waits("asking PostgreSQL")
        assert "asking" not in stream.getvalue()
        time.sleep(1.3)
    assert stream.getvalue().splitlines() == ["preflight a pod to ask from", "preflight asking PostgreSQL"]


def test_in_ci_what_was_over_at_once_is_not_said_afterwards() -> None:
    screen, stream = plain()
    with screen.stage("preflight") as stage:
        stage.waits("a pod to ask from")
        stage.waits("asking PostgreSQL")
    time.sleep(1.2)
    assert stream.getvalue().splitlines() == ["preflight a pod to ask from"]


def test_a_failure_is_told_in_four_lines_without_secrets() -> None:
    screen, stream = plain()
    screen.secrets.add("hunter22")
    screen.failure(RolloutFailed("it broke", where="pod x", why="said hunter22", next="inv logs"))
    assert stream.getvalue().splitlines() == [
        "  what    it broke",
        "  where   pod x",
        "  why     said •••",
        "  next    inv logs",
    ]


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_long_reason_goes_on_below_itself_and_a_command_stays_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    screen = Screen(plain=False, color=False, stream=stream)
    command = "inv kubectl -- create secret generic nope " + "--from-literal=KEY=value " * 3
    screen.failure(RolloutFailed("it broke", why="a long story " * 10, next=command.strip()))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[0] == "  what    it broke"
    assert lines[1].startswith("  why     a long story")
    assert lines[2].startswith("          ")
    assert max(len(line) for line in lines[:-1]) <= 80
    assert lines[-1] == f"  next    {command.strip()}"


def test_a_failed_step_says_so() -> None:
    screen, stream = plain()
    with pytest.raises(RolloutFailed), screen.stage("rollout"):
        raise RolloutFailed("x")
    assert stream.getvalue().startswith("rollout   failed")
