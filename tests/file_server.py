"""A file server over real HTTP that can do what servers do: serve, break off, stall, drip, tamper, refuse, redirect."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """`does`: what is done at each request, in order, the last of them from then on; `asked`: each request's headers."""

    content: bytes
    does: list[str] = field(default_factory=lambda: ["serves"])
    ranges: bool = True
    lengths: bool = True
    asked: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/programs.whl"


class Handler(BaseHTTPRequestHandler):
    server_of: FileServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        ours = self.server_of
        does = ours.does[min(len(ours.asked), len(ours.does) - 1)]
        ours.asked.append(dict(self.headers))
        if does.isdigit():
            self.send_response(int(does))
            if does.startswith("30"):
                self.send_header("Location", f"http://localhost:{ours.port}/elsewhere")
            self.end_headers()
            return
        first = int(self.headers.get("Range", "bytes=0-")[6:-1]) if ours.ranges else 0
        content = b"x" * len(ours.content) if does == "tampers" else ours.content
        self._send(content, first, does)

    def _send(self, content: bytes, first: int, does: str) -> None:
        part = content[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if self.server_of.lengths:
            self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if does == "breaks off":
            self.wfile.write(part[: max(1, len(part) // 2)])
        elif does == "stalls":
            self.wfile.write(part[:10])
            self.wfile.flush()
            time.sleep(2)
        elif does == "drips":
            for place in range(20):
                self.wfile.write(part[place : place + 1])
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.wfile.write(part)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Whoever gave us up closed the connection."""


@contextmanager
def serving(files: FileServer) -> Iterator[FileServer]:
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"server_of": files}))
    server.block_on_close = False
    files.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
