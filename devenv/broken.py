"""Environments that cannot come up, and the Kubernetes objects that they are made of. Pure.

`catalogue.py` is the table of them; ring 3 and `inv bench --failures` run it (`failures.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from devenv.cluster import images

Object = dict[str, Any]

OURS = images.references()
BACKEND, POSTGRES, TEMPORAL = OURS["backend"], OURS["postgres"], OURS["temporal-server"]
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"
WAITS = 20.0  # seconds of --timeout for what is waited for to the end


@dataclass(frozen=True)
class Broken:
    """An environment that cannot come up.

    `what`: how devenv must call it; `cause`: patterns of what whoever names the cause must say.
    `shown`: a pattern over what the API server says that marks the moment from which the time counts; `grace`: the
    seconds that the fault's class is given; `before`: objects that are there first; `first`: what is deployed, and
    works, before the fault; `code`: devenv's exit code; `never`: what must not be said; `namespace`: its labels;
    `flags`: more of devenv's.
    """

    objects: tuple[Object, ...]
    what: str
    cause: tuple[str, ...]
    shown: str = ""
    grace: float = 0.0
    code: int = 5
    before: tuple[Object, ...] = ()
    first: tuple[Object, ...] = ()
    timeout: float = 150.0
    never: tuple[str, ...] = ()
    namespace: Object = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Its class, in words."""
        if self.code == 3:
            return "refused"
        if self.timeout == WAITS:
            return "waited for"
        return f"after {self.grace:.0f} s" if self.grace else "at once"


def bound(broken: Broken, namespace: str) -> Broken:
    """The same for one namespace: its name stands where NAMESPACE stood."""

    def put(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("NAMESPACE", namespace)
        if isinstance(value, dict):
            return {key: put(child) for key, child in value.items()}
        return type(value)(put(child) for child in value) if isinstance(value, list | tuple) else value

    return Broken(**{one.name: put(getattr(broken, one.name)) for one in fields(broken)})


def python(script: str) -> list[str]:
    return ["python3", "-c", script]


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def made(kind: str, name: str, api: str = "v1", **rest: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **rest.pop("metadata", {})}, **rest}


def app(name: str = "app", *, pod: Object | None = None, init: Object | None = None, **container: Any) -> Object:
    """A Deployment with one container that serves, with changes to the container and to the pod."""
    main = {"name": "main", "image": BACKEND, "command": python(SERVE), "workingDir": "/tmp", **container}
    spec: Object = {"terminationGracePeriodSeconds": 0, "containers": [main], **(pod or {})}
    if init is not None:
        spec["initContainers"] = [{"name": "wait", "image": BACKEND, **init}]
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return made(
        "Deployment", name, "apps/v1",
        metadata={"labels": labels}, spec={"selector": {"matchLabels": labels}, "template": template},
    )  # fmt: skip


def job(
    script: str, *, hook: str = "", kept: str = "before-hook-creation", restart: str = "Never", **spec: Any
) -> Object:
    """A Job, or a hook with its delete policy `kept`."""
    container = {"name": "once", "image": BACKEND, "command": python(script)}
    pod = {"restartPolicy": restart, "terminationGracePeriodSeconds": 0, "containers": [container]}
    marks = {"helm.sh/hook": hook, "helm.sh/hook-delete-policy": kept} if hook else {}
    template = {"template": {"spec": pod}}
    return made(
        "Job", "once", "batch/v1", metadata={"annotations": marks}, spec={"backoffLimit": 0, **spec, **template}
    )


def service(name: str, selects: str, port: int) -> Object:
    return made("Service", name, spec={"selector": {"app": selects}, "ports": [{"port": port}]})


def from_secret(name: str, key: str) -> list[Object]:
    return [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}]


def requests(**resources: str) -> Object:
    return {"requests": resources}


def claim(storage_class: str) -> Object:
    spec = {"storageClassName": storage_class, "accessModes": ["ReadWriteOnce"], "resources": requests(storage="1Mi")}
    return made("PersistentVolumeClaim", "data", spec=spec)


def mounted(mount: str, source: Object, command: Sequence[str], **container: Any) -> Object:
    """An app with one volume."""
    pod = {"volumes": [{"name": "v", **source}]}
    return app(pod=pod, volumeMounts=[{"name": "v", "mountPath": mount}], command=list(command), **container)


def node(name: str, *taints: Object, ready: str) -> Object:
    """A Node that no kubelet stands behind. It is cordoned, so that nothing but its own row's pods can land on it."""
    message = "container runtime is down"
    condition = {"type": "Ready", "status": ready, "reason": "KubeletNotReady", "message": message}
    return made(
        "Node", name,
        metadata={"labels": {"devenv.test/node": name}}, spec={"unschedulable": True, "taints": list(taints)},
        status={"conditions": [condition]},
    )  # fmt: skip


def database(sql: str) -> tuple[Object, Object]:
    """A PostgreSQL at `db`, whose user postgres has the password `right`, and which has run `sql`."""
    script = f"""set -eu
echo right >/tmp/password
initdb -D /tmp/data -U postgres --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 >/tmp/log
printf '%s\\n' 'local all all trust' 'host all all all scram-sha-256' >/tmp/data/pg_hba.conf
postgres -D /tmp/data -c unix_socket_directories=/tmp -c listen_addresses= &
until pg_isready -q -h /tmp; do sleep 0.1; done
psql -q -h /tmp -U postgres -v ON_ERROR_STOP=1 -f - <<'SQL'
{sql}
SQL
kill -INT $!; wait $! || true
exec postgres -D /tmp/data -c unix_socket_directories=/tmp -c 'listen_addresses=*'"""
    probe = {"exec": {"command": ["psql", "-h", "/tmp", "-U", "postgres", "-c", "SELECT 1"]}, "periodSeconds": 1}
    return app("db", image=POSTGRES, command=shell(script), readinessProbe=probe), service("db", "db", 5432)


def client(password: str) -> Object:
    """An app that asks the database at `db` one thing, with a password; it is ready when it was answered."""
    asks = "psql -h db -U postgres -c 'SELECT 1' && : >/tmp/answered && sleep 600"
    env = [{"name": "PGPASSWORD", "value": password}, {"name": "PGCONNECT_TIMEOUT", "value": "5"}]
    probe = {"exec": {"command": shell("[ -e /tmp/answered ]")}, "periodSeconds": 1}
    script = f"until pg_isready -q -h db; do sleep 0.2; done; {asks}"
    return app(image=POSTGRES, command=shell(script), env=env, readinessProbe=probe)


def temporal(config: str) -> tuple[Object, Object]:
    """Temporal's frontend with a configuration of its own."""
    env = [
        {"name": "TEMPORAL_SERVER_CONFIG_FILE_PATH", "value": "/config/config.yaml"},
        {"name": "SERVICES", "value": "frontend"},
        {"name": "TEMPORAL_ALLOW_NO_AUTH", "value": "true"},
    ]
    server = mounted(
        "/config", {"configMap": {"name": "config"}}, ["/usr/local/bin/temporal-server", "start"],
        image=TEMPORAL, env=env,
    )  # fmt: skip
    return server, made("ConfigMap", "config", data={"config.yaml": config})
