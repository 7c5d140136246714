"""The environment's variables in, one typed record out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SHARED_QUEUE = "backend"


class SettingsWrong(Exception):
    """A variable is missing or makes no sense; the text names it."""


@dataclass(frozen=True)
class Database:
    """Where the rows are. TLS is libpq's own PGSSLMODE and PGSSLROOTCERT."""

    host: str
    port: int
    user: str
    password: str
    name: str
    schema: str
    admin_name: str


@dataclass(frozen=True)
class Temporal:
    address: str
    namespace: str


@dataclass(frozen=True)
class Settings:
    """`template` is the pod's template hash: it changes with every rollout and tells old workers from new ones."""

    port: int
    pod: str
    template: str
    database: Database
    temporal: Temporal | None

    @property
    def own_queue(self) -> str:
        """Polled by workers of this very template only."""
        return f"{SHARED_QUEUE}-{self.template}"


def read(environ: Mapping[str, str]) -> Settings:
    """The settings, or SettingsWrong. A port or user that the Secret lacks falls back to DATABASE_DEFAULT_*."""

    def need(name: str) -> str:
        value = environ.get(name, "")
        if not value:
            raise SettingsWrong(f"{name} is not set")
        return value

    def number(name: str, value: str) -> int:
        if not value.isdecimal() or not 0 < int(value) < 65536:
            raise SettingsWrong(f"{name} is not a port: {value!r}")
        return int(value)

    address = environ.get("TEMPORAL_ADDRESS", "")
    return Settings(
        port=number("PORT", environ.get("PORT") or "8080"),
        pod=environ.get("POD_NAME") or "local",
        template=environ.get("POD_TEMPLATE_HASH") or "local",
        database=Database(
            host=need("DATABASE_HOST"),
            port=number(
                "DATABASE_PORT", environ.get("DATABASE_PORT") or environ.get("DATABASE_DEFAULT_PORT") or "5432"
            ),
            user=environ.get("DATABASE_USER") or environ.get("DATABASE_DEFAULT_USER") or "postgres",
            password=environ.get("DATABASE_PASSWORD", ""),
            name=need("DATABASE_NAME"),
            schema=environ.get("DATABASE_SCHEMA") or "public",
            admin_name=environ.get("DATABASE_ADMIN_NAME") or "postgres",
        ),
        temporal=Temporal(address, environ.get("TEMPORAL_NAMESPACE") or "default") if address else None,
    )
