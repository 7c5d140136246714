"""A small image registry over real HTTP: keeps what is pushed, checks digests, asks who one is in the way it is told."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD, REFRESH = "ada", "pass:word", "refresh-me"


@dataclass
class FakeRegistry:
    """`auth` is none, basic or bearer; `public`: anybody may pull. `asked`: all requests, `METHOD /path`."""

    auth: str = "none"
    public: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    elsewhere: str = ""  # where its blobs are stored, if not here
    logins: list[str] = field(default_factory=list)  # who asked, at each request: the Authorization

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def docker_config(self, folder: Path, **content: Any) -> Path:
        """A Docker configuration that holds this registry's user, or what is given."""
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        file = folder / "config.json"
        file.write_text(json.dumps(content or {"auths": {self.name: {"auth": word}}}))
        return file


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeRegistry

    def log_message(self, *_: Any) -> None:
        pass

    def say(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status: int, code: str, **headers: str) -> None:
        self.say(status, {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}, **headers)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.fake.asked.append(f"{self.command} {parts.path}")
        self.fake.logins.append(self.headers.get("Authorization", ""))
        if parts.path == "/token":
            return self.token(parse_qs(parts.query), parse_qs(body.decode()))
        if not self.allowed():
            return None
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\d*)", parts.path):
            return self.upload(match[1], body, parse_qs(parts.query))
        if match := re.fullmatch(r"/v2/(.+)/blobs/(.+)", parts.path):
            if self.fake.elsewhere:
                return self.say(307, Location=self.fake.elsewhere + parts.path)
            there = self.fake.blobs.get(match[2])
            return self.say(200, there) if there is not None else self.error(404, "BLOB_UNKNOWN")
        if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", parts.path):
            return self.manifest(f"{match[1]}:{match[2]}", body)
        return self.say(404, b"<html>")

    def manifest(self, name: str, body: bytes) -> None:
        if self.command != "PUT":
            kind, data = self.fake.manifests.get(name, ("", b""))
            return self.say(200, data, Content_Type=kind) if kind else self.error(404, "MANIFEST_UNKNOWN")
        record = json.loads(body)
        parts = [record["config"], *record["layers"]]
        if any(len(self.fake.blobs.get(part["digest"], b"")) != part["size"] for part in parts):
            return self.error(400, "MANIFEST_BLOB_UNKNOWN")
        self.fake.manifests[name] = (self.headers["Content-Type"], body)
        return self.say(201)

    def upload(self, repository: str, body: bytes, query: dict[str, list[str]]) -> None:
        if self.command == "POST":
            return self.say(202, Location=f"/v2/{repository}/blobs/uploads/1?state=x")
        digest = query["digest"][0]
        if query["state"] != ["x"] or f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            return self.error(400, "DIGEST_INVALID")
        self.fake.blobs[digest] = body
        return self.say(201)

    def allowed(self) -> bool:
        fake, given = self.fake, self.headers.get("Authorization", "")
        right = "push" if self.command in ("POST", "PUT") else "pull"
        if fake.auth == "none" or given == basic():
            return True
        if given.startswith("Bearer ") and right in given.rpartition(":")[2].split(","):
            return True
        realm = f'Bearer realm="http://{fake.name}/token",service="fake"'
        self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="x"' if fake.auth == "basic" else realm)
        return False

    def token(self, query: dict[str, list[str]], form: dict[str, list[str]]) -> None:
        known = self.headers.get("Authorization") == basic() or form.get("refresh_token") == [REFRESH]
        name, actions = (form or query)["scope"][0].removeprefix("repository:").rsplit(":", 1)
        granted = actions if known else "pull" if self.fake.public else ""
        if (form or query)["service"] != ["fake"] or not granted:
            return self.error(401, "DENIED")
        return self.say(200, {"access_token" if form else "token": f"t:{name}:{granted}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any


def basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@contextmanager
def running(fake: FakeRegistry) -> Iterator[FakeRegistry]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": fake}))
    fake.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
