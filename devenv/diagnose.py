"""Turns log lines into causes and hints. Pure.

In: the lines of a container that ended; out: the line that explains, and what to do. Texts are those of Temporal
1.32, PostgreSQL 18 and lib/pq.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple


class Known(NamedTuple):
    """A log line that is understood."""

    pattern: re.Pattern[str]
    cause: str
    hint: str


# A line of a log, its cause, and what to do.
KNOWN = tuple(
    Known(re.compile(pattern), cause, hint)
    for pattern, cause, hint in (
        # what the schema Job says itself
        (
            r"^schema: no Temporal ever ran on database .* cut off",
            "a first migration was cut off",
            "that SQL, as who may; then inv redeploy",
        ),
        (
            r"^schema: database .* was restored under another name",
            "the schema's version is under another name",
            "that SQL, as who may; then inv redeploy",
        ),
        (
            r"^schema: database .* belongs to |^schema: a Temporal that is not known",
            "the database is another release's",
            "another database: --set backend.temporalConfig.postgres.database=…",
        ),
        (
            r"^schema: database .* was begun with numHistoryShards",
            "the number of shards is fixed for the life of the database",
            "that number: --set backend.temporal.server.config.numHistoryShards=…",
        ),
        (
            r"^schema: database .* a downgrade is refused",
            "the schema is newer than the server",
            "the newer server's image, or another database: --set backend.temporalConfig.postgres.database=…",
        ),
        (
            r"cannot be greater than Actual version",
            "the schema is older than the server",
            "inv logs schema",
        ),
        (
            r"password authentication failed",
            "PostgreSQL refuses the password",
            "inv db.repair-password",
        ),
        (
            r"no pg_hba.conf entry.*no encryption|SSL connection is required",
            "PostgreSQL wants TLS, which is off",
            "--set backend.temporalConfig.postgres.tls.mode=require",
        ),
        (
            r"SSL is not enabled on the server",
            "TLS is on, but PostgreSQL has none",
            "--set backend.temporalConfig.postgres.tls.mode=off",
        ),
        (
            r"certificate signed by unknown authority",
            "the CA of PostgreSQL's certificate is not known",
            "put the CA into the Secret as ca.crt",
        ),
        (
            r"permission denied to create database",
            "the role may not create databases",
            "create them beforehand, owned by the role",
        ),
        (
            r"permission denied for schema public",
            "the role does not own the database",
            "ALTER DATABASE … OWNER TO the role",
        ),
        (
            r"permission denied to create extension",
            "the role may not create the extension",
            "create btree_gin as the database's owner",
        ),
        (
            r"database \"[^\"]*\" does not exist",
            "the database is not there",
            "inv logs schema",
        ),
        (
            r"[Tt]emporary failure in name resolution|EAI_AGAIN|server misbehaving"
            r"|lookup \S+( on \S+)?: .*(i/o timeout|connection refused)",
            "the cluster's DNS does not answer",
            "inv kubectl -- get pods -n kube-system -l k8s-app=kube-dns",
        ),
        (
            r"could not translate host name|no such host|Name or service not known|ENOTFOUND",
            "a host's name is not known",
            "inv kubectl -- get services   (is it among them?)",
        ),
        (
            r"tried default DB names|no usable database connection found",
            "PostgreSQL cannot be reached: host, password or TLS",
            "inv logs schema",
        ),
        (
            r"remaining connection slots|too many clients",
            "PostgreSQL has no connection left",
            "lower maxConns, or raise PostgreSQL's max_connections",
        ),
        (
            r"No space left on device",
            "the volume is full",
            "inv kubectl -- get pvc",
        ),
        (
            r"temporal-server: configuration:|config validation error:|[Uu]nable to load configuration"
            r"|config file corrupted|unable to create dynamic config client",
            "Temporal's configuration is wrong",
            "inv values --explain backend.temporal.server",
        ),
        (
            r"unable to bootstrap ringpop|join duration .* exceeded",
            "Temporal's members do not find each other",
            "inv temporal.health",
        ),
        (
            r"Namespace \S+ is not found",
            "the Temporal namespace is not there",
            "inv logs admintools",
        ),
        (
            r"exec format error",
            "the image is for another processor",
            "rebuild the image for this machine",
        ),
        (
            r"ModuleNotFoundError|ImportError",
            "a Python module is missing in the image",
            "rebuild the image",
        ),
    )
)

ADDS = "--from-literal=KEY=…"
# What Kubernetes says, and what to do about it; \1 is what the pattern found.
MENDS = tuple(
    (re.compile(pattern), hint)
    for pattern, hint in (
        (
            r'secret "([^"]+)" not found',
            rf"mend the name, or: inv kubectl -- create secret generic \1 {ADDS}",
        ),
        (
            r'configmap "([^"]+)" not found',
            rf"mend the name, or: inv kubectl -- create configmap \1 {ADDS}",
        ),
        (r"couldn't find key (\S+) in (?:Secret|ConfigMap)", r"mend the key's name, or add \1"),
        (r"storageclass\S* \"[^\"]*\" not found", "inv kubectl -- get storageclass   (those that there are)"),
        (
            r'persistentvolumeclaim "([^"]+)" not found',
            "mend the claim's name, or make it: inv kubectl -- get pvc   (those there are)",
        ),
        (r'serviceaccount "([^"]+)" not found', r"mend the name, or: inv kubectl -- create serviceaccount \1"),
        (
            r"(?:Liveness|Startup) probe failed",
            "mend the probe, or give it more time: initialDelaySeconds, failureThreshold",
        ),
        (r"exceeded quota: ([^, ]+)", r"inv kubectl -- describe resourcequota \1"),
        (r"(?:maximum|minimum) .* per (?:Container|Pod)", "inv kubectl -- describe limitrange"),
        (
            r"violates PodSecurity",
            "mend the pod's securityContext, or the namespace's label pod-security.kubernetes.io/enforce",
        ),
        (
            r"failed calling webhook \"([^\"]+)\"",
            r"bring back what serves the webhook \1, or delete its configuration",
        ),
        (r"executable file not found|no such file or directory", "mend the command, or the image"),
        (r"OOMKilled", "raise its memory limit"),
        (r"exceeds the limit", "raise the volume's sizeLimit, or write less"),
        (r"nodes are available", "inv kubectl -- describe nodes   (or smaller requests)"),
        (r"longer than specified deadline", "raise its activeDeadlineSeconds"),
    )
)

LONGEST = 300  # characters of a line that are shown

_ERROR = re.compile(r"error|fatal|panic|exception|failed|denied|refused|cannot|unable|no such", re.IGNORECASE)
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\dT[0-9:.]+Z\s+")


class Explained(NamedTuple):
    """The line that explains (empty where there was no log), its cause and what to do, both empty where unknown."""

    line: str
    cause: str = ""
    hint: str = ""


def explain(lines: Sequence[str]) -> Explained:
    """The best explanation in a log: a known line, else the last that looks like an error, else the last."""
    texts = _joined([_message(_TIMESTAMP.sub("", line.strip())) for line in lines if line.strip()])
    for text in reversed(texts):
        for known in KNOWN:
            if found := known.pattern.search(text):
                return Explained(_around(text, found.start()), known.cause, known.hint)
    errors = [text for text in texts if _ERROR.search(text)]
    return Explained(_ends((errors or texts or [""])[-1]))


def mend(why: str) -> str:
    """What to do about what Kubernetes says; empty where that is not known."""
    for pattern, hint in MENDS:
        if found := pattern.search(why):
            return found.expand(hint)
    return ""


def _joined(texts: Sequence[str]) -> list[str]:
    """A line that ends with a colon is finished by the next."""
    joined: list[str] = []
    for text in texts:
        if joined and joined[-1].endswith(":"):
            joined[-1] += f" {text}"
        else:
            joined.append(text)
    return joined


def _around(text: str, place: int) -> str:
    """The part of a long line that holds what is known: Go's errors have their root cause at the end."""
    start = 0 if len(text) <= LONGEST else max(0, min(place - 40, len(text) - LONGEST))
    return ("…" if start else "") + text[start : start + LONGEST]


def _ends(text: str) -> str:
    """Beginning and end of a line that is too long."""
    return text if len(text) <= LONGEST else f"{text[:100]} … {text[100 - LONGEST :]}"


def _message(line: str) -> str:
    """Temporal logs JSON: its message and error say it."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line
    parts = [str(record[name]) for name in ("msg", "error") if record.get(name)]
    return ": ".join(parts) or line
