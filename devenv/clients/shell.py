"""Runs programs, through `sh`. The only user of `sh`; its exceptions stop here.

Secrets go in by standard input or by file, never by argv.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from signal import SIGTERM
from typing import Any, NamedTuple

from devenv import lean

TIMED_OUT = 124  # exit code, as timeout(1) has it


class Output(NamedTuple):
    """What a program left: exit code (128 + n after signal n), standard output and error as text."""

    code: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line that says something, standard error first."""
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1] if lines else ""


def which(program: str) -> Path | None:
    """The program's path on PATH, or None."""
    import shutil

    found = shutil.which(program)
    return Path(found) if found else None


# What a signal's handler raises is lost while the main thread makes a process: Python ignores exceptions in the
# callbacks around fork. So an interruption is kept until the process is made.
_forking = False
_interrupted = False


def keeps_interruption() -> bool:
    """For a signal's handler: whether the interruption is kept, and raised when the process under way is made."""
    global _interrupted
    _interrupted = _interrupted or _forking
    return _forking


@cache
def _sh() -> Any:
    """`sh` without its `await`, and without asking for its own version: half of its import."""

    def get_running_loop() -> None:
        raise RuntimeError("there is none")

    awaiting = {"Queue": None, "get_running_loop": get_running_loop}
    with lean.without({"asyncio": awaiting, "importlib.metadata": {"version": str}}):
        import sh
    return sh


class Running:
    """A program at work. `stop` asks it once to end (SIGTERM); `wait` gives its output; where its standard input comes
    `later`, `feed` gives it."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | None = None,
        later: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float | None = None,
        on_line: Callable[[str], None] | None = None,
        drop: tuple[str, ...] = (),
        keep: tuple[str, ...] = (),
    ) -> None:
        sh = _sh()
        program, *arguments = [str(part) for part in argv]
        self._timeout = timeout
        self._kept: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._process: Any = None
        self._input: queue.Queue[str | None] = queue.Queue()
        lock = threading.Lock()

        def keeping(stream: str) -> Callable[[str], None]:
            def take(line: str) -> None:
                with lock:
                    self._kept[stream].append(line)
                    if on_line is not None:
                        on_line(line.rstrip("\n"))

            return take

        self._unstarted = Output(127, "", f"{program}: command not found")
        try:
            command = sh.Command(program)
        except sh.CommandNotFound:
            return
        global _forking, _interrupted
        _forking = threading.current_thread() is threading.main_thread()
        try:
            self._process = command(
                *arguments,
                _in=self._input if later else stdin or "",
                _out=keeping("stdout"),
                _err=keeping("stderr"),
                _tty_out=False,
                _bg=True,
                _bg_exc=False,
                _ok_code=list(range(-64, 256)),
                _env=_environment(env or {}, drop, keep),
                _cwd=str(cwd) if cwd else None,
                _timeout=timeout,
                _timeout_signal=SIGTERM,
                _new_session=True,
                _preexec_fn=_end_with_parent,
            )
        except sh.ForkException as error:
            self._unstarted = Output(
                126, "", f"{program}: cannot be run: {str(error).strip().splitlines()[-1].strip()}"
            )
        finally:
            forked, _forking = _forking, False
        if forked and _interrupted:
            _interrupted = False
            self.stop()
            self.wait()
            raise KeyboardInterrupt

    @property
    def alive(self) -> bool:
        return self._process is not None and bool(self._process.is_alive())

    @property
    def pid(self) -> int:
        """Its process id; 0 where it could not be started."""
        return int(self._process.pid) if self._process is not None else 0

    def feed(self, text: str) -> None:
        """Gives all of the standard input."""
        self._input.put(text)
        self._input.put(None)  # the end, for sh

    def stop(self) -> None:
        """Asks the program to end, once; it may take its time."""
        if self.alive:
            self._process.terminate()

    def wait(self) -> Output:
        """Waits for the end. An interruption is passed on as SIGTERM, awaited, and goes on as KeyboardInterrupt."""
        sh = _sh()
        if self._process is None:
            return self._unstarted
        stopped = ""
        try:
            self._process.wait()
        except sh.TimeoutException:
            stopped = f"\nstopped after {self._timeout:.0f} s\n"
        except KeyboardInterrupt:
            self.stop()
            self._process.wait()
            raise
        code = TIMED_OUT if stopped else self._process.exit_code
        stdout, stderr = "".join(self._kept["stdout"]), "".join(self._kept["stderr"])
        return Output(code if code >= 0 else 128 - code, stdout, stderr + stopped)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    drop: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
) -> Output:
    """Runs `argv` to its end, whatever its exit code; `env` adds to ours; `timeout` in seconds ends it by SIGTERM.

    Variables whose names begin with one of `drop` are kept from it, those of `keep` excepted. With `on_line`, each
    line of both outputs is handed over as it comes, and kept as well.
    """
    return Running(
        argv, stdin=stdin, env=env, cwd=cwd, timeout=timeout, on_line=on_line, drop=drop, keep=keep
    ).wait()  # fmt: skip


def _end_with_parent() -> None:
    """In the child: SIGTERM when we die, even by SIGKILL, so that no helm goes on without a run that holds the lock.

    Source: prctl(2), PR_SET_PDEATHSIG. On other systems than Linux there is no such thing.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, SIGTERM)


def _environment(env: Mapping[str, str], drop: tuple[str, ...], keep: tuple[str, ...]) -> dict[str, str]:
    unwanted = drop or ("\0",)
    return {**{name: text for name, text in os.environ.items() if name in keep or not name.startswith(unwanted)}, **env}


def replace(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
    """Becomes the program: terminal, signals and exit code are its own."""
    words = [str(part) for part in argv]
    os.execvpe(words[0], words, {**os.environ, **(env or {})})
