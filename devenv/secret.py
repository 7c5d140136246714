"""The Secret of the internal database: made once, outside the release, never overwritten. Edge in and out.

What is to be done in each case is decided by `password`; here it is found out and done. At the Secret itself a digest
says which password the database was last seen to open for, so that a changed one is known without asking it.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from devenv import password
from devenv.apply import MANAGED, database_name, volume_of
from devenv.clients.kube import KINDS, Conflict, Kube, Object
from devenv.clients.postgres import Postgres
from devenv.environment import Session, kubectl_argv
from devenv.errors import Refused, RolloutFailed
from devenv.model import Desired, Pod, Snapshot

OPENED = "devenv/opened-by"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
PASSWORD_BYTES = 24
TRY_AGAIN = 3.0  # seconds


class Password(NamedTuple):
    """The password in its Secret (`value` empty where there is none), and what is there beside it."""

    user: str
    value: str
    found: password.Found

    @property
    def outcome(self) -> password.Outcome:
        return password.decide(self.found)


def ours(desired: Desired) -> bool:
    """Whether the database and its Secret are devenv's to care for."""
    named = desired.values.get(("backend", "postgresql", "existingSecret"))
    return desired.bundled and desired.internal_postgres and named == database_name(desired.release)


def path(desired: Desired) -> str:
    return KINDS[("v1", "Secret")].path(desired.namespace, database_name(desired.release))


def read(secret: Object | None) -> tuple[str, str]:
    """(user, password) of a Secret; the password is empty where it has none."""
    data = (secret or {}).get("data") or {}
    user, value = (base64.b64decode(data.get(key) or "").decode("utf-8", "replace") for key in ("username", "password"))
    return user or "postgres", value


def look(session: Session, desired: Desired, seen: Snapshot, *, release: bool, anew: bool = False) -> Password:
    """What is there. Where the database runs, the password is tried; one that it opened for before only `anew`.

    `release`: whether there is one with the internal database.
    """
    secret = session.kube.find(path(desired))
    user, value = read(secret)
    opens = None
    if value and running(seen, desired):
        opens = (known(secret) and not anew) or postgres(session, desired).opens(user, value)
    volume = bool(volume_of(seen, desired.release))
    return Password(user, value, password.Found(bool(value), volume, release, opens))


def ensure(kube: Kube, desired: Desired, there: Password) -> Password:
    """The password, made where there is none."""
    if there.outcome.do != "make":
        return there
    return Password(*read(make(kube, desired)), there.found)


def refuse(there: Password, desired: Desired, seen: Snapshot) -> None:
    """Raises Refused where volume and password do not belong together."""
    outcome, name = there.outcome, database_name(desired.release)
    if outcome.do == "refuse":
        raise Refused(
            outcome.told,
            where=f"PersistentVolumeClaim {volume_of(seen, desired.release)}, Secret {name} "
            f"in namespace {desired.namespace}",
            why=outcome.why,
            next=password.choices(name),
        )


def make(kube: Kube, desired: Desired) -> Object:
    """The Secret with a new password; where one is there without a password, that is filled in.

    Of two runs at once the first one's password counts.
    """
    value = secrets.token_urlsafe(PASSWORD_BYTES)
    try:
        return kube.create(path(desired).rpartition("/")[0], _secret(desired, value))
    except Conflict:
        there = kube.get(path(desired))
    if read(there)[1]:
        return there
    data = {**(there.get("data") or {}), "password": base64.b64encode(value.encode()).decode()}
    return kube.replace(path(desired), {**there, "data": data})


def _secret(desired: Desired, value: str) -> Object:
    name = database_name(desired.release)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {**MANAGED, "app.kubernetes.io/instance": desired.release}},
        "type": "Opaque",
        "stringData": {"host": name, "port": "5432", "username": "postgres", "password": value},
    }


def _digest(secret: Mapping[str, Any]) -> str:
    return password.digest(read(dict(secret))[1], str(secret["metadata"].get("uid")))


def known(secret: Object | None) -> bool:
    """Whether the database is known to have opened for the password that is in the Secret."""
    marks = secret["metadata"].get("annotations") or {} if secret else {}
    return secret is not None and marks.get(OPENED) == _digest(secret)


def reasons(kube: Kube, desired: Desired) -> tuple[str, ...]:
    """Why a release that runs is not as it should be, as far as its password goes."""
    if not ours(desired):
        return ()
    name, secret = database_name(desired.release), kube.find(path(desired))
    if secret is None or not read(secret)[1]:
        return (f"Secret {name} with the database's password is gone",)
    return () if known(secret) else (f"the password in Secret {name} is not known to open the database",)


def step(kube: Kube, desired: Desired) -> str:
    """What a redeploy does about the password, as far as the Secret alone tells."""
    return "password kept" if read(kube.find(path(desired)))[1] else "a password is made"


def remember(kube: Kube, desired: Desired) -> None:
    """Notes at the Secret that the database opened for the password in it."""
    secret = kube.find(path(desired))
    if secret is not None and ours(desired) and not known(secret):
        kube.patch(path(desired), {"metadata": {"annotations": {OPENED: _digest(secret)}}})


def users(objects: Sequence[Object], name: str) -> list[str]:
    """The Deployments that take something from a Secret, as Kind/name."""
    return [
        f"Deployment/{object['metadata']['name']}"
        for object in objects
        if object["kind"] == "Deployment" and name in _secrets(object["spec"]["template"]["spec"])
    ]


def _secrets(pod: Object) -> set[str]:
    containers = [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]
    sources = [entry.get("valueFrom") or {} for container in containers for entry in container.get("env") or []]
    named = {(source.get("secretKeyRef") or {}).get("name", "") for source in sources}
    mounted = {(volume.get("secret") or {}).get("secretName", "") for volume in pod.get("volumes") or []}
    return (named | mounted) - {""}


def restart(kube: Kube, desired: Desired, deployments: Sequence[str]) -> None:
    """New pods for what read the password of before when it started."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    body = {"spec": {"template": {"metadata": {"annotations": {RESTARTED: now}}}}}
    for title in deployments:
        where = KINDS[("apps/v1", "Deployment")].path(desired.namespace, title.partition("/")[2])
        if kube.find(where) is not None:
            kube.patch(where, body)


def changed(kube: Kube, desired: Desired, there: Password, applied: Sequence[Object]) -> list[str]:
    """Restarts what still uses another password than the Secret's, as far as that can be known; its titles.

    What is remembered of another password goes: pods that start from here on read the one of now, so when the old one
    comes back, they have to start anew.
    """
    secret = kube.find(path(desired))
    if known(secret):
        return []
    if secret is not None and OPENED in (secret["metadata"].get("annotations") or {}):
        kube.patch(path(desired), {"metadata": {"annotations": {OPENED: None}}})
    titles = users(applied, database_name(desired.release))
    restart(kube, desired, titles)
    if there.found.opens:
        remember(kube, desired)
    return titles


def pod_name(desired: Desired) -> str:
    return f"{database_name(desired.release)}-0"


def pod_of(seen: Snapshot, name: str) -> Pod | None:
    return next((pod for pod in seen.pods if pod.name == name), None)


def running(seen: Snapshot, desired: Desired) -> bool:
    """Whether the database's container runs, ready or not."""
    pod = pod_of(seen, pod_name(desired))
    return pod is not None and not pod.deleting and any(container.state == "running" for container in pod.containers)


def postgres(session: Session, desired: Desired, pod: str = "") -> Postgres:
    """The database in its pod, or in another."""
    return Postgres(tuple(kubectl_argv(session, desired.namespace)), pod or pod_name(desired))


def trying(session: Session, desired: Desired, there: Password, busy: Callable[[], bool]) -> Callable[[], bool]:
    """`busy`, that tries the password as soon as a database that was not running before runs on its old volume.

    Raises RolloutFailed where it does not open: nothing else would say so while the backend waits.
    """
    if not there.found.volume or there.found.opens is not None:
        return busy
    asked, opened = 0.0, False

    def busy_and_opens() -> bool:
        nonlocal asked, opened
        if not opened and time.monotonic() - asked >= TRY_AGAIN:
            opens = postgres(session, desired).opens(there.user, there.value)
            asked, opened = time.monotonic(), opens is True
            if opens is False:
                name = database_name(desired.release)
                raise RolloutFailed(
                    "the password in the Secret does not open the database",
                    where=f"Secret {name}, pod {pod_name(desired)} in namespace {desired.namespace}",
                    why=f'the volume was made with another one: "password authentication failed for user {there.user}"',
                    next=password.choices(name),
                )
        return busy()

    return busy_and_opens
