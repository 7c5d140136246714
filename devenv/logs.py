"""The logs of an environment: all components merged by time, each line with its component in a colour of its own.

In: a namespace and perhaps a component; out: lines on standard output, as they come with `follow`.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from devenv import look
from devenv.clients.kube import Kube
from devenv.errors import Failure, InputWrong
from devenv.model import Pod

FIRST = "20"  # lines of what was said before, with --follow
LOOK_AGAIN = 2.0  # seconds
COLORS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
TAIL = "200"


Query = dict[str, str]


class Source(NamedTuple):
    """One container's log; `init` containers too, because they explain what does not start."""

    pod: str
    component: str
    container: str
    init: bool

    @property
    def title(self) -> str:
        return f"{self.component}/{self.container}" if self.init else self.component


def names(pod: Pod) -> tuple[str, ...]:
    """What a pod may be asked for by: its component's label, its own name, the name of what made it."""
    return pod.component, pod.name, pod.owner.partition("/")[2]


def sources(pods: tuple[Pod, ...], component: str) -> list[Source]:
    """The containers of a component, or of all; those that never ran have no log."""
    return [
        Source(pod.name, pod.component, container.name, container.init)
        for pod in pods
        if not component or component in names(pod)
        for container in pod.containers
        if container.state != "waiting" or container.restarts
    ]


def show(
    kube: Kube, namespace: str, component: str, *, follow: bool, previous: bool, since: float | None = None
) -> None:
    """Prints the logs, the last `since` seconds of them where that is given, else their last lines.

    With `follow` until Ctrl-C, across restarts and new pods. Raises InputWrong for an unknown component.
    """
    pods = look.once(kube, namespace).pods
    components = sorted({pod.component for pod in pods})
    if component and not any(component in names(pod) for pod in pods):
        raise InputWrong(
            f"no component {component} runs in namespace {namespace}",
            where=component,
            why="there are: " + (", ".join(components) or "none"),
            next=f"inv logs {components[0]}" if components else "inv redeploy",
        )
    write = _writer()
    found = sources(pods, component)
    if follow:
        _follow(kube, namespace, component, write, _past(since, FIRST))
        return
    past = _past(since, TAIL)
    streams = [_lines(kube, namespace, source, past, previous=previous) for source in found]
    for _, source, text in heapq.merge(*streams, key=lambda line: line[0]):
        write(source, text)


def _past(since: float | None, lines: str) -> Query:
    """How much of what was said before is wanted."""
    return {"tailLines": lines} if since is None else {"sinceSeconds": f"{max(1, round(since))}"}


def _writer() -> Callable[[Source, str], None]:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def write(source: Source, text: str) -> None:
        color = COLORS[zlib.crc32(source.title.encode()) % len(COLORS)]
        console.print(Text.assemble((f"{source.title:<11} ", color), text))

    return write


def _split(line: str) -> tuple[str, str]:
    """A line of `timestamps=true`: time stamp and text."""
    stamp, _, text = line.partition(" ")
    return stamp, text


def _lines(
    kube: Kube, namespace: str, source: Source, past: Query, *, previous: bool
) -> Iterator[tuple[str, Source, str]]:
    query = {"container": source.container, "timestamps": "true", **past}
    if previous:
        query["previous"] = "true"
    try:
        text = kube.text(f"/api/v1/namespaces/{namespace}/pods/{source.pod}/log", query)
    except Failure:
        return
    for line in text.splitlines():
        stamp, rest = _split(line)
        yield stamp, source, rest


def _follow(kube: Kube, namespace: str, component: str, write: Callable[[Source, str], None], past: Query) -> None:
    """One thread for each container; new pods and restarted containers are picked up as they come, from their start."""
    stop = threading.Event()
    lines: queue.SimpleQueue[tuple[Source, str]] = queue.SimpleQueue()
    threads: dict[Source, threading.Thread] = {}
    known: set[str] | None = None
    last: dict[Source, str] = {}
    looked = 0.0
    try:
        while True:
            if time.monotonic() - looked > LOOK_AGAIN:
                looked = time.monotonic()
                pods = look.once(kube, namespace).pods
                known = known or {pod.name for pod in pods}
                for source in sources(pods, component):
                    if source not in threads or not threads[source].is_alive():
                        begin = past if source.pod in known else {}
                        threads[source] = _start(kube, namespace, source, begin, last, lines, stop)
            try:
                write(*lines.get(timeout=0.5))
            except queue.Empty:
                continue
    except KeyboardInterrupt:
        return
    finally:
        stop.set()


def _start(
    kube: Kube,
    namespace: str,
    source: Source,
    past: Query,
    last: dict[Source, str],
    lines: queue.SimpleQueue[tuple[Source, str]],
    stop: threading.Event,
) -> threading.Thread:
    query = {"container": source.container, "timestamps": "true", "follow": "true"}
    query.update({"sinceTime": last[source][:19] + "Z"} if source in last else past)

    def read() -> None:
        try:
            for line in kube.follow(f"/api/v1/namespaces/{namespace}/pods/{source.pod}/log", query, stop):
                stamp, text = _split(line)
                if stamp > last.get(source, ""):
                    last[source] = stamp
                    lines.put((source, text))
        except Failure:
            return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread
