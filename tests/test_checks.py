"""What doctor says of each thing: it passes, warns or fails, and names the command that mends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devenv import checks, password
from devenv.checks import FAIL, PASS, WARN, Answer, Deployed, Member, Membership
from devenv.databases import Database, Server, Wanted
from devenv.environment import describe
from devenv.model import Claim, Container, Desired, Event, Job, Plan, Pod, Release, Snapshot, Workload
from devenv.secret import Password
from devenv.settings import Flags
from tests import test_preflight as preflight

NOW = 1_800_000_000.0
OLD = "2026-01-01T00:00:00Z"
EMPTY = Snapshot("n")


def desired(**toggles: str) -> Desired:
    return describe(Flags(sets=tuple(f"{key}={value}" for key, value in toggles.items()))).desired


ON = desired(**{"global.temporal.enabled": "true"})
OFF = desired()


def deployed(
    *titles: str, status: str = "deployed", chart: str = "environment 0.1.0", hooks: tuple[str, ...] = ()
) -> Deployed:
    objects = tuple(
        {"kind": kind, "metadata": {"name": name}, "spec": {}}
        for kind, _, name in (title.partition("/") for title in titles)
    )
    return Deployed(Release("backend", 3, status, {}), chart, objects, frozenset(hooks))


TEMPORAL = deployed("Deployment/backend-temporal-frontend", "Job/backend-schema-new")


def pod(component: str, *containers: Container, ready: bool = True, **changes: Any) -> Pod:
    fields: dict[str, Any] = {
        "name": f"{component}-1",
        "owner": f"Deployment/{component}",
        "template": "",
        "phase": "Running",
    }
    fields |= {"deleting": False, "unscheduled": "", "created": OLD, **changes}
    return Pod(component=component, ready=ready, containers=containers, **fields)


def container(**changes: Any) -> Container:
    return Container(**{"name": "main", "init": False, "image": "i:1", "ready": True, "state": "running", **changes})


def workload(name: str, ready: int = 1) -> Workload:
    return Workload("Deployment", name, name, 1, 1, 1, ready, ready, True)


def node(**conditions: str) -> dict[str, Any]:
    told = [{"type": kind, "status": status} for kind, status in {"Ready": "True", **conditions}.items()]
    gives = {"cpu": "2", "memory": "4Gi", "pods": "110"}
    return {"metadata": {"name": "one"}, "spec": {}, "status": {"conditions": told, "allocatable": gives}}


def there(**found: Any) -> Password:
    return Password("postgres", "x", password.Found(**{"secret": True, "volume": True, "release": True, **found}))


def wants(cpu: str, image: str = "i:1") -> dict[str, Any]:
    spec = {"containers": [{"image": image, "resources": {"requests": {"cpu": cpu}}}]}
    return {"kind": "Deployment", "metadata": {"name": "big"}, "spec": {"template": {"spec": spec}}}


def database(version: str = "1.19", **changes: Any) -> Database:
    wanted = Wanted("temporal", "temporal", "1.19", "n/backend")
    return Database(wanted, True, version, "n/backend")._replace(**changes)


def schema(*found: Database, used: int = 5) -> checks.Answers:
    return checks.schema((Server("18", used, 100), found))


ALL_FOUR = tuple(Member(role, "10.0.0.1") for role in checks.ROLES.values())
CLAIM = Claim("data-0", "Pending", "fast")
PROVISIONING = Event("PersistentVolumeClaim/data-0", "ProvisioningFailed", 'storageclass "fast" not found', True, OLD)
PULL = container(state="waiting", reason="ImagePullBackOff", image="x:9", ready=False)
SERVICE = {"metadata": {"name": "a"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}}
SLICE = {
    "metadata": {"labels": {"kubernetes.io/service-name": "a"}},
    "ports": [{}],
    "endpoints": [{"conditions": {"ready": True}}],
}
DOWN = {**SLICE, "endpoints": [{"conditions": {"ready": False}}]}
LEFT = Job("backend-schema-old", "schema", 0, True, False)

# what is judged, the outcomes in order, words that must be said, words of what to type
CASES: dict[str, tuple[checks.Answers, tuple[str, ...], str, str]] = {
    "clocks agree": (checks.clock(0.6), (PASS,), "in step", ""),
    "a clock that is a little off": (checks.clock(-20), (WARN,), "20 s behind", "timedatectl"),
    "a clock that is far off": (checks.clock(300), (FAIL,), "300 s ahead of", "timedatectl"),
    "all rights": (checks.rights(()), (PASS,), "allowed", ""),
    "a right is missing": (checks.rights(("create leases",)), (FAIL,), "may not: create leases", "inv rbac | kubectl"),
    "versions": (checks.versions("v1.34.4", "4.1.4", "environment 0.1.0", deployed()), (PASS, PASS), "Helm 4.1.4", ""),
    "an old cluster": (checks.versions("v1.28.1", "4.1.4", "", None), (PASS, WARN), "older than 1.30", "renew"),
    "another chart": (
        checks.versions("v1.34.4", "4", "environment 0.2.0", deployed()), (PASS, WARN), "from chart environment 0.1.0", "inv redeploy",
    ),
    "a ready node": (checks.nodes([node()]), (PASS,), "1 of 1", ""),
    "no ready node": (checks.nodes([node(Ready="Unknown")]), (FAIL,), "no node is ready", "describe nodes"),
    "a node of two that is silent": (checks.nodes([node(), node(Ready="False")]), (WARN,), "not ready: one", "describe node one"),
    "a node whose disk is full": (checks.nodes([node(DiskPressure="True")]), (PASS, FAIL), "DiskPressure", "describe node one"),
    "a release": (checks.release(OFF, deployed(), ""), (PASS,), "revision 3, deployed", ""),
    "no release": (checks.release(OFF, None, ""), (WARN,), "is not in namespace", "inv redeploy"),
    "a failed release": (checks.release(OFF, deployed(status="failed"), ""), (FAIL,), "failed", "inv redeploy"),
    "a release left half-done": (checks.release(OFF, deployed(status="pending-upgrade"), ""), (FAIL,), "pending", "inv redeploy"),
    "a release in the making": (
        checks.release(OFF, deployed(status="pending-upgrade"), "ann@host pid 1"), (WARN, PASS), "ann@host", "wait",
    ),
    "Temporal as wanted": (checks.switched(ON, TEMPORAL), (PASS,), "global.temporal.enabled is true", ""),
    "Temporal wanted, but not deployed": (checks.switched(ON, deployed()), (FAIL,), "has no Temporal", "inv redeploy"),
    "Temporal deployed, but not wanted": (checks.switched(OFF, TEMPORAL), (WARN,), "would remove it", "ENABLE_TEMPORAL=true"),
    "no Temporal, as wanted": (checks.switched(OFF, deployed()), (PASS,), "switched off", ""),
    "nothing to do": (checks.as_planned(Plan((), (), 3, "")), (PASS,), "as profile and toggles say", ""),
    "a hand edit": (checks.as_planned(Plan(("Deployment x was edited",), (), 3, "")), (WARN,), "was edited", "inv plan"),
    "what cannot be done in place": (
        checks.as_planned(Plan(("r",), (), 3, "", impossible=("a selector",))), (WARN, FAIL), "a selector", "--fresh",
    ),
    "what the database does not let change": (
        checks.as_planned(Plan(("r",), (), 3, "", impossible=("shards",), bound=("shards",))), (WARN, FAIL), "shards",
        "another database",
    ),
    "a password that opens": (checks.secret(OFF, there(opens=True), EMPTY), (PASS,), "opens", ""),
    "a password that does not open": (checks.secret(OFF, there(opens=False), EMPTY), (FAIL,), "does not open", "db.repair-password"),
    "a volume without its password": (checks.secret(OFF, there(secret=False), EMPTY), (FAIL,), "is gone", "db.repair-password"),
    "no password yet": (checks.secret(OFF, there(secret=False, volume=False, release=False), EMPTY), (PASS,), "redeploy makes", ""),
    "a volume that is not made": (
        checks.volumes(replace(EMPTY, claims=(CLAIM,), events=(PROVISIONING,))), (FAIL,), 'storageclass "fast" not found', "describe pvc",
    ),
    "names are found": (checks.dns([SLICE], True, ""), (PASS,), "pods find names", ""),
    "names are found, by another DNS": (checks.dns([], True, ""), (PASS,), "pods find names", ""),
    "names are not found": (checks.dns([SLICE], False, ""), (FAIL,), "does not answer", "get pods -l k8s-app=kube-dns"),
    "names are not found, and CoreDNS is down": (checks.dns([DOWN], False, "default"), (FAIL,), "no pod of it is ready", "inv cluster.status"),
    "nobody to ask, and CoreDNS is down": (checks.dns([DOWN], None, ""), (FAIL,), "no pod of the cluster's DNS", "kubectl"),
    "nobody to ask, and CoreDNS is ready": (checks.dns([SLICE], None, ""), (PASS,), "is ready", ""),
    "nobody to ask, and another DNS": (checks.dns([], None, ""), (), "", ""),
    "schemas as the server needs": (schema(database()), (PASS,), "temporal 1.19 (needs 1.19)", ""),
    "a newer schema": (schema(database("1.20")), (PASS,), "temporal 1.20", ""),
    "an older schema": (schema(database("1.9")), (FAIL,), "has 1.9, the server needs 1.19", "inv db.migrate"),
    "no schema": (schema(database("")), (FAIL,), "has no schema", "inv db.migrate"),
    "a missing database": (schema(database(there=False)), (FAIL,), "is missing", "inv db.create"),
    "somebody else's database": (schema(database(mark="other/x")), (FAIL,), "belongs to other/x", "database="),
    "a database that nobody needs": (schema(Database(Wanted("temporal", "temporal"), False)), (), "", ""),
    "hardly a connection left": (schema(database(), used=95), (PASS, WARN), "95 of 100", "max_connections"),
    "an external PostgreSQL that serves": (
        checks.outside((preflight.QUESTION, preflight.inside([preflight.schema("1.19")], [preflight.schema("1.14")]))),
        (PASS, PASS, PASS), "temporal 1.19 (needs 1.19)", "",
    ),
    "an external PostgreSQL with an older schema": (
        checks.outside((preflight.QUESTION, preflight.inside([preflight.schema("1.9")], [preflight.schema("1.14")]))),
        (PASS, FAIL, PASS), "temporal has schema 1.9, the server needs 1.19", "inv redeploy",
    ),
    "an external PostgreSQL without schemas": (
        checks.outside((preflight.QUESTION, preflight.good(started=False))), (PASS, FAIL, FAIL), "has no schema", "inv redeploy",
    ),
    "an external PostgreSQL that refuses the password": (
        checks.outside((preflight.QUESTION, preflight.answer(admin=f'{preflight.AT}FATAL:  password authentication failed for user "app"'))),
        (FAIL,), "the password does not open the database", "mend username or password in the Secret",
    ),
    "an external PostgreSQL that is another's": (
        checks.outside((preflight.QUESTION, preflight.good(databases=[preflight.database("temporal", mark="devenv owner: other/x"), preflight.BOTH[1]]))),
        (FAIL,), "belongs to other/x", "database=",
    ),
    "all ready": (checks.components(deployed("Deployment/a"), replace(EMPTY, workloads=(workload("a"),)), NOW), (PASS,), "1 of 1", ""),
    "one that is gone": (checks.components(deployed("Deployment/a"), EMPTY, NOW), (FAIL,), "not in the cluster", "inv redeploy"),
    "one that crashes": (
        checks.components(
            deployed("Deployment/a"),
            replace(EMPTY, workloads=(workload("a", 0),), pods=(
                pod("a", container(state="waiting", reason="CrashLoopBackOff", restarts=4, last_exit=7), ready=False),
            )), NOW,
        ), (FAIL,), "exit code 7", "inv logs a",
    ),
    "one that was scaled to nothing": (
        checks.components(
            deployed("Deployment/a"), replace(EMPTY, workloads=(workload("a")._replace(wanted=0, total=0),)), NOW,
        ), (FAIL,), "scaled to nothing", "inv redeploy",
    ),
    "a Service with a pod": (
        checks.reached(deployed("Service/a"), [SERVICE], [SLICE]), (PASS,), "each of 1", "",
    ),
    "a Service that leads nowhere": (
        checks.reached(deployed("Service/a"), [SERVICE], []), (FAIL,), "leads nowhere", "describe service a",
    ),
    "a Service that is gone": (checks.reached(deployed("Service/a"), [], []), (FAIL,), "not in the cluster", "inv redeploy"),
    "one that has long not been ready": (
        checks.components(
            deployed("Deployment/a"),
            replace(EMPTY, workloads=(workload("a", 0),), pods=(pod("a", container(ready=False), ready=False),)), NOW,
        ), (FAIL,), "waiting for its readiness probe", "inv logs a",
    ),
    "one that has just started": (
        checks.components(
            deployed("Deployment/a"),
            replace(EMPTY, workloads=(workload("a", 0),), pods=(
                pod("a", container(ready=False), ready=False, created="2027-01-15T08:00:00Z"),
            )), NOW,
        ), (WARN,), "waiting for its readiness probe", "inv logs a",
    ),
    "one that was killed for its memory": (
        checks.components(
            deployed("Deployment/a"),
            replace(EMPTY, workloads=(workload("a"),), pods=(pod("a", container(restarts=1, last_reason="OOMKilled")),)), NOW,
        ), (PASS, WARN), "more memory than its limit", "raise its memory limit",
    ),
    "all roles have members": (
        checks.members(ON, Membership(ALL_FOUR, frozenset({"10.0.0.1"})), EMPTY), (PASS,), "frontend 1, history 1", "",
    ),
    "a ready pod that is no member": (
        checks.members(ON, Membership(ALL_FOUR[1:], frozenset({"10.0.0.1"})), replace(EMPTY, pods=(pod("frontend"),))),
        (FAIL,), "though its pod is ready", "rollout restart deployment/backend-temporal-frontend",
    ),
    "members of another release": (
        checks.members(ON, Membership((*ALL_FOUR, Member("history", "10.9.9.9")), frozenset({"10.0.0.1"})), EMPTY),
        (PASS, WARN), "10.9.9.9", "must not share",
    ),
    "Temporal serves": (checks.serving((True, "SERVING")), (PASS,), "serves", ""),
    "Temporal does not serve": (checks.serving((False, "connection refused")), (FAIL,), "connection refused", "inv logs frontend"),
    "nobody to ask for the namespace default": (
        checks.default_namespace((False, "connection refused")), (FAIL,), "connection refused", "inv temporal.health",
    ),
    "no namespace default": (checks.default_namespace((False, "not found")), (FAIL,), "not found", "namespace create"),
    "no Job left over": (checks.jobs(OFF, TEMPORAL, EMPTY), (PASS,), "none left over", ""),
    "a Job of an earlier release": (checks.jobs(OFF, TEMPORAL, replace(EMPTY, jobs=(LEFT,))), (WARN,), "earlier release", "delete job"),
    "a schema Job that is a hook": (
        checks.jobs(OFF, deployed(hooks=("Job/backend-schema-old",)), replace(EMPTY, jobs=(LEFT,))), (PASS,), "none left over", "",
    ),
    "another Job that failed": (
        checks.jobs(OFF, None, replace(EMPTY, jobs=(Job("once", "batch", 0, False, True, "BackoffLimitExceeded"),))),
        (WARN,), "BackoffLimitExceeded", "inv logs batch",
    ),
    "room enough": (checks.room([node()], [], [wants("1")], EMPTY), (PASS,), "what is still to come fits (1)", ""),
    "no room": (checks.room([node()], [], [wants("3")], EMPTY), (FAIL,), "wants 3.00 CPU", "more nodes"),
    "a pod that finds no node": (
        checks.room([node()], [], [], replace(EMPTY, pods=(pod("a", ready=False, unscheduled="Insufficient cpu"),))),
        (FAIL,), "Insufficient cpu", "more nodes",
    ),
    "images that ran": (checks.images([wants("1")], replace(EMPTY, pods=(pod("a", container()),)), [node()]), (PASS,), "1 of 1", ""),
    "an image that no node has": (checks.images([wants("1")], EMPTY, [node()]), (WARN,), "not on a node yet: i:1", "inv redeploy"),
    "an image that cannot be pulled": (
        checks.images([], replace(EMPTY, pods=(pod("a", PULL, ready=False),)), []), (FAIL,), "x:9 cannot be pulled", "mend the image's name",
    ),
    "quiet logs": (checks.logs([("a", False, ["all is well", "an error of no meaning"])]), (PASS,), "no known trouble", ""),
    "known trouble in a log": (
        checks.logs([("a", False, ['password authentication failed for user "x"'])]), (WARN,), "PostgreSQL refuses", "db.repair-password",
    ),
    "the last words of what crashed": (checks.logs([("a", True, ["Error: boom"])]), (FAIL,), "boom", "inv logs a"),
}  # fmt: skip


@pytest.mark.parametrize(("answers", "outcomes", "says", "next"), CASES.values(), ids=CASES.keys())
def test_of(answers: checks.Answers, outcomes: tuple[str, ...], says: str, next: str) -> None:
    found = list(answers)
    assert tuple(one.outcome for one in found) == outcomes
    assert says in " | ".join(one.says for one in found)
    assert next in " | ".join(one.next for one in found if one.outcome != PASS)


@pytest.mark.parametrize(("answers", "outcomes", "says", "next"), CASES.values(), ids=CASES.keys())
def test_what_does_not_pass_says_what_to_type(answers: Any, outcomes: Any, says: Any, next: str) -> None:
    assert bool(next) is any(outcome != PASS for outcome in outcomes)


def test_the_schema_job_of_the_release_must_have_completed() -> None:
    job = {
        "kind": "Job",
        "metadata": {"name": "setup", "labels": {"app.kubernetes.io/component": "schema"}},
        "spec": {},
    }
    here = TEMPORAL._replace(objects=(*TEMPORAL.objects[:1], job))

    def answer(*jobs: Job) -> Answer:
        [one] = checks.schema_job(ON, here, replace(EMPTY, jobs=jobs))
        return one

    assert answer(Job("setup", "schema", 0, True, False)).outcome == PASS
    assert answer(Job("setup", "schema", 0, False, True, "no luck")) == Answer(
        FAIL, "Job setup failed: no luck", "inv logs schema, then inv db.migrate"
    )
    assert answer(Job("setup", "schema", 1, False, False)).outcome == WARN
    assert answer().outcome == WARN
