"""The Secret of an external PostgreSQL is found, checked, and brought to the release, before that is touched."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest

from devenv import environment, external
from devenv.clients.kube import Kube
from devenv.environment import Environment
from devenv.errors import Refused
from devenv.model import External
from devenv.report import Screen
from devenv.settings import Flags
from tests.fake_api import FakeApi
from tests.test_databases import server

OWN = "/api/v1/namespaces/devenv/secrets"
OTHER = "/api/v1/namespaces/other/secrets"
COPY = "backend-external-postgresql"
FORBIDDEN = (403, {"message": 'secrets "mine" is forbidden: User "system:serviceaccount:ci:bot" cannot get resource'})


def coded(**keys: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}


def secret(version: str = "7", **keys: str) -> tuple[int, dict[str, Any]]:
    return 200, {"metadata": {"uid": "u", "resourceVersion": version}, "type": "Opaque", "data": coded(**keys)}


def listed(*titles: str) -> tuple[int, dict[str, Any]]:
    parts = [title.split("/") for title in titles]
    return 200, {"items": [{"metadata": {"namespace": namespace, "name": name}} for namespace, name in parts]}


@pytest.fixture
def screen() -> Screen:
    return Screen(plain=True, color=False, stream=io.StringIO())


@pytest.fixture
def settle(kube: Kube, screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(name: str = "mine", *sets: str, sources: tuple[str, ...] = ()) -> Environment:
        monkeypatch.setenv("ENABLE_TEMPORAL", "true")
        monkeypatch.setenv("TEMPORAL_EXTERNAL_SECRET", name)
        wanted = environment.describe(Flags(sets=sets))
        wanted = wanted._replace(profile=wanted.profile._replace(secret_sources=sources))
        return external.settle(wanted, kube, screen.secrets)

    return run


def given(settled: Environment) -> External:
    assert settled.desired.external is not None
    return settled.desired.external


@pytest.mark.parametrize("name", ["mine", "devenv/mine"])
def test_in_the_releases_own_namespace_it_is_used_as_it_is(
    api: FakeApi, settle: Any, screen: Screen, name: str
) -> None:
    api.answers[f"GET {OWN}/mine"] = secret(host="db", password="hunter22")
    settled = settle(name)
    assert (given(settled).source, given(settled).name, given(settled).copied) == ("devenv/mine", "mine", False)
    assert settled.desired.values.get(external.NAME) == "mine"
    assert "hunter22" in screen.secrets
    assert "hunter22" not in repr(settled)


def test_from_another_namespace_the_values_name_the_copy(api: FakeApi, settle: Any) -> None:
    api.answers[f"GET {OTHER}/mine"] = secret(host="db.example.com", password="hunter22")
    settled = settle("other/mine")
    assert (given(settled).source, given(settled).name, given(settled).copied) == ("other/mine", COPY, True)
    assert settled.desired.values.get(external.NAME) == COPY


def test_a_bare_name_is_looked_for_in_the_releases_namespace_then_in_the_sources(api: FakeApi, settle: Any) -> None:
    api.answers[f"GET {OTHER}/mine"] = secret(host="db.example.com", password="hunter22")
    assert given(settle("mine", sources=("first", "other"))).source == "other/mine"
    asked = [line for line in api.asked if line.endswith("/mine")]
    assert [line.split("/")[4] for line in asked] == ["devenv", "first", "other"]
    api.answers[f"GET {OWN}/mine"] = secret(host="db", password="hunter22")
    assert given(settle("mine", sources=("other",))).source == "devenv/mine"


def test_found_nowhere_every_one_that_could_be_meant_is_named_to_type(api: FakeApi, settle: Any) -> None:
    api.answers["GET /api/v1/secrets"] = listed("b/mine", "a/mine")
    with pytest.raises(Refused, match="is not there") as refused:
        settle("mine", sources=("ops",))
    assert refused.value.where == "Secret mine in namespace devenv or ops"
    assert refused.value.next == "TEMPORAL_EXTERNAL_SECRET=a/mine or TEMPORAL_EXTERNAL_SECRET=b/mine"


def test_where_other_namespaces_may_not_be_searched_that_is_said_and_similar_names_are_given(
    api: FakeApi, settle: Any
) -> None:
    api.answers["GET /api/v1/secrets"] = FORBIDDEN
    api.answers[f"GET {OWN}"] = listed("devenv/mime", "devenv/unlike", "devenv/sh.helm.release.v1.mine.v1")
    with pytest.raises(Refused) as refused:
        settle("mine")
    assert "TEMPORAL_EXTERNAL_SECRET=NAMESPACE/mine" in refused.value.why
    assert refused.value.next == "TEMPORAL_EXTERNAL_SECRET=devenv/mime"


def test_one_that_may_not_be_read_says_the_role_to_grant(api: FakeApi, settle: Any) -> None:
    api.answers[f"GET {OTHER}/mine"] = FORBIDDEN
    with pytest.raises(Refused, match="may not be read") as refused:
        settle("other/mine")
    assert "--verb=get --resource=secrets --resource-name=mine" in refused.value.next
    assert refused.value.next.endswith("--serviceaccount=ci:bot")


REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "it has no host": ("mine", {"password": "hunter22"}, "key host is missing"),
    "its key is another word": ("other/mine", {"hostname": "db", "password": "hunter22"}, "did you mean hostname"),
    "its password is empty": ("mine", {"host": "db", "password": ""}, "key password is empty"),
    "its password has a space": ("other/mine", {"host": "db", "password": "hunter22 b"}, "holds a space"),
}


@pytest.mark.parametrize(("name", "keys", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_when(api: FakeApi, settle: Any, name: str, keys: dict[str, str], what: str) -> None:
    api.answers[f"GET {OWN}/mine"] = api.answers[f"GET {OTHER}/mine"] = secret(**keys)
    with pytest.raises(Refused, match=what) as refused:
        settle(name)
    assert "hunter22" not in str(refused.value.record())


def test_a_newline_at_the_end_is_left_out_of_a_copy_and_refused_where_nothing_is_copied(
    api: FakeApi, settle: Any
) -> None:
    both = secret(host="db.example.com", password="hunter22\n")
    api.answers[f"GET {OWN}/mine"] = api.answers[f"GET {OTHER}/mine"] = both
    copied = given(settle("other/mine"))
    assert copied.texts["password"] == "hunter22"
    assert copied.warnings == ("the newline at the end of key password is not in the copy",)
    with pytest.raises(Refused, match="key password of the Secret ends with a newline") as refused:
        settle("mine")
    assert refused.value.next == external.mending("mine", "password")


def test_a_host_that_the_values_name_need_not_be_in_the_secret(api: FakeApi, settle: Any) -> None:
    api.answers[f"GET {OWN}/mine"] = secret(password="hunter22")
    settled = settle("mine", "backend.temporalConfig.postgres.host=db.example.com")
    assert dict(given(settled).texts) == {"password": "hunter22"}


@pytest.mark.parametrize(
    ("service", "host"), [((200, {}), "db.other.svc"), ((404, {}), "db"), (FORBIDDEN, "db")], ids=str
)
def test_a_host_without_a_dot_is_completed_where_such_a_service_is(
    api: FakeApi, settle: Any, service: tuple[int, Any], host: str
) -> None:
    api.answers[f"GET {OTHER}/mine"] = secret(host="db", password="hunter22")
    api.answers["GET /api/v1/namespaces/other/services/db"] = service
    assert given(settle("other/mine")).texts["host"] == host


def copy_of(source: str, version: str, **keys: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "devenv", "app.kubernetes.io/instance": "backend"}
    marks = {external.SOURCE_MARK: source, external.VERSION_MARK: version}
    return {"metadata": {"name": COPY, "labels": labels, "annotations": marks}, "data": coded(**keys)}


def test_a_secret_that_is_not_ours_is_never_written_over(api: FakeApi, kube: Kube, settle: Any, screen: Screen) -> None:
    theirs = {"metadata": {"name": COPY}, "data": coded(host="theirs", password="theirs")}
    api.answers[f"GET {OTHER}/mine"] = secret(host="db.example.com", password="hunter22")
    settled = settle("other/mine")
    api.answers[f"GET {OWN}/{COPY}"] = (200, theirs)
    with pytest.raises(Refused, match="not devenv's"):
        settle("other/mine")
    api.answers[f"POST {OWN}"] = (409, {"message": "exists"})
    with pytest.raises(Refused, match="not devenv's"):
        external.bring(kube, settled.desired, screen, ())
    assert not [line for line in api.asked if line.startswith(("PUT", "PATCH"))]


def test_our_own_copy_is_not_taken_for_a_source(api: FakeApi, settle: Any) -> None:
    api.answers[f"GET {OWN}/{COPY}"] = (200, copy_of("other/mine", "v", host="db", password="hunter22"))
    with pytest.raises(Refused, match="is a copy that devenv made") as refused:
        settle(COPY)
    assert refused.value.next == "TEMPORAL_EXTERNAL_SECRET=other/mine"


def test_the_copy_has_the_four_keys_and_the_ca_and_nothing_else(
    api: FakeApi, kube: Kube, settle: Any, screen: Screen
) -> None:
    keys = {"host": "db.example.com", "port": "6432", "username": "app", "password": "hunter22"}
    source = secret(**keys, **{"ca.crt": "PEM", "uri": "postgres://app:hunter22@db", "note": "x"})
    source[1]["metadata"] |= {"labels": {"theirs": "x"}, "annotations": {"theirs": "x"}}
    api.answers[f"GET {OTHER}/mine"] = source
    made: list[dict[str, Any]] = []

    def create(body: dict[str, Any]) -> tuple[int, Any]:
        made.append(body)
        return 201, body

    api.answers[f"POST {OWN}"] = create
    settled = settle("other/mine")
    external.bring(kube, settled.desired, screen, ())
    [body] = made
    assert body["data"] == coded(**keys, **{"ca.crt": "PEM"})
    assert body["metadata"]["annotations"] == {
        external.SOURCE_MARK: "other/mine",
        external.VERSION_MARK: given(settled).version,
    }
    assert "theirs" not in str(body)


REASONS: dict[str, tuple[dict[str, Any] | None, str]] = {
    "as it is": ({}, ""),
    "gone": (None, "is not there"),
    "changed at its source": ({"version": "old"}, "Secret other/mine changed at its source"),
    "of another source": ({"source": "third/mine"}, "is other/mine now, it was third/mine"),
    "edited": ({"password": "another"}, "was edited"),
}


@pytest.mark.parametrize(("change", "reason"), REASONS.values(), ids=REASONS.keys())
def test_there_is_something_to_do_where_the_copy_was(
    api: FakeApi, kube: Kube, settle: Any, screen: Screen, change: dict[str, Any] | None, reason: str
) -> None:
    api.answers[f"GET {OTHER}/mine"] = secret(host="db.example.com", password="hunter22")
    desired = settle("other/mine").desired
    whole = {"source": "other/mine", "version": desired.external.version, "host": "db.example.com"}
    if change is not None:
        there = copy_of(**{**whole, "password": "hunter22", **change})
        api.answers[f"GET {OWN}/{COPY}"] = (200, there)
    told = external.reasons(kube, desired, ())
    assert (not told) if not reason else reason in told[0]
    steps = {"as it is": "is as other/mine", "gone": "is copied to", "other": "follows other/mine"}
    known = "gone" if change is None else "as it is" if not change else "other"
    assert steps[known] in external.step(kube, desired)


def test_a_changed_source_has_another_version_and_so_other_values(api: FakeApi, settle: Any) -> None:
    def version(number: str) -> str:
        api.answers[f"GET {OWN}/mine"] = secret(number, host="db", password="hunter22")
        return str(settle("mine").desired.values.get(external.VERSION))

    assert version("7") == version("7") != version("8")


def workload(name: str, **env: Any) -> dict[str, Any]:
    entries = [{"name": "DATABASE_HOST", **env}]
    template = {"spec": {"containers": [{"name": "backend", "env": entries}]}}
    return {"kind": "Deployment", "metadata": {"name": name}, "spec": {"template": template}}


def host_of(name: str) -> dict[str, Any]:
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": "host"}}}


INTERNAL = [workload("backend", value="backend-postgresql"), {"kind": "StatefulSet", "metadata": {"name": "x"}}]
LEFT: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = {
    "a first install": ([], [workload("backend", **host_of("a"))], ""),
    "the same": ([workload("backend", **host_of("a"))], [workload("backend", **host_of("a"))], ""),
    "internal to external": (INTERNAL, [workload("backend", **host_of("a"))], ""),
    "external to internal": (
        [workload("backend", **host_of("a"))],
        INTERNAL,
        "PostgreSQL of Secret a is used no longer",
    ),
    "one Secret to another": (
        [workload("backend", **host_of("a"))],
        [workload("backend", **host_of("b"))],
        "of Secret a",
    ),
    "one host to another": ([workload("backend", value="a")], [workload("backend", value="b")], "PostgreSQL of a is"),
}


@pytest.mark.parametrize(("before", "after", "told"), LEFT.values(), ids=LEFT.keys())
def test_an_external_database_that_is_left_is_said(
    kube: Kube, before: list[dict[str, Any]], after: list[dict[str, Any]], told: str
) -> None:
    found = external.left_behind(kube, environment.describe(Flags()).desired, after, before)
    assert (not found) if not told else told in found[0]


def test_what_was_left_for_an_external_database_goes_but_nothing_that_is_not_ours(api: FakeApi, kube: Kube) -> None:
    desired = environment.describe(Flags()).desired
    configs = "/api/v1/namespaces/devenv/configmaps"
    api.answers[f"GET {OWN}/{COPY}"] = (200, copy_of("other/mine", "v"))
    api.answers[f"GET {configs}/{COPY}"] = (200, {"metadata": {"name": COPY}})
    external.tidy(kube, desired)
    assert [line.partition("?")[0] for line in api.asked if line.startswith("DELETE")] == [f"DELETE {OWN}/{COPY}"]


def test_a_revision_whose_copy_is_gone_is_not_gone_back_to(api: FakeApi, kube: Kube) -> None:
    desired = environment.describe(Flags()).desired
    external.refuse_without_copy(kube, desired, [workload("backend", **host_of("mine"))])
    with pytest.raises(Refused, match="the copy of its Secret is gone"):
        external.refuse_without_copy(kube, desired, [workload("backend", **host_of(COPY))])
    api.answers[f"GET {OWN}/{COPY}"] = (200, copy_of("other/mine", "v"))
    external.refuse_without_copy(kube, desired, [workload("backend", **host_of(COPY))])


BACKEND = workload("backend", **host_of("managed"))
STAYS = {
    "external": ([BACKEND, *server("4")], 'databases "t" and "t_visibility" stay in the external PostgreSQL of Secret managed; '
                 'to drop them there: DROP DATABASE "t"; DROP DATABASE "t_visibility"'),
    "internal": ([*INTERNAL, BACKEND, *server("4")], ""),
    "external, without Temporal": ([BACKEND], ""),
}  # fmt: skip


@pytest.mark.parametrize(("objects", "told"), STAYS.values(), ids=STAYS.keys())
def test_a_release_that_goes_says_what_stays_in_its_external_database(objects: list[dict[str, Any]], told: str) -> None:
    assert external.stays(objects, environment.describe(Flags()).desired) == told
