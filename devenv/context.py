"""One context of a kubeconfig, checked before anybody is asked. Edge in: the files that it names.

In: the entries of cluster and user as they were read, file names made absolute; out: nothing, or one Refused that
names the key to mend. Nothing of a credential is ever part of a message.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devenv.errors import Refused

Entry = Mapping[str, Any]
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
PEM = ("certificate-authority", "client-certificate", "client-key")


def check(context: str, place: str, cluster: Entry, user: Entry) -> None:
    """Raises Refused for what no client could use; `place` says where the context comes from."""
    where = f"context {context} ({place})"
    server = str(cluster.get("server") or "")
    if urlsplit(server).scheme not in ("http", "https") or not _host(server):
        raise Refused(
            f"context {context} names no server",
            where=where,
            why=f"server: {server[:80]}" if server else "its cluster has no server",
            next="kubectl config set-cluster NAME --server https://HOST:PORT",
        )
    for entry in (cluster, user):
        for key in FILES:
            _check_file(context, where, key, entry)
            _check_data(context, where, key, entry)
    _check_user(context, where, user)


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.port != 0 else ""
    except ValueError:
        return ""


def _check_file(context: str, where: str, key: str, entry: Entry) -> None:
    named = entry.get(key)
    if not named or entry.get(f"{key}-data"):
        return
    why = "" if Path(str(named)).is_file() else f"{named} is not there"
    if not why:
        try:
            content = Path(str(named)).read_bytes()
            why = "" if key not in PEM or b"-----BEGIN " in content else f"{named} is no PEM file"
        except OSError as error:
            why = f"{named}: {error.strerror}"
    if why:
        raise Refused(
            f"{key} of context {context} cannot be read",
            where=where,
            why=why,
            next="kubectl config view   (shows the entry)",
        )


def _check_data(context: str, where: str, key: str, entry: Entry) -> None:
    data = entry.get(f"{key}-data")
    if not data:
        return
    try:
        right = b"-----BEGIN " in base64.b64decode(str(data), validate=True)
    except ValueError:
        right = False
    if not right:
        raise Refused(
            f"{key}-data of context {context} cannot be read",
            where=where,
            why="it is no base64 of a PEM text",
            next="kubectl config view   (shows the entry)",
        )


def _check_user(context: str, where: str, user: Entry) -> None:
    provider = user.get("auth-provider")
    if provider:
        name = provider.get("name", "") if isinstance(provider, dict) else ""
        raise Refused(
            f"context {context} logs in by auth-provider {name}",
            where=where,
            why="Kubernetes 1.26 removed it",
            next="write the kubeconfig anew with a login plugin (exec)",
        )
    groups = user.get("as-groups") or []
    if user.get("as-user-extra") or not isinstance(groups, list) or len(groups) > 1:
        raise Refused(
            f"context {context} acts for several groups, or with extra fields",
            where=where,
            why="devenv can act for one user (as, as-uid) and one group (as-groups)",
            next="a context without them: --context NAME",
        )


def expiry(user: Entry) -> str:
    """Why a cluster would refuse the credentials, as far as they say it themselves: when they expired; else empty."""
    now = datetime.now(UTC)
    for kind, until in (("client certificate", _certificate_end(user)), ("token", _token_end(user))):
        if until is not None and until < now:
            return f"the {kind} expired on {until:%Y-%m-%d %H:%M} UTC"
    return ""


def _certificate_end(user: Entry) -> datetime | None:
    """The end of a certificate's validity: the second of the two times that follow each other (RFC 5280, 4.1)."""
    try:
        data = user.get("client-certificate-data")
        pem = base64.b64decode(data) if data else Path(str(user["client-certificate"])).read_bytes()
        body = re.search(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", pem, re.S)
        der = base64.b64decode(body.group(1)) if body else b""
    except (KeyError, OSError, ValueError):
        return None
    one = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
    times = re.search(one + one, der)
    if times is None:
        return None
    text = (times.group(3) or times.group(4)).decode()
    return datetime.strptime(text, "%y%m%d%H%M%S" if len(text) == 12 else "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def _token_end(user: Entry) -> datetime | None:
    """The end that a JSON Web Token names (RFC 7519, exp)."""
    import json

    try:
        token = str(user.get("token") or "") or Path(str(user["tokenFile"])).read_text().strip()
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (KeyError, IndexError, OSError, ValueError, TypeError, OverflowError):
        return None
