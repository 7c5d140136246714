"""Password and data: what happens in each of the eight cases, and what PostgreSQL is given in a password's place."""

from __future__ import annotations

import base64

import pytest

from devenv import password
from devenv.password import Found

# Secret, volume, release with the database, opens: what is done, whether the database begins empty, words of it.
CASES: dict[str, tuple[tuple[bool, bool, bool, bool | None], str, bool, str]] = {
    "nothing at all": ((False, False, False, None), "make", True, "password made"),
    "a release that lost both": ((False, False, True, None), "make", True, "begins empty"),
    "data without its password": ((False, True, False, None), "refuse", False, "Secret with its password is gone"),
    "a running release that lost its Secret": ((False, True, True, None), "refuse", False, "password is gone"),
    "a Secret made beforehand": ((True, False, False, None), "keep", True, "password kept"),
    "a release that lost its volume": ((True, False, True, None), "keep", True, "begins empty"),
    "destroyed, data kept": ((True, True, False, None), "keep", False, "data kept"),
    "all there, the database not running": ((True, True, True, None), "keep", False, "password kept"),
    "all there, and it opens": ((True, True, True, True), "keep", False, "password kept"),
    "all there, another password": ((True, True, True, False), "refuse", False, "does not open"),
    "no release, another password": ((True, True, False, False), "refuse", False, "does not open"),
}


@pytest.mark.parametrize(("found", "do", "empty", "told"), CASES.values(), ids=CASES.keys())
def test_case(found: tuple[bool, bool, bool, bool | None], do: str, empty: bool, told: str) -> None:
    outcome = password.decide(Found(*found))
    assert (outcome.do, outcome.empty) == (do, empty)
    assert told in outcome.told
    assert bool(outcome.why) == (do == "refuse")


def test_data_is_never_left_with_a_password_that_cannot_open_it() -> None:
    for secret in (False, True):
        for release in (False, True):
            for opens in (None, False, True):
                outcome = password.decide(Found(secret, True, release, opens))
                assert not outcome.empty
                assert outcome.do == ("keep" if secret and opens is not False else "refuse")


def test_the_verifier_has_the_keys_of_rfc_7677s_example() -> None:
    made = password.verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    keys = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    assert made == f"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${keys}"


# SASLprep's own examples (RFC 4013, section 3), as PostgreSQL takes them: what is forbidden stays as it is.
PREPARED = {"I\u00adX": "IX", "user": "user", "\u00aa": "a", "\u2168": "IX", "a\u00a0b": "a b", "x\u0007é": "x\u0007é"}


@pytest.mark.parametrize(("given", "prepared"), PREPARED.items())
def test_sasl_prep(given: str, prepared: str) -> None:
    assert password.prepared(given) == prepared


def test_a_digest_tells_passwords_apart_and_secrets_too() -> None:
    assert password.digest("a", "1") == password.digest("a", "1")
    assert len({password.digest("a", "1"), password.digest("b", "1"), password.digest("a", "2")}) == 3
