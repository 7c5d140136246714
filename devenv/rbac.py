"""The least that a redeploy may do: a Role for one namespace, to give to CI's service account. Pure.

Helm keeps its releases in Secrets, so it must list and write them; the bound namespace should hold no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from devenv.clients.kube import Kind

READ = ["get", "list", "watch"]
WRITE = [*READ, "create", "update", "patch", "delete"]

Rule = tuple[str, list[str], list[str], str]  # API group, resources, verbs, why
RULES: tuple[Rule, ...] = (
    ("", ["secrets", "configmaps", "services", "serviceaccounts"], WRITE, "the release, its objects, the password"),
    ("", ["persistentvolumeclaims"], [*READ, "delete"], "the volume; delete is for destroy --delete-data"),
    ("", ["pods", "events"], READ, "the rollout, and why it fails"),
    ("", ["pods"], ["create", "delete"], "the preflight of an external database, in a pod that lives for seconds"),
    ("", ["pods/log"], ["get"], "logs"),
    ("", ["services/proxy"], ["get", "create"], "the proof: a request through the backend"),
    ("", ["pods/exec", "pods/portforward"], ["create"], "temporal.health, temporal.cli, temporal.ui, db.shell"),
    ("apps", ["deployments", "statefulsets", "daemonsets"], WRITE, "the workloads"),
    ("apps", ["replicasets"], READ, "which pods are new"),
    ("batch", ["jobs"], WRITE, "the schema Job"),
    ("discovery.k8s.io", ["endpointslices"], READ, "Services that lead nowhere"),
    ("coordination.k8s.io", ["leases"], ["get", "create", "update"], "one writer at a time"),
)


def of_chart(objects: Sequence[Mapping[str, Any]], kind_of: Callable[[str, str], Kind]) -> tuple[list[Rule], list[str]]:
    """What a user's own chart needs beside the fixed rules, and what no Role of this namespace can allow."""
    more: dict[tuple[str, str], Rule] = {}
    beyond: list[str] = []
    for object in objects:
        version, title = str(object["apiVersion"]), f"{object['kind']}/{object['metadata'].get('name', '')}"
        kind = kind_of(version, object["kind"])
        if not kind.namespaced or object["metadata"].get("namespace"):
            beyond.append(title)
            continue
        group = version.rpartition("/")[0]
        if not any(group == rule[0] and kind.plural in rule[1] and rule[2] == WRITE for rule in RULES):
            more[(group, kind.plural)] = (group, [kind.plural], WRITE, f"the chart's {title}")
    return list(more.values()), beyond


def role(name: str, namespace: str, more: Sequence[Rule] = ()) -> dict[str, Any]:
    """The Role."""
    rules = [
        {"apiGroups": [group], "resources": resources, "verbs": verbs} for group, resources, verbs, _ in (*RULES, *more)
    ]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": rules,
    }


def account(name: str, namespace: str) -> list[dict[str, Any]]:
    """A service account bound to the Role, and the right to see whether the namespace itself is there."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    api = "rbac.authorization.k8s.io"
    see = {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [namespace], "verbs": ["get"]}
    meta = {"name": name, "namespace": namespace}
    wide = {"name": f"{name}-{namespace}"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": meta, "subjects": [subject],
         "roleRef": {"apiGroup": api, "kind": "Role", "name": name}},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": wide, "rules": [see]},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRoleBinding", "metadata": wide, "subjects": [subject],
         "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": wide["name"]}},
    ]  # fmt: skip


def yaml_text(name: str, namespace: str, more: Sequence[Rule] = (), beyond: Sequence[str] = ()) -> str:
    """All of it, to pipe into `kubectl apply -f -`."""
    import yaml

    documents = [role(name, namespace, more), *account(name, namespace)]
    rules = (*RULES, *more)
    comments = "".join(f"# {group or 'core'}: {', '.join(resources)}: {why}\n" for group, resources, _, why in rules)
    comments += "".join(f"# not in it, being outside of namespace {namespace}: {title}\n" for title in beyond)
    return comments + yaml.safe_dump_all(documents, sort_keys=False)
