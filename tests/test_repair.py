"""What a repair of the password starts, and what it restarts."""

from __future__ import annotations

from typing import Any

from devenv import repair, secret
from devenv.model import Container, Pod


def env(name: str) -> dict[str, Any]:
    return {"name": "P", "valueFrom": {"secretKeyRef": {"name": name, "key": "password"}}}


def deployment(name: str, **pod: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "metadata": {"name": name}, "spec": {"template": {"spec": pod}}}


def test_restarted_is_what_takes_something_from_the_secret() -> None:
    objects = [
        deployment("by-variable", containers=[{"env": [{"name": "A", "value": "b"}, env("db")]}]),
        deployment("by-init", initContainers=[{"env": [env("db")]}], containers=[{}]),
        deployment("by-volume", containers=[{}], volumes=[{"secret": {"secretName": "db"}}]),
        deployment("by-another", containers=[{"env": [env("other")]}], volumes=[{"emptyDir": {}}]),
        {**deployment("not-a-deployment", containers=[{"env": [env("db")]}]), "kind": "Job"},
    ]
    assert secret.users(objects, "db") == [f"Deployment/by-{how}" for how in ("variable", "init", "volume")]


def test_the_pod_of_our_own_is_the_databases_on_its_volume_and_no_service_finds_it() -> None:
    template: dict[str, Any] = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "postgresql"}], "volumes": [{"name": "tmp"}]},
    }
    keeper = {
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {"template": template, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
    }
    pod = repair.own_pod([{"kind": "Service", "metadata": {"name": "db"}}, keeper], "db", "db-repair", "data-db-0")
    assert "app" not in pod["metadata"]["labels"]
    assert pod["spec"]["containers"] == [{"name": "postgresql"}]
    assert pod["spec"]["volumes"] == [
        {"name": "tmp"},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
    ]
    assert template["spec"]["volumes"] == [{"name": "tmp"}]


def pod(state: str, reason: str = "", *, deleting: bool = False, unscheduled: str = "") -> Pod:
    containers = (Container("postgresql", False, "i", False, state, reason),) if state else ()
    return Pod("p", "c", "", "", "Pending", False, deleting, unscheduled, "", containers)


STATES: tuple[tuple[Pod | None, bool, bool], ...] = (
    (None, True, False),
    (pod("running"), False, False),
    (pod("running", deleting=True), True, False),
    (pod("waiting", "ContainerCreating"), True, False),
    (pod("waiting", "ImagePullBackOff"), True, True),
    (pod("terminated", "Error"), True, True),
    (pod("", unscheduled="0/1 nodes are available"), True, True),
    (pod(""), True, False),
)


def test_what_is_waited_for_and_what_may_be_for_good() -> None:
    for there, waits, lost in STATES:
        why, for_good = repair._state(there)
        assert (bool(why), for_good) == (waits, lost), there
