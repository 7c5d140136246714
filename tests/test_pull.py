"""Charts from repositories and registries: Helm itself against servers on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devenv import pull
from devenv.clients.helm import Helm
from devenv.clients.shell import Output
from devenv.errors import Failure, InputWrong, Refused
from tests.chart_servers import ChartServer

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("home")]


def chart(name: str, version: str, more: str = "") -> dict[str, str]:
    template = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{version: '{version}'}}\n"
    return {"Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: {version}\n{more}", "templates/a.yaml": template}


@pytest.fixture
def server() -> Iterator[ChartServer]:
    running = ChartServer().start()
    for version in ("1.2.3", "1.3.0"):
        running.publish(chart("web", version))
        running.push(chart("web", version))
    yield running
    running.stop()


def know(home: Path, *entries: dict[str, object]) -> Path:
    """What `helm repo add` would write down."""
    file = home / ".config" / "helm" / "repositories.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"apiVersion": "", "repositories": list(entries)}))
    return file


def fetch(helm: Helm, reference: str, version: str = "") -> str:
    return pull.pull(helm, reference, version, lambda _: None).name


VERSIONS = {"": "web-1.3.0.tgz", "1.2.3": "web-1.2.3.tgz", "^1": "web-1.3.0.tgz", "~1.2": "web-1.2.3.tgz"}


@pytest.mark.parametrize(("version", "file"), VERSIONS.items())
def test_a_chart_of_a_repository_comes_in_the_version_that_was_asked_for(
    helm: Helm, server: ChartServer, home: Path, version: str, file: str
) -> None:
    know(home, {"name": "mine", "url": server.repository}, {"name": "broken", "url": "http://127.0.0.1:1/charts"})
    assert fetch(helm, "mine/web", version) == file


@pytest.mark.parametrize(("version", "file"), VERSIONS.items())
def test_a_registry_of_this_machine_is_asked_without_tls_where_it_has_none(
    helm: Helm, server: ChartServer, version: str, file: str
) -> None:
    assert fetch(helm, f"oci://localhost:{server.port}/team/web", version) == file


def test_a_chart_comes_from_an_address(helm: Helm, server: ChartServer) -> None:
    assert fetch(helm, f"{server.repository}/web-1.2.3.tgz") == "web-1.2.3.tgz"


def test_a_pinned_version_is_fetched_once_and_any_other_is_looked_up_each_time(
    helm: Helm, server: ChartServer, home: Path
) -> None:
    know(home, {"name": "mine", "url": server.repository})
    fetch(helm, "mine/web", "1.2.3")
    server.asked.clear()
    fetch(helm, "mine/web", "1.2.3")
    assert server.asked == []
    assert fetch(helm, "mine/web") == "web-1.3.0.tgz"
    server.publish(chart("web", "1.4.0"))
    assert fetch(helm, "mine/web") == "web-1.4.0.tgz"


def test_another_repository_of_the_same_name_is_another_chart(helm: Helm, server: ChartServer, home: Path) -> None:
    know(home, {"name": "mine", "url": server.repository})
    fetch(helm, "mine/web", "1.2.3")
    know(home, {"name": "mine", "url": "http://127.0.0.1:1/charts"})
    with pytest.raises(Refused):
        fetch(helm, "mine/web", "1.2.3")


def test_the_users_list_of_repositories_is_the_one_that_helm_uses(
    helm: Helm, server: ChartServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(home, {"name": "mine", "url": server.repository}).rename(home / "elsewhere.yaml")
    monkeypatch.setenv("HELM_REPOSITORY_CONFIG", str(home / "elsewhere.yaml"))
    assert fetch(helm, "mine/web") == "web-1.3.0.tgz"


def test_a_login_of_the_users_is_used_and_told_to_nobody(
    helm: Helm, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = ChartServer(login="me:hunter22hunter22").start()
    server.publish(chart("web", "1.2.3"))
    know(home, {"name": "mine", "url": server.repository, "username": "me", "password": "hunter22hunter22"})
    assert fetch(helm, "mine/web") == "web-1.2.3.tgz"
    know(home, {"name": "mine", "url": server.repository, "username": "me", "password": "wrong22wrong22"})
    with pytest.raises(Refused, match="refuses access") as refused:
        fetch(helm, "mine/web")
    server.stop()
    assert "22" not in str(refused.value.record()).replace(str(server.port), "")
    assert not list((home / ".cache" / "devenv").rglob("repositories.yaml"))


def wrong(helm: Helm, reference: str, version: str = "") -> Failure:
    with pytest.raises(Failure) as raised:
        fetch(helm, reference, version)
    record = raised.value.record()
    assert all("\n" not in text for text in record.values())
    return raised.value


def test_what_is_not_there_is_wrong_input_with_what_there_is(helm: Helm, server: ChartServer, home: Path) -> None:
    know(home, {"name": "mine", "url": server.repository})
    unknown = wrong(helm, "nope/web")
    assert (unknown.code, unknown.what, unknown.why) == (2, "helm knows no repository nope", "it knows: mine")
    version = wrong(helm, "mine/web", "9.9.9")
    assert (version.what, version.why) == ("there is no chart mine/web 9.9.9", "there are: 1.3.0, 1.2.3")
    assert wrong(helm, "mine/web", "^9").what == "there is no chart mine/web ^9"
    assert wrong(helm, "mine/nope").code == 2
    registry = f"oci://127.0.0.1:{server.port}/team"
    for reference, asked in ((f"{registry}/web", "9.9.9"), (f"{registry}/web", "^9"), (f"{registry}/nope", "")):
        assert isinstance(wrong(helm, reference, asked), InputWrong)
    assert wrong(helm, f"{server.repository}/nope-1.0.0.tgz").code == 2
    server.paths["/charts/page.tgz"] = ("text/html", b"<html>")
    assert "no packaged chart" in wrong(helm, f"{server.repository}/page.tgz").what


@pytest.mark.parametrize(
    "reference", ["mine/web", "oci://127.0.0.1:{port}/team/web", "http://127.0.0.1:{port}/web.tgz"]
)
def test_a_server_that_does_not_answer_is_refused(helm: Helm, server: ChartServer, home: Path, reference: str) -> None:
    know(home, {"name": "mine", "url": server.repository})
    server.stop()
    failure = wrong(helm, reference.format(port=server.port))
    assert failure.code == 3
    assert re.fullmatch(r"127.0.0.1:\d+ does not answer|http://127.0.0.1:\d+/charts does not answer", failure.what)
    assert failure.why.endswith("connection refused")


def test_what_a_killed_run_left_is_removed(helm: Helm, server: ChartServer, home: Path) -> None:
    left = pull.folder() / "work-of-a-killed-run"
    left.mkdir(parents=True)
    (left / "repositories.yaml").write_text("password: x")
    os.utime(left, (1, 1))
    fetch(helm, f"{server.repository}/web-1.2.3.tgz")
    assert not list(pull.folder().glob("work-*"))


def test_helm_3_says_that_a_repository_is_silent_and_ends_with_0(tmp_path: Path, home: Path) -> None:
    program = tmp_path / "helm"
    program.write_text(
        "#!/bin/sh\necho '...Unable to get an update from the \"mine\" repository (u):'\necho '\tdial tcp: connection refused'\n"
    )
    program.chmod(0o755)
    know(home, {"name": "mine", "url": "http://127.0.0.1:1/charts"})
    failure = wrong(Helm(program, Path("/nowhere"), "none", "none"), "mine/web")
    assert (failure.code, failure.why) == (3, "dial tcp: connection refused")


def test_an_address_that_serves_no_repository_is_wrong_input(helm: Helm, server: ChartServer, home: Path) -> None:
    know(home, {"name": "mine", "url": server.repository + "/nothing"})
    assert wrong(helm, "mine/web").code == 2


SAID = {
    'Get "https://r/v2/": x509: certificate signed by unknown authority': (3, "the certificate of r is not trusted"),
    'Get "https://r/v2/": http: server gave HTTP response to HTTPS client': (3, "r speaks no TLS"),
    "Get \"https://r/v2/\": dial tcp: lookup r: no such host": (3, "r does not answer"),
    "GET \"https://r/v2/x\": response status code 403: denied: no": (3, "r refuses access"),
    "failed to fetch https://r/index.yaml : 503 Service Unavailable": (3, "r does not answer"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "told"), SAID.items())
def test_what_helm_says_becomes_one_line(said: str, told: tuple[int, str]) -> None:
    failure = pull.trouble(Output(1, "", f"Error: {said}"), pull.Asked("x", "", "r"))
    assert (failure.code, failure.what) == told


def test_a_server_that_never_ends_its_answer_does_not_answer() -> None:
    failure = pull.trouble(Output(124, "", "\nstopped after 120 s\n"), pull.Asked("x", "", "r"))
    assert (failure.what, failure.why) == ("r does not answer", "stopped after 120 s")
