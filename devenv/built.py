"""The image just built, `redeploy --image backend=REPO:TAG` or `=FILE.tar`: into the values, and into the cluster.

In: what was typed, and the cluster. An image that lies in Docker or in a file goes into a cluster of this machine under
a name with its content in the tag: the same tag built again is another image, and rolls out. Any other is left to its
registry. Edge out: docker, containerd, the local cluster's own program; temporary files in the cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from devenv import look, paths, reference
from devenv.clients import shell
from devenv.cluster import images, others, packed, programs, start
from devenv.cluster.others import Local
from devenv.environment import Environment, Session
from devenv.errors import InputWrong, Refused, StepFailed
from devenv.reference import Reference
from devenv.values import Leaf, Origin, lay

Waits = Callable[[str], None]

COMPONENTS = {"backend": ("backend", "image")}  # --image NAME=… → where the chart's values have its image
ARCHIVES = (".tar", ".tar.gz", ".tgz")


class Given(NamedTuple):
    """An image as it was typed: by its name, or as an archive."""

    component: str
    text: str
    named: Reference | None
    file: Path | None

    @property
    def flag(self) -> str:
        return f"{self.component}={self.text}"


class Built(NamedTuple):
    """An image, and the name under which the cluster is to know it; `source`: docker or a file, to be loaded from."""

    given: Given
    name: Reference
    source: str = ""


def parse(expressions: Sequence[str]) -> tuple[Given, ...]:
    """What was typed. Raises InputWrong. Looks at nothing but whether there is such a file."""
    return tuple(_parsed(expression) for expression in expressions)


def _parsed(expression: str) -> Given:
    component, _, text = expression.partition("=")
    if component not in COMPONENTS or not text:
        raise InputWrong(
            f"--image {expression[:80]} names no image of a component",
            where="--image",
            why=f"components: {', '.join(COMPONENTS)}",
            next="--image backend=REPO:TAG   (or backend=FILE.tar)",
        )
    file = Path(text).expanduser()
    if file.is_file() or text.endswith(ARCHIVES):
        return Given(component, text, None, file)
    named = reference.parse(text)
    if named is None:
        raise InputWrong(
            f"{text[:80]!r} is no name of an image",
            where=f"--image {component}",
            why="and no file",
            next="--image backend=REPO:TAG   (or backend=FILE.tar)",
        )
    return Given(component, text, named, None)


def find(given: Sequence[Given], environment: Environment, session: Session) -> tuple[Built, ...]:
    """Where each image is now, and its name in the cluster. Raises InputWrong, Refused."""
    if not given:
        return ()
    if not environment.desired.bundled:
        raise InputWrong(
            "--image sets values of the bundled chart, and this is another one",
            where=f"--image {given[0].flag}",
            why=f"chart {environment.desired.chart}",
            next="--set KEY=VALUE, as the chart takes it",
        )
    reachable = bool(session.target.embedded or local(session))
    return tuple(_found(one, session, reachable=reachable) for one in given)


def local(session: Session) -> Local | None:
    """The local cluster, not ours, that this is."""
    return None if session.target.embedded else others.of_nodes(look.nodes(session.kube))


def _found(given: Given, session: Session, *, reachable: bool) -> Built:
    if given.file is not None:
        if not reachable:
            raise Refused(
                f"a file cannot be brought into the cluster of context {session.target.context}",
                where=f"--image {given.flag}",
                why="it is no cluster of this machine: its nodes take images from a registry",
                next=f"push it to a registry, then --image {given.component}=REGISTRY/REPO:TAG",
            )
        found = packed.look(given.file)
        named = reference.parse(found.names[0]) if found.names else None
        return Built(given, by_content(named or _nameless(given), found.id), str(given.file))
    assert given.named is not None
    id = _docker_id(given) if reachable and not given.named.digest else ""
    return Built(given, by_content(given.named, id), "docker") if id else Built(given, given.named)


def _nameless(given: Given) -> Reference:
    return Reference(images.REGISTRY, given.component, "built")


def by_content(named: Reference, id: str) -> Reference:
    """The name with the image's id in its tag. Pure."""
    return named._replace(tag=f"{named.tag[:100] or 'built'}-{id.removeprefix('sha256:')[:12]}", digest="")


def _docker_id(given: Given) -> str:
    """The id of Docker's image of this name; empty where there is none, or no Docker."""
    if shell.which("docker") is None:
        return ""
    output = shell.run(["docker", "image", "inspect", "--format", "{{.Id}}", given.text], timeout=10)
    return output.stdout.strip() if output.code == 0 else ""


def over(environment: Environment, built: Sequence[Built]) -> Environment:
    """The environment with the images in its values, over all other layers. Pure."""
    values = environment.desired.values
    for one in built:
        origin = Origin("--image", one.given.flag)
        keys = {"registry": one.name.registry, "repository": one.name.repository, "tag": one.name.tag}
        keys |= {"digest": one.name.digest, **({"pullPolicy": "IfNotPresent"} if one.source else {})}
        place = COMPONENTS[one.given.component]
        values = lay(values, [Leaf((*place, key), value, origin) for key, value in keys.items()])
    return environment._replace(desired=environment.desired._replace(values=values))


def load(built: Sequence[Built], session: Session, waits: Waits) -> tuple[str, ...]:
    """Brings those into the cluster that are to be loaded and are not there; their names. Raises StepFailed."""
    wanted = [one for one in built if one.source]
    if not wanted:
        return ()
    cluster = start.running(session.target.embedded) if session.target.embedded else None
    where = None if cluster else local(session)
    names = [one.name.name for one in wanted]
    if cluster:
        there = images.all_present(cluster.containerd, programs.path("ctr"))
    else:
        there = frozenset(name for name, has in (others.has(where, names) if where else {}).items() if has)
    missing = [one for one in wanted if one.name.name not in there]
    for one in missing:
        with tempfile.TemporaryDirectory(dir=_folder(), prefix="image-") as folder:
            file = _archive(one, Path(folder), waits)
            waits(f"loading {one.name.name}")
            if cluster:
                images.bring(cluster.containerd, programs.path("ctr"), file)
            elif where:
                others.check(where)
                others.load(where, file, one.name.name)
    return tuple(one.name.name for one in missing)


def _folder() -> Path:
    folder = paths.cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _archive(one: Built, folder: Path, waits: Waits) -> Path:
    """The image as an archive, under its name in the cluster."""
    source = Path(one.source)
    if one.source == "docker":
        source = folder / "saved.tar"
        waits(f"docker saves {one.given.text}")
        output = shell.run(["docker", "save", one.given.text, "--output", source], timeout=others.PATIENCE)
        if output.code != 0:
            raise StepFailed(
                f"docker did not save the image {one.given.text}",
                where=f"--image {one.given.flag}",
                why=output.last_line,
                next=f"docker image inspect {one.given.text}",
            )
    packed.renamed(source, folder / "image.tar", one.name.name)
    return folder / "image.tar"
