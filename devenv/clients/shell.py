"""Runs programs, through `sh`. The only user of `sh`; its exceptions stop here.

Secrets go in by standard input or by file, never by argv.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM


@dataclass(frozen=True)
class Output:
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


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Output:
    """Runs `argv` to its end, whatever its exit code; `env` adds to ours; `timeout` in seconds ends it by SIGTERM.

    With `on_line`, each line of both outputs is handed over as it comes, and kept as well.
    An interruption ends the program by SIGTERM, once, waits for it, and goes on as KeyboardInterrupt.
    """
    import sh

    program, *arguments = [str(part) for part in argv]
    kept: dict[str, list[str]] = {"stdout": [], "stderr": []}
    lock = threading.Lock()

    def keep(stream: str) -> Callable[[str], None]:
        def take(line: str) -> None:
            with lock:
                kept[stream].append(line)
                if on_line is not None:
                    on_line(line.rstrip("\n"))

        return take

    try:
        command = sh.Command(program)
    except sh.CommandNotFound:
        return Output(127, "", f"{program}: command not found")
    process = command(
        *arguments,
        _in=stdin if stdin is not None else "",
        _out=keep("stdout"),
        _err=keep("stderr"),
        _tty_out=False,
        _bg=True,
        _bg_exc=False,
        _ok_code=list(range(-64, 256)),
        _env={**os.environ, **env} if env else None,
        _cwd=str(cwd) if cwd else None,
        _timeout=timeout,
        _timeout_signal=SIGTERM,
        _new_session=True,
    )
    try:
        process.wait()
    except sh.TimeoutException:
        return Output(124, "".join(kept["stdout"]), "".join(kept["stderr"]) + f"\nstopped after {timeout:.0f} s\n")
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    code = process.exit_code
    return Output(code if code >= 0 else 128 - code, "".join(kept["stdout"]), "".join(kept["stderr"]))


def replace(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
    """Becomes the program: terminal, signals and exit code are its own."""
    words = [str(part) for part in argv]
    os.execvpe(words[0], words, {**os.environ, **(env or {})})
