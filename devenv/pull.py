"""Fetches charts from repositories and registries, by Helm, into the cache. Edge in.

The user's repositories and logins count, as Helm knows them; they are read and never written. Helm works on a private
copy of what is asked for: one repository that is out of order does not stop another.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from devenv import documents, paths, settings
from devenv.clients import helm as helming
from devenv.clients import shell
from devenv.clients.helm import Helm
from devenv.errors import Failure, InputWrong, Refused

Waits = Callable[[str], None]
Repository = Mapping[str, Any]  # an entry of Helm's repositories.yaml

PINNED = re.compile(r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")
KEPT = 30  # packages in the cache
LEFT = 3600.0  # seconds after which nobody can be at work in a folder any more


class Asked(NamedTuple):
    """What is asked for, in words for messages: the chart, its version (or empty), and whom it is asked from."""

    chart: str
    version: str
    place: str

    @property
    def whole(self) -> str:
        return f"chart {self.chart}" + (f" {self.version}" if self.version else "")


def folder() -> Path:
    """Where fetched and completed charts are kept; can be deleted at any time."""
    return paths.cache() / "charts"


def pull(helm: Helm, reference: str, version: str, waits: Waits) -> Path:
    """The packaged chart: `repo/name`, `oci://…` or an address. Fetched at most once where the version is pinned, else
    looked up each time. Raises InputWrong where there is no such chart, Refused where nobody answers."""
    known = [] if "://" in reference else [_named(reference.partition("/")[0])]
    asked = Asked(reference, version, known[0]["url"] if known else urlsplit(reference).netloc)
    pinned = bool(PINNED.fullmatch(version) or "@sha256:" in reference)
    note = folder() / "pinned" / hashlib.sha256(f"{reference} {version} {asked.place}".encode()).hexdigest()
    if pinned and (kept := _noted(note)):
        return kept
    waits(f"fetching {asked.whole} from {asked.place}")
    with workshop(known) as work:
        if known:
            _answered(work.helm(helm, "repo", "update", known[0]["name"]), asked)
        words = ["pull", reference, *(["--version", version] if version else []), "--destination", str(work.folder)]
        output = _plainly_if_it_must(helm, work, words, [reference])
        if output.code != 0:
            raise trouble(output, asked, _versions(helm, work, reference) if known else ())
        file = _keep(work.folder, asked)
    if pinned:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(file))
    return file


def dependencies(helm: Helm, skeleton: Path, needed: Sequence[Mapping[str, Any]], chart: str, waits: Waits) -> None:
    """Fills `skeleton`/charts as the chart's lock says, without one by what Chart.yaml allows. `skeleton` needs only
    Chart.yaml and the lock. Raises InputWrong where lock and Chart.yaml differ, or there is no such chart; Refused."""
    names = ", ".join(str(entry["name"]) for entry in needed)
    addresses = [str(entry.get("repository") or "") for entry in needed]
    known = repositories_of(addresses)
    waits(f"fetching {names} for chart {chart}")
    with workshop(known) as work:
        for entry in known:
            who = ", ".join(str(dep["name"]) for dep in needed if _same(dep.get("repository"), entry))
            _answered(work.helm(helm, "repo", "update", entry["name"]), Asked(f"{who} for {chart}", "", entry["url"]))
        locked = any((skeleton / name).is_file() for name in ("Chart.lock", "requirements.lock"))
        words = ["dependency", "build" if locked else "update", str(skeleton), "--skip-refresh"]
        output = _plainly_if_it_must(helm, work, words, addresses)
    if output.code != 0:
        raise trouble(output, Asked(f"{names} for {chart}", "", ", ".join(filter(None, dict.fromkeys(addresses)))))


def repositories() -> list[Repository]:
    """The repositories that the user's Helm knows."""
    file = settings.helm_repositories()
    if not file.is_file():
        return []
    entries = documents.read(file, str(file)).tree.get("repositories") or []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("name") and entry.get("url")]


def _named(name: str) -> Repository:
    known = repositories()
    found = next((entry for entry in known if entry["name"] == name), None)
    if found is None:
        raise InputWrong(
            f"helm knows no repository {name}",
            where=str(settings.helm_repositories()),
            why="it knows: " + (", ".join(sorted(entry["name"] for entry in known)) or "none"),
            next=f"helm repo add {name} https://…   (a folder is written as ./{name}/…)",
        )
    return found


def repositories_of(addresses: Iterable[str]) -> list[Repository]:
    """The repositories behind addresses: the user's own, with their logins; others by address alone."""
    known, found = repositories(), {}
    for address in addresses:
        if address.startswith(("@", "alias:")):
            entry = _named(address.removeprefix("@").removeprefix("alias:"))
        elif address.startswith(("http://", "https://")):
            unknown = {"name": f"devenv-{hashlib.sha256(address.encode()).hexdigest()[:8]}", "url": address}
            entry = next((one for one in known if _same(address, one)), unknown)
        else:
            continue
        found[entry["name"]] = entry
    return list(found.values())


def _same(address: Any, entry: Repository) -> bool:
    text = str(address or "")
    return text.rstrip("/") == str(entry["url"]).rstrip("/") or text in (f"@{entry['name']}", f"alias:{entry['name']}")


class Workshop(NamedTuple):
    """A private folder in which Helm works; gone afterwards."""

    folder: Path

    def helm(self, helm: Helm, *words: str) -> shell.Output:
        own = {
            "HELM_REPOSITORY_CONFIG": str(self.folder / "repositories.yaml"),
            "HELM_REPOSITORY_CACHE": str(self.folder / "index"),
            "HELM_CONTENT_CACHE": str(self.folder / "content"),
        }
        return helm.elsewhere(*words, env=own)


@contextmanager
def workshop(known: Sequence[Repository] = ()) -> Iterator[Workshop]:
    """A private folder with the repositories that are asked; one that a killed run left is removed."""
    folder().mkdir(parents=True, exist_ok=True)
    for left in folder().glob("work-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=folder(), ignore_cleanup_errors=True) as name:
        work = Workshop(Path(name))
        file = work.folder / "repositories.yaml"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"apiVersion": "v1", "repositories": [dict(entry) for entry in known]}))
        yield work


_PLAIN = ("first record does not look like a TLS handshake", "server gave HTTP response to HTTPS client")


def _plainly_if_it_must(helm: Helm, work: Workshop, words: Sequence[str], addresses: Sequence[str]) -> shell.Output:
    """Registries are asked with TLS; only those of this machine without it, where they speak no TLS, as Docker does."""
    output = work.helm(helm, *words)
    registries = [address for address in addresses if address.startswith("oci://")]
    plain = output.code != 0 and any(sign in output.stderr for sign in _PLAIN)
    if plain and all(_loopback(address) for address in registries):
        return work.helm(helm, *words, "--plain-http")
    return output


def _loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _answered(output: shell.Output, asked: Asked) -> None:
    """`helm repo update` says why on standard output, and Helm 3 ends with 0 nevertheless. Raises Refused."""
    if output.code != 0 or "...Unable" in output.stdout:
        lines = [line.strip() for line in output.stdout.splitlines() if line.strip()]
        after = [line for number, line in enumerate(lines) if number and lines[number - 1].startswith("...Unable")]
        told = after[0] if after else helming.reason(output)
        raise trouble(shell.Output(output.code, "", told), asked)


def _versions(helm: Helm, work: Workshop, reference: str) -> tuple[str, ...]:
    """The chart's versions in its repository, the newest first."""
    output = work.helm(helm, "search", "repo", reference, "--versions", "--output", "json")
    with suppress(ValueError):
        return tuple(entry["version"] for entry in json.loads(output.stdout) if entry["name"] == reference)
    return ()


def _keep(work: Path, asked: Asked) -> Path:
    """The package that Helm left, below the hash of its bytes."""
    file = next(work.glob("*.tgz"), None)
    if file is None or not is_chart(file):
        raise InputWrong(f"{asked.chart} is no packaged chart", where=asked.place, next="helm pull " + asked.chart)
    kept = folder() / "pulled" / hashlib.sha256(file.read_bytes()).hexdigest()[:20] / file.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    file.replace(kept)
    prune(folder() / "pulled")
    return kept


def prune(where: Path) -> None:
    """Leaves the newest entries of a folder of the cache."""
    for old in sorted(where.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _noted(note: Path) -> Path | None:
    with suppress(OSError):
        file = Path(note.read_text())
        return file if file.is_file() else None
    return None


def is_chart(file: Path) -> bool:
    """Whether a file is an archive with a Chart.yaml in its only folder."""
    return bool(read(file, "Chart.yaml"))


def read(file: Path, name: str) -> str:
    """A text of a packaged chart; empty where there is none, or where the file is no package."""
    with suppress(OSError, tarfile.TarError, EOFError), tarfile.open(file, "r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if re.fullmatch(rf"(\./)?[^/]+/{name}", member.name) else None
            if content is not None:
                return content.read(documents.LIMIT).decode("utf-8", "replace")
    return ""


AGAIN = "the same command again; a pinned version that was fetched before needs nobody"
PLAIN = "without TLS only registries of this machine itself are asked"
TRUST = "SSL_CERT_FILE=FILE in front of the command, or helm repo add --ca-file FILE"
LOGIN = "helm registry login {host}, or helm repo add --force-update --username NAME … for a repository"
LOCK = "helm dependency update, in the chart's folder"
THERE = "name one that is there"

# What Helm says → what is wrong, whose fault it is, and what to do. The first that fits counts.
_TROUBLES: tuple[tuple[str, type[Failure], str, str], ...] = (
    ("stopped after", Refused, "{host} does not answer", AGAIN),
    ("out of sync", InputWrong, "Chart.yaml and lock of chart {chart} do not say the same", LOCK),
    ("|".join(_PLAIN), Refused, "{host} speaks no TLS", PLAIN),
    ("no chart version found|could not locate a version|valid version", InputWrong, "there is no {whole}", THERE),
    (r"\b40[13]\b|credential not found|unauthorized|denied|forbidden", Refused, "{host} refuses access", LOGIN),
    (r"no chart name found|\b404\b|: not found|_UNKNOWN", InputWrong, "there is no {whole}", THERE),
    ("x509:|certificate|tls: ", Refused, "the certificate of {host} is not trusted", TRUST),
    ("", Refused, "{host} does not answer", AGAIN),
)


def trouble(output: shell.Output, asked: Asked, versions: Sequence[str] = ()) -> Failure:
    """What Helm said, as a failure in one line each; `versions`: those that there are. Pure."""
    why = _why(output)
    words = {"host": asked.place, "chart": asked.chart, "whole": asked.whole}
    for pattern, kind, what, then in _TROUBLES:
        if re.search(pattern, why, re.I):
            there = f"there are: {', '.join(versions[:8])}" if versions and kind is InputWrong else why
            return kind(what.format(**words), where=asked.place, why=there, next=then.format(**words))
    raise AssertionError("unreachable")


def _why(output: shell.Output) -> str:
    """The end of Helm's chain of causes, without the request that it repeats."""
    text = output.last_line if output.code == 124 else helming.reason(output)
    text = re.sub(r'failed to perform "\w+" on source: ', "", text)
    return re.sub(r'^(GET|Get|HEAD|Head) "[^"]*": ', "", text).strip()
