"""Files of this machine that go into images: the C library, a shell with its tools, the Python interpreter.

In: programs and libraries. Out: trees of files, at the places where the loader looks for them. Reads the host; asks
`ldd` which libraries a program loads.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from devenv.clients import shell
from devenv.cluster import fetch, store
from devenv.cluster.archive import File, Folder, Link
from devenv.errors import StepFailed

Nodes = dict[str, File | Link | Folder]

STANDARD = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
OTHER_LIBRARIES = "usr/local/lib/host"  # what the host's loader finds elsewhere; on LD_LIBRARY_PATH
TOOLS = (
    *("basename", "cat", "chmod", "cp", "cut", "date", "dirname", "env", "expr", "false", "grep", "head", "id", "ln"),
    *("ls", "mkdir", "mktemp", "mv", "printf", "readlink", "rm", "rmdir", "sed", "sleep", "sort", "tail", "tee"),
    *("timeout", "touch", "tr", "true", "uname", "wc"),
)
NAME_SERVICE = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")  # loaded by name, before glibc 2.34
NOT_IN_IMAGES = {
    *("__pycache__", "config", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages"),
    *("test", "tests", "tkinter", "turtledemo"),
    Path(sysconfig.get_config_var("LIBPL") or "config").name,
}
NOT_EXTENSIONS = ("_ctypes_test", "_test", "_tkinter", "_xx", "xx")


def base(user: str, number: int) -> Nodes:
    """What any program expects: who it is, the roots that it trusts, a place for temporary files."""
    home = f"/home/{user}"
    return {
        "etc/passwd": File(f"root:x:0:0::/:/bin/sh\n{user}:x:{number}:{number}::{home}:/bin/sh\n".encode()),
        "etc/group": File(f"root:x:0:\n{user}:x:{number}:\n".encode()),
        "etc/hosts": File(b"127.0.0.1 localhost\n::1 localhost\n"),
        "etc/nsswitch.conf": File(b"passwd: files\ngroup: files\nhosts: files dns\n"),
        "etc/ssl/certs/ca-certificates.crt": File(fetch.certificates()),
        home[1:]: Folder(0o755, number),
        "tmp": Folder(0o1777),
        **{mount: Folder() for mount in ("dev", "proc", "sys", "run", "var/run")},
    }


def libraries(files: Iterable[Path], *, inside: Path | None = None) -> Nodes:
    """The shared libraries that the files need, and theirs; those below `inside` are in the image anyway."""
    found: Nodes = {}
    for library in sorted(needed(files)):
        if inside is not None and library.resolve().is_relative_to(inside.resolve()):
            continue
        found[place_of(library)] = File(library, 0o755)
        if library.name == "libc.so.6":
            extras = [library.parent / name for name in NAME_SERVICE]
            found |= {place_of(extra): File(extra, 0o755) for extra in extras if extra.exists()}
    return found


def place_of(library: Path) -> str:
    """Where a library goes: its own place if every loader looks there, else the one extra folder."""
    short = Path(str(library).removeprefix("/usr"))
    if short != library and short.exists() and short.samefile(library):
        library = short  # /lib is a link to /usr/lib here: one of the two will do
    if str(library).startswith(STANDARD):
        return str(library)[1:]
    return f"{OTHER_LIBRARIES}/{library.name}"


def needed(files: Iterable[Path]) -> set[Path]:
    """All libraries that the loader would load for the files; one that is missing is a failure."""
    found = loaded_by(files)
    missing = {name for _, absent in found.values() for name in absent}
    if missing:
        raise StepFailed(
            "libraries that an image needs are not on this machine", why=", ".join(sorted(missing)), next="./inv doctor"
        )
    return {library for present, _ in found.values() for library in present}


def loaded_by(files: Iterable[Path]) -> dict[Path, tuple[set[Path], set[str]]]:
    """For each file the libraries that the loader finds, and the names of those that it does not find."""
    several = list(files)
    output = shell.run(["ldd", *several, *several[:1]]).stdout if several else ""  # twice the first: always headings
    return parse_ldd(output)


def parse_ldd(text: str) -> dict[Path, tuple[set[Path], set[str]]]:
    """The blocks of ldd's output for several files, each under a heading "FILE:"."""
    found: dict[Path, tuple[set[Path], set[str]]] = {}
    present: set[Path] = set()
    absent: set[str] = set()
    for line in text.splitlines():
        if not line.startswith((" ", "\t")) and line.endswith(":"):
            present, absent = found.setdefault(Path(line[:-1]), (set(), set()))
        elif match := re.fullmatch(r"\s+(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)", line):
            present.add(Path(match[1]))
        elif match := re.fullmatch(r"\s+(\S+) => not found", line):
            absent.add(match[1])
    return found


def tools() -> Nodes:
    """/bin/sh and the small programs that scripts use, with their libraries."""
    tree: Nodes = {}
    first_at: dict[Path, str] = {}
    for name in ("sh", *TOOLS):
        program = next((file for file in (Path("/bin", name), Path("/usr/bin", name)) if file.is_file()), None)
        if program is None:
            continue
        real = program.resolve()
        place = f"bin/{name}"
        tree[place] = Link(first_at[real]) if real in first_at else File(real, 0o755)
        first_at.setdefault(real, name)
    if "bin/sh" not in tree:
        raise StepFailed("this machine has no shell to put into images", where="PATH", next="apt-get install dash")
    return {**tree, "usr/bin": Folder(), "usr/bin/env": Link("/bin/env"), **libraries(first_at)}


def python(root: str) -> Nodes:
    """The interpreter that runs us, without what only its makers use, compiled ahead, below `root`."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    tree: Nodes = {
        f"{root}/bin/{version}": File(interpreter, 0o755),
        f"{root}/bin/python3": Link(version),
        f"{root}/bin/python": Link(version),
    }
    below = f"{root}/{sys.platlibdir}/{version}"
    inside = list(store.files(stdlib, NOT_IN_IMAGES))
    tree |= python_files(stdlib, (name for name in inside if not name.endswith((".so", ".a", ".exe"))), below)
    extensions = [stdlib / name for name in inside if name.endswith(".so")]
    extensions = [file for file in extensions if not file.name.startswith(NOT_EXTENSIONS)]
    whole = [file for file, (_, absent) in loaded_by(extensions).items() if not absent]
    tree |= {f"{below}/{file.relative_to(stdlib)}": File(file, 0o755) for file in whole}
    return {**tree, **libraries([interpreter, *whole])}


def python_files(folder: Path, names: Iterable[str], below: str) -> Nodes:
    """Files of a folder, each Python source with its compiled form, which is valid whatever the time of the source."""
    tree: Nodes = {}
    for name in names:
        tree[f"{below}/{name}"] = File(folder / name)
        if name.endswith(".py") and (compiled := compiled_form(folder / name)):
            parent, _, stem = f"{below}/{name.removesuffix('.py')}".rpartition("/")
            tree[f"{parent}/__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"] = File(compiled)
    return tree


def compiled_form(file: Path) -> bytes | None:
    """The bytes of a .pyc that is trusted unchecked: those beside the source if up to date, else compiled now."""
    data = file.read_bytes()
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(data)
    facts = file.stat()
    fresh = importlib.util.MAGIC_NUMBER + bytes(4)
    fresh += (int(facts.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (facts.st_size & 0xFFFFFFFF).to_bytes(
        4, "little"
    )
    cached = Path(importlib.util.cache_from_source(str(file)))
    if cached.is_file() and (known := cached.read_bytes())[:16] == fresh:
        return header + known[16:]
    import marshal

    try:
        return header + marshal.dumps(compile(data, file.name, "exec", dont_inherit=True))
    except (SyntaxError, ValueError):
        return None
