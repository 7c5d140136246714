"""Where a chart is, and what makes it whole: its dependencies, fetched once, beside it, or in its charts/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devenv import chart, pull
from devenv.clients import shell
from devenv.clients.helm import Helm, objects
from devenv.errors import InputWrong, Refused
from tests.chart_servers import ChartServer, package, write

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("home")]


def files(name: str, version: str = "1.0.0", needs: str = "") -> dict[str, str]:
    said = f"apiVersion: v2\nname: {name}\nversion: {version}\n" + (f"dependencies: [{needs}]\n" if needs else "")
    template = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{v: '{version}', x: {{{{ .Values.x | quote }}}}}}\n"
    return {"Chart.yaml": said, "templates/a.yaml": template, "values.yaml": "x: ''\n"}


@pytest.fixture
def server() -> Iterator[ChartServer]:
    running = ChartServer().start()
    for version in ("1.2.3", "1.3.0"):
        running.publish(files("store", version))
        running.push(files("cache", version))
    yield running
    running.stop()


def whole(helm: Helm, folder: Path | str) -> chart.Whole:
    return chart.complete(Path(folder), helm, lambda _: None)


def rendered(helm: Helm, found: chart.Whole, *words: str) -> dict[str, dict[str, str]]:
    """name of each ConfigMap → its data."""
    output = shell.run([helm.program, "template", "r", found.path, *words])
    assert output.code == 0, output.stderr
    return {entry["metadata"]["name"]: entry["data"] for entry in objects(output.stdout, "r")}


REMOTE = {
    "mine/web": ("mine/web", ""),
    "mine/web:1.2.3": ("mine/web", "1.2.3"),
    "oci://localhost:5001/team/web": ("oci://localhost:5001/team/web", ""),
    "oci://localhost:5001/team/web:1.2.3": ("oci://localhost:5001/team/web", "1.2.3"),
    "oci://r/web@sha256:abc": ("oci://r/web@sha256:abc", ""),
    "https://r:8080/web-1.0.0.tgz": ("https://r:8080/web-1.0.0.tgz", ""),
}


@pytest.mark.parametrize(("text", "meant"), REMOTE.items())
def test_a_chart_elsewhere_is_named_as_helm_names_it(tmp_path: Path, text: str, meant: tuple[str, str]) -> None:
    found = chart.locate(text, tmp_path, "--chart")
    assert (found.name, found.version, found.path) == (*meant, None)


def test_a_folder_that_is_there_is_meant_before_a_repository(tmp_path: Path) -> None:
    write(tmp_path / "charts" / "web", files("web"))
    assert chart.locate("charts/web", tmp_path, "--chart").path == tmp_path / "charts" / "web"
    (tmp_path / "web-1.0.0.tgz").write_bytes(package("web", files("web")))
    assert chart.locate("web-1.0.0.tgz", tmp_path, "--chart").path == tmp_path / "web-1.0.0.tgz"


@pytest.mark.parametrize(
    "text",
    [
        "./nope",
        "nope",
        "./nope.tgz",
        "notes.txt",
        "a/b/c",
        "~nobody-of-this-name/x",
        "a" * 5000,
        "a\0b",
        "empty/folder",
        "oci://me:pw@r/web",
    ],
)
def test_what_is_no_chart_is_wrong_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(InputWrong) as wrong:
        chart.locate(text, tmp_path, "--chart")
    assert wrong.value.where == "--chart"
    assert "pw" not in str(wrong.value.record())


def test_a_chart_that_lacks_nothing_is_taken_as_it_is(helm: Helm, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "web",
        {
            **files("web", needs="{name: store, version: 1.0.0}"),
            "charts/store/Chart.yaml": files("store")["Chart.yaml"],
        },
    )
    assert whole(helm, folder).path == Path(folder)


def test_dependencies_are_fetched_once_and_the_folder_is_left_alone(
    helm: Helm, server: ChartServer, tmp_path: Path
) -> None:
    needs = f"{{name: store, version: ^1.2.0, repository: '{server.repository}'}}"
    folder = Path(write(tmp_path / "web", files("web", needs=needs)))
    assert rendered(helm, whole(helm, folder)).keys() == {"web", "store"}
    assert sorted(entry.name for entry in folder.iterdir()) == ["Chart.yaml", "templates", "values.yaml"]
    server.stop()
    (folder / "values.yaml").write_text("x: new\n")
    assert rendered(helm, whole(helm, folder))["web"]["x"] == "new"


def test_the_lock_decides_the_version(helm: Helm, server: ChartServer, tmp_path: Path) -> None:
    needs = f"{{name: store, version: '>=1.0.0', repository: '{server.repository}'}}"
    folder = Path(write(tmp_path / "web", files("web", needs=needs)))
    (folder / "Chart.yaml").write_text(files("web", needs=needs.replace(">=1.0.0", "1.2.3"))["Chart.yaml"])
    locked = shell.run([helm.program, "dependency", "update", folder])
    assert locked.code == 0, locked.stderr
    for packed in (folder / "charts").iterdir():
        packed.unlink()
    assert rendered(helm, whole(helm, folder))["store"]["v"] == "1.2.3"
    (folder / "Chart.yaml").write_text(files("web", needs=needs)["Chart.yaml"])
    with pytest.raises(InputWrong, match="do not say the same"):
        whole(helm, folder)


def test_alias_and_condition_are_helms(helm: Helm, server: ChartServer, tmp_path: Path) -> None:
    registry = f"oci://127.0.0.1:{server.port}/team"
    needs = (
        f"{{name: store, version: 1.2.3, repository: '{server.repository}', condition: store.enabled}}, "
        f"{{name: cache, version: 1.3.0, repository: '{registry}', alias: fast}}"
    )
    found = whole(helm, write(tmp_path / "web", files("web", needs=needs)))
    shown = rendered(helm, found, "--set", "store.enabled=false,fast.x=aliased")
    assert shown.keys() == {"web", "cache"}
    assert shown["cache"]["x"] == "aliased"


def test_a_repository_is_found_by_its_alias_with_its_login(helm: Helm, home: Path, tmp_path: Path) -> None:
    server = ChartServer(login="me:secret").start()
    server.publish(files("store", "1.2.3"))
    file = home / ".config" / "helm" / "repositories.yaml"
    file.parent.mkdir(parents=True)
    entry = {"name": "mine", "url": server.repository, "username": "me", "password": "secret"}
    file.write_text(yaml.safe_dump({"repositories": [entry]}))
    needs = "{name: store, version: 1.2.3, repository: '@mine'}"
    assert "store" in rendered(helm, whole(helm, write(tmp_path / "web", files("web", needs=needs))))
    server.stop()


def test_a_chart_beside_is_taken_as_it_is_now_with_what_it_depends_on(
    helm: Helm, server: ChartServer, tmp_path: Path
) -> None:
    base = f"{{name: store, version: 1.2.3, repository: '{server.repository}'}}"
    common = Path(write(tmp_path / "common", files("common", needs=base)))
    needs = "{name: common, version: 1.0.0, repository: 'file://../common'}"
    folder = Path(write(tmp_path / "deep" / ".." / "web", files("web", needs=needs))).resolve()
    stale = folder / "charts" / "common-1.0.0.tgz"
    stale.parent.mkdir()
    stale.write_bytes(package("common", files("common", "0.9.0")))
    first = whole(helm, folder)
    assert rendered(helm, first).keys() == {"web", "common", "store"}
    assert whole(helm, folder) == first
    (common / "values.yaml").write_text("x: edited\n")
    second = whole(helm, folder)
    assert second.digest != first.digest
    assert rendered(helm, second)["common"]["x"] == "edited"


WRONG = {
    "a chart beside that is not there": (
        "{name: common, version: 1.0.0, repository: 'file://../nope'}",
        "which is not there",
    ),
    "no repository": ("{name: common, version: 1.0.0}", "which is not in its charts/"),
    "an unknown alias": ("{name: common, version: 1.0.0, repository: '@nope'}", "helm knows no repository nope"),
    "no name": ("{version: 1.0.0}", "has no name"),
    "a circle": ("{name: web, version: 1.0.0, repository: 'file://.'}", "in a circle"),
}


@pytest.mark.parametrize(("needs", "what"), WRONG.values(), ids=WRONG.keys())
def test_a_dependency_that_cannot_be_is_wrong_input(helm: Helm, tmp_path: Path, needs: str, what: str) -> None:
    with pytest.raises(InputWrong, match=what):
        whole(helm, write(tmp_path / "web", files("web", needs=needs)))


def test_a_dependencys_repository_that_does_not_answer_is_one_failure(
    helm: Helm, server: ChartServer, tmp_path: Path
) -> None:
    server.stop()
    needs = f"{{name: store, version: 1.2.3, repository: '{server.repository}'}}"
    with pytest.raises(Refused) as refused:
        whole(helm, write(tmp_path / "web", files("web", needs=needs)))
    assert refused.value.what == f"{server.repository} does not answer"
    assert not list(pull.folder().glob("work-*"))


def test_a_dependency_in_a_version_that_is_not_there_is_wrong_input(
    helm: Helm, server: ChartServer, tmp_path: Path
) -> None:
    needs = f"{{name: store, version: 9.9.9, repository: '{server.repository}'}}"
    with pytest.raises(InputWrong, match="there is no chart store for web"):
        whole(helm, write(tmp_path / "web", files("web", needs=needs)))


IGNORED = {
    ("node_modules/", "node_modules/x/y"): True,
    ("node_modules/", "src/node_modules/x"): True,
    ("*.swp", "templates/.a.yaml.swp"): True,
    ("/notes", "notes"): True,
    ("/notes", "src/notes"): False,
    ("docs/*.md", "docs/a.md"): True,
    ("docs/*.md", "docs/deep/a.md"): False,
    ("# x", "x"): False,
}


@pytest.mark.parametrize(("case", "ignored"), IGNORED.items())
def test_what_helmignore_names_is_no_part_of_a_chart(tmp_path: Path, case: tuple[str, str], ignored: bool) -> None:
    rule, path = case
    write(tmp_path, {".helmignore": rule + "\n", path: "x", ".git/HEAD": "x"})
    names = {str(file.relative_to(tmp_path)) for file in chart.files(tmp_path)}
    assert names == {".helmignore", *([] if ignored else [path])}


def test_the_digest_is_that_of_names_and_contents(tmp_path: Path) -> None:
    one, two = (Path(write(tmp_path / name, {"a": "x", "b": "y"})) for name in ("one", "two"))
    assert chart.digest(one) == chart.digest(two)
    (two / "b").rename(two / "c")
    assert chart.digest(one) != chart.digest(two)


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [file.name for file in chart.files(tmp_path)] == ["x"]
