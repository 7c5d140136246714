"""Asks image registries, by the OCI distribution API. urllib's exceptions stop here.

In: a registry's name and the user's Docker configuration (auths, credHelpers, credsStore). Out: whether an image is
there; one that was pushed, or pulled. Without TLS only to this machine itself; a password goes over TLS or stays here.
Sources: opencontainers/distribution-spec, spec.md; distribution.github.io, "Token Authentication Specification";
docker/cli, cli/config/configfile/file.go (which credentials go to which registry).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from devenv import reference
from devenv.clients import shell
from devenv.errors import InputWrong, Refused, StepFailed

HUB_API = "registry-1.docker.io"
HUB_KEY = "https://index.docker.io/v1/"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MISSING = ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND")  # the API's own words: a 404 of any web server says nothing
MOST = 4 << 20  # bytes of an answer that are read
HELPER_PATIENCE = 10.0


class Login(NamedTuple):
    """A user with a password, or a token that stands for both."""

    user: str = ""
    password: str = ""
    token: str = ""

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


NOBODY = Login()


def login(config: Path, registry: str) -> Login:
    """What Docker's configuration holds for a registry; NOBODY where it holds nothing, or cannot be read."""
    try:
        content = json.loads(config.read_text())
    except (OSError, ValueError):
        return NOBODY
    if not isinstance(content, dict):
        return NOBODY
    key = HUB_KEY if registry == reference.HUB else registry
    helper = _map(content, "credHelpers").get(registry) or content.get("credsStore")
    if isinstance(helper, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", helper):
        return _from_helper(helper, key)
    entries = {_bare(name): entry for name, entry in _map(content, "auths").items() if isinstance(entry, dict)}
    return _from_entry(entries.get(_bare(key), {}))


def _map(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _bare(name: str) -> str:
    return re.sub(r"^https?://", "", name).partition("/")[0]


def _from_helper(helper: str, key: str) -> Login:
    output = shell.run([f"docker-credential-{helper}", "get"], stdin=key, timeout=HELPER_PATIENCE)
    try:
        answer = json.loads(output.stdout) if output.code == 0 else {}
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return NOBODY
    return Login(token=secret) if user == "<token>" else Login(user, secret)


def _from_entry(entry: Mapping[str, Any]) -> Login:
    if entry.get("identitytoken"):
        return Login(token=str(entry["identitytoken"]))
    try:
        user, _, password = base64.b64decode(str(entry.get("auth") or "")).decode().partition(":")
    except ValueError:
        return NOBODY
    return Login(user or str(entry.get("username") or ""), password or str(entry.get("password") or ""))


class Silent(Exception):
    """No answer that can be understood: the reason, in a few words. Never leaves this module."""


class Reply(NamedTuple):
    """An answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def codes(self) -> tuple[str, ...]:
        """The error codes that the API names."""
        try:
            return tuple(str(error["code"]) for error in json.loads(self.data)["errors"])
        except (ValueError, KeyError, TypeError):
            return ()

    @property
    def told(self) -> str:
        """The answer in a few words, for people."""
        try:
            errors = json.loads(self.data)["errors"]
            text = "; ".join(str(error.get("message") or error.get("code")) for error in errors)
        except (ValueError, KeyError, TypeError, AttributeError):
            text = ""
        return f"{self.status} {text or http.client.responses.get(self.status, '')}".strip()[:200]


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: another host must not be handed what was meant for this one."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Blob(NamedTuple):
    """A part of an image: `opened` gives its bytes, anew each time."""

    digest: str
    size: int
    opened: Callable[[], BinaryIO]


class Registry:
    """One registry. `config` is the user's Docker configuration, read when the registry asks who we are."""

    def __init__(self, name: str, config: Path, timeout: float = 30.0) -> None:
        self.name = name
        self.config = config
        self.timeout = timeout
        scheme = "http" if reference.local(name) else "https"
        self.base = f"{scheme}://{HUB_API if name == reference.HUB else name}"
        proxies = [urllib.request.ProxyHandler({})] if reference.local(name) else []
        self._opener = urllib.request.build_opener(_Stay, *proxies)
        self._login: Login | None = None
        self._allowed: dict[str, str] = {}

    def look(self, repository: str, version: str) -> bool | None:
        """Whether the image is there; None where the registry does not say: silent, or we may not ask."""
        try:
            path = f"/v2/{repository}/manifests/{version}"
            head = self._ask("HEAD", path, repository, {"Accept": ", ".join(MANIFESTS)})
            if head.status == 200:
                return True
            if head.status != 404:
                return None
            # HEAD has no body; only now GET, which Docker Hub counts as a pull where there is something
            codes = self._ask("GET", path, repository, {"Accept": ", ".join(MANIFESTS)}).codes
        except Silent:
            return None
        return False if set(codes) & set(MISSING) else None

    def push(self, repository: str, tag: str, manifest: bytes, kind: str, blobs: Sequence[Blob]) -> int:
        """Brings an image there; the bytes of the blobs that it did not have. Raises Refused (login), StepFailed."""
        name = f"{self.name}/{repository}:{tag}"
        try:
            sent = sum(self._bring(repository, blob) for blob in {blob.digest: blob for blob in blobs}.values())
            path = f"/v2/{repository}/manifests/{tag}"
            self._must(self._ask("PUT", path, repository, {"Content-Type": kind}, manifest), (201, 200), path)
        except Silent as error:
            raise StepFailed(
                f"the image {name} could not be pushed",
                where=self.base,
                why=str(error),
                next=f"check the registry's name and the network: {self.base}/v2/",
            ) from None
        return sent

    def _bring(self, repository: str, blob: Blob) -> int:
        there = self._ask("HEAD", f"/v2/{repository}/blobs/{blob.digest}", repository)
        if there.status < 400:
            return 0
        path = f"/v2/{repository}/blobs/uploads/"
        begun = self._must(self._ask("POST", path, repository, body=b""), (202,), path)
        place = urljoin(self.base + path, begun.headers.get("location") or "")
        place += ("&" if urlsplit(place).query else "?") + urlencode({"digest": blob.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        self._must(self._ask("PUT", place, repository, headers, blob.opened), (201, 204), path)
        return blob.size

    def manifest(self, repository: str, version: str, architecture: str) -> tuple[str, bytes]:
        """An image's manifest for Linux on this architecture: media type, bytes. Raises Refused, StepFailed."""
        path = f"/v2/{repository}/manifests/{version}"
        with self._pulling(repository, version):
            reply = self._ask("GET", path, repository, {"Accept": ", ".join(MANIFESTS)})
            self._must(reply, (200,), path, "pull")
            if version.startswith("sha256:") and f"sha256:{hashlib.sha256(reply.data).hexdigest()}" != version:
                raise Silent("it answered with another content")
            kind = reply.headers.get("content-type", "")
            if kind not in (MANIFESTS[0], MANIFESTS[2]):
                return kind, reply.data
            listed = {_platform(one): str(one["digest"]) for one in reversed(json.loads(reply.data)["manifests"])}
            if ("linux", architecture) not in listed:
                raise Silent(f"it has none for linux/{architecture}")
        return self.manifest(repository, listed["linux", architecture], architecture)

    def blob(self, repository: str, digest: str, into: Path) -> None:
        """Writes a part of an image to a file, of the content that its digest names. Raises Refused, StepFailed."""
        path = f"/v2/{repository}/blobs/{digest}"
        with self._pulling(repository, digest), into.open("wb") as file:
            reply = self._ask("GET", path, repository, into=file)
            if reply.status in (301, 302, 303, 307, 308):  # to where it is stored: another host, which gets no login
                elsewhere = urljoin(self.base + path, reply.headers.get("location") or "")
                reply = self._ask("GET", elsewhere, repository, into=file)
            self._must(reply, (200,), path, "pull")
        with into.open("rb") as file, self._pulling(repository, digest):
            if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != digest:
                raise Silent("it answered with another content")

    @contextmanager
    def _pulling(self, repository: str, version: str) -> Iterator[None]:
        try:
            yield
        except Silent as error:
            between = "@" if version.startswith("sha256:") else ":"
            raise StepFailed(
                f"the image {self.name}/{repository}{between}{version} could not be pulled",
                where=self.base,
                why=str(error),
                next=f"check the image's name and the network: {self.base}/v2/",
            ) from None

    def _must(self, reply: Reply, statuses: tuple[int, ...], path: str, right: str = "push") -> Reply:
        if reply.status in statuses:
            return reply
        if reply.status in (401, 403):
            raise Refused(
                f"registry {self.name} does not let us {right}",
                where=f"{self.base}{path}",
                why=reply.told,
                next=f"docker login {self.name}",
            )
        raise Silent(f"it answered {reply.told}")

    def _ask(
        self,
        method: str,
        path: str,
        repository: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Callable[[], BinaryIO] | None = None,
        into: BinaryIO | None = None,
    ) -> Reply:
        """One request; where the registry asks who we are, once more with an answer to that."""
        url = path if "://" in path else self.base + path
        ours = urlsplit(url).netloc == urlsplit(self.base).netloc
        scope = f"repository:{repository}:pull" + ("" if method in ("HEAD", "GET") else ",push")
        given = {"Authorization": self._allowed[scope]} if ours and scope in self._allowed else {}
        reply = self._send(method, url, {**(headers or {}), **given}, body, into)
        if reply.status != 401 or not ours:
            return reply
        allowed = self._authorize(reply.headers.get("www-authenticate", ""), scope)
        if not allowed or allowed == given.get("Authorization"):
            return reply
        self._allowed[scope] = allowed
        return self._send(method, url, {**(headers or {}), "Authorization": allowed}, body, into)

    def _authorize(self, challenge: str, scope: str) -> str:
        """The Authorization that answers a challenge, or nothing where we have none."""
        if self._login is None:
            self._login = login(self.config, self.name)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            return self._login.basic if self._login.user else ""
        if kind.lower() != "bearer":
            return ""
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        return self._token(asked, scope)

    def _token(self, asked: Mapping[str, str], scope: str) -> str:
        realm, known = asked.get("realm", ""), self._login or NOBODY
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and reference.local(parts.netloc)):
            return ""
        query = {"service": asked.get("service", ""), "scope": scope}
        if known.token:
            form = {**query, "grant_type": "refresh_token", "client_id": "devenv", "refresh_token": known.token}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            reply = self._send("POST", realm, kind, urlencode(form).encode())
        else:
            who = {"Authorization": known.basic} if known.user else {}
            reply = self._send("GET", f"{realm}{'&' if parts.query else '?'}{urlencode(query)}", who, None)
        try:
            answer = json.loads(reply.data) if reply.status == 200 else {}
            token = answer.get("token") or answer.get("access_token") or ""
        except (ValueError, AttributeError):
            return ""
        return f"Bearer {token}" if token else ""

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Callable[[], BinaryIO] | None,
        into: BinaryIO | None = None,
    ) -> Reply:
        """What a good answer holds goes to `into`, where that is given. Raises Silent where there is no answer."""
        content = body() if callable(body) else body
        try:
            request = urllib.request.Request(url, content, dict(headers), method=method)
            try:
                answer = self._opener.open(request, timeout=self.timeout)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                named = {name.lower(): value for name, value in answer.headers.items()}
                if into is not None and answer.status == 200:
                    shutil.copyfileobj(answer, into)
                return Reply(int(answer.status or 0), named, answer.read(MOST))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Silent(str(reason)[:200] or type(error).__name__) from None
        finally:
            if content is not None and not isinstance(content, bytes):
                content.close()


def _platform(entry: Mapping[str, Any]) -> tuple[str, str]:
    found = _map(entry, "platform")
    return str(found.get("os")), str(found.get("architecture"))


def look_all(wanted: Sequence[reference.Reference], config: Path, patience: float) -> list[bool | None]:
    """For each image whether its registry has it, all asked at once; None where that is not known after `patience`."""
    answers: list[bool | None] = [None] * len(wanted)

    def ask(place: int, image: reference.Reference) -> None:
        answers[place] = Registry(image.registry, config, patience).look(image.repository, image.version)

    # Threads that nobody waits for: looking a name up cannot be given up, and must not hold the run's end.
    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(wanted)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(answers)


def place(text: str) -> tuple[str, str]:
    """`ghcr.io/acme` as the registry's name and the path in it. Raises InputWrong."""
    host, _, path = text.rstrip("/").partition("/")
    named = reference.parse(f"{host}/{path}/x" if path else f"{host}/x")
    if "://" in text or named is None or named.registry != host:
        raise InputWrong(
            f"{text!r} is no registry",
            where="--push",
            why="it is a host, perhaps with a port and a path, without https://",
            next="--push ghcr.io/acme   (or registry.example.com:5000, localhost:5001)",
        )
    return host, path
