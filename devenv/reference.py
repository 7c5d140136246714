"""Names of images, as kubelets, containerd and Docker understand them. Pure.

In: `backend:1`, `ghcr.io/acme/backend@sha256:…`; out: `Reference`, in which nothing is left out.
Source: github.com/distribution/reference, normalize.go: what stands before the first slash is a registry only with a
dot, a colon or as `localhost`; else it is Docker Hub, where a name alone is in `library`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HUB = "docker.io"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")


class Reference(NamedTuple):
    """An image's full name; with a digest, the tag does not count."""

    registry: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def version(self) -> str:
        """What a registry is asked for."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """As containerd writes it."""
        return f"{self.registry}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def parse(text: str) -> Reference | None:
    """The full name, or None where the text is no name of an image."""
    rest, _, digest = text.partition("@")
    first, slash, path = rest.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, path = HUB, rest
    path, _, tag = path.partition(":")
    first = HUB if first == "index.docker.io" else first
    path = f"library/{path}" if first == HUB and "/" not in path else path
    tag = tag or ("" if digest else "latest")
    right = _HOST.fullmatch(first) and _PATH.fullmatch(path) and (not tag or _TAG.fullmatch(tag))
    if not right or ("@" in text and not _DIGEST.fullmatch(digest)) or text.endswith(":"):
        return None
    return Reference(first, path, tag, digest)


def full(text: str) -> str:
    """The name as containerd writes it; a text that is no name stays as it is."""
    found = parse(text)
    return found.name if found else text


def local(registry: str) -> bool:
    """Whether a registry is this machine's own: asked without TLS, and another one for every machine."""
    host = registry.rpartition(":")[0] if re.search(r":\d+$", registry) else registry
    return host in ("localhost", "127.0.0.1", "[::1]")
