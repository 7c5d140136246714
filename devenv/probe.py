"""Asks an external PostgreSQL from inside the cluster, before the release is touched. Edge out.

In a pod of the schema Job's own image, which lives for seconds. What it is asked, the password too, goes in by standard
input. That it served is remembered in the namespace for this version of the Secret, so an unchanged one costs nothing.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from devenv import databases, external, look, objections, preflight
from devenv.apply import MANAGED
from devenv.clients import shell
from devenv.clients.kube import KINDS, Conflict, Denied, Kube, NotThere, Object
from devenv.environment import Session, kubectl_argv
from devenv.errors import Failure, Refused, StepFailed
from devenv.model import Desired, External
from devenv.preflight import Question
from devenv.report import Screen

Waits = Callable[[str], None]
START_SECONDS = 60.0
LIVES_SECONDS = 120
NO_IMAGE = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff"})
ASKED = "asked"


class _Unasked(Exception):
    """The database could not be asked; the reason in words."""


def ask(session: Session, desired: Desired, screen: Screen, wanted: Sequence[Object], *, worked: bool) -> None:
    """Asks it, where this was not done for this Secret and a release that `worked`. Raises Refused where it cannot
    serve."""
    given, job = desired.external, databases.schema_job(wanted)
    if given is None or job is None:
        return
    question = preflight.question(wanted, _texts(session.kube, desired, given, job), given.source)
    if question is None or (worked and _remembered(session.kube, desired) == question.key(given.version)):
        return
    with screen.stage("preflight") as stage:
        try:
            answer = _answer(session, desired, job, question, stage.waits)
        except _Unasked as unasked:
            stage.says("the database could not be asked beforehand", str(unasked))
            return
        refuse(question, answer)
        _remember(session.kube, desired, given, question.key(given.version))
        stage.says(f"{question.env['PGHOST']} opens for {question.env['PGUSER']}", served(question, answer))


def examine(session: Session, desired: Desired, wanted: Sequence[Object]) -> tuple[Question, str] | None:
    """What an external PostgreSQL says now, whatever it said before, to the question of the rendered objects; None
    where there is none to ask. Raises StepFailed where it could not be asked."""
    given, job = desired.external, databases.schema_job(wanted)
    if given is None or job is None:
        return None
    question = preflight.question(wanted, _texts(session.kube, desired, given, job), given.source)
    if question is None:
        return None
    try:
        return question, _answer(session, desired, job, question, lambda _: None)
    except _Unasked as unasked:
        raise StepFailed("the external PostgreSQL could not be asked", where=question.where, why=str(unasked)) from None


def refuse(question: Question, answer: str) -> None:
    """Raises Refused where the answer says that it cannot serve."""
    objection = objections.objection(question, answer)
    if objection is not None:
        raise Refused(objection.what, where=question.where, why=objection.why, next=objection.next)


def served(question: Question, answer: str) -> str:
    """The server in a few words, where it can serve. Pure."""
    parts = objections.sections(answer)
    server = next(part for part in parts.values() if part.of("server")).of("server")[0]
    tls = {"disable": "no TLS", "require": "TLS", "verify-full": "TLS, verified"}[question.env["PGSSLMODE"]]
    return f"PostgreSQL {server['version']}, {tls}, {question.need} of {server['limit']} connections for Temporal"


def _texts(kube: Kube, desired: Desired, given: External, job: Object) -> dict[str, dict[str, str]]:
    """What the Job reads, by Kind/name; of the external Secret what pods will find there, not what they find now."""
    found: dict[str, dict[str, str]] = {}
    for title in preflight.sources(job):
        kind, _, name = title.partition("/")
        object = kube.find(KINDS[("v1", kind)].path(desired.namespace, name)) or {}
        data = object.get("data") or {}
        found[title] = data if kind == "ConfigMap" else {key: _decoded(text) for key, text in data.items()}
    ours = f"Secret/{given.name}"
    return {**found, ours: {**({} if given.copied else found.get(ours, {})), **given.texts}}


def _decoded(coded: str) -> str:
    return base64.b64decode(coded).decode("utf-8", "replace")


def _answer(session: Session, desired: Desired, job: Object, question: Question, waits: Waits) -> str:
    """What psql was told; where it is in doubt about the certificate, what Temporal's own tool was, too."""
    host = question.env["PGHOST"]
    answer = _printed(session, desired, preflight.script(question), host, waits, job, "schema")
    if objections.doubtful(answer):
        answer += _printed(session, desired, preflight.tool_script(question), host, waits, job, "tool")
    return answer


def _printed(session: Session, desired: Desired, script: str, host: str, waits: Waits, job: Object, of: str) -> str:
    """What a script printed in a pod. Raises Refused where its image is missing, _Unasked where no pod comes up."""
    with _pod(session.kube, desired, job, of) as name:
        waits("a pod to ask the database from")
        _until_running(session.kube, desired, name)
        waits(f"asking PostgreSQL at {host}")
        argv = kubectl_argv(session, desired.namespace, "exec", "-i", name, "-c", "preflight", "--", "/bin/sh", "-s")
        output = shell.run(argv, stdin=script, timeout=START_SECONDS)
    if output.code != 0:
        raise _Unasked(output.last_line[:200])
    return output.stdout


@contextlib.contextmanager
def _pod(kube: Kube, desired: Desired, job: Object, of: str) -> Iterator[str]:
    """The pod for as long as the block runs, whatever ends that; what a killed run left goes with it."""
    pods = KINDS[("v1", "Pod")].path(desired.namespace)
    body = preflight.pod(job, f"{desired.release}-preflight-{secrets.token_hex(3)}", LIVES_SECONDS, of)
    name = body["metadata"]["name"]
    body["metadata"]["labels"]["app.kubernetes.io/instance"] = desired.release
    try:
        kube.create(pods, body)
        yield name
    except Denied as denied:
        raise _Unasked(f"{denied.why or denied.what} (inv rbac has the rights that it needs)") from None
    finally:
        with contextlib.suppress(Failure):
            kube.delete(f"{pods}/{name}")
            _remove_left(kube, desired, pods)


def _remove_left(kube: Kube, desired: Desired, pods: str) -> None:
    """Pods of runs that were killed: they ended by themselves."""
    query = {"labelSelector": f"devenv/preflight=true,app.kubernetes.io/instance={desired.release}"}
    for item in kube.get(pods, query).get("items") or []:
        if item.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            kube.delete(f"{pods}/{item['metadata']['name']}")


def _until_running(kube: Kube, desired: Desired, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    why = "it was not scheduled"
    while time.monotonic() < deadline:
        try:
            pod = look.pod(kube.get(KINDS[("v1", "Pod")].path(desired.namespace, name)))
        except NotThere:
            raise _Unasked(f"pod {name} was deleted") from None
        if pod.phase == "Running":
            return
        for container in pod.containers:
            why = container.message or container.reason or why
            if container.reason in NO_IMAGE:
                raise Refused(
                    "an image to ask the database with is not to be had",
                    where=f"pod {name} in namespace {desired.namespace}, image {container.image}",
                    why=why,
                    next="mend backend.temporal.schema.image or .admintools.image, or bring the image to the cluster",
                )
        why = pod.unscheduled or why
        time.sleep(0.1)
    raise _Unasked(f"pod {name} does not start: {why}")


def _memory(desired: Desired) -> str:
    return KINDS[("v1", "ConfigMap")].path(desired.namespace, external.copy_name(desired.release))


def _remembered(kube: Kube, desired: Desired) -> str:
    return str(((kube.find(_memory(desired)) or {}).get("data") or {}).get(ASKED, ""))


def _remember(kube: Kube, desired: Desired, given: External, key: str) -> None:
    where = _memory(desired)
    labels = {**MANAGED, "app.kubernetes.io/instance": desired.release}
    meta = {"name": where.rpartition("/")[2], "labels": labels, "annotations": {external.SOURCE_MARK: given.source}}
    body = {"metadata": meta, "data": {ASKED: key}}
    try:
        kube.create(where.rpartition("/")[0], body)
    except Conflict:
        kube.patch(where, body)
