"""Contexts that cannot be used, on the real API server: each is told in its own words, and by exit code 3."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devenv import environment, target
from devenv.clients import shell
from devenv.clients.kube import Kube
from devenv.errors import Refused
from devenv.settings import Flags

pytestmark = pytest.mark.cluster

Reach = Callable[..., Kube]


@pytest.fixture
def own(running: Any) -> dict[str, Any]:
    """The embedded cluster's own kubeconfig."""
    config: dict[str, Any] = yaml.safe_load(running.kubeconfig.read_text())
    return {
        "cluster": config["clusters"][0]["cluster"],
        "user": config["users"][0]["user"],
        "pki": running.state / "pki",
    }


@pytest.fixture
def reach(own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reach:
    """Reaches the cluster as a task does, through a kubeconfig of the user's."""

    def reach(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Kube:
        config = {
            "contexts": [{"name": "kind-x", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster or own["cluster"]}],
            "users": [{"name": "u", "user": own["user"] if user is None else user}],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        said = environment.describe(Flags(context="kind-x"))
        chosen = target.choose(said.settings, said.profile)
        assert chosen.kubeconfig is not None
        kube = Kube(chosen.kubeconfig, chosen.context)
        assert kube.get("/version")["gitVersion"].startswith("v1.")
        return kube

    return reach


def refused(reach: Reach, **entries: dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as raised:
        reach(**entries)
    assert all(raised.value.record().values())
    return raised.value


def test_a_ca_file_beside_the_kubeconfig(reach: Reach, own: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy(own["pki"] / "ca.crt", tmp_path / "ca.crt")
    reach(cluster={"server": own["cluster"]["server"], "certificate-authority": "ca.crt"})


def test_a_certificate_of_another_ca_is_not_trusted(reach: Reach, own: dict[str, Any]) -> None:
    other = {"server": own["cluster"]["server"], "certificate-authority": str(own["pki"] / "etcd-ca.crt")}
    assert "is not trusted" in refused(reach, cluster=other).what


def test_a_server_that_wants_tls_is_named(reach: Reach, own: dict[str, Any]) -> None:
    plain = {**own["cluster"], "server": own["cluster"]["server"].replace("https", "http")}
    assert "wants TLS" in refused(reach, cluster=plain).what


def test_a_proxy_that_does_not_answer_is_named(
    reach: Reach, own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")  # it is for HTTPS_PROXY; a proxy-url counts for every host
    failure = refused(reach, cluster={**own["cluster"], "proxy-url": "http://me:hunter22@127.0.0.1:9"})
    assert (failure.what, failure.where) == ("the proxy of context kind-x does not answer", "proxy 127.0.0.1:9")
    assert "hunter22" not in str(failure.record())


def test_an_unknown_token_is_refused(reach: Reach) -> None:
    failure = refused(reach, user={"token": "hunter22"})
    assert (failure.what, failure.why) == ("the cluster refuses these credentials", "it knows no such user")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl signs the certificate")
def test_a_client_certificate_that_expired_says_when(reach: Reach, own: dict[str, Any], tmp_path: Path) -> None:
    key, request, expired = tmp_path / "key", tmp_path / "csr", tmp_path / "crt"
    signed = ["-CA", own["pki"] / "ca.crt", "-CAkey", own["pki"] / "ca.key", "-days", "-1", "-out", expired]
    for words in (
        ["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key],
        ["req", "-new", "-key", key, "-subj", "/O=system:masters/CN=late", "-out", request],
        ["x509", "-req", "-in", request, *signed],
    ):
        assert shell.run(["openssl", *words]).code == 0
    failure = refused(reach, user={"client-certificate": str(expired), "client-key": str(key)})
    assert failure.what == "the cluster refuses these credentials"
    assert failure.why.startswith("the client certificate expired on 20")


def test_a_login_plugin_beside_the_kubeconfig_logs_in(reach: Reach, own: dict[str, Any], tmp_path: Path) -> None:
    status = {
        field: base64.b64decode(own["user"][key]).decode()
        for field, key in (("clientCertificateData", "client-certificate-data"), ("clientKeyData", "client-key-data"))
    }
    api = "client.authentication.k8s.io/v1"
    (tmp_path / "credential").write_text(json.dumps({"apiVersion": api, "kind": "ExecCredential", "status": status}))
    (tmp_path / "plugin").write_text(f"#!/bin/sh\necho noise >&2\ncat {tmp_path}/credential\n")
    (tmp_path / "plugin").chmod(0o755)
    reach(user={"exec": {"apiVersion": api, "command": "./plugin", "interactiveMode": "Never"}})


def test_who_acts_for_another_has_that_ones_rights(reach: Reach, own: dict[str, Any]) -> None:
    kube = reach(user={**own["user"], "as": "nobody"})
    with pytest.raises(Refused, match="have no right") as denied:
        kube.get("/api/v1/secrets")
    assert 'User "nobody" cannot list' in denied.value.why
