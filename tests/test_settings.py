"""Flags over environment over .env; toggles by a fixed table; profiles that extend each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from devenv import environment, profiles, settings, toggles
from devenv.errors import InputWrong, Refused
from devenv.settings import Flags

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "profiles" / "toggles").mkdir(parents=True)
    for source in (PROJECT / "profiles").rglob("*.yaml"):
        target = tmp_path / source.relative_to(PROJECT)
        target.write_text(source.read_text())
    return tmp_path


def profile(project: Path, text: str) -> None:
    (project / "profiles" / "mine.yaml").write_text(text)


SWITCH = {
    "1": True, "true": True, "TRUE": True, "Yes": True, "on": True, "  true ": True, "\ttrue\n": True,
    "0": False, "false": False, "No": False, "OFF": False, "": False, "   ": False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "on"), SWITCH.items())
def test_enable_temporal_has_a_fixed_truth_table(
    project: Path, monkeypatch: pytest.MonkeyPatch, text: str, on: bool
) -> None:
    monkeypatch.setenv("ENABLE_TEMPORAL", text)
    assert environment.describe(Flags(), project).desired.temporal is on


@pytest.mark.parametrize("text", ["tru", "2", "enabled", "y", "да"])
def test_anything_else_is_an_error_and_not_off(project: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ENABLE_TEMPORAL", text)
    with pytest.raises(InputWrong) as wrong:
        environment.describe(Flags(), project)
    assert wrong.value.where == "ENABLE_TEMPORAL, from the environment"


SECRETS = {
    "name": True,
    "my.name": True,
    "ns/name": True,
    "a/b/c": False,
    "../x": False,
    "/x": False,
    "A": False,
    "x/": False,
}


@pytest.mark.parametrize(("text", "good"), SECRETS.items())
def test_an_external_secret_is_a_name_or_a_namespace_and_a_name(project: Path, text: str, good: bool) -> None:
    toggle = toggles.BY_NAME["external-postgres"]
    if good:
        assert toggles.parse(toggle, text, "x") == text
    else:
        with pytest.raises(InputWrong):
            toggles.parse(toggle, text, "x")


def test_an_external_secret_without_temporal_is_ignored_and_said(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_EXTERNAL_SECRET", "mine")
    desired = environment.describe(Flags(), project).desired
    assert desired.internal_postgres
    assert desired.choice("external-postgres").ignored == "ENABLE_TEMPORAL is off"


def test_an_external_secret_with_temporal_chooses_external_postgres(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_TEMPORAL", "true")
    monkeypatch.setenv("TEMPORAL_EXTERNAL_SECRET", "other/mine")
    desired = environment.describe(Flags(), project).desired
    assert not desired.internal_postgres
    assert desired.values.get(("backend", "temporalConfig", "postgres")) == {"host": "NONE", "secret": {"name": "mine"}}


def test_a_flag_wins_over_the_environment_over_dotenv_over_the_profile(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def namespace(**flags: str) -> tuple[str, str]:
        said = environment.describe(Flags(**flags), project)  # type: ignore[arg-type]
        return said.desired.namespace, said.settings.namespace.origin

    assert namespace() == ("devenv", "")
    (project / ".env").write_text("# mine\nDEVENV_NAMESPACE=from-dotenv\n")
    assert namespace() == ("from-dotenv", ".env:2")
    monkeypatch.setenv("DEVENV_NAMESPACE", "from-environment")
    assert namespace() == ("from-environment", "the environment")
    assert namespace(namespace="from-flag") == ("from-flag", "--namespace")


def test_dotenv_is_taken_literally(project: Path) -> None:
    (project / ".env").write_text("export DEVENV_CONTEXT='kind-$HOME-$(id)'\nOTHER=x\n")
    assert settings.read(Flags(), project, {}).context.text == "kind-$HOME-$(id)"


@pytest.mark.parametrize(("text", "where"), [("A=1\nDEVENV_NAMESPCE=x\n", ".env:2"), ("A=1\n\n'broken\n", ".env:3")])
def test_a_wrong_dotenv_is_refused_by_line(project: Path, text: str, where: str) -> None:
    (project / ".env").write_text(text)
    with pytest.raises(InputWrong) as wrong:
        settings.read(Flags(), project, {})
    assert wrong.value.where == where


TIMES = {"90": 90.0, "90s": 90.0, "10m": 600.0, "1h30m": 5400.0, "1h": 3600.0}


@pytest.mark.parametrize(("text", "seconds"), TIMES.items())
def test_times(text: str, seconds: float) -> None:
    assert settings.seconds(text, "x") == seconds


@pytest.mark.parametrize("text", ["", "0", "x", "10x", "-1", "1.5m", "9999h"])
def test_wrong_times(text: str) -> None:
    with pytest.raises(InputWrong):
        settings.seconds(text, "x")


@pytest.mark.parametrize("name", ["Foo", "a_b", "-a", "a-", "ü", "a" * 64, "a.b"])
def test_a_namespace_that_is_no_dns_label_is_refused(project: Path, name: str) -> None:
    with pytest.raises(InputWrong, match="is no namespace"):
        settings.read(Flags(namespace=name), project, {})


PROFILES = {
    "an unknown key": ("realease: x\n", "profiles/mine.yaml:1", "'realease' is no key"),
    "an unknown toggle": ("toggles:\n  temprl: true\n", "profiles/mine.yaml:2", "no toggle 'temprl'"),
    "a toggle that is text": ("toggles: {temporal: maybe}\n", "profiles/mine.yaml:1", "true or false"),
    "a release that is no label": ("release: My_App\n", "profiles/mine.yaml:1", "no DNS label"),
    "a source of Secrets that leads elsewhere": (
        "secretSources: [ops, ../kube-system]\n",
        "profiles/mine.yaml:1",
        "secretSources '../kube-system' is no DNS label",
    ),
    "values that are a list": ("values: [1]\n", "profiles/mine.yaml:1", "must be a map"),
    "an unknown parent": ("extends: nope\n", "profiles/mine.yaml:1", "no profile 'nope'"),
    "a parent by path": ("extends: ../../etc/passwd\n", "profiles/mine.yaml:1", "no profile"),
    "itself": ("extends: mine\n", "profiles/mine.yaml:1", "circle"),
    "a chart outside": ("chart: ../../x\n", "profiles/mine.yaml:1", "must lie in the project"),
    "a chart of somebody's home": ("chart: ~/x\n", "profiles/mine.yaml:1", "must lie in the project"),
    "a chart that leads out": ("chart: profiles/../../x\n", "profiles/mine.yaml:1", "must lie in the project"),
    "a chart without a name": ("chart: {version: 1.0.0}\n", "profiles/mine.yaml:1", "has no name"),
    "an absolute chart": ("chart: /etc\n", "profiles/mine.yaml:1", "must lie in the project"),
    "a wrong timeout": ("timeouts: {rollout: soon}\n", "profiles/mine.yaml:1", "is no time"),
    "an unknown timeout": ("timeouts: {rolout: 1m}\n", "profiles/mine.yaml:1", "no timeout"),
}


@pytest.mark.parametrize(("text", "where", "what"), PROFILES.values(), ids=PROFILES.keys())
def test_a_profile_is_refused_for(project: Path, text: str, where: str, what: str) -> None:
    profile(project, text)
    with pytest.raises(InputWrong) as wrong:
        profiles.load("mine", project / "profiles", "--profile")
    assert (wrong.value.where, what in wrong.value.what) == (where, True)


@pytest.mark.parametrize("name", ["../dev", "/etc/passwd", "dev.yaml", "nope", "DEV", ""])
def test_a_profile_that_is_not_there_is_refused_with_those_that_are(project: Path, name: str) -> None:
    if not name:
        return
    with pytest.raises(InputWrong) as wrong:
        environment.describe(Flags(profile=name), project)
    assert "dev, preview, production" in wrong.value.why or "did you mean" in wrong.value.why


def test_a_profile_that_is_a_link_out_of_the_project_is_refused(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.yaml"
    outside.write_text("release: x\n")
    (project / "profiles" / "mine.yaml").symlink_to(outside)
    with pytest.raises(InputWrong, match="leads out of the project"):
        profiles.load("mine", project / "profiles", "--profile")


def test_a_profile_extends_another_and_its_values_lie_over_it(project: Path) -> None:
    profile(project, "extends: dev\nnamespace: mine\nvalues:\n  global:\n    postgresql: {enabled: false}\n")
    desired = environment.describe(Flags(profile="mine"), project).desired
    assert (desired.namespace, desired.release, desired.internal_postgres) == ("mine", "backend", False)


@pytest.mark.parametrize("toggle", toggles.TOGGLES, ids=lambda toggle: toggle.name)
def test_a_toggle_is_a_table_row_an_overlay_and_a_row_of_the_readme(toggle: toggles.Toggle) -> None:
    assert (PROJECT / "profiles" / "toggles" / f"{toggle.name}.yaml").is_file()
    assert f"| `{toggle.variable}` |" in (PROJECT / "README.md").read_text()


def test_the_tool_names_the_internal_databases_secret_and_a_profile_may_name_another(project: Path) -> None:
    path = ("backend", "postgresql", "existingSecret")
    assert environment.describe(Flags(), project).desired.values.get(path) == "backend-postgresql"
    mine = Flags(sets=("backend.postgresql.existingSecret=mine",))
    assert environment.describe(mine, project).desired.values.get(path) == "mine"


def test_production_touches_no_context_by_itself(project: Path) -> None:
    from devenv import target

    said = environment.describe(Flags(profile="production"), project)
    with pytest.raises(Refused, match="may not touch"):
        target.choose(said.settings, said.profile)


def chart_of(project: Path, **flags: str) -> tuple[str, str]:
    desired = environment.describe(Flags(profile="mine", **flags), project).desired  # type: ignore[arg-type]
    return desired.chart, desired.chart_version


def test_the_version_belongs_to_the_chart_that_names_it(project: Path) -> None:
    profile(project, "extends: dev\nchart: {name: mine/web, version: 1.2.3}\n")
    assert chart_of(project) == ("mine/web", "1.2.3")
    assert chart_of(project, chart="other/web") == ("other/web", "")
    assert chart_of(project, chart="other/web:2.0.0") == ("other/web", "2.0.0")


def test_a_chart_is_relative_to_who_names_it(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for place in (project, elsewhere):
        (place / "web").mkdir()
        (place / "web" / "Chart.yaml").write_text("name: web\nversion: 1.0.0\n")
    monkeypatch.chdir(elsewhere)
    profile(project, "extends: dev\nchart: ./web\n")
    assert chart_of(project)[0] == str(project / "web")
    assert chart_of(project, chart="web")[0] == str(elsewhere / "web")
    (project / ".env").write_text("DEVENV_CHART=web\n")
    assert chart_of(project)[0] == str(project / "web")


# -- where the embedded cluster's programs and images come from --------------------------------------------------------


def test_where_programs_and_images_come_from_may_stand_in_dotenv_too(tmp_path: Path) -> None:
    address = "https://host/x%2By.whl#sha256=" + "0" * 64
    (tmp_path / ".env").write_text(f"DEVENV_PROGRAMS=download\nDEVENV_PROGRAMS_URL={address}\nDEVENV_IMAGES=pull\n")
    said = settings.sources(tmp_path, {"DEVENV_IMAGES": "build"})
    assert (said.programs, said.images, said.address.text) == ("download", "build", address)
    assert settings.sources(tmp_path / "none", {}) == settings.Sources("auto", "auto", settings.NOT_GIVEN)


@pytest.mark.parametrize(
    ("name", "text"), [("DEVENV_PROGRAMS", "pull"), ("DEVENV_IMAGES", "download"), ("DEVENV_IMAGES", "1")]
)
def test_another_word_is_wrong(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputWrong) as wrong:
        settings.sources(tmp_path, {name: text})
    assert wrong.value.where == "the environment"
    assert wrong.value.next.startswith(f"{name}=auto|")
