"""What doctor judges: each check turns what was read into answers that pass, warn or fail. Pure.

In: what should be, and what the readers of `doctor` found; out: `Answer` records, each with the command that mends it.
A check that does not apply to an environment answers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from devenv import ailments, capacity, databases, diagnose, health, look, objections, password, probe, services
from devenv.apply import database_name, volume_of
from devenv.model import Desired, Plan, Pod, Release, Snapshot
from devenv.preflight import Question
from devenv.secret import Password

PASS, WARN, FAIL = "pass", "warn", "fail"
SKEW_WARNS, SKEW_FAILS = 5.0, 120.0  # seconds
OLDEST_KUBERNETES = (1, 30)
ROLES = {1: "frontend", 2: "history", 3: "matching", 4: "worker"}  # temporal: common/persistence, ServiceType
CROWDED = 0.9  # of PostgreSQL's connections
YOUNG = 120.0  # seconds: a pod that may still become ready by itself

Object = Mapping[str, Any]


class Answer(NamedTuple):
    """What a check says, and where it does not pass, the command that mends it."""

    outcome: str
    says: str
    next: str = ""


class Deployed(NamedTuple):
    """The newest revision of the release: what Helm keeps of it. `hooks` as Kind/name."""

    release: Release
    chart: str
    objects: tuple[dict[str, Any], ...]
    hooks: frozenset[str]

    def titles(self, *kinds: str) -> list[str]:
        return [
            f"{object['kind']}/{object['metadata']['name']}"
            for object in self.objects
            if not kinds or object["kind"] in kinds
        ]

    def objects_but(self, kind: str) -> list[dict[str, Any]]:
        return [object for object in self.objects if object["kind"] != kind]


class Member(NamedTuple):
    """A Temporal server that says in the database that it lives."""

    role: str
    address: str


class Membership(NamedTuple):
    """The members that live, and the addresses of this namespace's pods."""

    live: tuple[Member, ...]
    addresses: frozenset[str]


Answers = Iterable[Answer]


def clock(skew: float) -> Answers:
    """`skew` in seconds: the API server's clock less ours."""
    says = f"the API server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    mend = "timedatectl status   (here, and on the cluster's nodes)"
    if abs(skew) > SKEW_FAILS:
        yield Answer(FAIL, says, mend)
    elif abs(skew) > SKEW_WARNS:
        yield Answer(WARN, says, mend)
    else:
        yield Answer(PASS, f"in step with the API server's, to {max(1.0, abs(skew)):.0f} s")


def rights(missing: Sequence[str]) -> Answers:
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        yield Answer(FAIL, f"these credentials may not: {shown}", "inv rbac | kubectl apply -f -   (as one who may)")
    else:
        yield Answer(PASS, "all that a redeploy does is allowed")


def versions(kubernetes: str, helm: str, ours: str, deployed: Deployed | None) -> Answers:
    """`ours` is the chart as it is here, empty where it is not on this disk."""
    server = _temporal_version(deployed)
    runs = f", Temporal {server}" if server else ""
    yield Answer(PASS, f"Kubernetes {kubernetes.removeprefix('v')}, Helm {helm}{runs}")
    match = re.match(r"v?(\d+)\.(\d+)", kubernetes)
    if match and (int(match.group(1)), int(match.group(2))) < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        yield Answer(WARN, f"Kubernetes is older than {oldest}, which the chart is made for", "renew the cluster")
    if deployed is None or not ours:
        return
    if deployed.chart == ours:
        yield Answer(PASS, f"chart {ours}, here and deployed")
    else:
        yield Answer(WARN, f"deployed from chart {deployed.chart}, here is {ours}", "inv plan, then inv redeploy")


def _temporal_version(deployed: Deployed | None) -> str:
    for object in deployed.objects if deployed else ():
        if object["metadata"]["name"].endswith("-temporal-frontend") and object["kind"] == "Deployment":
            image = str(object["spec"]["template"]["spec"]["containers"][0].get("image", ""))
            return image.rpartition("@")[0].rpartition(":")[2] if "@" in image else image.rpartition(":")[2]
    return ""


def nodes(found: Sequence[Object]) -> Answers:
    """Nodes that are ready and without pressure."""
    silent = [node["metadata"]["name"] for node in found if not capacity.ready(node)]
    if not found or len(silent) == len(found):
        yield Answer(FAIL, f"no node is ready ({', '.join(silent) or 'there is none'})", "kubectl describe nodes")
    elif silent:
        yield Answer(WARN, f"not ready: {', '.join(silent)}", f"kubectl describe node {silent[0]}")
    else:
        yield Answer(PASS, f"{len(found)} of {len(found)} ready")
    for node in found:
        name = node["metadata"]["name"]
        for entry in (node.get("status") or {}).get("conditions") or []:
            if entry["type"].endswith("Pressure") and entry["status"] == "True":
                why = entry.get("message") or entry["type"]
                yield Answer(FAIL, f"node {name} has {entry['type']}: {why}", f"kubectl describe node {name}")


def release(desired: Desired, deployed: Deployed | None, holder: str) -> Answers:
    """`holder` is the run that is at work on the environment, empty where there is none."""
    if holder:
        yield Answer(WARN, f"a run is at work here: {holder}", "wait for it, then inv doctor")
    if deployed is None:
        yield Answer(WARN, f"release {desired.release} is not in namespace {desired.namespace}", "inv redeploy")
        return
    told = f"{deployed.release.name}, revision {deployed.release.revision}, {deployed.release.status}"
    if deployed.release.status == "deployed" or (holder and deployed.release.status.startswith("pending-")):
        yield Answer(PASS, told)
    else:
        yield Answer(FAIL, told, "inv redeploy   (goes on from here), or inv rollback")


def as_planned(plan: Plan) -> Answers:
    if plan.nothing_to_do:
        yield Answer(PASS, "the release is as profile and toggles say")
        return
    more = f" and {len(plan.reasons) - 1} more" if len(plan.reasons) > 1 else ""
    yield Answer(WARN, f"redeploy has something to do: {plan.reasons[0]}{more}", "inv plan, then inv redeploy")
    for text in plan.impossible:
        fresh = "inv redeploy --fresh   (keeps the data)"
        mend = "undo it, or name another database" if text in plan.bound else fresh
        yield Answer(FAIL, f"redeploy cannot do it in place: {text}", mend)


def switched(desired: Desired, deployed: Deployed | None) -> Answers:
    """The seed's first and third check: is Temporal switched on, and is its chart deployed?"""
    if not desired.bundled:
        return
    origin = desired.choice("temporal").origin
    runs = runs_temporal(desired, deployed)
    if desired.temporal and not runs:
        says = f"switched on ({origin}), but the release has no Temporal"
        yield Answer(FAIL if deployed else WARN, says, "inv redeploy")
    elif runs and not desired.temporal:
        says = "deployed, but switched off here: the next redeploy would remove it"
        yield Answer(WARN, says, "ENABLE_TEMPORAL=true inv doctor, or put it into .env")
    elif runs:
        yield Answer(PASS, f"global.temporal.enabled is true ({origin}), and its chart is deployed")
    else:
        yield Answer(PASS, "switched off; ENABLE_TEMPORAL=true inv redeploy switches it on")


def runs_temporal(desired: Desired, deployed: Deployed | None) -> bool:
    return deployed is not None and f"Deployment/{desired.release}-temporal-frontend" in deployed.titles()


def secret(desired: Desired, there: Password, seen: Snapshot) -> Answers:
    """Password, Secret and volume of the internal database belong together."""
    name, volume = database_name(desired.release), volume_of(seen, desired.release)
    outcome = there.outcome
    if outcome.do == "refuse":
        yield Answer(FAIL, f"{outcome.told}: {outcome.why}", password.choices(name))
    elif outcome.do == "make":
        yield Answer(PASS, f"there is none yet; redeploy makes {name}")
    elif there.found.opens:
        yield Answer(PASS, f"{name} opens the database, which is on volume {volume}" if volume else f"{name} opens it")
    else:
        yield Answer(PASS, f"{name} is there" + ("; the database does not run, so it was not tried" * bool(volume)))


def external(name: str) -> Answers:
    """The Secret of an external PostgreSQL; its reader has found host and password in it."""
    yield Answer(PASS, f"{name} has the external PostgreSQL's host and password")


def outside(asked: tuple[Question, str]) -> Answers:
    """The external PostgreSQL: login, TLS, rights, owner, connections, and the schemas in it."""
    question, answer = asked
    objection = objections.objection(question, answer)
    if objection:
        yield Answer(FAIL, f"{objection.what}: {objection.why} ({question.where})", objection.next)
        return
    opens = f"{question.env['PGHOST']} opens for {question.env['PGUSER']}"
    yield Answer(PASS, f"{opens}: {probe.served(question, answer)}")
    for name, version, needs in objections.schemas(question, answer):
        if needs and (not version or databases.older(version, needs)):
            has = f"has schema {version}" if version else "has no schema"
            yield Answer(FAIL, f"{name} {has}, the server needs {needs}", "inv redeploy   (its hook migrates)")
        else:
            yield Answer(PASS, f"{name} {version} (needs {needs})")


def dns(server: Sequence[Object], resolves: bool | None, embedded: str) -> Answers:
    """`server`: the EndpointSlices of the cluster's DNS, none where it is not a Service named kube-dns; `resolves`:
    whether a pod of the release finds a name that each cluster has, None where there is no pod to ask."""
    mend = "inv cluster.status" if embedded else "kubectl --namespace kube-system get pods -l k8s-app=kube-dns"
    serves = services.serve(server)
    if resolves is False:
        silent = ", and no pod of it is ready" if server and not serves else ""
        yield Answer(FAIL, f"pods find no names: the cluster's DNS does not answer them{silent}", mend)
    elif resolves:
        yield Answer(PASS, "pods find names")
    elif server and not serves:
        yield Answer(FAIL, "no pod of the cluster's DNS is ready: pods find no names", mend)
    elif server:
        yield Answer(PASS, "the cluster's DNS is ready")


def volumes(seen: Snapshot) -> Answers:
    for claim in seen.claims:
        if claim.phase == "Bound":
            continue
        events = [event for event in seen.events if event.about == f"PersistentVolumeClaim/{claim.name}"]
        why = max(events, key=lambda event: event.at).message if events else "no volume was made for it"
        yield Answer(FAIL, f"{claim.name} is {claim.phase.lower()}: {why}", f"inv kubectl -- describe pvc {claim.name}")
    bound = [claim.name for claim in seen.claims if claim.phase == "Bound"]
    if bound:
        yield Answer(PASS, f"{', '.join(bound)} bound")


def schema(seen: tuple[databases.Server, Sequence[databases.Database]]) -> Answers:
    """The databases and their schema versions against what the servers need."""
    server, found = seen
    good = []
    for database in found:
        name, need = database.wanted.name, database.wanted.requires
        if database.state == "ok":
            good.append(f"{name} {database.version}".strip() + (f" (needs {need})" if need else ""))
        elif database.state == "missing" and (need or database.wanted.role == "backend"):
            yield Answer(FAIL, f"{name} is missing", "inv db.create, then inv db.migrate" if need else "inv db.create")
        elif database.state == "missing":
            continue
        elif database.state.startswith("belongs to"):
            mend = "inv redeploy --set backend.temporalConfig.postgres.database=ANOTHER_NAME"
            yield Answer(FAIL, f"{name} {database.state}", mend)
        else:
            has = f"has {database.version}" if database.version else "has no schema"
            yield Answer(FAIL, f"{name} {has}, the server needs {need}", "inv db.migrate")
    if good:
        yield Answer(PASS, ", ".join(good))
    used = f"{server.used} of {server.limit} connections in use"
    if server.used >= CROWDED * server.limit:
        yield Answer(WARN, used, "lower maxConns, or raise PostgreSQL's max_connections")


def schema_job(desired: Desired, deployed: Deployed | None, seen: Snapshot) -> Answers:
    """The seed's second check: did the schema Job of this release complete?"""
    if deployed is None or not runs_temporal(desired, deployed):
        return
    job = databases.schema_job(deployed.objects)
    if job is None:
        return
    name = job["metadata"]["name"]
    there = next((one for one in seen.jobs if one.name == name), None)
    if there is None:
        yield Answer(WARN, f"Job {name} is gone; the versions above are the truth", "inv db.migrate   (runs it anew)")
    elif there.failed:
        yield Answer(FAIL, f"Job {name} failed: {there.message}", "inv logs schema, then inv db.migrate")
    elif there.succeeded:
        yield Answer(PASS, f"Job {name} completed")
    else:
        yield Answer(WARN, f"Job {name} is at work", "inv logs schema --follow")


def components(deployed: Deployed | None, seen: Snapshot, now: float) -> Answers:
    """All workloads of the release are ready; what stands in the way is named, and what is young may still come."""
    if deployed is None:
        return
    wanted = deployed.titles("Deployment", "StatefulSet", "DaemonSet")
    verdict = health.judge(seen, wanted, [])
    for problem in verdict.problems:
        todo = problem.hint or diagnose.mend(problem.why) or f"inv logs {problem.component}"
        yield Answer(FAIL, f"{problem.what}: {problem.why}", todo)
    named = {problem.component for problem in verdict.problems}
    rests = _resting(deployed, seen)
    for name in rests:
        yield Answer(FAIL, f"{name} was scaled to nothing; the release wants it to run", "inv redeploy")
    for name, line in verdict.lines:
        if line != "ok" and name not in named:
            gone = line == "not there yet"
            says = f"{name} is in the release, but not in the cluster" if gone else f"{name}: {line}"
            young = any(look.age(pod.created, now) < YOUNG for pod in health.belonging(seen, name))
            yield Answer(WARN if young else FAIL, says, "inv redeploy" if gone else f"inv logs {name}")
    if verdict.ready and not rests:
        yield Answer(PASS, f"{len(wanted)} of {len(wanted)} ready")
    for pod in seen.pods:
        yield from _restarted(pod) if pod.ready else ()


def _resting(deployed: Deployed, seen: Snapshot) -> list[str]:
    """The workloads that have no pods, because somebody scaled them down by hand."""
    wanted = {
        f"{object['kind']}/{object['metadata']['name']}": object["spec"].get("replicas", 1)
        for object in deployed.objects
        if object["kind"] in ("Deployment", "StatefulSet")
    }
    return [workload.key for workload in seen.workloads if wanted.get(workload.key, 0) > 0 == workload.wanted]


def _restarted(pod: Pod) -> Answers:
    for container in pod.containers:
        if container.last_reason == "OOMKilled":
            says = f"{pod.component} was killed for using more memory than its limit, {container.restarts} times"
            yield Answer(WARN, says, f"raise its memory limit; inv logs {pod.component} --previous")
        elif container.restarts >= ailments.CRASHES:
            says = f"{pod.component} restarted {container.restarts} times, last with exit code {container.last_exit}"
            yield Answer(WARN, says, f"inv logs {pod.component} --previous")


def reached(deployed: Deployed | None, live: Sequence[Object], slices: Sequence[Object]) -> Answers:
    """Each Service of the release, as it is in the cluster, has a pod behind it."""
    if deployed is None:
        return
    own = set(deployed.titles("Service"))
    here = [{"kind": "Service", **one} for one in live if f"Service/{one['metadata']['name']}" in own]
    lost = services.lost([*deployed.objects_but("Service"), *here], slices)
    for title in sorted(own - {f"Service/{one['metadata']['name']}" for one in here}):
        yield Answer(FAIL, f"{title} is in the release, but not in the cluster", "inv redeploy")
    for one in lost:
        says, mend = f"Service/{one.name} leads nowhere: {one.why}", f"inv kubectl -- describe service {one.name}"
        yield Answer(FAIL, says, mend)
    count = len(services.selecting(here))
    if count and not lost:
        yield Answer(PASS, f"each of {count} Services has a ready pod behind it")


def members(desired: Desired, found: Membership, seen: Snapshot) -> Answers:
    """Each of Temporal's roles is played by a member that the others know of."""
    live = found.live
    roles = {role: sum(member.role == role for member in live) for role in ROLES.values()}
    ready = {pod.component for pod in seen.pods if pod.ready}
    missing = [role for role, count in roles.items() if count == 0]
    for role in missing:
        if role in ready:
            mend = f"inv kubectl -- rollout restart deployment/{desired.release}-temporal-{role}"
            yield Answer(FAIL, f"no member plays the role {role}, though its pod is ready", mend)
        else:
            yield Answer(FAIL, f"no member plays the role {role}", f"inv redeploy; inv logs {role}")
    if not missing:
        yield Answer(PASS, ", ".join(f"{role} {count}" for role, count in roles.items()))
    strange = sorted({member.address for member in live} - found.addresses)
    if strange and not missing:
        says = f"members at {', '.join(strange)} are no pods of this namespace: just ended, or of another release"
        yield Answer(WARN, says, "inv doctor again in half a minute; two releases must not share a database")


def serving(told: tuple[bool, str]) -> Answers:
    """`told`: whether the temporal CLI is content with the frontend, and its last words."""
    good, words = told
    if good:
        yield Answer(PASS, "Temporal serves, asked from the admin tools' pod")
    else:
        yield Answer(FAIL, f"Temporal does not serve: {words}", "inv temporal.health, then inv logs frontend")


def default_namespace(told: tuple[bool, str]) -> Answers:
    good, words = told
    if good:
        yield Answer(PASS, "Temporal's namespace default is there")
    elif "not found" not in words.lower():
        yield Answer(FAIL, f"Temporal could not be asked for its namespace default: {words}", "inv temporal.health")
    else:
        mend = "inv logs admintools; inv temporal.cli -- operator namespace create -n default --retention 72h"
        yield Answer(FAIL, f"Temporal's namespace default is not there: {words}", mend)


def jobs(desired: Desired, deployed: Deployed | None, seen: Snapshot) -> Answers:
    """Jobs that no revision of the release owns any more, and those that failed."""
    own = {*deployed.titles("Job"), *deployed.hooks} if deployed else set()
    schema = {job.key for job in seen.jobs if job.component == "schema"}
    left = [job for job in seen.jobs if job.key in schema - own and job.name.startswith(f"{desired.release}-")]
    for job in left:
        state = "completed" if job.succeeded else "failed" if job.failed else "still at work"
        mend = f"inv kubectl -- delete job {job.name}" if job.succeeded or job.failed else f"inv logs {job.component}"
        yield Answer(WARN, f"Job {job.name} is of an earlier release, {state}", mend)
    failed = [job for job in seen.jobs if job.failed and job not in left and job.key not in schema]
    for job in failed:
        yield Answer(WARN, f"Job {job.name} failed: {job.message}", f"inv logs {job.component}")
    if not left and not failed:
        yield Answer(PASS, "none left over, none failed")


def room(found: Sequence[Object], pods: Sequence[Object], wanted: Sequence[Object], seen: Snapshot) -> Answers:
    """Requests against what the nodes can give, for the pods that are still to come."""
    waiting = [pod for pod in seen.pods if pod.unscheduled and not pod.deleting]
    for pod in waiting:
        yield Answer(FAIL, f"{pod.component} finds no node: {pod.unscheduled}", "smaller requests, or more nodes")
    rooms = capacity.free(found, pods)
    there: dict[str, int] = {}
    for pod in seen.pods:
        there[pod.owner] = there.get(pod.owner, 0) + 1
    there.update({job.key: 1 for job in seen.jobs if job.succeeded})
    coming = capacity.coming(wanted, there)
    without = capacity.unplaced(rooms, coming, found)
    for one in without:
        why = capacity.shortfall(one, coming, rooms, found)
        yield Answer(FAIL, f"{one.name} wants {one.wants}: {why}", "smaller requests, or more nodes")
    most = max(rooms.values(), key=lambda free: free.cpu, default=capacity.NOTHING)
    if not waiting and not without:
        fits = f"; what is still to come fits ({len(coming)})" if coming else ""
        yield Answer(PASS, f"{most} free on {len(rooms)} node{'s' * (len(rooms) != 1)}{fits}")


def images(wanted: Sequence[Object], seen: Snapshot, found: Sequence[Object]) -> Answers:
    """Each image of the release ran here, or lies on a node; a pull that fails is named."""
    names = sorted({image for object in wanted for image in _images(object)})
    failing = {}
    for pod in seen.pods:
        for container in pod.containers:
            if container.state == "waiting" and container.reason in {*ailments.PULLING, "InvalidImageName"}:
                failing[container.image] = ailments.first_pull_error(seen, pod) or container.message
    for image, why in failing.items():
        # The whole chain of errors is told with the component.
        yield Answer(FAIL, f"{image} cannot be pulled: {why.rpartition(': ')[2]}", f"mend the image's name: {image}")
    ran = {
        container.image
        for pod in seen.pods
        for container in pod.containers
        if container.state != "waiting" or container.restarts
    }
    lie = {name for node in found for image in (node.get("status") or {}).get("images") or [] for name in _names(image)}
    unknown = [image for image in names if image not in {*failing, *ran, *lie} and not _among(image, {*ran, *lie})]
    if unknown and not failing:
        shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        yield Answer(WARN, f"not on a node yet: {shown}", "inv redeploy   (brings or pulls them)")
    elif names and not failing:
        yield Answer(PASS, f"{len(names)} of {len(names)} are here")


def _images(object: Object) -> list[str]:
    template = (object.get("spec") or {}).get("template") or {}
    pod = template.get("spec") or {} if isinstance(template, Mapping) else {}
    containers = [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]
    return [str(container["image"]) for container in containers if container.get("image")]


def _names(image: Object) -> list[str]:
    return [str(name) for name in image.get("names") or []]


def _among(image: str, known: set[str]) -> bool:
    """Nodes call `postgres:18` by its whole name, docker.io/library/postgres:18."""
    return any(name.endswith(f"/{image}") for name in known)


def logs(tails: Sequence[tuple[str, bool, Sequence[str]]]) -> Answers:
    """The seed's fourth check. `tails`: component, whether it is in trouble, the end of its log: of one that is not,
    what it said since the last pod became ready, for on the way there much is said that passes."""
    said = False
    for component, troubled, lines in tails:
        told = diagnose.explain(lines)
        if told.line and (told.cause or troubled):
            said = True
            cause = f"{told.cause}: " if told.cause else ""
            mend = told.hint or f"inv logs {component}"
            yield Answer(FAIL if troubled else WARN, f'{component}: {cause}"{told.line}"', mend)
    if not said and tails:
        yield Answer(PASS, f"no known trouble in the last lines of {len(tails)} logs")
