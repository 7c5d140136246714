"""Servers of charts at the edge, on this machine's own address only: a chart repository and the pull side of an OCI
registry (OCI distribution specification 1.1, "Pull")."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import ssl
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

Files = Mapping[str, str]


def package(name: str, files: Files) -> bytes:
    """A packaged chart; equal files make equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def write(folder: Path, files: Files) -> str:
    """A chart as a folder; its path."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class ChartServer:
    """`paths`: what is served, path → (content type, bytes); `asked`: all requests; with `login`, only for that.

    As a repository below `/charts`, as a registry below `/v2`.
    """

    login: str = ""
    paths: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    entries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None
    tls: bool = False

    def start(self, certificate: Path | None = None, key: Path | None = None) -> ChartServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                fake.asked.append(f"{self.command} {self.path}")
                wanted = "Basic " + base64.b64encode(fake.login.encode()).decode()
                kind, data = fake.paths.get(self.path.partition("?")[0], ("text/plain", b""))
                status = 200 if self.path.partition("?")[0] in fake.paths else 404
                if fake.login and self.headers.get("Authorization") != wanted:
                    status, kind, data = 401, "text/plain", b"no"
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="charts"')
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if kind.endswith(("+json", "+gzip")):
                    self.send_header("Docker-Content-Digest", digest(data))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = answer

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A client that tries TLS first, or goes away, is no error."""

        self.server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.tls = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.paths["/v2/"] = ("application/json", b"{}")
        return self

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()

    @property
    def port(self) -> int:
        assert self.server is not None
        return self.server.server_port

    @property
    def repository(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/charts"

    def publish(self, files: Files) -> bytes:
        """Puts a chart into the repository; name and version are those of its Chart.yaml."""
        chart = yaml.safe_load(files["Chart.yaml"])
        name, version = chart["name"], chart["version"]
        data, file = package(name, files), f"{name}-{version}.tgz"
        entry = {**chart, "urls": [file], "digest": hashlib.sha256(data).hexdigest()}
        self.entries.setdefault(name, []).append(entry)
        self.paths[f"/charts/{file}"] = ("application/gzip", data)
        index = {"apiVersion": "v1", "entries": self.entries, "generated": "2026-01-01T00:00:00Z"}
        self.paths["/charts/index.yaml"] = ("text/yaml", yaml.safe_dump(index).encode())
        return data

    def push(self, files: Files, repository: str = "team") -> str:
        """Puts a chart into the registry; its manifest's digest."""
        chart = yaml.safe_load(files["Chart.yaml"])
        name, version = chart["name"], chart["version"]
        base = f"/v2/{repository}/{name}"

        def blob(kind: str, data: bytes) -> dict[str, Any]:
            self.paths[f"{base}/blobs/{digest(data)}"] = ("application/octet-stream", data)
            return {"mediaType": kind, "digest": digest(data), "size": len(data)}

        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("application/vnd.cncf.helm.config.v1+json", json.dumps(chart).encode()),
            "layers": [blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", package(name, files))],
        }
        data = json.dumps(manifest).encode()
        tags = self.tags.setdefault(f"{repository}/{name}", [])
        tags.append(re.sub(r"\+", "_", version))
        for reference in (tags[-1], digest(data)):
            self.paths[f"{base}/manifests/{reference}"] = (str(manifest["mediaType"]), data)
        listed = {"name": f"{repository}/{name}", "tags": tags}
        self.paths[f"{base}/tags/list"] = ("application/json", json.dumps(listed).encode())
        return digest(data)
