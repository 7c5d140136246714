"""The Secret of an external PostgreSQL: found, checked, and brought to where the release's pods can read it. Edge in
and out.

`settle` comes before the plan and touches nothing: afterwards the values name the Secret as the pods will find it. One
from another namespace is copied; the copy is ours, follows its source, and goes with the release. The source is only
read.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from devenv import credentials, databases, secret
from devenv import plan as planning
from devenv.apply import MANAGED
from devenv.clients.kube import KINDS, METADATA_ONLY, Conflict, Denied, Kube, Object
from devenv.credentials import Keys
from devenv.environment import Environment
from devenv.errors import Refused
from devenv.model import Desired, External
from devenv.report import Screen
from devenv.values import Leaf, Origin, lay

POSTGRES = ("backend", "temporalConfig", "postgres")
NAME = (*POSTGRES, "secret", "name")
ALIAS = ("backend", "temporalConfig", "database", "existingSecret")
VERSION = (*POSTGRES, "secret", "version")
SOURCE_MARK = "devenv/copied-from"
VERSION_MARK = "devenv/secret-version"  # at the copy, and by the chart at the pods that read the Secret
VARIABLE = "TEMPORAL_EXTERNAL_SECRET"


def copy_name(release: str) -> str:
    """The copy's name: the release's own, so that no Secret that came with another name is ever in its way."""
    return f"{release}-external-postgresql"


def path(namespace: str, name: str) -> str:
    return KINDS[("v1", "Secret")].path(namespace, name)


def settle(environment: Environment, kube: Kube, secrets: set[str]) -> Environment:
    """The environment with the Secret of its external database: what it holds, and values that name it as pods will
    find it; its password goes into `secrets`. Raises Refused where it is not found or cannot serve."""
    desired = environment.desired
    place, name = _named(desired)
    if not name:
        return environment
    namespace, found = find(kube, desired, environment.profile.secret_sources, place, name)
    copied = namespace != desired.namespace
    keys = _keys(desired)
    read = credentials.read(found.get("data") or {}, keys)
    secrets.add(read.texts.get(keys.names["password"], ""))
    _refuse(found, namespace, name, read, copied=copied)
    meta = found["metadata"]
    external = External(
        source=f"{namespace}/{name}",
        name=copy_name(desired.release) if copied else name,
        copied=copied,
        version=planning.fingerprint([meta.get("uid"), meta.get("resourceVersion")])[:12],
        texts=_completed(kube, namespace, {**_ca(found, desired), **read.texts}, keys) if copied else read.texts,
        warnings=tuple(f"the newline at the end of key {key} is not in the copy" for key in read.newlines),
    )
    if copied:
        _refuse_foreign(kube.find(path(desired.namespace, external.name)), desired, external)
    return environment._replace(desired=_following(desired, external)._replace(external=external))


def _named(desired: Desired) -> tuple[str, str]:
    """(namespace or nothing, name) of the Secret that the values name; nothing where the database is internal."""
    if not desired.bundled or desired.internal_postgres:
        return "", ""
    name = str(desired.values.get(NAME) or desired.values.get(ALIAS) or "")
    choice = desired.choice("external-postgres")
    place, _, asked = str(choice.value or "").rpartition("/")
    return (place if choice.on and asked == name else ""), name


def _following(desired: Desired, external: External) -> Desired:
    """The values with the Secret's name and version as they will be."""
    origin = Origin("devenv", f"Secret {external.source}")
    named = NAME if desired.values.get(NAME) else ALIAS
    leaves = [Leaf(VERSION, external.version, origin)]
    leaves += [Leaf(named, external.name, origin)] if external.copied else []
    return desired._replace(values=lay(desired.values, leaves))


def _keys(desired: Desired) -> Keys:
    """Which keys the chart reads; those of a host that the values name themselves are not among them."""
    given = desired.values.get(POSTGRES) or {}
    secret_values, tls = given.get("secret") or {}, given.get("tls") or {}
    by_value = given.get("host") not in (None, "", "NONE")
    roles = ("password",) if by_value else ("host", "port", "username", "password")
    names = {role: str(secret_values.get(f"{role}Key") or role) for role in roles}
    ca, elsewhere = tls.get("caSecret") or {}, tls.get("caConfigMap") or {}
    asked = tls.get("mode") == "verify-full" and not (ca.get("name") or elsewhere.get("name"))
    needed = frozenset({"host", "password"} & names.keys())
    return Keys(names, needed, str(ca.get("key") or "ca.crt") if asked else "")


def find(kube: Kube, desired: Desired, sources: Sequence[str], place: str, name: str) -> tuple[str, Object]:
    """(namespace, Secret): exactly there where a place is named, else in the release's namespace and then in the
    profile's sources. Raises Refused where it is in none, or one may not be looked into."""
    places = (place,) if place else tuple(dict.fromkeys((desired.namespace, *sources)))
    for namespace in places:
        try:
            found = kube.find(path(namespace, name))
        except Denied as denied:
            raise _forbidden(denied, namespace, name) from None
        if found is not None:
            return namespace, found
    raise _nowhere(kube, places, name)


def _forbidden(denied: Denied, namespace: str, name: str) -> Refused:
    """The least that must be granted: to read this one Secret."""
    who = re.search(r'User "([^"]+)"', denied.why)
    user = who.group(1) if who else "USER"
    account = user.removeprefix("system:serviceaccount:")
    subject = f"--serviceaccount={account}" if account != user else f"--user={user}"
    role = f"devenv-{name}"[:60].rstrip("-.")
    return Refused(
        "the Secret of the external PostgreSQL may not be read",
        where=f"Secret {name} in namespace {namespace}",
        why=denied.why or denied.what,
        next=f"kubectl --namespace {namespace} create role {role} --verb=get --resource=secrets --resource-name={name}"
        f" && kubectl --namespace {namespace} create rolebinding {role} --role={role} {subject}",
    )


def _nowhere(kube: Kube, places: Sequence[str], name: str) -> Refused:
    meant, why = _meant(kube, places, name)
    create = f"inv kubectl -- create secret generic {name} --from-literal=host=… --from-file=password=…"
    return Refused(
        "the Secret of the external PostgreSQL is not there",
        where=f"Secret {name} in namespace {' or '.join(places)}",
        why=why,
        next=" or ".join(f"{VARIABLE}={title}" for title in meant) or create,
    )


def _meant(kube: Kube, places: Sequence[str], name: str) -> tuple[list[str], str]:
    """What could be meant: Secrets of that name elsewhere, else those of a similar name in the places searched."""
    try:
        same = _list(kube, "/api/v1/secrets", {"fieldSelector": f"metadata.name={name}"})
    except Denied:
        same = []
        elsewhere = f"other namespaces may not be searched; there it can be named: {VARIABLE}=NAMESPACE/{name}"
    else:
        elsewhere = "no namespace has one of that name"
    if same:
        return same, f"one of that name is in {', '.join(title.partition('/')[0] for title in same)}"
    similar: list[str] = []
    for namespace in places:
        with contextlib.suppress(Denied):
            there = [title.partition("/")[2] for title in _list(kube, path(namespace, ""), {})]
            similar += [f"{namespace}/{other}" for other in difflib.get_close_matches(name, there, n=3)]
    return similar, elsewhere


def _list(kube: Kube, where: str, query: Mapping[str, str]) -> list[str]:
    """The Secrets there as namespace/name; their content is not asked for."""
    items = kube.get(where.rstrip("/"), query, accept=METADATA_ONLY).get("items") or []
    titles = [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in items]
    return sorted(title for title in titles if "/sh.helm.release." not in title)


def _refuse(found: Object, namespace: str, name: str, read: credentials.Read, *, copied: bool) -> None:
    where = f"Secret {name} in namespace {namespace}"
    copy_of = (found["metadata"].get("annotations") or {}).get(SOURCE_MARK)
    if copy_of and not copied:
        raise Refused(
            "this Secret is a copy that devenv made", where=where, why=f"of {copy_of}", next=f"{VARIABLE}={copy_of}"
        )
    if read.problems:
        kind = found.get("type") or "Opaque"
        raise Refused(
            f"the Secret of the external PostgreSQL cannot serve: {read.problems[0]}",
            where=where if kind == "Opaque" else f"{where}, of type {kind}",
            why="; ".join(read.problems[1:]) or "host and password are needed; port and username may be missing",
            next=f"inv kubectl -- edit secret {name} --namespace {namespace}",
        )
    if read.newlines and not copied:
        raise Refused(
            f"key {read.newlines[0]} of the Secret ends with a newline, which is taken for a part of it",
            where=where,
            why="pods read the Secret as it is; only in a copy from another namespace it would be taken off",
            next=" && ".join(mending(name, key) for key in read.newlines),
        )


def mending(name: str, key: str) -> str:
    """The command that takes the newline off. The shell's `$(…)` does it; no value is in any program's arguments."""
    jsonpath = f"jsonpath='{{.data.{key}}}'".replace(".crt", "\\.crt")
    text = f'"$(inv kubectl -- get secret {name} -o {jsonpath} | base64 -d)"'
    patch = f"inv kubectl -- patch secret {name} --patch-file /dev/stdin"
    return f"""printf '{{"data":{{"{key}":"%s"}}}}' "$(printf %s {text} | base64 | tr -d '\\n')" | {patch}"""


def _ca(found: Object, desired: Desired) -> dict[str, str]:
    """The CA's certificate where the Secret has one: it goes along, whether it is asked for or not."""
    key = str(desired.values.get((*POSTGRES, "tls", "caSecret", "key")) or "ca.crt")
    coded = (found.get("data") or {}).get(key)
    with contextlib.suppress(UnicodeDecodeError):
        return {key: base64.b64decode(coded).decode()} if coded else {}
    return {}


def _completed(kube: Kube, namespace: str, texts: dict[str, str], keys: Keys) -> dict[str, str]:
    """A host without a dot is the name of a Service beside the source, where there is such a one."""
    key = keys.names.get("host", "")
    host = texts.get(key, "")
    if not host or "." in host or host == "localhost":
        return texts
    try:
        there = kube.find(KINDS[("v1", "Service")].path(namespace, host)) is not None
    except Denied:
        there = False
    return {**texts, key: f"{host}.{namespace}.svc"} if there else texts


def _ours(found: Object, desired: Desired) -> bool:
    meta = found["metadata"]
    labels = {**MANAGED, "app.kubernetes.io/instance": desired.release}
    marked = SOURCE_MARK in (meta.get("annotations") or {})
    return marked and labels.items() <= (meta.get("labels") or {}).items()


def _refuse_foreign(there: Object | None, desired: Desired, external: External) -> None:
    if there is not None and not _ours(there, desired):
        raise Refused(
            f"a Secret that is not devenv's is where the copy of {external.source} would be",
            where=f"Secret {external.name} in namespace {desired.namespace}",
            why="it is never written over",
            next=f"rename it, or use it itself: {VARIABLE}={external.name}",
        )


def _body(desired: Desired, external: External) -> Object:
    labels = {**MANAGED, "app.kubernetes.io/instance": desired.release}
    marks = {SOURCE_MARK: external.source, VERSION_MARK: external.version}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in external.texts.items()}
    meta = {"name": external.name, "labels": labels, "annotations": marks}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "data": data}


def reasons(kube: Kube, desired: Desired, applied: Sequence[Object]) -> tuple[str, ...]:
    """Why a release that runs is not as it should be, as far as the Secret goes."""
    external = desired.external
    if external is None:
        return ()
    if not external.copied:
        before = {_marks(object).get(VERSION_MARK, external.version) for object in applied}
        return (f"Secret {external.name} changed",) if before - {external.version} else ()
    there = kube.find(path(desired.namespace, external.name))
    if there is None:
        return (f"Secret {external.name}, the copy of {external.source}, is not there",)
    marks = there["metadata"].get("annotations") or {}
    if marks.get(SOURCE_MARK) != external.source:
        return (f"the database's Secret is {external.source} now, it was {marks.get(SOURCE_MARK)}",)
    if marks.get(VERSION_MARK) != external.version:
        return (f"Secret {external.source} changed at its source",)
    edited = (there.get("data") or {}) != _body(desired, external)["data"]
    return (f"Secret {external.name} was edited: it is not what {external.source} says",) if edited else ()


def _marks(object: Mapping[str, Any]) -> Mapping[str, str]:
    """The annotations of a workload's pods."""
    template = (object.get("spec") or {}).get("template") or {}
    return (template.get("metadata") or {}).get("annotations") or {}


def left_behind(kube: Kube, desired: Desired, wanted: Sequence[Object], applied: Sequence[Object]) -> tuple[str, ...]:
    """The external database that the release used and uses no longer. For an internal one the plan says so itself."""
    before, after = _database(applied), _database(wanted)
    external = desired.external
    if external is not None and external.copied and before == after:
        there = kube.find(path(desired.namespace, external.name))
        before = str(_annotations(there).get(SOURCE_MARK) or external.source)
        after = external.source
    internal = any(object["kind"] == "StatefulSet" for object in applied)
    if internal or not before or before == after:
        return ()
    return (f"the external PostgreSQL of {before} is used no longer; its data and workflows stay behind there",)


def stays(applied: Sequence[Object], desired: Desired) -> str:
    """What a release leaves in its external PostgreSQL when it goes; empty where it used none."""
    where = "" if any(object["kind"] == "StatefulSet" for object in applied) else _database(applied)
    names = [f'"{one.name}"' for one in databases.of(desired, applied) if one.requires]
    if not where or not names:
        return ""
    drop = "; ".join(f"DROP DATABASE {name}" for name in names)
    return f"databases {' and '.join(names)} stay in the external PostgreSQL of {where}; to drop them there: {drop}"


def _annotations(object: Object | None) -> Mapping[str, str]:
    return (object["metadata"].get("annotations") or {}) if object else {}


def _database(objects: Sequence[Object]) -> str:
    """Where the backend finds its database: the Secret with the host, or the host itself."""
    for object in objects:
        if object["kind"] != "Deployment":
            continue
        template = object["spec"].get("template") or {}
        for container in (template.get("spec") or {}).get("containers") or []:
            for entry in container.get("env") or []:
                if entry["name"] == "DATABASE_HOST":
                    named = ((entry.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
                    return f"Secret {named}" if named else str(entry.get("value", ""))
    return ""


def step(kube: Kube, desired: Desired) -> str:
    """What a redeploy does about the Secret; nothing where it is used as it is."""
    external = desired.external
    if external is None or not external.copied:
        return ""
    if kube.find(path(desired.namespace, external.name)) is None:
        return f"Secret {external.source} is copied to {external.name}"
    kept = not reasons(kube, desired, ())
    return f"Secret {external.name} {'is as' if kept else 'follows'} {external.source}"


def bring(kube: Kube, desired: Desired, screen: Screen, applied: Sequence[Object]) -> None:
    """Makes the copy, or brings it to what its source says; pods that may have read an edited one start anew."""
    external = desired.external
    if external is None or not external.copied:
        return
    with screen.stage("database") as stage:
        stage.says(_copy(kube, desired, external, applied), *external.warnings)


def _copy(kube: Kube, desired: Desired, external: External, applied: Sequence[Object]) -> str:
    body, where = _body(desired, external), path(desired.namespace, external.name)
    try:
        kube.create(where.rpartition("/")[0], body)
        return f"Secret {external.source} copied to {external.name}"
    except Conflict:
        there = kube.get(where)
    _refuse_foreign(there, desired, external)
    marks = there["metadata"].get("annotations") or {}
    same = (there.get("data") or {}) == body["data"]
    if same and marks.items() >= body["metadata"]["annotations"].items():
        return f"Secret {external.name} is as {external.source}"
    there["metadata"] |= {"annotations": {**marks, **body["metadata"]["annotations"]}}
    kube.replace(where, {**there, "data": body["data"]})
    if marks.get(VERSION_MARK) == external.version:
        secret.restart(kube, desired, secret.users(applied, external.name))
    return f"Secret {external.name} follows {external.source}"


def refuse_without_copy(kube: Kube, desired: Desired, objects: Sequence[Object]) -> None:
    """Raises Refused where objects of an earlier revision read a copy that went since: their pods would not start."""
    name = copy_name(desired.release)
    if secret.users(objects, name) and kube.find(path(desired.namespace, name)) is None:
        raise Refused(
            "that revision's database was an external one, and the copy of its Secret is gone",
            where=f"Secret {name} in namespace {desired.namespace}",
            next=f"{VARIABLE}=NAMESPACE/NAME inv redeploy",
        )


def tidy(kube: Kube, desired: Desired) -> None:
    """Removes what we left in the namespace for an external database that is not used (any more)."""
    copied = desired.external is not None and desired.external.copied
    for kind, unused in (("Secret", not copied), ("ConfigMap", desired.external is None)):
        where = KINDS[("v1", kind)].path(desired.namespace, copy_name(desired.release))
        there = kube.find(where) if unused else None
        if there is not None and _ours(there, desired):
            kube.delete(where)
