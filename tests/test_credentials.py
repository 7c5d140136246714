"""What the Secret of an external PostgreSQL must hold: wrong keys are named, values never are."""

from __future__ import annotations

import base64
import string
from collections.abc import Mapping

import pytest

from devenv import credentials
from devenv.credentials import Keys

NAMES = {"host": "host", "port": "port", "username": "username", "password": "password"}
KEYS = Keys(NAMES, frozenset({"host", "password"}))
WITH_CA = Keys(NAMES, frozenset({"host", "password"}), "ca.crt")
PEM = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
CARRIED = "".join(letter for letter in string.printable if letter.isprintable() and letter != " ")


def coded(values: Mapping[str, str | bytes]) -> dict[str, str]:
    return {
        key: base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()
        for key, value in values.items()
    }


def read(values: Mapping[str, str | bytes], keys: Keys = KEYS) -> credentials.Read:
    whole = {"host": "db", "password": "hunter22", **values}
    return credentials.read(coded({key: value for key, value in whole.items() if value != "-"}), keys)


GOOD: dict[str, dict[str, str | bytes]] = {
    "host and password": {},
    "all four": {"port": "6432", "username": "app"},
    "a host with dots": {"host": "db-1.eu_west.example.com"},
    "a host with a dot at its end": {"host": "db.example.com."},
    "an address": {"host": "10.0.0.7"},
    "the user of Azure": {"username": "app@server"},
    "every character that a user's name can have": {"username": "aZ09-._~!$&'()*+,;=@"},
    "every printable ASCII character but the space": {"password": CARRIED},
    "a short password": {"password": "x"},
    "a long password": {"password": "x" * 200},
    "an emoji": {"password": "pass\U0001f600word"},
    "an umlaut": {"password": "Grüße"},
    "a newline inside": {"password": "one\ntwo"},
    "an alias beside the key itself": {"user": "other", "username": "app"},
}


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD.keys())
def test_it_can_serve_with(values: dict[str, str | bytes]) -> None:
    found = read(values)
    assert (found.problems, found.newlines) == ((), ())
    assert all(found.texts[key] == value for key, value in values.items() if key in NAMES)


BAD: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no host": ({"host": "-"}, "key host is missing"),
    "another word for host": ({"host": "-", "hostname": "db"}, "key host is missing, did you mean hostname to be it?"),
    "another case": ({"password": "-", "PASSWORD": "x"}, "did you mean PASSWORD to be it?"),
    "a variable's name": ({"password": "-", "DB_PASSWORD": "x"}, "did you mean DB_PASSWORD to be it?"),
    "user for username": ({"user": "app"}, "did you mean user to be it?; postgres would be used"),
    "an empty password": ({"password": ""}, "key password is empty"),
    "an empty port": ({"port": ""}, "key port is empty"),
    "nothing but a newline": ({"password": "\n"}, "key password is empty"),
    "no UTF-8": ({"password": b"\xff\xfe"}, "key password is no text in UTF-8"),
    "a byte order mark": ({"host": "\ufeffdb"}, "key host begins with a byte order mark"),
    "a NUL": ({"password": "a\0b"}, "key password holds a NUL byte"),
    "a URL": ({"host": "postgres://db"}, "key host holds a URL"),
    "host and port": ({"host": "db:5432"}, "key host holds a port too"),
    "IPv6": ({"host": "fd00::1"}, "key host holds an IPv6 address"),
    "several hosts": ({"host": "a,b"}, "key host is no host name"),
    "a socket": ({"host": "/run/postgresql"}, "key host is no host name"),
    "a port of words": ({"port": "five"}, "key port is no number"),
    "port 0": ({"port": "0"}, "key port is no number"),
    "a port too high": ({"port": "65536"}, "key port is no number"),
    "digits of another script": ({"port": "５４３２"}, "key port is no number"),
    "a user with a colon": ({"username": "a:b"}, "key username holds :, which Temporal's"),
    "a user with a slash and more": ({"username": "a/b?c#d%"}, "key username holds #, %, /, ?, which"),
    "a user with a space": ({"username": "a b"}, "key username holds a space, which"),
    "a user with an umlaut": ({"username": "jürgen"}, "key username holds other than plain letters, which"),
    "a user too long": ({"username": "x" * 64}, "key username is longer than a role"),
    "a password with a space": ({"password": "hunter 22"}, "key password holds a space"),
    "a password with a ligature": ({"password": "ﬁsh"}, "key password holds letters that PostgreSQL takes for others"),
}


@pytest.mark.parametrize(("values", "problem"), BAD.values(), ids=BAD.keys())
def test_the_key_is_named_that_has(values: dict[str, str | bytes], problem: str) -> None:
    found = read(values)
    assert [text for text in found.problems if problem in text], found.problems
    assert len(found.problems) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_a_newline_at_the_end_is_taken_off_and_named(end: str) -> None:
    found = read({"password": f"hunter22{end}", "port": f"5432{end}"})
    assert found.problems == ()
    assert found.newlines == ("port", "password")
    assert (found.texts["password"], found.texts["port"]) == ("hunter22", "5432")


def test_keys_have_the_names_that_the_chart_says() -> None:
    keys = Keys({**NAMES, "host": "endpoint"}, frozenset({"host", "password"}))
    found = credentials.read(coded({"endpoint": "db", "password": "x"}), keys)
    assert (found.problems, found.texts["endpoint"]) == ((), "db")


@pytest.mark.parametrize(
    ("ca", "problem"),
    [("-", "ca.crt is missing"), ("hello", "ca.crt holds no certificate"), (b"\xff", "ca.crt is no text"), (PEM, "")],
)
def test_the_ca_is_asked_for_only_where_it_is_needed(ca: str | bytes, problem: str) -> None:
    found = read({"ca.crt": ca}, WITH_CA)
    assert problem in " ".join(found.problems)
    assert bool(found.problems) == bool(problem)
    assert read({"ca.crt": ca}).problems == ()


def test_no_message_holds_a_value() -> None:
    secret = "hunter22 and more"
    for values in ({"password": secret}, {"username": secret}, {"host": secret}, {"port": secret}):
        found = read(values)
        assert "hunter22" not in " ".join(found.problems) + repr(found)
