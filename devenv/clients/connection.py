"""A way to one API server, with the credentials of one context. Used by clients/kube.py alone.

The only user of `kubernetes`: of its REST client, which does TLS, proxies and keep-alive. The models and OAuth of that
library would cost each task 0.15 s of import; so its package is opened without what it imports at once.
"""

from __future__ import annotations

import atexit
import base64
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from devenv import lean

Entry = Mapping[str, Any]

# For HTTP/2, and for a number of connections that we name ourselves.
UNASKED: Mapping[str, Entry] = {"importlib.metadata": {"version": str}, "multiprocessing": {"cpu_count": lambda: 1}}
CONNECTIONS = 32  # kept open: eight are held by watches, and each new one costs a TLS handshake


class Connection:
    """Sends requests to one server, through `proxy` or (empty) straight.

    Raises OSError, ValueError, TypeError or KeyError where an entry cannot be used.
    """

    def __init__(self, cluster: Entry, user: Entry) -> None:
        configuration = _configured(cluster, user)
        self.host: str = configuration.host
        self.proxy: str = configuration.proxy or ""
        self.verified: bool = configuration.verify_ssl
        self._headers = _headers(user)
        self._rest = _library().RESTClientObject(configuration)

    def send(
        self, method: str, path: str, query: Entry, headers: Entry, body: Any, timeout: tuple[float, float]
    ) -> Any:
        """The answer, unread; `timeout` in seconds, to connect and between two reads. Raises urllib3's errors."""
        url = f"{self.host}{path}" + (f"?{urlencode(query)}" if query else "")
        said = {**headers, **self._headers}
        return self._rest.request(method, url, headers=said, body=body, _request_timeout=timeout)


@cache
def _library() -> Any:
    if "kubernetes" not in sys.modules:
        spec = importlib.util.find_spec("kubernetes")
        assert spec is not None
        sys.modules["kubernetes"] = importlib.util.module_from_spec(spec)
    with lean.without(UNASKED):
        from kubernetes.client import configuration, rest
    return SimpleNamespace(RESTClientObject=rest.RESTClientObject, Configuration=configuration.Configuration)


def _configured(cluster: Entry, user: Entry) -> Any:
    """The context's entries as the library wants them. Source: kubernetes.io, "kubeconfig (v1)"."""
    configuration = _library().Configuration(host=str(cluster["server"]).rstrip("/"))
    configuration.retries = 0
    configuration.connection_pool_maxsize = CONNECTIONS
    configuration.verify_ssl = not cluster.get("insecure-skip-tls-verify")
    configuration.tls_server_name = cluster.get("tls-server-name")
    if cluster.get("proxy-url"):
        configuration.proxy = str(cluster["proxy-url"])
        configuration.no_proxy = ""  # NO_PROXY is for HTTPS_PROXY: a proxy-url counts for every host, as in client-go
    if configuration.host.startswith("https"):
        trusted = _pem(cluster, "certificate-authority")
        configuration.ca_cert_data = trusted.decode() if trusted else None
        configuration.cert_file = _file(user, "client-certificate")
        configuration.key_file = _file(user, "client-key")
    return configuration


def _headers(user: Entry) -> dict[str, str]:
    """Who asks, and for whom. Source: kubernetes.io, "Authenticating", user impersonation."""
    headers: dict[str, str] = {}
    token = Path(str(user["tokenFile"])).read_text().strip() if user.get("tokenFile") else str(user.get("token") or "")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif user.get("username") and user.get("password"):
        pair = f"{user['username']}:{user['password']}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    for key, header in (("as", "User"), ("as-uid", "Uid")):
        if user.get(key):
            headers[f"Impersonate-{header}"] = str(user[key])
    for group in user.get("as-groups") or []:
        headers["Impersonate-Group"] = str(group)
    return headers


def _pem(entry: Entry, key: str) -> bytes:
    data = entry.get(f"{key}-data")
    if data:
        return base64.b64decode(str(data))
    return Path(str(entry[key])).read_bytes() if entry.get(key) else b""


def _file(entry: Entry, key: str) -> str | None:
    """Where a certificate or key is: OpenSSL reads those from files only."""
    if not entry.get(f"{key}-data"):
        return str(entry[key]) if entry.get(key) else None
    path = _folder() / f"{key}-{len(list(_folder().iterdir()))}.pem"
    path.touch(mode=0o600)
    path.write_bytes(_pem(entry, key))
    return str(path)


@cache
def _folder() -> Path:
    """Readable by this user alone; gone with this process."""
    folder = Path(tempfile.mkdtemp(prefix="devenv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
