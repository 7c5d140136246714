"""A context's name may come to mean another cluster: what differs is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devenv import identity
from devenv.clients.kube import Kube
from devenv.errors import Refused
from tests.fake_api import FakeApi

ROWS = {
    "the same": ({"server": "s", "ca": "c", "uid": "u"}, {"server": "s", "ca": "c", "uid": "u"}, 0),
    "another server": ({"server": "s"}, {"server": "t"}, 1),
    "another CA": ({"server": "s", "ca": "c"}, {"server": "s", "ca": "d"}, 1),
    "another uid behind the same address": ({"server": "s", "uid": "u"}, {"server": "s", "uid": "v"}, 1),
    "a uid that may not be read": ({"server": "s", "uid": "u"}, {"server": "s"}, 0),
    "nothing is known": ({}, {"server": "s"}, 0),
}


@pytest.mark.parametrize(("known", "found", "count"), ROWS.values(), ids=ROWS.keys())
def test_a_cluster_is_known_by(known: dict[str, str], found: dict[str, str], count: int) -> None:
    assert len(identity.differences(known, found)) == count


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi().start()
    fake.answers["GET /api/v1/namespaces/kube-system"] = (200, {"metadata": {"uid": "one"}})
    yield fake
    fake.stop()


def test_it_is_remembered_at_first_use_and_refused_when_it_changed(api: FakeApi, tmp_path: Path) -> None:
    kube, memory = Kube(api.kubeconfig(tmp_path), "fake"), tmp_path / "seen.json"
    identity.check(kube, {}, memory)
    assert json.loads(memory.read_text())["fake"]["uid"] == "one"
    identity.check(kube, {}, memory)
    api.answers["GET /api/v1/namespaces/kube-system"] = (200, {"metadata": {"uid": "two"}})
    with pytest.raises(Refused) as refused:
        identity.check(kube, {}, memory)
    assert refused.value.why == "kube-system uid was one, is two"


def test_a_pin_of_the_profile_counts_and_nothing_is_remembered(api: FakeApi, tmp_path: Path) -> None:
    kube, memory = Kube(api.kubeconfig(tmp_path), "fake"), tmp_path / "seen.json"
    identity.check(kube, {"uid": "one"}, memory)
    with pytest.raises(Refused):
        identity.check(kube, {"uid": "another"}, memory)
    assert not memory.exists()


def test_where_the_uid_may_not_be_read_the_rest_counts(api: FakeApi, tmp_path: Path) -> None:
    api.answers["GET /api/v1/namespaces/kube-system"] = (403, {"message": "no"})
    kube = Kube(api.kubeconfig(tmp_path), "fake")
    assert identity.of(kube) == {"server": kube.server}


def test_a_memory_that_cannot_be_read_or_written_stops_nobody(api: FakeApi, tmp_path: Path) -> None:
    kube = Kube(api.kubeconfig(tmp_path), "fake")
    (tmp_path / "broken.json").write_text("{")
    identity.check(kube, {}, tmp_path / "broken.json")
    identity.check(kube, {}, Path("/proc/nowhere/seen.json"))
