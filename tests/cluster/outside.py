"""PostgreSQL servers that are not the release's: real ones, in a namespace of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.cluster.conftest import Environment

IMAGE = "devenv.local/postgres:18.6"
START = """set -eu
umask 077
initdb --pgdata=/data/db --username=postgres --encoding=UTF8 --locale=C --auth=trust >/dev/null
printf '%s\\n' 'local all all trust' "$ADMITS" >/data/db/pg_hba.conf
exec postgres -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
"""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL under the name of its Service."""

    env: Environment
    name: str

    def sql(self, text: str) -> str:
        """Runs SQL as the superuser, through the server's own socket."""
        argv = ["exec", "-i", self.name, "--", "psql", "-h", "/tmp", "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1"]
        output = self.env.inv("kubectl", "--", *argv, stdin=text)
        assert output.code == 0
        return output.stdout.strip()


def start(env: Environment, name: str, *arguments: str, admits: str = "host all all all scram-sha-256") -> Server:
    """Starts a server; `admits`: the line for the network in its pg_hba.conf."""
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "postgresql",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", START, "postgres", *arguments],
        "env": [{"name": "ADMITS", "value": admits}],
        "securityContext": confined,
        "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "/tmp"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 999,
                "fsGroup": 999,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 5432}]},
    }
    apply(env, pod, service)
    env.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    return Server(env, name)


def apply(env: Environment, *objects: dict[str, Any]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    assert env.inv("kubectl", "--", "apply", "-f", "-", stdin=json.dumps(items)).code == 0


def secret(env: Environment, name: str, **keys: str) -> None:
    """Puts a Secret, its values through standard input."""
    apply(env, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys})
