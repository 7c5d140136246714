"""What keeps a request from being served. Pure."""

from __future__ import annotations


class Unusable(Exception):
    """The database cannot be used now; the text says why, without secrets."""


class Unavailable(Exception):
    """Temporal does not do it now; the text says why."""
