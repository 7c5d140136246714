"""Programs run to their end, and nothing of theirs is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from devenv.clients import shell


def test_output_error_and_exit_code_are_kept_apart() -> None:
    output = shell.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (output.code, output.stdout, output.stderr) == (3, "out\n", "err\n")


def test_stdin_is_given_and_ends() -> None:
    assert shell.run(["cat"], stdin="secret\n").stdout == "secret\n"
    assert shell.run(["cat"]).stdout == ""


def test_lines_come_as_they_are_said() -> None:
    lines: list[str] = []
    shell.run(["sh", "-c", "echo one; echo two >&2"], on_line=lines.append)
    assert sorted(lines) == ["one", "two"]


def test_a_program_that_is_not_there_ends_with_127() -> None:
    assert shell.run(["/no/such/program"]).code == 127


def test_a_file_that_is_no_program_ends_with_126(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x7fNOPE")
    (tmp_path / "binary").chmod(0o755)
    output = shell.run([tmp_path / "binary"])
    assert output.code == 126
    assert "Exec format error" in output.stderr


def test_a_killed_program_ends_with_128_and_the_signal() -> None:
    assert shell.run(["sh", "-c", "kill -9 $$"]).code == 128 + signal.SIGKILL


def test_a_timeout_asks_by_sigterm_so_that_the_program_can_clean_up(tmp_path: Path) -> None:
    mark = tmp_path / "cleaned"
    script = f"trap 'touch {mark}; exit 0' TERM; while :; do sleep 0.05; done"
    started = time.monotonic()
    assert shell.run(["sh", "-c", script], timeout=0.5).code == 124
    assert time.monotonic() - started < 5
    assert mark.exists()


def test_stop_asks_once_and_wait_gives_the_output() -> None:
    running = shell.Running(["sh", "-c", "trap 'echo bye; exit 7' TERM; echo hi; while :; do sleep 0.05; done"])
    time.sleep(0.3)
    assert running.alive
    running.stop()
    output = running.wait()
    assert (output.code, output.stdout) == (7, "hi\nbye\n")
    assert not running.alive


def test_variables_can_be_kept_from_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM_NAMESPACE", "theirs")
    output = shell.run(["sh", "-c", "echo ${HELM_NAMESPACE-unset} $OTHER"], env={"OTHER": "x"}, drop=("HELM_",))
    assert output.stdout == "unset x\n"


def test_an_argument_with_spaces_and_quotes_arrives_as_it_is() -> None:
    assert shell.run(["printf", "%s", "a 'b' \"c\" $d *"]).stdout == "a 'b' \"c\" $d *"


def test_an_interruption_while_a_program_is_started_is_not_lost() -> None:
    armed = [True]

    def interrupt() -> None:
        if armed:
            armed.clear()
            os.kill(os.getpid(), signal.SIGUSR1)

    def handler(*_: object) -> None:
        if not shell.keeps_interruption():
            raise KeyboardInterrupt

    os.register_at_fork(after_in_parent=interrupt)
    before = signal.signal(signal.SIGUSR1, handler)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            shell.Running(["sleep", "30"])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - started < 20
    assert shell.run(["true"]).code == 0
