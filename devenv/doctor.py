"""Every check of an environment, each line passing, warning or failing with the command that mends it. Edge in and out.

What the checks need is read at once, each reading on its own: one that fails becomes one failing line, and whatever
needs it says so and passes on. `checks` judges; the table CHECKS is the list of all there is.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

from devenv import checks, databases, draw, external, lease, look, probe, proof, rbac, secret, watch
from devenv.checks import FAIL, PASS, WARN, Answer, Deployed, Member
from devenv.clients import helm as helming
from devenv.clients.kube import Denied, NotThere
from devenv.environment import Environment, Session, reach
from devenv.errors import Failure, Refused, StepFailed
from devenv.model import Desired, External, Snapshot
from devenv.preflight import Question
from devenv.report import NAME, Screen, redacted
from devenv.revisions import read as read_revision

PATIENCE = 20.0  # seconds for any one reading
RECENT = 300.0  # seconds of logs that are looked at
RESOLVED = 8.0  # seconds: a resolver that gets no answer asks again after 5
DNS = "k8s-app=kube-dns"  # CoreDNS of kubeadm, kind, k3s, and the managed ones
ALIVE = 25  # seconds: a Temporal server writes its heartbeat every 10


class Finding(NamedTuple):
    """An answer, and the check that gave it."""

    check: str
    answer: Answer

    def record(self) -> dict[str, str]:
        return {
            "check": self.check,
            "outcome": self.answer.outcome,
            "says": self.answer.says,
            "next": self.answer.next,
        }


class Readings:
    """What is read, each by a thread of its own; `of` waits for one and raises its failure.

    `secrets`: the values that were met on the way and must not be shown.
    """

    def __init__(self, environment: Environment, session: Session, table: Mapping[str, Reader]) -> None:
        self.environment = environment
        self.session = session
        self.desired = environment.desired
        self.secrets: set[str] = set()
        self._began = time.monotonic()
        self._done = {name: threading.Event() for name in table}
        self._value: dict[str, Any] = {}
        self._error: dict[str, BaseException] = {}
        for name, reader in table.items():
            threading.Thread(target=self._run, args=(name, reader), daemon=True).start()

    def _run(self, name: str, reader: Reader) -> None:
        try:
            self._value[name] = reader(self)
        except BaseException as error:
            self._error[name] = error
        self._done[name].set()

    def of(self, name: str) -> Any:
        """The value. Raises what its reader raised, or a Failure where it is still at it."""
        if not self._done[name].wait(max(0.0, self._began + PATIENCE - time.monotonic())):
            silent = StepFailed(f"no answer within {PATIENCE:.0f} s", where=name, next="inv doctor")
            self._error.setdefault(name, silent)
        if name in self._error:
            raise self._error[name]
        return self._value[name]


Reader = Callable[[Readings], Any]


def _clock(read: Readings) -> float:
    before = time.time()
    server = read.session.kube.clock()
    # The server cuts its clock to whole seconds.
    return server + 0.5 - (before + time.time()) / 2


def _rights(read: Readings) -> tuple[str, ...]:
    kube, namespace = read.session.kube, read.desired.namespace
    if kube.may("*", "*", "*", ""):
        return ()
    wanted = [
        (verb, group, resource) for group, resources, verbs, _ in rbac.RULES for resource in resources for verb in verbs
    ]
    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(lambda right: kube.may(right[0], right[1], right[2], namespace), wanted))
    return tuple(f"{verb} {resource}" for (verb, _, resource), may in zip(wanted, allowed, strict=True) if not may)


def _deployed(read: Readings) -> Deployed | None:
    kube, desired = read.session.kube, read.desired
    release = look.releases(kube, desired.namespace).get(desired.release)
    if release is None:
        return None
    content = helming.content(kube, desired.namespace, release.name, release.revision)
    if not content:
        return None
    revision = read_revision(content, release.labels, bundled=desired.bundled)
    hooks = frozenset(f"{hook.get('kind')}/{hook.get('name')}" for hook in content.get("hooks") or [])
    return Deployed(release, revision.chart, tuple(helming.objects(revision.manifest, desired.namespace)), hooks)


def _chart(read: Readings) -> str:
    """The chart's name and version as it is on this disk; empty where it is elsewhere."""
    import yaml

    path = read.desired.chart_path
    if path is None or not (path / "Chart.yaml").is_file():
        return ""
    chart = yaml.safe_load((path / "Chart.yaml").read_text())
    return f"{chart['name']} {chart['version']}"


def _holder(read: Readings) -> str:
    """The run that holds the environment, as far as it lives."""
    path = f"{lease.API}/namespaces/{read.desired.namespace}/leases/devenv-{read.desired.release}"
    found = read.session.kube.find(path)
    if found is None or lease.is_dead(str((found["metadata"].get("annotations") or {}).get(lease.ANNOTATION, ""))):
        return ""
    quiet = look.age(str(found["spec"].get("renewTime") or ""), time.time())
    return str(found["spec"].get("holderIdentity") or "") if quiet < 2 * lease.DEAD else ""


def _secret(read: Readings) -> secret.Password | None:
    desired = read.desired
    if not secret.ours(desired):
        return None
    deployed: Deployed | None = read.of("deployed")
    there = secret.look(read.session, desired, read.of("namespace"), release=deployed is not None, anew=True)
    read.secrets.add(there.value)
    return there


def _settled(read: Readings) -> Environment:
    """The environment with its external PostgreSQL's Secret, if any. Raises Refused where that cannot serve."""
    return external.settle(read.environment, read.session.kube, read.secrets)


def _external(read: Readings) -> str | None:
    """The name of the external PostgreSQL's Secret."""
    found: External | None = read.of("settled").desired.external
    return found.source if found else None


def _drawn(read: Readings) -> draw.Drawn:
    try:
        settled: Environment = read.of("settled")
    except Failure:
        settled = read.environment  # the check of the Secret says why; the rest can still be looked at
    return draw.draw(settled, read.session, lambda _: None)


def _outside(read: Readings) -> tuple[Question, str] | None:
    """What the external PostgreSQL answers now, from a pod beside the release."""
    desired: Desired = read.of("settled").desired
    if desired.external is None or read.of("deployed") is None:
        return None
    return probe.examine(read.session, desired, draw.rendered(desired, read.session, desired.values.tree()))


def _databases(read: Readings) -> tuple[databases.Server, tuple[databases.Database, ...]] | None:
    deployed = _own_database(read)
    if deployed is None:
        return None
    wanted = databases.of(read.desired, deployed.objects)
    return databases.seen(secret.postgres(read.session, read.desired).run, wanted)


def _own_database(read: Readings) -> Deployed | None:
    """The release, where it has a database of its own. Raises Refused where that does not run."""
    deployed: Deployed | None = read.of("deployed")
    if deployed is None or not (read.desired.bundled and read.desired.internal_postgres):
        return None
    if not secret.running(read.of("namespace"), read.desired):
        raise Refused("PostgreSQL does not run", where=secret.pod_name(read.desired), next="inv logs postgresql")
    return deployed


def _dns_server(read: Readings) -> list[Any]:
    path, query = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", {"labelSelector": DNS}
    return list(read.session.kube.get(path, query).get("items") or [])


def _resolves(read: Readings) -> bool | None:
    """Whether the database's pod finds the API server's name: psql is there, and says so where it does not."""
    if not (read.desired.bundled and secret.running(read.of("namespace"), read.desired)):
        return None
    return secret.postgres(read.session, read.desired).finds("kubernetes.default.svc", timeout=RESOLVED)


_MEMBERS = """SELECT json_build_object('role', role, 'address', rpc_address) FROM cluster_membership
WHERE last_heartbeat > (now() AT TIME ZONE 'utc') - interval '{alive} seconds';"""


def _members(read: Readings) -> checks.Membership | None:
    deployed = _own_database(read)
    if not checks.runs_temporal(read.desired, deployed) or deployed is None:
        return None
    store = next(one.name for one in databases.of(read.desired, deployed.objects) if one.role == "temporal")
    told = secret.postgres(read.session, read.desired).run(_MEMBERS.format(alive=ALIVE), store, timeout=PATIENCE)
    rows = [json.loads(line) for line in told.splitlines() if line.strip()]
    live = tuple(Member(checks.ROLES[row["role"]], row["address"]) for row in rows if row["role"] in checks.ROLES)
    pods = read.session.kube.get(f"/api/v1/namespaces/{read.desired.namespace}/pods").get("items") or []
    return checks.Membership(live, frozenset(str(pod["status"].get("podIP", "")) for pod in pods))


def _asks(*words: str) -> Reader:
    """A question to the temporal CLI in the admin tools' pod."""

    def read(read: Readings) -> tuple[bool, str] | None:
        if not checks.runs_temporal(read.desired, read.of("deployed")):
            return None
        output = proof.admintools(read.session, read.desired, *words)
        lines = [line.strip() for line in output.stderr.splitlines() if line.strip()]
        told = [line for line in lines if not line.startswith("command terminated")]
        return output.code == 0, told[-1] if told else output.last_line

    return read


def _items(path: str) -> Reader:
    return lambda read: read.session.kube.get(path.format(namespace=read.desired.namespace)).get("items") or []


def _logs(read: Readings) -> list[tuple[str, bool, Sequence[str]]]:
    """Component, whether it is in trouble, and the end of its log: of each container that says, or said, something."""
    seen: Snapshot = read.of("namespace")
    kube = read.session.kube
    rows = [
        (pod, container)
        for pod in seen.pods
        for container in pod.containers
        if not pod.deleting and not container.init and (container.state == "running" or container.restarts)
    ]

    recent = datetime.fromtimestamp(time.time() - RECENT, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    since = max([recent, *(pod.ready_since for pod in seen.pods)])

    def tail(row: tuple[Any, Any]) -> tuple[str, bool, Sequence[str]]:
        pod, container = row
        troubled = not pod.ready and container.state != "running"
        if troubled:
            return pod.component, True, watch.log_tail(kube, seen.namespace, pod.name, container.name, previous=True)
        query = {"container": container.name, "tailLines": "100", "sinceTime": since}
        try:
            text = kube.text(f"/api/v1/namespaces/{seen.namespace}/pods/{pod.name}/log", query)
        except NotThere:
            text = ""
        return pod.component, False, text.splitlines()

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(tail, rows))


READS: dict[str, Reader] = {
    "session": lambda read: read.session,
    "desired": lambda read: read.desired,
    "now": lambda _: time.time(),
    "kubernetes": lambda read: read.session.version,
    "clock": _clock,
    "rights": _rights,
    "helm": lambda read: read.session.helm.version(),
    "chart": _chart,
    "namespace": lambda read: look.once(read.session.kube, read.desired.namespace),
    "deployed": _deployed,
    "holder": _holder,
    "drawn": _drawn,
    "plan": lambda read: read.of("drawn").plan,
    "wanted": lambda read: read.of("drawn").wanted,
    "secret": _secret,
    "settled": _settled,
    "external": _external,
    "outside": _outside,
    "dns": _dns_server,
    "resolves": _resolves,
    "embedded": lambda read: read.session.target.embedded,
    "databases": _databases,
    "members": _members,
    "serving": _asks("operator", "cluster", "health"),
    "default": _asks("operator", "namespace", "describe", "-n", "default"),
    "nodes": _items("/api/v1/nodes"),
    "pods": _items("/api/v1/pods"),
    "services": _items("/api/v1/namespaces/{namespace}/services"),
    "slices": _items("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
    "logs": _logs,
}


def _where(session: Session) -> checks.Answers:
    target = session.target
    name = "the embedded cluster" if target.embedded else f"context {target.context}"
    yield Answer(PASS, f"{name} answers at {session.kube.server} ({target.why})")


# All checks, in the order in which they are shown: name, judge, the readings that it judges.
CHECKS: tuple[tuple[str, Callable[..., checks.Answers], tuple[str, ...]], ...] = (
    ("cluster", _where, ("session",)),
    ("clock", checks.clock, ("clock",)),
    ("rights", checks.rights, ("rights",)),
    ("versions", checks.versions, ("kubernetes", "helm", "chart", "deployed")),
    ("nodes", checks.nodes, ("nodes",)),
    ("capacity", checks.room, ("nodes", "pods", "wanted", "namespace")),
    ("images", checks.images, ("wanted", "namespace", "nodes")),
    ("dns", checks.dns, ("dns", "resolves", "embedded")),
    ("release", checks.release, ("desired", "deployed", "holder")),
    ("temporal", checks.switched, ("desired", "deployed")),
    ("plan", checks.as_planned, ("plan",)),
    ("secret", checks.secret, ("desired", "secret", "namespace")),
    ("secret", checks.external, ("external",)),
    ("volume", checks.volumes, ("namespace",)),
    ("database", checks.outside, ("outside",)),
    ("schema", checks.schema, ("databases",)),
    ("schema job", checks.schema_job, ("desired", "deployed", "namespace")),
    ("components", checks.components, ("deployed", "namespace", "now")),
    ("services", checks.reached, ("deployed", "services", "slices")),
    ("members", checks.members, ("desired", "members", "namespace")),
    ("frontend", checks.serving, ("serving",)),
    ("default", checks.default_namespace, ("default",)),
    ("jobs", checks.jobs, ("desired", "deployed", "namespace")),
    ("logs", checks.logs, ("logs",)),
)
OPTIONAL = frozenset({"deployed", "resolves"})  # None is an answer of theirs; of another, its checks do not apply


def examine(read: Readings) -> list[Finding]:
    """All findings, in the order of the table. One cause fails once: what hangs on it only says so."""
    found: list[Finding] = []
    told: set[tuple[str, str]] = set()
    for name, judge, needs in CHECKS:
        try:
            values = [read.of(need) for need in needs]
            if not any(value is None for need, value in zip(needs, values, strict=True) if need not in OPTIONAL):
                found += [Finding(name, answer) for answer in judge(*values)]
        except Failure as failure:
            cause = (failure.what, failure.where)
            found.append(Finding(name, _broken(failure, again=cause in told)))
            told.add(cause)
    return found


def _broken(failure: Failure, *, again: bool) -> Answer:
    words = failure.what + (f": {failure.why}" if failure.why else "")
    if again or isinstance(failure, Denied):
        return Answer(WARN, f"not known: {words}", failure.next)
    return Answer(FAIL, words + (f" ({failure.where})" if failure.where else ""), failure.next)


def record(desired: Desired, found: Sequence[Finding], seconds: float) -> dict[str, Any]:
    """The findings as JSON shows them; healthy is where nothing fails."""
    return {
        "schema": "devenv/doctor/v1",
        "namespace": desired.namespace,
        "healthy": not any(one.answer.outcome == FAIL for one in found),
        "seconds": round(seconds, 1),
        "checks": [one.record() for one in found],
    }


def doctor(environment: Environment, screen: Screen) -> dict[str, Any]:
    """Looks at everything and judges it. Raises Refused where no cluster answers."""
    started = time.monotonic()
    session = reach(environment, screen, start=False)
    with screen.stage("doctor") as stage:
        stage.waits("looking at everything")
        read = Readings(environment, session, READS)
        found = examine(read)
    screen.secrets |= read.secrets
    return record(environment.desired, found, time.monotonic() - started)


STYLES = {PASS: ("ok", "green"), WARN: ("warn", "yellow"), FAIL: ("FAIL", "bold red")}
COLUMN = NAME + 7  # where the words begin


def show(record: Mapping[str, Any], screen: Screen) -> None:
    """The findings to people: a line each, and below it what to type; 80 columns are enough."""
    import textwrap

    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    width = max(60, min(console.width, 110)) - COLUMN
    last = ""
    for one in record["checks"]:
        word, style = STYLES[one["outcome"]]
        name = "" if one["check"] == last else one["check"]
        last = one["check"]
        lines = textwrap.wrap(redacted(" ".join(one["says"].split()), screen.secrets), width, break_on_hyphens=False)
        console.print(Text.assemble((f"{name:<{NAME + 1}}", "cyan"), (f"{word:<6}", style), lines[0]))
        for line in lines[1:]:
            console.print(" " * COLUMN + line, markup=False)
        if one["next"] and one["outcome"] != PASS:
            for place, line in enumerate(textwrap.wrap(one["next"], width - 6, break_on_hyphens=False)):
                lead = "next  " if place == 0 else "      "
                console.print(Text.assemble((" " * COLUMN + lead, "dim"), (line, "bold")))
    console.print(_sum(record), style="bold green" if record["healthy"] else "bold red")


def _sum(record: Mapping[str, Any]) -> str:
    count = {outcome: sum(one["outcome"] == outcome for one in record["checks"]) for outcome in STYLES}
    parts = [f"{count[PASS]} ok"]
    parts += [f"{count[WARN]} warning{'s' * (count[WARN] != 1)}"] if count[WARN] else []
    parts += [f"{count[FAIL]} failed"] if count[FAIL] else []
    return f"{', '.join(parts)} · {record['seconds']} s"
