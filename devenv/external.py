"""Looks at the Secret of an external PostgreSQL before the release is touched. Edge in."""

from __future__ import annotations

import base64

from devenv.clients.kube import KINDS, Kube
from devenv.errors import Refused
from devenv.model import Desired

NEEDED = ("host", "password")


def check(kube: Kube, desired: Desired) -> str:
    """The password, so that it can be kept out of all that is told. Raises Refused where the Secret cannot serve."""
    namespace, _, name = str(desired.choice("external-postgres").value).rpartition("/")
    where = f"Secret {name} in namespace {desired.namespace}"
    if namespace not in ("", desired.namespace):
        raise Refused(
            "the Secret must be in the release's own namespace",
            where=f"Secret {name} in namespace {namespace}",
            why=f"pods of namespace {desired.namespace} cannot read it there",
            next=f"make a Secret {name} with the same keys in {desired.namespace}, and TEMPORAL_EXTERNAL_SECRET={name}",
        )
    secret = kube.find(KINDS[("v1", "Secret")].path(desired.namespace, name))
    if secret is None:
        raise Refused(
            "the Secret of the external PostgreSQL is not there",
            where=where,
            next=f"inv kubectl -- create secret generic {name} --from-literal=host=… --from-file=password=…",
        )
    data = secret.get("data") or {}
    missing = [key for key in NEEDED if not data.get(key)]
    if missing:
        raise Refused(
            f"the Secret has no {' and no '.join(missing)}",
            where=where,
            why="it needs host and password; port and username may be missing (5432, postgres)",
            next=f"inv kubectl -- edit secret {name}",
        )
    return base64.b64decode(data["password"]).decode("utf-8", "replace")
