"""What no client could use is refused before anybody is asked, by the key to mend and never with a credential."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from devenv import context, environment, target
from devenv.errors import Refused
from devenv.settings import Flags

PEM = "-----BEGIN CERTIFICATE-----\n"
SERVER = {"server": "https://127.0.0.1:1"}
TOKEN = {"token": "hunter22hunter22"}


def config(cluster: Any = SERVER, user: Any = TOKEN, **over: Any) -> dict[str, Any]:
    return {
        "current-context": "kind-x",
        "contexts": [{"name": "kind-x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        **over,
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no server": (config({}), "names no server"),
    "a server that is no address": (config({"server": "localhost:99:99"}), "names no server"),
    "a CA file that is not there": (config({**SERVER, "certificate-authority": "nope"}), "certificate-authority of"),
    "a CA file that is no certificate": (config({**SERVER, "certificate-authority": "config"}), "certificate-authority of"),
    "a CA that is no base64": (config({**SERVER, "certificate-authority-data": "!!"}), "certificate-authority-data of"),
    "a CA that is no PEM": (config({**SERVER, "certificate-authority-data": "aGVsbG8="}), "certificate-authority-data of"),
    "a client certificate that is not there": (config(user={"client-certificate": "nope"}), "client-certificate of"),
    "a key that is no PEM": (config(user={"client-key-data": "aGVsbG8="}), "client-key-data of"),
    "a token file that is not there": (config(user={"tokenFile": "nope"}), "tokenFile of"),
    "a login that Kubernetes removed": (config(user={"auth-provider": {"name": "gcp"}}), "auth-provider gcp"),
    "several groups": (config(user={"as-groups": ["a", "b"]}), "several groups"),
    "no such user": (config(users=[]), "names a user that is not there"),
    "no such cluster": (config(clusters=[]), "names a cluster that is not there"),
    "a cluster that is text": (config("hello"), "names a cluster that is not there"),
    "a context that is text": (config(contexts=[{"name": "kind-x", "context": "c"}]), "names a cluster that is not there"),
    "contexts that are text": (config(contexts="kind-x"), "no kubeconfig has a context kind-x"),
    "users that are numbers": (config(users=[1, 2]), "names a user that is not there"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_for(given: dict[str, Any], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(yaml.safe_dump(given))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    said = environment.describe(Flags(context="kind-x"))
    with pytest.raises(Refused, match=what) as refused:
        target.choose(said.settings, said.profile)
    record = refused.value.record()
    assert all(record.values())
    assert "hunter22" not in str(record)


def test_what_is_right_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text(PEM)
    data = base64.b64encode(PEM.encode()).decode()
    files = {"certificate-authority": str(tmp_path / "ca")}
    for cluster in (
        SERVER,
        {**SERVER, **files},
        {**SERVER, "certificate-authority-data": data},
        {"server": "http://[::1]:8"},
    ):
        context.check("x", "a test", cluster, {"client-certificate-data": data, "as": "me", "as-groups": ["a"]})
        context.check("x", "a test", cluster, {})


def token(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def certificate(start: str, end: str) -> str:
    """As much of a certificate as its validity: two times, as DER writes them."""
    der = b"".join(
        (b"\x17\x0d" if len(text) == 13 else b"\x18\x0f") + text.encode() for text in (start, end)
    )  # fmt: skip
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"
    return base64.b64encode(pem.encode()).decode()


EXPIRY: dict[str, tuple[dict[str, str], str]] = {
    "a token of the past": ({"token": token(exp=1700000000)}, "the token expired on 2023-11-14 22:13 UTC"),
    "a token of the future": ({"token": token(exp=9900000000)}, ""),
    "a token without an end": ({"token": token(sub="me")}, ""),
    "a token that is no JWT": ({"token": "hello"}, ""),
    "a certificate of the past": (
        {"client-certificate-data": certificate("240101000000Z", "250102030405Z")},
        "the client certificate expired on 2025-01-02 03:04 UTC",
    ),
    "a certificate of the far future": (
        {"client-certificate-data": certificate("240101000000Z", "20990101000000Z")},
        "",
    ),
    "no certificate": ({"client-certificate-data": "aGVsbG8="}, ""),
    "nothing": ({}, ""),
}


@pytest.mark.parametrize(("user", "why"), EXPIRY.values(), ids=EXPIRY.keys())
def test_credentials_say_themselves_that_they_expired(user: dict[str, str], why: str) -> None:
    assert context.expiry(user) == why
