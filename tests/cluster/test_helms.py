"""The chart under Helm 3 and under Helm 4, without the tool; and releases that pass from one to the other and to the tool."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devenv.clients import shell
from devenv.cluster import programs
from devenv.cluster.embedded import Cluster
from tests.cluster.conftest import PROJECT, Environment

pytestmark = pytest.mark.cluster

PROGRAMS = {"Helm 3": "helm-3", "Helm 4": "helm"}
CHART = PROJECT / "devenv/charts/environment"
VALUES: dict[str, Any] = {
    "global": {"temporal": {"enabled": False}, "postgresql": {"enabled": True}},
    "backend": {"postgresql": {"existingSecret": "backend-postgresql"}},
}


@dataclass(frozen=True)
class Plain:
    """One Helm program on one namespace, as somebody without the tool has it."""

    program: str
    environment: Environment
    kubeconfig: Path

    def run(self, *words: str, stdin: str | None = None) -> shell.Output:
        pinned = ["--kubeconfig", str(self.kubeconfig), "--namespace", self.environment.namespace]
        output = shell.run([programs.path(self.program), *words, *pinned], stdin=stdin)
        print(f"$ {self.program} {' '.join(words)}\n{output.stdout}{output.stderr}[{output.code}]")
        return output

    def upgrade(self, backend: dict[str, Any], *flags: str) -> shell.Output:
        values = {**VALUES, "backend": {**VALUES["backend"], **backend}}
        words = ("upgrade", "--install", "backend", str(CHART), "--wait", "--timeout", "3m", "--values", "-")
        return self.run(*words, *flags, stdin=json.dumps(values))

    def status(self) -> tuple[int, str]:
        found = json.loads(self.run("status", "backend", "--output", "json").stdout)
        return found["version"], found["info"]["status"]


def env_of(environment: Environment) -> dict[str, str]:
    """The backend's variables that have a plain value; a name that is there twice fails."""
    found = json.loads(environment.kubectl("get", "deployment", "backend", "-o", "json"))
    entries = found["spec"]["template"]["spec"]["containers"][0]["env"]
    names = [entry["name"] for entry in entries]
    assert len(names) == len(set(names)), names
    return {entry["name"]: entry["value"] for entry in entries if "value" in entry}


def prepared(environment: Environment) -> Environment:
    """A namespace with the internal database's Secret, as the chart's own message says to make it."""
    environment.inv("kubectl", "--", "create", "namespace", environment.namespace)
    literals = ("host=backend-postgresql", "port=5432", "username=postgres", "password=of-these-tests")
    words = [f"--from-literal={literal}" for literal in literals]
    environment.kubectl("create", "secret", "generic", "backend-postgresql", *words)
    return environment


def variables(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"additionalEnv": [{"name": name, "value": value} for name, value in pairs]}


@pytest.fixture(scope="module", params=PROGRAMS.values(), ids=list(PROGRAMS))
def plain(request: pytest.FixtureRequest, make_environment: Callable[[str], Environment], running: Cluster) -> Plain:
    """The chart installed by one of the two."""
    found = Plain(request.param, prepared(make_environment(request.param)), running.kubeconfig)
    assert found.upgrade(variables(("COLOR", "red"))).code == 0
    assert found.status() == (1, "deployed")
    return found


def test_an_upgrade_changes_what_its_values_change(plain: Plain) -> None:
    assert plain.upgrade(variables(("COLOR", "blue"), ("SIZE", "xl"))).code == 0
    found = env_of(plain.environment)
    assert (found["COLOR"], found["SIZE"]) == ("blue", "xl")


def test_a_variable_of_the_chart_is_overridden_not_doubled_and_comes_back(plain: Plain) -> None:
    chart = env_of(plain.environment)
    name = next(name for name in chart if name not in ("COLOR", "SIZE"))
    assert plain.upgrade(variables((name, chart[name]), ("COLOR", "blue"), ("COLOR", "green"))).code == 0
    assert env_of(plain.environment)["COLOR"] == "green"
    assert plain.upgrade({}).code == 0
    found = env_of(plain.environment)
    assert "COLOR" not in found and found[name] == chart[name]


def test_what_was_edited_by_hand_is_put_back_by_helm_4_only_with_force_conflicts(plain: Plain) -> None:
    plain.environment.kubectl("set", "env", "deployment/backend", "COLOR=by-hand")
    output = plain.upgrade(variables(("COLOR", "black")))
    if plain.program == "helm-3":
        assert output.code == 0
    else:
        assert output.code != 0 and "conflict" in output.stderr
        assert plain.upgrade(variables(("COLOR", "black")), "--force-conflicts").code == 0
    assert env_of(plain.environment)["COLOR"] == "black"


def test_a_rollback_goes_back_to_the_values_of_a_revision(plain: Plain) -> None:
    last, _ = plain.status()
    forced = ("--force-conflicts",) if plain.program == "helm" else ()
    assert plain.run("rollback", "backend", "1", "--wait", "--timeout", "3m", *forced).code == 0
    assert env_of(plain.environment)["COLOR"] == "red"
    assert plain.status() == (last + 1, "deployed")


def test_the_charts_own_test_passes(plain: Plain) -> None:
    assert plain.run("test", "backend").code == 0


def test_a_release_born_under_helm_3_is_upgraded_by_helm_4_by_the_tool_and_by_helm_3_again(
    make_environment: Callable[[str], Environment], running: Cluster
) -> None:
    environment = prepared(make_environment("born"))
    old, new = (Plain(program, environment, running.kubeconfig) for program in PROGRAMS.values())
    assert old.upgrade(variables(("COLOR", "red"), ("SIZE", "xl"))).code == 0
    assert new.upgrade(variables(("COLOR", "blue"))).code == 0
    assert env_of(environment).get("COLOR") == "blue" and "SIZE" not in env_of(environment)
    assert environment.inv("redeploy", "--set", "backend.additionalEnv=null", temporal=False).code == 0
    assert "COLOR" not in env_of(environment)
    again = environment.inv("redeploy", "--set", "backend.additionalEnv=null", "--output", "json", temporal=False)
    assert json.loads(again.stdout)["nothingToDo"]
    assert old.upgrade(variables(("COLOR", "green"))).code == 0
    assert env_of(environment)["COLOR"] == "green"
    back = environment.inv("redeploy", "--set", "backend.additionalEnv=null", temporal=False)
    assert back.code == 0 and "COLOR" not in env_of(environment)


def test_the_tool_takes_over_a_release_of_helm_3_and_goes_back_to_its_revision(
    make_environment: Callable[[str], Environment], running: Cluster
) -> None:
    environment = prepared(make_environment("taken"))
    assert Plain("helm-3", environment, running.kubeconfig).upgrade(variables(("COLOR", "red"))).code == 0
    assert environment.inv("redeploy", temporal=False).code == 0
    assert "COLOR" not in env_of(environment)
    assert environment.inv("rollback", "1", "--yes", temporal=False).code == 0
    assert env_of(environment)["COLOR"] == "red"
