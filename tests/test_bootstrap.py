"""`./inv` on a machine that has no .venv yet: made once, whoever else starts at the same time, or died at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devenv.paths import PROJECT

# uv, as far as ./inv needs it: a .venv that works only when its packages are in, and a note of each that was begun.
UV = """#!/bin/sh
for last; do :; done
case $1 in
  venv) echo made >>made && mkdir -p "$last/bin" && printf '#!/bin/sh\\ncat "%s/packages"\\n' "$last" >"$last/bin/python" && chmod +x "$last/bin/python" ;;
  pip) sleep 1; echo ready >.venv/packages ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(PROJECT / "inv", tmp_path)
    (tmp_path / "requirements.lock").write_text("some==1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(UV)
    (tmp_path / "bin/uv").chmod(0o755)
    return tmp_path


def inv(clone: Path) -> subprocess.CompletedProcess[str]:
    path = f"{clone}/bin:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run([clone / "inv"], cwd=clone, env={"PATH": path}, capture_output=True, text=True, timeout=60)


def test_two_that_start_together_make_one_and_both_run_in_it(clone: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(inv, [clone, clone]))
    assert [run.stdout for run in runs] == ["ready\n", "ready\n"], [run.stderr for run in runs]
    assert (clone / "made").read_text() == "made\n"
    assert not (clone / ".venv.making").exists()


def test_one_that_died_at_it_is_not_waited_for(clone: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (clone / ".venv.making").mkdir()
    (clone / ".venv.making/pid").write_text(f"{gone.pid}\n")
    assert inv(clone).stdout == "ready\n"


def test_one_that_died_before_it_had_said_who_it_is_is_not_waited_for(clone: Path) -> None:
    (clone / ".venv.making").mkdir()
    os.utime(clone / ".venv.making", (time.time() - 300,) * 2)
    assert inv(clone).stdout == "ready\n"


def test_one_that_is_over_in_the_very_moment_is_not_waited_for(clone: Path) -> None:
    (clone / "bin/mkdir").write_text(
        '#!/bin/sh\n[ -e asked ] || { touch asked; exit 1; }\nPATH=/usr/bin:/bin exec mkdir "$@"\n'
    )
    (clone / "bin/mkdir").chmod(0o755)
    assert inv(clone).stdout == "ready\n"


def test_where_it_cannot_be_written_it_says_so(clone: Path) -> None:
    (clone / ".venv.making").write_text("a file is in its place")
    run = inv(clone)
    assert run.returncode == 2
    assert ".venv.making" in run.stderr
