"""Asks the internal PostgreSQL, by psql in its own pod.

Through the pod's socket, which trusts: no password is needed. SQL goes in by standard input and so do passwords: none
of it is in argv, in a history or in our logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from devenv.clients import shell
from devenv.errors import StepFailed

SOCKET = "/var/run/postgresql"
PSQL = f'exec psql -h {SOCKET} -U "${{POSTGRES_USER:-postgres}}" "$@"'
# The password is the first line of standard input, the rest is psql's.
WITH_PASSWORD = 'IFS= read -r PGPASSWORD; export PGPASSWORD PGCONNECT_TIMEOUT=5; exec psql -h 127.0.0.1 "$@"'
ANYWHERE = 'exec psql "$@"'
UNKNOWN = "could not translate host name"  # libpq
QUIET = ("-XAtq", "-v", "ON_ERROR_STOP=1")


class Postgres(NamedTuple):
    """The database in `pod`; `kubectl` is the program with its pinned flags, cluster and namespace among them."""

    kubectl: tuple[str | Path, ...]
    pod: str

    def argv(self, *words: str, script: str = PSQL, terminal: bool = False) -> list[str | Path]:
        """psql in the pod, with these words of its own."""
        attach = "-it" if terminal else "-i"
        return [
            *self.kubectl, "exec", attach, self.pod, "-c", "postgresql", "--", "/bin/sh", "-c", script, "psql", *words
        ]  # fmt: skip

    def run(self, sql: str, database: str = "postgres", timeout: float = 60.0) -> str:
        """What the statements answer, unaligned. Raises StepFailed with PostgreSQL's own words."""
        output = shell.run(self.argv(*QUIET, "-d", database), stdin=f"{sql}\n", timeout=timeout)
        if output.code != 0:
            raise StepFailed(
                "PostgreSQL did not do as it was told",
                where=f"pod {self.pod}, database {database}",
                why=_said(output),
                next="inv logs postgresql",
            )
        return output.stdout.strip()

    def opens(self, user: str, password: str) -> bool | None:
        """Whether the password opens the database, by network as everybody comes; None where it cannot be asked."""
        if "\n" in password:
            return None
        words = (*QUIET, "-U", user, "-d", "postgres")
        output = shell.run(self.argv(*words, script=WITH_PASSWORD), stdin=f"{password}\nSELECT 1;\n", timeout=20)
        if output.code == 0:
            return True
        return False if "password authentication failed" in output.stderr else None

    def finds(self, name: str, timeout: float) -> bool | None:
        """Whether the pod finds the host's name, within `timeout` seconds; None where it cannot be asked."""
        at = f"host={name} port=443 user=nobody dbname=nobody sslmode=disable connect_timeout={timeout:.0f}"
        output = shell.run(self.argv(*QUIET, "-w", "-d", at, script=ANYWHERE), timeout=timeout)
        if UNKNOWN in output.stderr or output.code == shell.TIMED_OUT:
            return False
        return True if "connection to server" in output.stderr else None


def _said(output: shell.Output) -> str:
    lines = [line.strip() for line in output.stderr.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("command terminated")]
    errors: Sequence[str] = [line for line in told if "ERROR" in line or "FATAL" in line] or told
    return errors[-1] if errors else output.last_line
