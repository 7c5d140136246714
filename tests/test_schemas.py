"""What programs read is as the schemas in the package say: real records, the shipped profiles, and nothing without one."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.exceptions import Exit
from jsonschema import Draft7Validator, Draft202012Validator, ValidationError
from referencing import Registry, Resource

import tasks
from devenv import history, look, paths, profiles, runlog, show, status, temporal, toggles
from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.cluster import condition
from devenv.cluster.ship import Sent, Shipment
from devenv.cluster.wheel import Built, Written
from devenv.databases import Database, Wanted
from devenv.destroy import Result as Destroyed
from devenv.environment import Environment, Session, describe
from devenv.errors import Failure, InputWrong, Interrupted, Refused, RolloutFailed, StepFailed
from devenv.model import Change, Field, Plan, Setting
from devenv.proof import Proof
from devenv.redeploy import Result
from devenv.revisions import Revision
from devenv.settings import Flags
from devenv.target import Target
from devenv.values import compose
from tests import test_bench
from tests.fake_api import FakeApi
from tests.test_embedded import document
from tests.test_runlog import BROKEN, FACTS, LIVES, LOGS, TOLD
from tests.test_watch import deployment, listed, pod

SCHEMAS = {file.stem: json.loads(file.read_text()) for file in (paths.PACKAGE / "schemas").glob("*.json")}
REGISTRY: Registry[Any] = Registry().with_resources(
    [(f"{name}.json", Resource.from_contents(schema)) for name, schema in SCHEMAS.items()]
)
SHIPPED = sorted((paths.PROJECT / "profiles").glob("*.yaml"))

CHANGE = Change("change", "Deployment/x", (Field("spec.replicas", None, 2, "by hand"),))
PLAN = Plan(
    ("a.b changed (--set)",),
    (CHANGE, Change("create", "Job/y", by="a.b (--set)")),
    3,
    "hash",
    settings=(Setting("a.b", None, 1, "--set, a.b"),),
    steps=("release: revision 3",),
    impossible=("it cannot",),
    left_behind=("it stays",),
)
NOTHING = Plan((), (), 3, "hash")


def validate(name: str, record: Any) -> None:
    """Raises where the record, as it is written, is not what the schema says."""
    Draft202012Validator(SCHEMAS[name], registry=REGISTRY).validate(json.loads(json.dumps(record)))


@functools.cache
def described() -> Environment:
    return describe(Flags(sets=("a.b=1", "c[0]=x", "d=null")))


def report(failure: Failure | None = None, **facts: Any) -> dict[str, Any]:
    return runlog.record("redeploy", 1_790_000_000.0, 34.5, TOLD, {**FACTS, **facts}, failure)


def cluster() -> dict[str, Any]:
    seen = condition.parse(document())
    parts = tuple({**part, "version": "v3.6.4"} for part in condition.described(seen, 0))
    return condition.Status(
        "default", True, True, "", "/k", seen.server, seen.version, parts, 1, 2, ("a/b:1",)
    ).record()


REVISION = Revision(3, "2026-11-23T23:40:00Z", "deployed", "Upgrade complete", "c-1", "1", "on", "internal", True, "")
CHECKS = [{"check": "frontend", "ok": True, "detail": "1/1 ready"}, {"check": "cluster", "ok": False, "detail": "no"}]
RECORDS: dict[str, tuple[str, Any]] = {
    "a redeploy": ("redeploy", Result(PLAN, 3, Proof("r", "w", "run", "t"), 41.23).record()),
    "nothing to do": ("redeploy", Result(NOTHING, 2, None, 0.4).record()),
    "a plan": ("plan", show.plan_record(PLAN)),
    "an empty plan": ("plan", show.plan_record(NOTHING)),
    "values": ("values", show.values_record(described().desired.values, "")),
    "values explained": ("values", show.values_record(described().desired.values, "global")),
    "a destroy": ("destroy", Destroyed("n", "r", True, kept="data-x-0").record()),
    "a destroy of nothing": ("destroy", Destroyed("n", "r", False).record()),
    "Temporal's health": ("temporal-health", temporal.health_record(CHECKS)),
    "a smoke test": ("temporal-smoke", temporal.smoke_record(Proof("r", "w", "run", "t"))),
    "a bench": ("bench", test_bench.record()),
    "a bench with Helmfile": ("bench", test_bench.record(measures=test_bench.THREE_SIDES)),
    "a bench of many pods": ("bench", test_bench.record(measures=test_bench.MANY)),
    "a history": ("history", history.record(described().desired, [REVISION])),
    "a cluster": ("cluster", cluster()),
    "a cluster that does not run": (
        "cluster",
        condition.Status("default", False, False, "", "", "", "", (), 0, 0).record(),
    ),
    "our images": ("cluster-images", Shipment("list", "cluster default", (Sent("a/b:1", 0, None),)).record()),
    "images pushed": (
        "cluster-images",
        Shipment("push", "ghcr.io", (Sent("a/b:1", 2, True, 1),), "--set x=y").record(),
    ),
    "images pruned": ("cluster-images", Shipment("prune", "cluster x", (), "", {"cache": ("a-1",)}, 5).record()),
    "programs": ("cluster-build", Built((("pause", Path("/c/pause-1")),)).record()),
    "a wheel": ("cluster-build", Built((), Written(Path("/d/x.whl"), "0.1.0+s1", 7, "0" * 64)).record()),
    "a report": ("report", report()),
    "a report of a failure": ("report", report(BROKEN, logs=LOGS, proof=None)),
    "a report of an interruption": ("report", report(Interrupted("interrupted"), pods=LIVES[:1])),
    "a report without a cluster": (
        "report",
        runlog.record("destroy", 1.0, 0.1, [], {"profile": "dev", "namespace": "n"}, BROKEN),
    ),
}


@pytest.mark.parametrize(("name", "record"), RECORDS.values(), ids=RECORDS.keys())
def test_as_its_schema_says(name: str, record: Any) -> None:
    validate(name, record)


def test_the_status_is_as_its_schema_says(tmp_path: Path) -> None:
    api = FakeApi().start()
    for path, plural, _, _ in look.READS:
        api.answers[f"GET {path}/namespaces/devenv/{plural}"] = listed()
    api.answers["GET /apis/apps/v1/namespaces/devenv/deployments"] = listed(deployment(0))
    api.answers["GET /api/v1/namespaces/devenv/pods"] = listed(pod({"running": {}}, restarts=2))
    job = {"metadata": {"name": "setup", "uid": "j"}, "status": {"active": 1}}
    api.answers["GET /apis/batch/v1/namespaces/devenv/jobs"] = listed(job)
    claim = {"metadata": {"name": "data-0", "uid": "c"}, "spec": {}, "status": {"phase": "Bound"}}
    api.answers["GET /api/v1/namespaces/devenv/persistentvolumeclaims"] = listed(claim)
    labels = {"owner": "helm", "name": "backend", "version": "3", "status": "deployed"}
    api.answers["GET /api/v1/namespaces/devenv/secrets"] = listed({"metadata": {"name": "s", "labels": labels}})
    used = {"metadata": {"name": "app-1-x"}, "containers": [{"usage": {"cpu": "250m", "memory": "64Mi"}}]}
    api.answers["GET /apis/metrics.k8s.io/v1beta1/namespaces/devenv/pods"] = listed(used)
    kubeconfig = api.kubeconfig(tmp_path)
    web = {"metadata": {"name": "backend-temporal-web"}, "spec": {"ports": [{"name": "http", "port": 8080}]}}
    api.answers["GET /api/v1/namespaces/devenv/services"] = listed(web)
    helm = Helm(Path("helm"), kubeconfig, "fake", "devenv")
    session = Session(Target("fake", kubeconfig, "", ""), Kube(kubeconfig, "fake"), helm, "v1.34.4")
    try:
        record = status.read(described().desired, session)
    finally:
        api.stop()
    assert len(record["components"]) == len(record["jobs"]) == len(record["volumes"]) == 1
    assert record["release"]["revision"] == 3
    assert record["components"][0]["usage"] == {"cpuCores": 0.25, "memoryBytes": 64 * 2**20}
    assert record["ways"] == [
        {
            "service": "backend-temporal-web",
            "scheme": "http",
            "inside": "http://backend-temporal-web.devenv:8080",
            "fromHere": "inv temporal.ui",
        }
    ]
    validate("status", record)


IMAGES = {
    "postgres": "latest",
    "postgres:18": "18",
    "registry:5000/a/b": "latest",
    "registry:5000/a/b:1.2": "1.2",
    "a/b@sha256:0123456789abcdef0123": "sha256:0123456789ab",
    "a/b:1@sha256:0123456789abcdef0123": "1",
}


@pytest.mark.parametrize(("image", "version"), IMAGES.items())
def test_the_version_of_an_image_is(image: str, version: str) -> None:
    assert status.version(image) == version


FAILURES = [
    InputWrong("w", where="--x", next="--y"),
    Refused("r"),
    StepFailed("s"),
    RolloutFailed("f", why="y"),
    Interrupted("i"),
    Failure("a bug"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.kind)
@pytest.mark.parametrize("kind", sorted(SCHEMAS.keys() - {"failure", "failed", "profile", "report"}))
def test_a_failed_task_answers_with_the_shared_record(
    kind: str, failure: Failure, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: Any) -> None:
        raise failure

    with pytest.raises(Exit) as ended:
        tasks._guard(fails, Flags(output="json"), kind)
    assert ended.value.code == failure.code
    record = json.loads(capsys.readouterr().out)
    validate(kind, record)
    validate("failed", record)
    validate("failure", record["failure"])


def test_a_database_is_as_the_schema_of_db_status_says() -> None:
    one = Database(Wanted("temporal", "temporal", "1.19"), there=True, version="1.18")
    schema = SCHEMAS["db-status"]["$defs"]["record"]["properties"]["databases"]["items"]
    Draft202012Validator(schema).validate(one.record())


def test_each_schema_is_one_itself() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


def test_each_record_that_the_code_makes_has_a_schema() -> None:
    made = set()
    for file in paths.PACKAGE.rglob("*.py"):
        made |= set(re.findall(r'"devenv/([a-z-]+)/v1"', file.read_text()))
    assert made == SCHEMAS.keys() - {"failure", "failed", "profile"}


def test_a_record_and_a_failure_are_told_apart() -> None:
    both = {**show.plan_record(PLAN), "failure": BROKEN.record()}
    with pytest.raises(ValidationError):
        validate("plan", both)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_profile_is_as_its_schema_says_and_names_it(file: Path) -> None:
    text = file.read_text()
    validate("profile", yaml.safe_load(text))
    assert text.startswith("# yaml-language-server: $schema=../devenv/schemas/profile.json\n")


@pytest.mark.parametrize("toggle", toggles.TOGGLES, ids=lambda toggle: toggle.name)
def test_an_overlay_sets_values_that_the_chart_takes(toggle: toggles.Toggle) -> None:
    choice = toggles.Choice(toggle, True if toggle.takes == "switch" else "ops/credentials", "a test")
    composed = compose([profiles.overlay(choice, paths.PROJECT / "profiles")])
    schema = json.loads((paths.PACKAGE / "charts" / "environment" / "values.schema.json").read_text())
    Draft7Validator(schema).validate(composed.tree())


def test_the_schema_of_a_profile_has_the_keys_that_the_loader_takes() -> None:
    keys = SCHEMAS["profile"]["properties"]
    assert keys.keys() == profiles.KEYS.keys()
    assert keys["timeouts"]["properties"].keys() == set(profiles.TIMEOUTS)
    assert keys["clusters"]["additionalProperties"]["properties"].keys() == set(profiles.PINS)


PROFILES: dict[str, tuple[str, bool]] = {
    "nothing": ("description: x", True),
    "all keys": (
        "{extends: dev, chart: {name: ./c, version: '1'}, release: r, namespace: n, contexts: [kind-*], "
        "toggles: {temporal: true, external-postgres: a/b}, timeouts: {rollout: 90, proof: 1h30m}, "
        "secretSources: [ops], clusters: {c: {uid: u}}, values: {a: null}}",
        True,
    ),
    "an unknown key": ("nmespace: n", False),
    "a namespace that is no label": ("namespace: A_b", False),
    "a text for a list": ("contexts: kind-*", False),
    "a number for a toggle": ("toggles: {temporal: 1}", False),
    "an unknown timeout": ("timeouts: {rolout: 5m}", False),
    "a wrong time": ("timeouts: {rollout: soon}", False),
    "an unknown pin": ("clusters: {c: {name: u}}", False),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "dev.yaml").write_text("description: the base\n")
    (tmp_path / "c").mkdir()
    yield folder


@pytest.mark.parametrize(("text", "right"), PROFILES.values(), ids=PROFILES.keys())
def test_schema_and_loader_agree_on_a_profile_with(folder: Path, text: str, right: bool) -> None:
    (folder / "mine.yaml").write_text(text + "\n")
    try:
        profiles.load("mine", folder, "a test")
        loaded = True
    except InputWrong:
        loaded = False
    valid = Draft202012Validator(SCHEMAS["profile"]).is_valid(yaml.safe_load(text))
    assert (loaded, valid) == (right, right)
