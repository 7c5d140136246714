"""Images: the archives that are written, the files taken from the host, and the way into containerd."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import py_compile
import socket
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devenv import paths
from devenv.cluster import archive, contents, fetch, hostfiles, images, programs, store
from devenv.cluster.archive import Config, File, Folder, Link
from devenv.errors import StepFailed

pytestmark = pytest.mark.real

# -- archives ----------------------------------------------------------------------------------------------------------

TREE: dict[str, File | Link | Folder] = {
    "usr/local/bin/tool": File(b"#!/bin/sh\n", 0o755),
    "usr/local/bin/other": Link("tool"),
    "home/me": Folder(0o700, 1000),
    "data": File(b"x" * 100_000, owner=999),
}
CONFIG = Config(1000, ("/usr/local/bin/tool",), ("start",), {"PATH": "/usr/local/bin"}, "/home/me")


def read(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {entry.name: _content(tar, entry) for entry in tar if entry.isfile()}


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(entry)
    assert content is not None
    return content.read()


def test_an_archive_is_a_valid_image_in_both_layouts(tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    archive.write(file, "devenv.local/tool:1", "amd64", [TREE, {"etc/more": File(b"more")}], CONFIG)
    inside = read(file)
    for name, data in inside.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(data).hexdigest() == name.removeprefix("blobs/sha256/")

    index = json.loads(inside["index.json"])
    (entry,) = index["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "devenv.local/tool:1"
    manifest = json.loads(_blob(inside, entry))
    config = json.loads(_blob(inside, manifest["config"]))
    assert config["os"] == "linux" and config["architecture"] == "amd64"
    assert config["config"] == {
        "User": "1000:1000",
        "WorkingDir": "/home/me",
        "Env": ["PATH=/usr/local/bin"],
        "Entrypoint": ["/usr/local/bin/tool"],
        "Cmd": ["start"],
    }
    for layer, unpacked in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        assert hashlib.sha256(gzip.decompress(_blob(inside, layer))).hexdigest() == unpacked.removeprefix("sha256:")
    (docker,) = json.loads(inside["manifest.json"])
    assert docker["RepoTags"] == ["devenv.local/tool:1"]
    assert [f"sha256:{Path(place).name}" for place in docker["Layers"]] == [x["digest"] for x in manifest["layers"]]
    assert f"sha256:{Path(docker['Config']).name}" == manifest["config"]["digest"]
    assert [f.name for f in tmp_path.iterdir()] == ["image.tar"]


def _blob(inside: dict[str, bytes], descriptor: dict[str, object]) -> bytes:
    data = inside[f"blobs/{str(descriptor['digest']).replace(':', '/')}"]
    assert len(data) == descriptor["size"]
    return data


def test_a_layer_keeps_modes_owners_and_links_and_adds_the_folders_above(tmp_path: Path) -> None:
    archive.write_layer(TREE, tmp_path / "layer")
    with tarfile.open(tmp_path / "layer") as tar:
        entries = {entry.name: entry for entry in tar}
    assert list(entries) == sorted(entries)
    assert {"usr", "usr/local", "usr/local/bin", "home"} <= set(entries)
    assert entries["usr/local/bin/tool"].mode == 0o755
    assert entries["usr/local/bin/other"].linkname == "tool"
    assert (entries["home/me"].mode, entries["home/me"].uid, entries["home/me"].gid) == (0o700, 1000, 1000)
    assert entries["data"].uid == 999
    assert {entry.mtime for entry in entries.values()} == {0}


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"the same")
    made = []
    for number, tree in enumerate([{**TREE, "s": File(source)}, {"s": File(source), **TREE}]):
        os.utime(source, (number, number))
        file = tmp_path / f"{number}.tar"
        archive.write(file, "devenv.local/tool:1", "amd64", [tree], CONFIG)
        made.append(file.read_bytes())
    assert made[0] == made[1]


def test_a_source_that_is_gone_leaves_no_layer_behind(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError):
        archive.write(tmp_path / "out/i.tar", "a:1", "amd64", [TREE, {"x": File(tmp_path / "gone")}], CONFIG)
    assert not (tmp_path / "out/i.tar").exists()


def test_equal_layers_are_stored_once(tmp_path: Path) -> None:
    archive.write(tmp_path / "i.tar", "a:1", "amd64", [TREE, TREE], CONFIG)
    with tarfile.open(tmp_path / "i.tar") as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))


# -- files of the host -------------------------------------------------------------------------------------------------

LDD = """/usr/bin/python3:
\tlinux-vdso.so.1 (0x00007fff7f9f6000)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f99e8bd5000)
\tlibpython3.11.so.1.0 => /opt/odd place/../lib/libpython3.11.so.1.0 (0x00007f99e8bd5000)
\tlibpython3.12.so.1.0 => /opt/py/lib/libpython3.12.so.1.0 (0x00007f99e8bd5000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f99e8cf6000)
/usr/lib/python3.11/lib-dynload/_tkinter.so:
\tlibtk8.6.so => not found
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f99e89f1000)
/bin/static:
\tnot a dynamic executable
"""


def test_what_ldd_says_is_read() -> None:
    found = hostfiles.parse_ldd(LDD)
    assert found[Path("/usr/bin/python3")] == (
        {
            Path("/lib/x86_64-linux-gnu/libm.so.6"),
            Path("/opt/py/lib/libpython3.12.so.1.0"),
            Path("/lib64/ld-linux-x86-64.so.2"),
        },
        set(),
    )
    assert found[Path("/usr/lib/python3.11/lib-dynload/_tkinter.so")][1] == {"libtk8.6.so"}
    assert found[Path("/bin/static")] == (set(), set())


def test_a_library_goes_where_every_loader_looks() -> None:
    assert hostfiles.place_of(Path("/lib64/ld-linux-x86-64.so.2")) == "lib64/ld-linux-x86-64.so.2"
    assert hostfiles.place_of(Path("/opt/py/lib/libpython3.12.so.1.0")) == "usr/local/lib/host/libpython3.12.so.1.0"


def test_the_shell_comes_with_its_loader_and_its_c_library_once() -> None:
    tree = hostfiles.tools()
    assert {"bin/sh", "bin/cat", "bin/sleep", "bin/mkdir", "bin/env"} <= set(tree)
    assert sum(Path(place).name == "libc.so.6" for place in tree) == 1
    assert any("/ld-" in place for place in tree)


def test_a_missing_library_is_a_failure_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ldd"
    fake.write_text("#!/bin/sh\nprintf '/x:\\n\\tlibgone.so.1 => not found\\n'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(StepFailed) as failure:
        hostfiles.libraries([Path("/x")])
    assert failure.value.why == "libgone.so.1"


@pytest.mark.parametrize("cached", [True, False], ids=["from the cache", "compiled now"])
def test_compiled_python_is_valid_whatever_the_time_of_its_source(tmp_path: Path, cached: bool) -> None:
    source = tmp_path / "answer.py"
    source.write_text("VALUE = 42\n")
    if cached:
        py_compile.compile(str(source))
    compiled = hostfiles.compiled_form(source)
    assert compiled is not None
    (tmp_path / "moved").mkdir()
    place = tmp_path / "moved/answer.pyc"
    place.write_bytes(compiled)
    spec = importlib.util.spec_from_file_location("answer", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.VALUE == 42
    assert compiled[4:8] == (1).to_bytes(4, "little")  # by hash, unchecked


def test_an_outdated_cache_is_not_taken(tmp_path: Path) -> None:
    source = tmp_path / "answer.py"
    source.write_text("VALUE = 41\n")
    py_compile.compile(str(source))
    source.write_text("VALUE = 42000\n")
    compiled = hostfiles.compiled_form(source)
    assert compiled is not None and b"\xa4\x10" not in compiled[16:]  # 42000, not 41
    assert compiled[8:16] == importlib.util.source_hash(source.read_bytes())


def test_python_that_does_not_compile_goes_in_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "template.py").write_text("def {{ name }}:\n")
    assert list(hostfiles.python_files(tmp_path, ["template.py"], "app")) == ["app/template.py"]


def test_the_interpreter_comes_without_what_only_its_makers_use() -> None:
    tree = hostfiles.python("opt/python")
    library = f"opt/python/{sys.platlibdir}/python3.{sys.version_info.minor}"
    assert {"opt/python/bin/python3", f"{library}/os.py", f"{library}/asyncio/__init__.py"} <= set(tree)
    assert f"{library}/__pycache__/os.{sys.implementation.cache_tag}.pyc" in tree
    assert not [place for place in tree if "/test/" in place or "/site-packages/" in place or "/tkinter/" in place]


def test_who_runs_in_the_image_is_known_there() -> None:
    tree = hostfiles.base("postgres", 999)
    passwd = tree["etc/passwd"]
    assert isinstance(passwd, File) and isinstance(passwd.source, bytes)
    assert b"postgres:x:999:999:" in passwd.source
    assert tree["tmp"] == Folder(0o1777)
    certificates = tree["etc/ssl/certs/ca-certificates.crt"]
    assert isinstance(certificates, File) and isinstance(certificates.source, Path)
    assert "BEGIN CERTIFICATE" in certificates.source.read_text()


def test_without_the_hosts_certificates_pip_brings_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "ROOTS", ("/nowhere/ca.crt",))
    assert fetch.host_certificates() is None
    assert "BEGIN CERTIFICATE" in fetch.certificates().read_text()


# -- the table ---------------------------------------------------------------------------------------------------------


def test_names_and_references_agree() -> None:
    assert tuple(images.references()) == images.names()
    assert images.references()["pause"] == "devenv.local/pause:1"
    assert all(reference.startswith("devenv.local/") for reference in images.references().values())


def test_every_image_runs_as_a_user_and_its_programs_have_recipes() -> None:
    for image in images.images():
        assert image.config.user > 0
        assert set(image.programs) <= set(programs.NAMES)


def test_the_chart_asks_for_the_tags_that_are_built() -> None:
    built = images.references()
    asked = {}
    for file in sorted((paths.PACKAGE / "charts").rglob("values.yaml")):
        for found in _image_maps(yaml.safe_load(file.read_text())):
            asked[f"devenv.local/{found['repository'].rpartition('/')[2]}"] = str(found["tag"])
    wanted = dict(reference.rsplit(":", 1) for reference in built.values())
    assert asked and {name: tag for name, tag in asked.items() if wanted.get(name) != tag} == {}


def _image_maps(node: object) -> Iterator[dict[str, str]]:
    if isinstance(node, dict):
        if node.get("repository") and node.get("tag"):
            yield node
        for inner in node.values():
            yield from _image_maps(inner)


def test_an_images_key_follows_what_goes_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {image.name: image for image in images.images()}
    before = {name: images.key(image) for name, image in table.items()}
    assert before == {name: images.key(image) for name, image in table.items()}

    folder = tmp_path / "backend"
    (folder / "backend").mkdir(parents=True)
    (folder / "backend/__main__.py").write_text("print('other')\n")
    monkeypatch.setattr(contents, "BACKEND", folder)
    after = {name: images.key(image) for name, image in table.items()}
    assert [name for name in table if before[name] != after[name]] == ["backend"]

    monkeypatch.setattr(programs, "keys", lambda names: [f"{name} other" for name in names])
    changed = [name for name in table if images.key(table[name]) != after[name]]
    assert changed == [name for name in table if table[name].programs]


# -- into containerd ---------------------------------------------------------------------------------------------------

FAKE_CTR = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
*"images ls"*) echo 'REF TYPE DIGEST SIZE PLATFORMS LABELS'; cat {table} 2>/dev/null; true ;;
*"images import"*)
  {action}
  for file; do case $file in devenv.local/key=*) kept=$file ;; esac; done
  reference=$(tar -xOf "$file" index.json | grep -o 'devenv.local/[a-z]*:[0-9]')
  echo "$reference manifest sha256:1 9.4 MiB linux/amd64 $kept,io.cri-containerd.pinned=pinned" >> {table} ;;
esac
"""


class Cluster:
    """A socket, and a `ctr` that writes down what it is asked."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.socket = place / "containerd.sock"
        self.ctr = place / "ctr"
        self.answer("true")
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.socket))
        listening.close()

    def answer(self, action: str) -> None:
        text = FAKE_CTR.format(log=self.place / "log", table=self.place / "table", action=action)
        self.ctr.write_text(text)
        self.ctr.chmod(0o755)

    def asked(self) -> list[str]:
        log = self.place / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def load(self, only: list[str] | None = None) -> tuple[str, ...]:
        return images.ensure_loaded(self.socket, self.ctr, programs.quiet, only)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Two small images, and a cluster without any."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    one = images.Image("one", "1", CONFIG, lambda found, waits: [TREE])
    two = images.Image("two", "2", CONFIG, lambda found, waits: [TREE])
    monkeypatch.setattr(images, "images", lambda: (one, two))
    return Cluster(tmp_path)


def test_images_are_imported_once_pinned_and_labelled(cluster: Cluster) -> None:
    assert cluster.load() == ("one", "two")
    ls, first, second = cluster.asked()
    assert "images ls" in ls
    assert "--label io.cri-containerd.pinned=pinned --label devenv.local/key=" in first
    assert first.endswith("/one.tar") and second.endswith("/two.tar")
    assert cluster.load() == ()
    assert cluster.asked() == []


def test_only_the_named_images_are_built_and_imported(cluster: Cluster) -> None:
    assert cluster.load(["two"]) == ("two",)
    assert [f.name.rpartition("-")[0] for f in (paths.cache() / "images").iterdir() if f.is_dir()] == ["two"]
    assert cluster.load() == ("one",)


def test_after_a_restart_containerd_is_asked_once_and_nothing_imported(cluster: Cluster) -> None:
    cluster.load()
    cluster.asked()
    cluster.start()
    assert cluster.load() == ()
    assert [line.rpartition("k8s.io ")[2] for line in cluster.asked()] == ["images ls"]
    assert cluster.load() == () and cluster.asked() == []


def test_a_changed_recipe_is_imported_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.load()
    changed = images.Image("one", "1", Config(1001), lambda found, waits: [TREE])
    monkeypatch.setattr(images, "images", lambda: (changed,))
    assert cluster.load() == ("one",)


def test_an_image_without_our_label_is_imported_over(cluster: Cluster) -> None:
    (cluster.place / "table").write_text("devenv.local/one:1 x x 1 B x -\n")
    assert cluster.load() == ("one", "two")


def test_a_failed_import_says_why_and_the_next_try_goes_on(cluster: Cluster) -> None:
    cluster.answer("echo 'ctr: no space left on device' >&2; exit 1")
    with pytest.raises(StepFailed, match="image one could not be imported") as failure:
        cluster.load()
    assert failure.value.why == "ctr: no space left on device"
    cluster.answer("true")
    assert cluster.load() == ("one", "two")


def test_a_containerd_that_does_not_answer_is_named(cluster: Cluster) -> None:
    cluster.ctr.write_text("#!/bin/sh\necho 'ctr: connection refused' >&2; exit 1\n")
    with pytest.raises(StepFailed, match="does not list its images") as failure:
        cluster.load()
    assert failure.value.why == "ctr: connection refused"


def test_without_a_socket_the_cluster_is_said_to_be_down(cluster: Cluster) -> None:
    cluster.socket.unlink()
    with pytest.raises(StepFailed, match="containerd is not running"):
        cluster.load()


def test_a_broken_stamp_is_as_good_as_none(cluster: Cluster) -> None:
    cluster.load()
    (cluster.place / "images.json").write_text('{"born":')
    cluster.asked()
    assert cluster.load() == ()
    assert "images ls" in cluster.asked()[0]


def test_an_archive_that_was_cut_off_is_built_anew(cluster: Cluster) -> None:
    (image, _) = images.images()
    file = images.archived(image, programs.quiet)
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert images.archived(image, programs.quiet).read_bytes() == whole
    assert store.sound(file.parent, [file.name])


def test_the_libpq_without_tls_gives_way_to_one_of_the_same_version_that_has_it(tmp_path: Path) -> None:
    own, brought = tmp_path / "own", tmp_path / "brought"
    for folder, names in ((own, ["libpq-aa.so.5.18"]), (brought, ["libpq-bb.so.5.18", "libssl-cc.so.3"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    libraries = contents._with_tls(own, brought)
    assert {name: file.name for name, file in libraries.items()} == {
        "libpq-aa.so.5.18": "libpq-bb.so.5.18",
        "libpq-bb.so.5.18": "libpq-bb.so.5.18",
        "libssl-cc.so.3": "libssl-cc.so.3",
    }
    (own / "libpq-aa.so.5.18").rename(own / "libpq-aa.so.5.19")
    with pytest.raises(StepFailed, match=r"no libpq of version 5\.19 has TLS"):
        contents._with_tls(own, brought)
