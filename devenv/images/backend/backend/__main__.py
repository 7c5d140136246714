"""Runs the backend until it is told to stop: `python -m backend`, set up by environment variables (settings.py)."""

from __future__ import annotations

import os
import signal
import sys
import threading

from . import service as work
from .api import Server
from .errors import Unavailable, Unusable
from .service import Service
from .settings import Settings, SettingsWrong, read

KEEP_SECONDS = 5.0
# Kubernetes goes on sending requests for a moment after it told the pod to stop
LEAVING_SECONDS = 2.0


def main() -> int:
    try:
        settings = read(os.environ)  # noqa: TID251  a program of its own
    except SettingsWrong as error:
        print(f"backend: {error}", file=sys.stderr)
        return 2
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    service = _service(settings, stopping)
    server = Server(service)
    listener = threading.Thread(target=server.serve_forever, name="http")
    listener.start()
    print(f"listening on port {settings.port}, template {settings.template}", flush=True)
    _keep(service)
    print("stopping: requests under way are finished first", flush=True)
    threading.Event().wait(LEAVING_SECONDS)
    server.shutdown()
    listener.join()
    server.server_close()
    if service.runner is not None:
        service.runner.stop()
    return 0


def _service(settings: Settings, stopping: threading.Event) -> Service:
    if settings.temporal is None:
        return Service(settings, None, stopping)
    # imported here: it takes a second, and nothing of it is needed where Temporal is off
    from .runner import Runner

    runner = Runner(settings, settings.temporal)
    runner.start()
    return Service(settings, runner, stopping)


def _keep(service: Service) -> None:
    """Until told to stop: the table is there, and no request stays behind. What the last run left comes first."""
    said, seconds = "", 0.0
    while not service.stopping.is_set():
        try:
            work.keep(service, seconds)
        except (Unusable, Unavailable) as error:
            if said != (said := str(error)):
                print(f"waiting: {said}", flush=True)
            service.stopping.wait(1)
            continue
        said, seconds = "", work.INTERRUPTED_SECONDS
        service.stopping.wait(KEEP_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
