"""The Secret of an external PostgreSQL: what its keys must hold. Pure.

In: a Secret's data as Kubernetes keeps it (base64), and which keys the chart reads; out: `Read`: the texts, and what is
wrong with which key. No message holds a value.

Which characters fail was tried with Temporal's own code (go.temporal.io/server 1.32.1, buildDSN, and lib/pq 1.12.3):
the connection string is postgres://USER:PASSWORD@HOST:PORT/DATABASE, of which only the password is escaped, and a space
in it arrives as "+".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from devenv import password

# What else people call the keys; compared without case, dashes and underscores.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "host": ("hostname", "endpoint", "address", "server", "pghost", "dbhost", "postgreshost", "postgresqlhost"),
    "port": ("pgport", "dbport", "postgresport", "postgresqlport"),
    "username": ("user", "login", "pguser", "dbuser", "dbusername", "postgresuser", "postgresqlusername", "usr"),
    "password": ("pass", "passwd", "pwd", "pgpassword", "dbpassword", "postgrespassword", "postgresqlpassword"),
}
DEFAULTS = {"port": "5432", "username": "postgres"}
HOST = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9._]{0,251}[A-Za-z0-9_.])?")
USER = re.compile(r"[-A-Za-z0-9._~!$&'()*+,;=@]{1,63}")  # what Go's net/url takes for a user as it stands
CERTIFICATE = "-----BEGIN CERTIFICATE-----"


class Keys(NamedTuple):
    """The names of the keys that are read, by what they hold; `needed` of them must be there. `ca` is the CA's key,
    empty where this Secret is not asked for one."""

    names: Mapping[str, str]
    needed: frozenset[str]
    ca: str = ""


class Read(NamedTuple):
    """`texts` by the Secret's keys, with trailing newlines taken off those in `newlines`; `problems` in words."""

    texts: Mapping[str, str]
    problems: tuple[str, ...]
    newlines: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Read(problems={self.problems!r})"  # without its texts


def read(data: Mapping[str, str], keys: Keys) -> Read:
    """The texts of the keys, checked."""
    texts: dict[str, str] = {}
    problems: list[str] = []
    newlines: list[str] = []
    for role, key in keys.names.items():
        if not data.get(key):
            problems += _absent(role, key, data, needed=role in keys.needed)
            continue
        text, problem = _text(data[key])
        stripped = text.rstrip("\r\n")
        problem = problem or (not stripped and "is empty") or _wrong(role, stripped)
        if problem:
            problems.append(f"key {key} {problem}")
        elif stripped != text:
            newlines.append(key)
        texts[key] = stripped
    problems += _ca(data, keys.ca, texts)
    return Read(texts, tuple(problems), tuple(newlines))


def _text(coded: str) -> tuple[str, str]:
    try:
        content = base64.b64decode(coded)
        text = content.decode()
    except (UnicodeDecodeError, binascii.Error):
        return "", "is no text in UTF-8"
    if text.startswith("\ufeff"):
        return text, "begins with a byte order mark, which an editor put there"
    return text, "holds a NUL byte" if "\0" in text else ""


def _absent(role: str, key: str, data: Mapping[str, str], *, needed: bool) -> Iterator[str]:
    """A key that is missing or empty; an optional one only where something there looks as if it was meant."""
    meant = alias(role, key, data)
    if meant:
        rest = "" if needed else f"; {DEFAULTS[role]} would be used"
        yield f"key {key} is missing, did you mean {meant} to be it?{rest}"
    elif key in data:
        yield f"key {key} is empty"
    elif needed:
        yield f"key {key} is missing"


def alias(role: str, key: str, data: Mapping[str, str]) -> str:
    """A key of the data that somebody may have meant to be `key`, or empty."""
    plain = {_plain(other): other for other in data if other != key and data[other]}
    wanted = (key, role, *ALIASES[role])
    return next((plain[name] for name in map(_plain, wanted) if name in plain), "")


def _plain(key: str) -> str:
    return re.sub(r"[-_.]", "", key.lower())


def _wrong(role: str, text: str) -> str:
    """What is wrong with a text, in words that do not say it."""
    return {"host": _host, "port": _port, "username": _user, "password": _password}[role](text)


def _host(text: str) -> str:
    if "://" in text:
        return "holds a URL: only the host's name belongs there"
    if re.fullmatch(r"[^:\[\]]+:\d+", text):
        return "holds a port too: that belongs in the key for the port"
    if ":" in text:
        return "holds an IPv6 address, which Temporal's connection string cannot carry: give the host a name"
    return "" if HOST.fullmatch(text) else "is no host name"


def _port(text: str) -> str:
    good = text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535
    return "" if good else "is no number from 1 to 65535"


def _user(text: str) -> str:
    if USER.fullmatch(text):
        return ""
    bad = sorted({letter for letter in text if not USER.fullmatch(letter)})
    return f"holds {shown(bad)}, which Temporal's connection string cannot carry" if bad else "is longer than a role"


def _password(text: str) -> str:
    if " " in text:
        return "holds a space, which Temporal's connection string cannot carry"
    if password.prepared(text) != text:
        # lib/pq takes it as it stands, PostgreSQL and psql by their normal form (SASLprep, RFC 4013).
        return "holds letters that PostgreSQL takes for others (as ﬁ for fi) and Temporal's driver does not"
    return ""


def shown(letters: list[str]) -> str:
    """Characters as one can read them; of letters only that they are not ASCII."""
    words = ["a space" if one == " " else one if one.isascii() and one.isprintable() else "" for one in letters]
    named = [word for word in words if word]
    rest = ["other than plain letters"] if len(named) < len(words) else []
    return ", ".join(named + rest)


def _ca(data: Mapping[str, str], key: str, texts: dict[str, str]) -> Iterator[str]:
    if not key:
        return
    if not data.get(key):
        yield f"key {key} is missing, which tls.mode verify-full needs"
        return
    text, problem = _text(data[key])
    texts[key] = text
    if problem or CERTIFICATE not in text:
        yield f"key {key} {problem or 'holds no certificate in PEM form'}"
