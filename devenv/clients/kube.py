"""Asks the Kubernetes API. The exceptions of the `kubernetes` library and of urllib3 stop here.

Objects are plain JSON maps as the server sends them; paths are the API's own (`/api/v1/namespaces/x/pods`).
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from devenv import context as said
from devenv.clients import login
from devenv.clients.connection import Connection
from devenv.errors import Refused, StepFailed

Object = dict[str, Any]

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
NEAR = 0.01  # seconds for an answer; a new connection takes as long
RETRIED = frozenset({429, 500, 502, 503, 504})
TRIES = 5
RENEW_PAUSE = 5.0  # seconds: credentials that were refused just after they were made are not made again at once


class NotThere(StepFailed):
    """404: the object, or its kind, does not exist."""


class Conflict(StepFailed):
    """409: it exists already, or changed meanwhile."""


class Denied(Refused):
    """401 and 403: the credentials are not enough."""


class Gone(StepFailed):
    """410: a watch must start again from a new list."""


class Kind(NamedTuple):
    """Where objects of a kind live in the API."""

    api: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "") -> str:
        scope = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{self.api}{scope}/{self.plural}" + (f"/{name}" if name else "")


# The kinds that charts use; others are looked up in the cluster's discovery.
KINDS: Mapping[tuple[str, str], Kind] = {
    ("v1", "ConfigMap"): Kind("/api/v1", "configmaps"),
    ("v1", "Secret"): Kind("/api/v1", "secrets"),
    ("v1", "Service"): Kind("/api/v1", "services"),
    ("v1", "ServiceAccount"): Kind("/api/v1", "serviceaccounts"),
    ("v1", "PersistentVolumeClaim"): Kind("/api/v1", "persistentvolumeclaims"),
    ("v1", "Pod"): Kind("/api/v1", "pods"),
    ("v1", "Namespace"): Kind("/api/v1", "namespaces", namespaced=False),
    ("apps/v1", "Deployment"): Kind("/apis/apps/v1", "deployments"),
    ("apps/v1", "StatefulSet"): Kind("/apis/apps/v1", "statefulsets"),
    ("apps/v1", "DaemonSet"): Kind("/apis/apps/v1", "daemonsets"),
    ("apps/v1", "ReplicaSet"): Kind("/apis/apps/v1", "replicasets"),
    ("batch/v1", "Job"): Kind("/apis/batch/v1", "jobs"),
    ("batch/v1", "CronJob"): Kind("/apis/batch/v1", "cronjobs"),
    ("rbac.authorization.k8s.io/v1", "Role"): Kind("/apis/rbac.authorization.k8s.io/v1", "roles"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): Kind("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ("networking.k8s.io/v1", "NetworkPolicy"): Kind("/apis/networking.k8s.io/v1", "networkpolicies"),
    ("networking.k8s.io/v1", "Ingress"): Kind("/apis/networking.k8s.io/v1", "ingresses"),
    ("policy/v1", "PodDisruptionBudget"): Kind("/apis/policy/v1", "poddisruptionbudgets"),
}

MANY = 25.0  # chunks of a stream in a second
AWAKE, MOMENT = 0.005, 0.1  # seconds of reading, and of letting come: enough for 1,500 changes a second

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

MANAGED = b',"managedFields":['  # the last of an object's metadata, and more than half of what there is to read
DELETED = b'{"type":"DELETED",'


class Kube:
    """One cluster, through one context of one kubeconfig file (always our own private copy)."""

    def __init__(self, kubeconfig: Path, context: str) -> None:
        self.kubeconfig = kubeconfig
        self.context = context
        self._discovered: dict[tuple[str, str], Kind] = {}
        self._lock = threading.Lock()
        self._renewed = 0.0
        self._config = _read(kubeconfig)
        self._way = self._open()
        self._took = NEAR
        self.server: str = self._way.host

    @property
    def near(self) -> bool:
        """Whether the server answers so soon that asking side by side would cost more, in new connections, than it
        saves."""
        return self._took < NEAR

    def _open(self) -> Connection:
        """A way with the credentials of now; a login plugin is run for it. Raises Refused."""
        user, cluster = self._part("user"), self._part("cluster")
        if isinstance(user.get("exec"), dict):
            user = {**user, **login.credentials(self.context, cluster, user["exec"])}
        try:
            way = Connection(cluster, user)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._unusable(error) from None
        if not way.verified:
            import urllib3

            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user's own choice
        return way

    def _part(self, kind: str) -> Mapping[str, Any]:
        """The user or cluster of our context."""
        contexts: list[Object] = self._config["contexts"]
        context: Mapping[str, Any] = next((one["context"] for one in contexts if one["name"] == self.context), {})
        named = (one.get(kind) for one in self._config.get(f"{kind}s") or [] if one["name"] == context.get(kind))
        return next(named, None) or {}

    def _unusable(self, error: Exception) -> Refused:
        return Refused(
            f"the kubeconfig entry of context {self.context} cannot be used",
            where=f"context {self.context}",
            why=_without_source(_first_line(error)),
            next=f"kubectl --context {self.context} version",
        )

    def _renew(self, used: Connection) -> bool:
        """Whether there are other credentials than `used`: tokens and certificates of plugins and files do expire."""
        user = self._part("user")
        if not any(user.get(key) for key in ("exec", "tokenFile", "client-certificate")):
            return False
        with self._lock:
            if self._way is not used:
                return True
            if time.monotonic() - self._renewed < RENEW_PAUSE and self._renewed:
                return False
            self._way, self._renewed = self._open(), time.monotonic()
        return True

    def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = "application/json") -> Object:
        """One object or list. Raises NotThere, Denied, Refused (no answer)."""
        answer: Object = json.loads(self._ask("GET", path, query, accept=accept))
        return answer

    def listed(self, path: str, fields: str = "", metadata: bool = False) -> Object:
        """A list from which `watch` can go on: what a field selector lets through, without managedFields; `metadata`:
        nothing but the objects' metadata."""
        query = {"fieldSelector": fields} if fields else None
        accept = METADATA_ONLY if metadata else "application/json"
        answer: Object = _lean(self._ask("GET", path, query, accept=accept))
        return answer

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """An answer that is no JSON, such as a log."""
        return self._ask("GET", path, query, accept="*/*").decode("utf-8", "replace")

    def clock(self) -> float:
        """The API server's clock, in seconds since the epoch, whole seconds only."""
        from email.utils import parsedate_to_datetime

        response = self._send("GET", "/version", None, None, "application/json", "*/*", (CONNECT_TIMEOUT, READ_TIMEOUT))
        response.response.read()
        try:
            return parsedate_to_datetime(str(response.headers.get("Date"))).timestamp()
        except ValueError:
            raise StepFailed("the API server does not say what time it is", where=self.server) from None

    def may(self, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
        """Whether these credentials have a right; `resource` with its subresource, as pods/log."""
        resource, _, part = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": resource, "subresource": part, "namespace": namespace}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self.create(path, {**body, "spec": {"resourceAttributes": {**asked, "name": name}}})
        return bool((answer.get("status") or {}).get("allowed"))

    def find(self, path: str) -> Object | None:
        """One object, or None where there is none."""
        try:
            return self.get(path)
        except NotThere:
            return None

    def create(self, path: str, body: Object) -> Object:
        """Creates; raises Conflict where the name is taken."""
        answer: Object = json.loads(self._ask("POST", path, body=body))
        return answer

    def patch(self, path: str, body: Object, how: str = "merge") -> Object:
        """Merges `body` into an object, by JSON merge patch or by `strategic` merge (lists by their keys)."""
        content = "application/strategic-merge-patch+json" if how == "strategic" else "application/merge-patch+json"
        answer: Object = json.loads(self._ask("PATCH", path, body=body, content=content))
        return answer

    def replace(self, path: str, body: Object) -> Object:
        """Puts the whole object; raises Conflict when it changed since it was read."""
        answer: Object = json.loads(self._ask("PUT", path, body=body))
        return answer

    def delete(self, path: str, *, propagation: str = "Background") -> bool:
        """Deletes; False where there was nothing."""
        try:
            self._ask("DELETE", path, {"propagationPolicy": propagation})
        except NotThere:
            return False
        return True

    def call(self, path: str, method: str = "GET", body: Object | None = None, timeout: float = 30.0) -> Object:
        """A call to a service through the API server's proxy; an answer of 4xx or 5xx comes back as StepFailed.

        Source: kubernetes.io, "Access Services Running on Clusters", the `proxy` subresource.
        """
        answer: Object = json.loads(self._ask(method, path, body=body, timeout=timeout, tries=1))
        return answer

    def watch(
        self, path: str, version: str, stop: threading.Event, fields: str = "", metadata: bool = False
    ) -> Iterator[tuple[str, Object]]:
        """(type, object) for each change after `version`, until the server ends the stream. Raises Gone.

        As in `listed`: what a field selector lets through, without managedFields. Of what was deleted, and of all where
        `metadata` says so, the rest may be missing.
        """
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "300"}
        for line in self._lines(path, {**query, "fieldSelector": fields} if fields else query, stop):
            change = (_head(line) if metadata or line.startswith(DELETED) else None) or _lean(line)
            if change["type"] == "ERROR":
                raise Gone(change["object"].get("message", "the watch ended"), where=path)
            yield change["type"], change["object"]

    def follow(self, path: str, query: Mapping[str, str], stop: threading.Event) -> Iterator[str]:
        """Lines of a log as they come."""
        for line in self._lines(path, query, stop):
            yield line.decode("utf-8", "replace")

    def kind(self, api_version: str, kind: str) -> Kind:
        """Where a kind lives: from the table, else from discovery. Raises NotThere."""
        known = KINDS.get((api_version, kind)) or self._discovered.get((api_version, kind))
        if known is not None:
            return known
        api = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        for entry in self.get(api).get("resources", []):
            if entry["kind"] == kind and "/" not in entry["name"]:
                found = Kind(api, entry["name"], entry["namespaced"])
                self._discovered[(api_version, kind)] = found
                return found
        raise NotThere(f"the cluster knows no {kind} of {api_version}", where=f"{api_version} {kind}")

    def _lines(self, path: str, query: Mapping[str, str], stop: threading.Event) -> Iterator[bytes]:
        response = self._send("GET", path, query, None, "application/json", "*/*", (CONNECT_TIMEOUT, 310.0))
        self._check(response.status, "GET", path, b"" if response.status < 400 else response.response.read())
        rest = b""
        try:
            for chunk in _together(response.response.stream(65536, decode_content=False), stop):
                if stop.is_set():
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line)
        except Exception as error:
            if not _is_network(error):
                raise
        finally:
            response.response.close()

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        timeout: float = READ_TIMEOUT,
        tries: int = TRIES,
    ) -> bytes:
        """Sends a request and reads all of the answer; passing faults are tried again, with growing pauses."""
        for attempt in range(1, tries + 1):
            began = time.monotonic()
            response = self._send(method, path, query, body, content, accept, (CONNECT_TIMEOUT, timeout))
            data: bytes = response.response.read()
            self._took = time.monotonic() - began
            if response.status not in RETRIED or attempt == tries or not _passing(response.status, data, method):
                self._check(response.status, method, path, data)
                return data
            pause = float(response.headers.get("Retry-After") or 0) or 0.1 * 2**attempt
            time.sleep(min(pause, 5.0) * random.uniform(0.8, 1.2))
        raise AssertionError("unreachable")

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        content: str,
        accept: str,
        timeout: tuple[float, float],
    ) -> Any:
        headers = {"Accept": accept, **({"Content-Type": content} if body is not None else {})}
        way = self._way

        def call(way: Connection) -> Any:
            try:
                return way.send(method, path, query or {}, headers, body, timeout)
            except Exception as error:
                if not _is_network(error):
                    raise
                raise self._silent(error) from None

        response = call(way)
        return call(self._way) if response.status == 401 and self._renew(way) else response

    def _silent(self, error: Exception) -> Refused:
        """What became of a request that nobody answered."""
        import ssl

        import urllib3

        cause, host = _deepest(error), urlsplit(self.server)
        if isinstance(error, urllib3.exceptions.MaxRetryError) and isinstance(
            error.reason, urllib3.exceptions.ProxyError
        ):
            proxy = urlsplit(self._way.proxy)
            return Refused(
                f"the proxy of context {self.context} does not answer",
                where=f"proxy {proxy.hostname or 'of HTTPS_PROXY'}{f':{proxy.port}' if proxy.port else ''}",
                why=_root(cause),
                next="mend proxy-url in the kubeconfig, or HTTPS_PROXY and NO_PROXY",
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Refused(
                f"the certificate of {host.netloc} is not trusted",
                where=f"context {self.context}, {self.server}",
                why=_without_source(cause.verify_message),
                next="mend certificate-authority in the kubeconfig: it must be the CA of this very cluster",
            )
        if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause):
            return Refused(
                f"{host.netloc} speaks no TLS", where=f"context {self.context}, {self.server}",
                why=_without_source(str(cause)), next="mend server in the kubeconfig: http://, or another port",
            )  # fmt: skip
        if isinstance(cause, ssl.SSLError):
            return self._unusable(cause)
        return Refused(
            f"the cluster of context {self.context} does not answer",
            where=self.server,
            why=_root(error),
            next=f"kubectl --context {self.context} version   (is it running? is the VPN up?)",
        )

    def _check(self, status: int, method: str, path: str, data: bytes) -> None:
        if status < 400:
            return
        message = _message(data)
        if status == 404:
            raise NotThere(message or "not found", where=path)
        if status == 409:
            raise Conflict(message or "conflict", where=path)
        if status == 410:
            raise Gone(message or "gone", where=path)
        if status == 401:
            raise self._refused_credentials(message)
        if status == 403:
            raise Denied(
                "the credentials have no right to do this",
                where=f"{method} {path}",
                why=message,
                next=f"kubectl --context {self.context} auth can-i --list",
            )
        if status == 400 and "HTTP request to an HTTPS server" in message:
            raise Refused(
                f"{urlsplit(self.server).netloc} wants TLS", where=f"context {self.context}, {self.server}",
                why=message, next="mend server in the kubeconfig: https://",
            )  # fmt: skip
        # The body of a refused Secret may quote the Secret.
        shown = "" if "/secrets" in path else message
        raise StepFailed(f"the API server answered {status}", where=f"{method} {path}", why=shown, next="inv doctor")

    def _refused_credentials(self, message: str) -> Denied:
        user = self._part("user")
        plugin = (user.get("exec") or {}).get("command", "")
        again = f"log in again: {plugin} keeps what it has" if plugin else "get a new kubeconfig, or log in again"
        return Denied(
            "the cluster refuses these credentials",
            where=f"context {self.context}, {self.server}",
            why=said.expiry(user) or ("it knows no such user" if message == "Unauthorized" else message),
            next=f"{again}; kubectl --context {self.context} auth whoami",
        )


def _read(kubeconfig: Path) -> Mapping[str, Any]:
    """A kubeconfig that was checked before: our private copy, or the embedded cluster's."""
    text = kubeconfig.read_text()
    try:
        config: Mapping[str, Any] = json.loads(text)
    except ValueError:
        import yaml

        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return config


def _together(chunks: Iterator[bytes], stop: threading.Event) -> Iterator[bytes]:
    """The chunks as they come. Where more than `MANY` come each second, those of a moment are let come together: to
    wake up for each one costs three times as much as to read it."""
    counted = resumed = time.monotonic()
    count, many = 0, False
    for chunk in chunks:
        yield chunk
        now, count = time.monotonic(), count + 1
        if now - counted >= 1.0:
            many, counted, count = count > MANY * (now - counted), now, 0
        if many and now - resumed > AWAKE:
            stop.wait(MOMENT)
            resumed = time.monotonic()


def _lean(data: bytes) -> Any:
    """JSON, of one object or a list, without managedFields."""
    first, *others = data.split(MANAGED)
    try:
        return json.loads(b"".join([first, *(other[other.find(b"}]}") + 2 :] for other in others)]))
    except ValueError:  # a key in them had the three characters in it
        return json.loads(data)


def _head(line: bytes) -> Any:
    """A change with the object's metadata alone; None where they do not end with managedFields."""
    end = line.find(MANAGED)
    try:
        return json.loads(line[:end] + b"}}}") if end > 0 else None
    except ValueError:  # those were not the object's own
        return None


def _passing(status: int, data: bytes, method: str) -> bool:
    """Whether an answer is a passing fault; a POST that the server may have carried out is not sent twice."""
    return method != "POST" or status == 429


def _message(data: bytes) -> str:
    try:
        answer = json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace").strip()[:300]
    if isinstance(answer, dict):
        return str(answer.get("message") or answer.get("error") or "")
    return ""


def _is_network(error: Exception) -> bool:
    import urllib3

    return isinstance(error, urllib3.exceptions.HTTPError | OSError)


def _root(error: BaseException) -> str:
    """The last words of a chain of network errors: "Connection refused", not the whole chain."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _root(reason)
    text = _first_line(error)
    return text.rpartition(": ")[2] if "HTTPSConnection" in text or "HTTPConnection" in text else text


def _deepest(error: BaseException) -> BaseException:
    """The first cause of a chain of network errors."""
    inner = getattr(error, "reason", None)
    inner = inner if isinstance(inner, BaseException) else getattr(error, "original_error", None)
    if inner is None and error.args and isinstance(error.args[-1], BaseException):
        inner = error.args[-1]
    return _deepest(inner) if isinstance(inner, BaseException) else error


def _without_source(text: str) -> str:
    """OpenSSL's words without the line of C that said them."""
    return re.sub(r" ?\(_ssl\.c:\d+\)", "", text)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
