"""The chart on disk, whole: what is elsewhere is fetched, what it depends on is put into it. Edge in.

A user's folder is read and never written: a chart whose dependencies are not in its charts/ is completed in the cache.
Files that .helmignore names are no part of a chart, here as in Helm.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from devenv import documents, paths, pull
from devenv.clients.helm import Helm
from devenv.errors import InputWrong
from devenv.model import Desired, Reference

Waits = Callable[[str], None]
Dependency = Mapping[str, Any]  # an entry of `dependencies` in Chart.yaml
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(text: str, base: Path, origin: str) -> Reference:
    """What a user meant by a chart: a folder or package that is there, `repo/name[:VERSION]`, `oci://…[:VERSION]` or an
    address. Raises InputWrong. Asks nobody."""
    if "://" in text:
        return _remote(text, origin)
    path = paths.on_disk(text, base)
    if (path / "Chart.yaml").is_file() or (path.is_file() and pull.is_chart(path)):
        return Reference(text, path=path)
    name, _, version = text.partition(":")
    if NAME.fullmatch(name) and not path.exists():
        return Reference(name, version)
    raise InputWrong(
        f"there is no chart at {text}",
        where=origin,
        why=f"{path} is no packaged chart" if path.is_file() else f"{path} has no Chart.yaml",
        next="--chart environment   (the bundled one), a folder, a .tgz, repo/name or oci://…",
    )


def _remote(text: str, origin: str) -> Reference:
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise InputWrong(
            "a chart's address holds no login",
            where=origin,
            why="it would be seen in the list of processes",
            next="helm registry login HOST, or helm repo add --username … NAME URL and --chart NAME/CHART",
        )
    tag = re.search(r"(?<=[^/]):(v?\d[^/:@]*)$", parts.path) if parts.scheme == "oci" else None
    return Reference(text[: -len(tag.group(0))], tag.group(1)) if tag else Reference(text)


def ready(desired: Desired, helm: Helm, waits: Waits) -> Desired:
    """The same environment with its chart on disk and whole; as it is where it was so. Raises InputWrong, Refused."""
    if desired.chart_digest:
        return desired
    if desired.chart_path is None:
        file = pull.pull(helm, desired.chart, desired.chart_version, waits)
        version = file.stem.removeprefix(desired.chart.rpartition("/")[2]).removeprefix("-")
        shown = desired.chart_shown if version in desired.chart_shown else f"{desired.chart_shown} {version}"
        return _with(desired, file, _file_digest(file), shown)
    if desired.bundled:
        return _with(desired, desired.chart_path, digest(desired.chart_path), desired.chart_shown)
    whole = complete(desired.chart_path, helm, waits)
    return _with(desired, whole.path, whole.digest, desired.chart_shown)


def _with(desired: Desired, path: Path, found: str, shown: str) -> Desired:
    return desired._replace(
        chart=str(path), chart_path=path, chart_version="", chart_digest=found, chart_shown=shown
    )  # fmt: skip


class Whole(NamedTuple):
    """A chart with all that it depends on, and the hash of all of it."""

    path: Path
    digest: str


def complete(folder: Path, helm: Helm, waits: Waits, above: tuple[Path, ...] = ()) -> Whole:
    """The chart, where needed as a completed copy: dependencies by `file://` as they are now, others fetched once for
    each content of Chart.yaml and its lock. Raises InputWrong, Refused."""
    if folder.is_file():
        return Whole(folder, _file_digest(folder))
    needed = dependencies(folder)
    local = {str(dep["name"]): where for dep in needed if (where := _beside(folder, dep))}
    missing = [dep for dep in needed if dep["name"] not in local and not _vendored(folder, str(dep["name"]))]
    if not local and not missing:
        return Whole(folder, digest(folder))
    if folder in above:
        raise InputWrong(
            "charts depend on each other in a circle", where=" → ".join(str(path) for path in (*above, folder))
        )
    parts = {name: complete(where, helm, waits, (*above, folder)) for name, where in local.items()}
    fetched = _fetched(folder, needed, local, missing, helm, waits)
    found = _hash([digest(folder), *(f"{name} {part.digest}" for name, part in sorted(parts.items()))]
                  + [f"{file.name} {_file_digest(file)}" for file in fetched])  # fmt: skip
    return Whole(_assembled(folder, parts, fetched, found), found)


def dependencies(folder: Path) -> list[Dependency]:
    """What a chart depends on, by its Chart.yaml, or by requirements.yaml in the older form."""
    found: list[Dependency] = []
    for name in ("Chart.yaml", "requirements.yaml"):
        file = folder / name
        if file.is_file():
            document = documents.read(file, str(file))
            for number, entry in enumerate(document.tree.get("dependencies") or []):
                place = document.at(("dependencies", str(number)))
                if not isinstance(entry, dict) or not entry.get("name"):
                    raise InputWrong("a dependency has no name", where=place, next=f"mend {file}")
                found.append({**entry, "at": place})
    return found


def _beside(folder: Path, dependency: Dependency) -> Path | None:
    """The folder of a `file://` dependency; None for others, and for one that lies in charts/ already."""
    address = str(dependency.get("repository") or "")
    if not address.startswith("file://"):
        return None
    where = Path(os.path.normpath(folder / address.removeprefix("file://")))
    if (folder / "charts") in where.parents:
        return None
    if not (where / "Chart.yaml").is_file() and not where.is_file():
        if _vendored(folder, str(dependency["name"])):
            return None
        raise InputWrong(
            f"chart {folder.name} depends on {dependency['name']}, which is not there",
            where=str(dependency["at"]),
            why=f"{where} has no Chart.yaml",
            next=f"mend the repository of {dependency['name']}",
        )
    return where


def _vendored(folder: Path, name: str) -> bool:
    """Whether charts/ holds the dependency, unpacked or packed."""
    charts = folder / "charts"
    packed = re.compile(rf"{re.escape(name)}-v?\d.*\.tgz")
    there = charts.iterdir() if charts.is_dir() else iter(())
    return any((entry.name == name and entry.is_dir()) or packed.fullmatch(entry.name) for entry in there)


_SAYS = ("Chart.yaml", "Chart.lock", "requirements.yaml", "requirements.lock")


def _fetched(
    folder: Path,
    needed: Sequence[Dependency],
    local: Mapping[str, Path],
    missing: Sequence[Dependency],
    helm: Helm,
    waits: Waits,
) -> list[Path]:
    """The packages that charts/ lacks: from the cache, or fetched by Helm for a copy of what the chart says of them."""
    for dependency in missing:
        if not dependency.get("repository"):
            raise InputWrong(
                f"chart {folder.name} depends on {dependency['name']}, which is not in its charts/",
                where=str(dependency["at"]),
                next=f"give {dependency['name']} a repository, or put it into {folder / 'charts'}",
            )
    if not missing:
        return []
    says = [(folder / name).read_bytes() for name in _SAYS if (folder / name).is_file()]
    where = pull.folder() / "dependencies" / _hash(says)
    if not where.is_dir():
        with pull.workshop() as work:
            skeleton = _skeleton(work.folder, folder, local)
            pull.dependencies(helm, skeleton, [dep for dep in needed if dep["name"] not in local], folder.name, waits)
            where.parent.mkdir(parents=True, exist_ok=True)
            _into_place(skeleton / "charts", where)
        pull.prune(where.parent)
    names = {str(dependency["name"]) for dependency in missing}
    return [file for file in sorted(where.glob("*.tgz")) if any(_is(file, name) for name in names)]


def _is(file: Path, name: str) -> bool:
    return bool(re.fullmatch(rf"{re.escape(name)}-v?\d.*\.tgz", file.name))


def _skeleton(work: Path, folder: Path, local: Mapping[str, Path]) -> Path:
    """What Helm needs in order to fetch: Chart.yaml and lock, with the `file://` neighbours' in their places."""
    for source in (folder, *local.values()):
        target = Path(f"{work}/{source}")
        target.mkdir(parents=True, exist_ok=True)
        for name in _SAYS if source == folder else ("Chart.yaml",):
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
    return Path(f"{work}/{folder}")


def _assembled(folder: Path, parts: Mapping[str, Whole], fetched: Iterable[Path], found: str) -> Path:
    """A copy of the chart with its dependencies in charts/; made once for each content."""
    where = pull.folder() / "whole" / found / folder.name
    if where.is_dir():
        return where
    with pull.workshop() as work:
        copy = work.folder / folder.name
        for file in files(folder):
            place = file.relative_to(folder)
            # An earlier package of a chart that lies beside would be there twice.
            if place.parts[0] != "charts" or not any(_is(file, name) for name in parts):
                _copy(file, copy / place)
        (copy / "charts").mkdir(parents=True, exist_ok=True)
        for name, part in parts.items():
            for file in files(part.path) if part.path.is_dir() else ():
                _copy(file, copy / "charts" / name / file.relative_to(part.path))
        for packed in (*fetched, *(part.path for part in parts.values() if part.path.is_file())):
            shutil.copyfile(packed, copy / "charts" / packed.name)
        where.parent.parent.mkdir(parents=True, exist_ok=True)
        _into_place(work.folder / folder.name, where)
    pull.prune(where.parent.parent)
    return where


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def _into_place(made: Path, where: Path) -> None:
    """Moves a finished folder to its name; where another run was quicker, that one's stays."""
    where.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(where)
    except OSError:
        if not where.is_dir():
            raise


def digest(path: Path) -> str:
    """The hash of a chart's files, by name and content."""
    if path.is_file():
        return _file_digest(path)
    return _hash(part for file in files(path) for part in (str(file.relative_to(path)), file.read_bytes()))


def title(path: Path) -> str:
    """Name and version of a chart on disk."""
    if path.is_file():
        document = documents.parse(pull.read(path, "Chart.yaml"), path.name)
    else:
        document = documents.read(path / "Chart.yaml", "Chart.yaml")
    return f"{document.tree.get('name', '')} {document.tree.get('version', '')}".strip()


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _hash(parts: Iterable[str | bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update((part.encode() if isinstance(part, str) else part) + b"\0")
    return whole.hexdigest()[:40]


def files(folder: Path) -> Iterator[Path]:
    """The files that are part of a chart, in the order of their names; links are followed, as Helm does it."""
    ignored = folder / ".helmignore"
    rules = ignored.read_text(encoding="utf-8", errors="replace").splitlines() if ignored.is_file() else []
    yield from _walk(folder, "", [rule.strip() for rule in rules], frozenset())


def _walk(folder: Path, prefix: str, rules: Sequence[str], above: frozenset[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    for entry in sorted(folder.iterdir()):
        name, is_folder = f"{prefix}{entry.name}", entry.is_dir()
        if entry.name == ".git" or _ignored(name, is_folder, rules):
            continue
        if is_folder:
            yield from _walk(entry, f"{name}/", rules, above | {real})
        elif entry.is_file():
            yield entry


def _ignored(name: str, is_folder: bool, rules: Sequence[str]) -> bool:
    """Whether .helmignore's rules leave a path out. Source: helm.sh/helm/v4/pkg/ignore/rules.go."""
    for rule in rules:
        if not rule or rule.startswith("#"):
            continue
        negated, pattern = rule.startswith("!"), rule.removeprefix("!")
        folders_only, pattern = pattern.endswith("/"), pattern.removesuffix("/")
        matches = _matches(pattern, name)
        if negated:
            if (folders_only and not is_folder) or not matches:
                return True
        elif matches and (is_folder or not folders_only):
            return True
    return False


def _matches(pattern: str, name: str) -> bool:
    parts = pattern.removeprefix("/").replace("[^", "[!").split("/")
    against = name.split("/") if "/" in pattern else [name.rpartition("/")[2]]
    return len(parts) == len(against) and all(map(fnmatchcase, against, parts))
