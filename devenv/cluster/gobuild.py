"""Builds Go programs from the modules in `go/`: the same flags everywhere, so that Go's own cache is shared.

In: a `GoBuild` (folder, packages, declared size). Out: binaries in a folder, with true progress on the way.
Touches Go's caches and the network (modules, where they are not there yet).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from devenv.clients import shell
from devenv.cluster import fetch, progress, store
from devenv.errors import StepFailed

Waits = Callable[[str], None]

MODULES = Path(__file__).parent / "go"
COMPILER_FLAGS = "-gcflags=all=-dwarf=false"  # nobody debugs these binaries: a tenth less to compile
SETTINGS = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-trimpath",
    "GOGC": "off",  # the compiler collects no garbage below the limit: an eighth less time
    "GOMEMLIMIT": "1GiB",
    "GOOS": "linux",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}


# A module as people know it.
TITLES = {"node": "Kubernetes", "simulate": "kwok", "runtime": "containerd", "temporal": "Temporal"}


class GoBuild(NamedTuple):
    """One module below `go/`: the programs made of it, and what a first build of it amounts to on two cores.

    `without`: source files, "module//file", that the programs do without, each with all that it alone imports. `tags`:
    build tags, by which projects themselves let such files be left out.
    """

    module: str
    programs: Mapping[str, str]  # name → package
    packages: int
    seconds: float
    versions: Mapping[str, str] = {}  # variable of the program → module whose version it shows
    files: Mapping[str, str] = {}  # name → file inside a required module, "module//file"
    tags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return MODULES / self.module

    @property
    def makes(self) -> tuple[str, ...]:
        return (*self.programs, *self.files)


def required_go() -> tuple[int, ...]:
    """The oldest Go that builds every module here: the highest of their own `go` lines."""
    lines = (re.search(r"^go (\S+)$", file.read_text(), re.M) for file in MODULES.glob("*/go.mod"))
    return max((parse_version(found[1]) for found in lines if found), default=(1, 25))


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of "go1.26.8", "v4.1.4+g05fa379" or "1.35": up to three, () where there are none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part) if found else ()


def module_version(go_mod: str, module: str) -> str:
    """The version that a go.mod requires of a module."""
    found = re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", go_mod, re.M)
    if found is None:
        raise StepFailed(f"go.mod does not require {module}", next="./inv doctor")
    return found[1]


def key(recipe: GoBuild, go_version: str) -> str:
    """What the result depends on, as one word."""
    sources = (recipe.programs, recipe.versions, recipe.files, recipe.tags, recipe.without)
    chosen = repr((*sources, COMPILER_FLAGS, SETTINGS))
    return store.digest(*store.sources(recipe.folder), chosen, go_version, platform.machine())


def tags(recipe: GoBuild) -> str:
    """The flag for the build tags."""
    return f"-tags={','.join(recipe.tags)}"


def link_flags(recipe: GoBuild) -> str:
    """Linker flags: no symbols, and the versions that the programs shall show."""
    words = ["-s", "-w"]
    go_mod = (recipe.folder / "go.mod").read_text() if recipe.versions else ""
    for variable, module in recipe.versions.items():
        version = module_version(go_mod, module)
        major, minor, *_ = parse_version(version)
        words += [f"-X {variable}.gitVersion={version}", f"-X {variable}.gitMajor={major}"]
        words += [f"-X {variable}.gitMinor={minor}", f"-X {variable}.gitTreeState=clean"]
    return " ".join(words)


def build(recipe: GoBuild, go: Path, into: Path, waits: Waits) -> None:
    """Compiles the recipe's programs into the folder. One build at a time: they would only slow each other down."""
    with store.locked(into.parent / ".go.lock", f"compiling {what(recipe)}", waits):
        scratch = into / ".work"  # not /tmp: what an interrupted build leaves goes with the folder
        scratch.mkdir()
        env = {**_environment(), "GOTMPDIR": str(scratch)}
        sources = _sources(recipe, go, env, scratch, waits)
        stale = _load(recipe, go, {**env, "GOMAXPROCS": "16"}, sources, waits)
        _compile(recipe, go, env, into, sources, stale, waits)
        _copy_files(recipe, go, env, into)
        shutil.rmtree(scratch, ignore_errors=True)


def what(recipe: GoBuild) -> str:
    return TITLES.get(recipe.module, recipe.module)


def _sources(recipe: GoBuild, go: Path, env: Mapping[str, str], scratch: Path, waits: Waits) -> Path:
    """The folder to build in: the recipe's own, or one beside modules that lack the files to do without.

    Those are put together of links, as Go lets nothing replace files of its module cache (-overlay). All paths are
    relative: Go writes them into the program, which shall be the same wherever it is made.
    """
    if not recipe.without:
        return recipe.folder
    waits(f"downloading the sources of {what(recipe)} that are not compiled whole")
    own, edits = scratch / recipe.module, []
    without = [file.split("//") for file in recipe.without]
    for module in dict.fromkeys(module for module, _ in without):
        left_out = {name for other, name in without if other == module}
        _link(_module_folder(recipe, go, env, module), scratch / "modules" / module, left_out)
        edits.append(f"-replace={module}=../modules/{module}")
    _link(recipe.folder, own, {"go.mod"})
    shutil.copyfile(recipe.folder / "go.mod", own / "go.mod")  # no link: the original is not to be edited
    output = shell.run([go, "mod", "edit", *edits], env=env, cwd=own)
    _succeeded(output, recipe, f"the sources of {what(recipe)} cannot be put together")
    return own


def _link(source: Path, target: Path, without: Collection[str]) -> None:
    for name in store.files(source, ("testdata",)):
        if name in without or name.endswith("_test.go"):
            continue
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, file)
        except OSError:  # another file system
            shutil.copyfile(source / name, file)


def _load(recipe: GoBuild, go: Path, env: Mapping[str, str], sources: Path, waits: Waits) -> int:
    """Downloads the modules in use, sixteen at a time, and returns how many packages are to be compiled."""
    told = progress.Throttle(waits)
    modules = 0

    def count(line: str) -> None:
        nonlocal modules
        if line.startswith("go: downloading "):
            modules += 1
            told(f"downloading Go modules for {what(recipe)}: {modules}, {line.split()[2]}")

    waits(f"looking which packages of {what(recipe)} are to be compiled")
    template = "{{if .Stale}}{{.ImportPath}}{{end}}"
    argv: list[str | Path] = [
        go,
        "list",
        COMPILER_FLAGS,
        tags(recipe),
        "-deps",
        "-f",
        template,
        *recipe.programs.values(),
    ]
    output = shell.run(argv, env=env, cwd=sources, on_line=count)
    _succeeded(output, recipe, f"the Go modules of {what(recipe)} cannot be had")
    return sum(1 for line in output.stdout.splitlines() if line.strip())


def _compile(
    recipe: GoBuild, go: Path, env: Mapping[str, str], into: Path, sources: Path, stale: int, waits: Waits
) -> None:
    told = progress.Throttle(waits)
    started = time.monotonic()
    declared = recipe.seconds * min(1.0, stale / recipe.packages)
    seen = 0

    def count(line: str) -> None:
        nonlocal seen
        if line and not line.startswith(("#", "\t", " ", "go: ")):  # -v prints a package's path as its compiling begins
            seen += 1
        done = seen if seen >= stale else max(0, seen - 1)
        line = progress.packages(f"compiling {what(recipe)}", done, stale, time.monotonic() - started, declared)
        told(line, must=done >= stale)

    waits(progress.packages(f"compiling {what(recipe)}", 0, max(stale, 1), 0.0, declared))
    flags = ["-v", "-buildvcs=false", COMPILER_FLAGS, tags(recipe), f"-ldflags={link_flags(recipe)}"]
    output = shell.run(
        [go, "build", *flags, "-o", f"{into}/", *recipe.programs.values()], env=env, cwd=sources, on_line=count
    )
    _succeeded(output, recipe, f"compiling {what(recipe)} failed")
    for name, package in recipe.programs.items():
        built = into / built_as(recipe, package)
        if built.name != name:
            built.rename(into / name)


def built_as(recipe: GoBuild, package: str) -> str:
    """The file name that `go build -o DIR/` gives a package: the last word of its path."""
    if package != ".":
        return package.rsplit("/", 1)[-1]
    found = re.search(r"^module (\S+)$", (recipe.folder / "go.mod").read_text(), re.M)
    return found[1].rsplit("/", 1)[-1] if found else recipe.module


def _copy_files(recipe: GoBuild, go: Path, env: Mapping[str, str], into: Path) -> None:
    for name, source in recipe.files.items():
        module, file = source.split("//")
        shutil.copyfile(_module_folder(recipe, go, env, module) / file, into / name)


def module_folder(recipe: GoBuild, go: Path, module: str, waits: Waits) -> Path:
    """Where the sources of a required module lie, of the very version that the recipe pins; downloaded if need be."""
    waits(f"looking for {module}")
    return _module_folder(recipe, go, _environment(), module)


def _module_folder(recipe: GoBuild, go: Path, env: Mapping[str, str], module: str) -> Path:
    output = shell.run([go, "mod", "download", module], env=env, cwd=recipe.folder)
    _succeeded(output, recipe, f"the Go module {module} cannot be had")
    output = shell.run([go, "list", "-m", "-f", "{{.Dir}}", module], env=env, cwd=recipe.folder)
    _succeeded(output, recipe, f"the Go module {module} cannot be had")
    return Path(output.stdout.strip())


def _environment() -> dict[str, str]:
    """Go's settings, and the CA certificates that pip brings where the host has none."""
    env = {**SETTINGS, "HOME": str(Path.home())}
    if fetch.host_certificates() is None:
        env["SSL_CERT_FILE"] = str(fetch.certificates())
    return env


def _succeeded(output: shell.Output, recipe: GoBuild, failed: str) -> None:
    if output.code == 0:
        return
    lines = [line for line in output.stderr.splitlines() if line.strip() and not line.startswith("go: downloading")]
    said = [line for line in lines if not re.fullmatch(r"[\w.\-~/]+", line)]  # without the packages that went well
    raise StepFailed(
        failed,
        where=str(recipe.folder),
        why=" | ".join(said[:3]) or f"go ended with exit code {output.code}",
        next="the same command again: it goes on where it stopped",
    )
