"""An API server at the edge: answers from a table, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, Any]


@dataclass
class FakeApi:
    """`answers`: "METHOD /path" → (status, body) or a function of the request's body; `asked`: all requests.

    A watch has the method WATCH; one that is not in the table ends at once without a change.
    """

    answers: dict[str, Answer | Callable[[Any], Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def start(self) -> FakeApi:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                command = "WATCH" if "watch=1" in self.path else self.command
                key = f"{command} {self.path.partition('?')[0]}"
                fake.asked.append(f"{self.command} {self.path}")
                found = fake.answers.get(key, (200, "") if command == "WATCH" else (404, {"message": "not found"}))
                status, answer = found(body) if callable(found) else found
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # of five, a busy machine resets those that come at once

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()

    def kubeconfig(self, folder: Path) -> Path:
        assert self.server is not None
        url = f"http://127.0.0.1:{self.server.server_port}"
        path = folder / "kubeconfig"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": url}}],
            "users": [{"name": "fake", "user": {"token": "t"}}],
        }  # fmt: skip
        path.write_text(json.dumps(config))
        return path
