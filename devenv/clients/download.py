"""Fetches one file from an address, whole and of the pinned content, or not at all. urllib's exceptions stop here.

In: an address with its SHA-256 behind `#sha256=`, as package indexes write it. Out: the file. What broke off goes on
where it stopped, where the server can do that (RFC 9110, 14.2); a server that stalls is given up.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit, urlunsplit

from devenv import reference
from devenv.errors import InputWrong, Refused, StepFailed

Progress = Callable[[int, int], None]  # bytes that are here, bytes of the whole (0: not known)

TRIES = 4  # in a row, of which none brought a piece that is new
MOST_TRIES = 50
PAUSE = 0.2  # seconds before the second try, and longer each time
PATIENCE = 10.0  # seconds: so long may a server say nothing
SLOWEST = 20_000  # bytes per second over that time; whoever gives less stalls
PIECE = 1 << 18


class Pinned(NamedTuple):
    """Where a file is, and what it must be. `url` is without its login, which no message may show."""

    url: str
    sha256: str
    authorization: str = ""


def pinned(text: str, where: str) -> Pinned:
    """The address that a text means. Raises InputWrong where it is none, or pins no content."""
    url, pin = urldefrag(text.strip())
    parts = urlsplit(url)
    digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", pin)
    if parts.scheme not in ("http", "https", "file") or not parts.path or digest is None:
        raise InputWrong(
            "the address pins no file by its content" if parts.scheme else "it is no address of a file",
            where=where,
            why="an address ends with #sha256= and 64 hex digits",
            next=f"{where}=https://HOST/FILE#sha256=…   (./inv cluster.build --wheel prints it)",
        )
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    login = ":".join(unquote(word or "") for word in (parts.username, parts.password))
    basic = "Basic " + base64.b64encode(login.encode()).decode() if parts.username else ""
    return Pinned(urlunsplit(bare), digest[1].lower(), basic)


class _Broken(Exception):
    """It broke off, for a reason that may pass. Never leaves this module."""


def fetch(wanted: Pinned, into: Path, progress: Progress, roots: Path | None = None) -> None:
    """Writes the file; `roots`: CA certificates in the place of the system's. Raises StepFailed, Refused (tampered)."""
    opener = _opener(wanted, roots)
    into.unlink(missing_ok=True)
    into.touch()
    failures = 0
    for number in range(1, MOST_TRIES + 1):
        before = into.stat().st_size
        try:
            _go_on(opener, wanted, into, progress)
            break
        except _Broken as error:
            failures = 1 if into.stat().st_size - before >= PIECE else failures + 1
            if failures >= TRIES or number == MOST_TRIES:
                raise _failed(wanted, f"{error}; given up after {number} tries") from None
            time.sleep(PAUSE * failures)
    _check(wanted, into)


def _opener(wanted: Pinned, roots: Path | None) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=str(roots) if roots else None)
    proxies = [urllib.request.ProxyHandler({})] if reference.local(urlsplit(wanted.url).netloc) else []
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), *proxies)


def _go_on(opener: urllib.request.OpenerDirector, wanted: Pinned, into: Path, progress: Progress) -> None:
    """Fetches what is missing at the end of the file; all of it where the server cannot begin in the middle."""
    here = into.stat().st_size
    request = urllib.request.Request(wanted.url, headers={"Range": f"bytes={here}-"} if here else {})
    if wanted.authorization:
        request.add_unredirected_header("Authorization", wanted.authorization)  # to this host, and to no other
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            if here and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {here}-"):
                here = 0
            _take(answer, into, here, progress)
    except urllib.error.HTTPError as error:
        with error:
            _refused(wanted, into, error.code, error.reason)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _Broken(str(reason)[:200] or type(error).__name__) from None


def _refused(wanted: Pinned, into: Path, status: int, reason: str) -> None:
    """What an answer that is none means. Raises."""
    if status == 416:  # we have as much as there is, or more: of another content
        into.write_bytes(b"")
        raise _Broken("the server has less than what came")
    if status == 429 or status >= 500:
        raise _Broken(f"{status} {reason}")
    raise _failed(wanted, f"{status} {reason}")


def _take(answer: http.client.HTTPResponse, into: Path, here: int, progress: Progress) -> None:
    left = answer.headers.get("Content-Length")
    whole = here + int(left) if left and left.isdigit() else 0
    began, taken = time.monotonic(), 0
    with into.open("r+b") as file:
        file.truncate(here)
        file.seek(here)
        while piece := answer.read1(PIECE):
            file.write(piece)
            here, taken = here + len(piece), taken + len(piece)
            progress(here, whole)
            if (spent := time.monotonic() - began) > PATIENCE:
                if taken < SLOWEST * spent and here < whole:
                    raise _Broken(f"only {taken / spent / 1000:.0f} kB a second came")
                began, taken = time.monotonic(), 0
    if here < whole:
        raise _Broken(f"the connection ended after {here:,} of {whole:,} bytes")


def _check(wanted: Pinned, into: Path) -> None:
    with into.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == wanted.sha256:
        return
    into.unlink()
    raise Refused(
        "what was downloaded is not what is pinned",
        where=wanted.url,
        why=f"its SHA-256 is {found}, pinned is {wanted.sha256}",
        next="ask who keeps that address; a file that was rightly replaced has a new #sha256=",
    )


def _failed(wanted: Pinned, why: str) -> StepFailed:
    return StepFailed("it could not be downloaded", where=wanted.url, why=why, next="check the address and the network")
