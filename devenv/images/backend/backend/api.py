"""HTTP in, JSON out. Parsing and routing are pure; Handler only moves bytes.

POST /requests {"name": "…", "pinned": false}   store it, run it, answer with its row
GET  /requests        the latest      GET /requests/<id>   one, and whether visibility lists its run
GET  /healthz         the process     GET /readyz          the truth, with the reasons
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .errors import Unavailable, Unusable

if TYPE_CHECKING:
    from .service import Service

BODY_LIMIT = 65536
NAME_LIMIT = 200
ROUTES = {"healthz": {"GET"}, "readyz": {"GET"}, "requests": {"GET", "POST"}, "requests/<id>": {"GET"}}


class Wrong(Exception):
    """The client's mistake: a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Order:
    """What POST /requests asks for; `pinned`: only workers of the pod template that takes it may run it."""

    name: str
    pinned: bool


def route(method: str, path: str) -> tuple[str, uuid.UUID | None]:
    """The route's name, and the id where the path has one."""
    parts = path.split("?")[0].strip("/").split("/")
    name, request_id = parts[0], None
    if parts[0] == "requests" and len(parts) == 2:
        name = "requests/<id>"
        try:
            request_id = uuid.UUID(parts[1])
        except ValueError:
            raise Wrong(404, f"{parts[1]!r} is not the id of a request") from None
    if name not in ROUTES or (len(parts) > 1 and request_id is None):
        raise Wrong(404, f"there is no {path}; there is /requests, /requests/<id>, /healthz and /readyz")
    if method not in ROUTES[name]:
        raise Wrong(405, f"{method} is not for {path}; {' and '.join(sorted(ROUTES[name]))} is")
    return name, request_id


def order(body: bytes) -> Order:
    """The body of POST /requests."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Wrong(400, 'the body is not JSON; it should be like {"name": "Ada"}') from None
    if not isinstance(document, dict) or (unknown := set(document) - {"name", "pinned"}):
        what = f"unknown keys {', '.join(sorted(unknown))}" if isinstance(document, dict) else "no object"
        raise Wrong(400, f'the body has {what}; it should be like {{"name": "Ada"}}')
    name, pinned = document.get("name"), document.get("pinned", False)
    if not isinstance(name, str) or not 0 < len(name.strip()) <= NAME_LIMIT:
        raise Wrong(400, f"name should be a text of 1 to {NAME_LIMIT} characters")
    if "\0" in name or any(0xD800 <= ord(character) <= 0xDFFF for character in name):
        raise Wrong(400, "name has characters that no database can store")
    if not isinstance(pinned, bool):
        raise Wrong(400, "pinned should be true or false")
    return Order(name.strip(), pinned)


def answer(service: Service, method: str, path: str, body: bytes) -> tuple[int, Any]:
    """Status and document of any call."""
    try:
        return _answer(service, method, path, body)
    except Wrong as error:
        return error.status, {"error": str(error)}
    except (Unusable, Unavailable) as error:
        return 503, {"error": str(error)}


def _answer(service: Service, method: str, path: str, body: bytes) -> tuple[int, Any]:
    from . import service as work

    name, request_id = route(method, path)
    if name == "healthz":
        return 200, {"alive": True}
    if name == "readyz":
        problems = work.ready(service)
        return (503 if problems else 200), {
            "ready": not problems,
            "problems": problems,
            "template": service.settings.template,
            "temporal": service.runner is not None,
        }
    if request_id is not None:
        row = work.show(service, request_id)
        if row is None:
            raise Wrong(404, f"there is no request {request_id}")
        return 200, row
    if method == "GET":
        return 200, {"requests": work.latest(service)}
    wanted = order(body)
    row = work.take(service, wanted.name, pinned=wanted.pinned)
    return (201 if row["state"] == "done" else 202), row


class Handler(BaseHTTPRequestHandler):
    """One request per connection, so that a stop never waits for an idle client."""

    server: Server
    timeout = 10

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > BODY_LIMIT:
            return self._send(413, {"error": f"the body may have {BODY_LIMIT} bytes"})
        body = self.rfile.read(int(length))
        try:
            status, document = answer(self.server.service, self.command, self.path, body)
        except Exception as error:
            # for the log, with its trace; the client gets a sentence
            self.server.handle_error(self.request, self.client_address)
            status, document = 500, {"error": f"a bug in the backend ({type(error).__name__}); its log has the details"}
        if not self.path.endswith("z"):
            print(f"{self.command} {self.path} {status}", flush=True)
        return self._send(status, document)

    def _send(self, status: int, document: Any) -> None:
        text = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._send(code, {"error": message or explain or "not understood"})

    def log_message(self, format: str, *args: Any) -> None:
        """Said in _serve, once per request and not per probe."""


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def __init__(self, service: Service) -> None:
        self.service = service
        super().__init__(("", service.settings.port), Handler)
