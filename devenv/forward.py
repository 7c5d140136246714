"""Lasting ways from this machine to an environment's web and gRPC ports, until Ctrl-C. Edge out."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from devenv.clients import shell
from devenv.clients.kube import KINDS, Kube, Object
from devenv.environment import Session, kubectl_argv
from devenv.errors import Refused
from devenv.model import Desired
from devenv.report import Screen

WEB = re.compile(r"http|web|ui")
GRPC = re.compile(r"grpc|rpc")
PAUSE = 1.0  # seconds before a way that broke is opened again


class Way(NamedTuple):
    """One port of a Service, and the local port that leads to it."""

    service: str
    port: int
    local: int
    scheme: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.local}" if self.scheme == "http" else f"127.0.0.1:{self.local} (gRPC)"


def ways(services: Iterable[Object], free: Callable[[int], int]) -> list[Way]:
    """The web and gRPC ports of Services, by their names; headless ones only repeat others. Pure but for `free`."""
    found = []
    for service in services:
        if service["spec"].get("clusterIP") == "None":
            continue
        for port in service["spec"].get("ports") or []:
            name = port.get("name", "") + port.get("appProtocol", "")
            scheme = "grpc" if GRPC.search(name) else "http" if WEB.search(name) or port["port"] in (80, 8080) else ""
            if scheme:
                found.append(Way(service["metadata"]["name"], port["port"], free(port["port"]), scheme))
    return found


def open_all(session: Session, desired: Desired, screen: Screen) -> None:
    """Opens every way and keeps it open, over redeploys, until Ctrl-C."""
    kube: Kube = session.kube
    services = kube.get(KINDS[("v1", "Service")].path(desired.namespace)).get("items") or []
    taken: set[int] = set()
    found = ways(services, lambda port: _free(port, taken))
    if not found:
        raise Refused("there is nothing to forward to", where=f"namespace {desired.namespace}", next="inv redeploy")
    stop = threading.Event()
    for way in found:
        threading.Thread(target=_keep_open, args=(session, desired, way, stop, screen), daemon=True).start()
        screen.line(f"{way.service:<32} {way.url}")
    screen.line("Ctrl-C ends them", "dim")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        stop.set()


def _keep_open(session: Session, desired: Desired, way: Way, stop: threading.Event, screen: Screen) -> None:
    argv = kubectl_argv(session, desired.namespace, "port-forward", f"service/{way.service}", f"{way.local}:{way.port}")
    while not stop.is_set():
        shell.run(argv)
        stop.wait(PAUSE)


def _free(port: int, taken: set[int]) -> int:
    """The same port on this machine where it is free, else the next one that is."""
    candidates: list[int] = [port if port >= 1024 else port + 8000, *range(20000, 20200)]
    for candidate in candidates:
        if candidate in taken:
            continue
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", candidate)) != 0:
                taken.add(candidate)
                return candidate
    raise Refused("no local port is free", where="127.0.0.1:20000-20199")
