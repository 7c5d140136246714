"""The password of the internal database, and the data that it opens: what to do in each case. Pure.

In: whether the Secret, the volume and a release with the database are there; out: `Outcome`. What keeps data comes
first in every choice.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import stringprep
import unicodedata
from typing import NamedTuple

ITERATIONS = 4096  # PostgreSQL's own default, scram_iterations


class Found(NamedTuple):
    """What is there. `opens`: whether the Secret's password opens the database; None where nothing could be asked."""

    secret: bool
    volume: bool
    release: bool
    opens: bool | None = None


class Outcome(NamedTuple):
    """What a redeploy does: `do` is make (a password), keep (it) or refuse, which has a `why`; `empty`: the database
    begins empty, so whatever remembers an older one goes first; `told` in one line."""

    do: str
    told: str
    empty: bool = False
    why: str = ""


def decide(found: Found) -> Outcome:
    """All eight cases of Secret, volume and release; the two with all three there differ by what the password opens."""
    if found.volume and not found.secret:
        still = "; the database still runs, so nothing is lost" if found.release else ""
        why = f"a new password would not open the data that is in it{still}"
        return Outcome("refuse", "the database's volume is there, but the Secret with its password is gone", why=why)
    if found.volume and found.opens is False:
        return Outcome(
            "refuse", "the password in the Secret does not open the database", why="password authentication failed"
        )
    if found.volume:
        return Outcome("keep", "password kept, data kept" if not found.release else "password kept")
    kept = "password kept" if found.secret else "password made"
    lost = ": the volume of before is gone, the database begins empty" if found.release else ""
    return Outcome("keep" if found.secret else "make", f"{kept}{lost}", empty=True)


def choices(secret: str) -> str:
    """What to do where password and volume do not fit, the data kept first."""
    return (
        f"put Secret {secret} back as it was; or inv db.repair-password (a new password for the same data); "
        "or give the data up: inv redeploy --fresh --reset-data"
    )


def digest(value: str, salt: str) -> str:
    """Tells one password from another without saying either. Kept at the Secret itself, salted with its uid."""
    return hashlib.sha256(f"{salt}\0{value}".encode()).hexdigest()[:16]


def verifier(value: str, salt: bytes) -> str:
    """What PostgreSQL keeps of a password: in ALTER ROLE it stands for it, so the statement may be logged.

    Source: RFC 5803 and 5802; postgresql.org, "pg_authid", rolpassword.
    """
    salted = hashlib.pbkdf2_hmac("sha256", prepared(value).encode(), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = _b64(hmac.digest(salted, b"Server Key", "sha256"))
    stored = _b64(hashlib.sha256(client).digest())
    return f"SCRAM-SHA-256${ITERATIONS}:{_b64(salt)}${stored}:{server}"


def prepared(value: str) -> str:
    """SASLprep (RFC 4013) as PostgreSQL does it: what it forbids is taken as it is. ASCII stays ASCII."""
    if value.isascii():
        return value
    mapped = "".join(
        " " if stringprep.in_table_c12(letter) else letter for letter in value if not stringprep.in_table_b1(letter)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    forbidden = (stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4, stringprep.in_table_c5)
    rest = (stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9)
    bad = any(table(letter) for letter in normal for table in (*forbidden, *rest, stringprep.in_table_a1))
    return value if bad or not normal else normal


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
