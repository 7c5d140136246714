"""PostgreSQL servers that are not the release's: real ones, in a namespace of their own and outside the cluster."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devenv.clients import shell
from tests.cluster.conftest import Environment

IMAGE = "devenv.local/postgres:18.6"
NOBODY = ("setpriv", "--reuid=nobody", "--clear-groups", "env", "HOME=/tmp")
PORT = 25999
START = """set -eu
umask 077
initdb --pgdata=/data/db --username=postgres --encoding=UTF8 --locale=C --auth=trust >/dev/null
printf '%s\\n' 'local all all trust' 'host all all all scram-sha-256' >/data/db/pg_hba.conf
exec postgres -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
"""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL; `run` is psql as its superuser, through its own socket."""

    run: Callable[[str], shell.Output]

    def sql(self, text: str) -> str:
        output = self.run(text)
        assert output.code == 0, output.stderr
        return output.stdout.strip()


def start(env: Environment, name: str, *arguments: str) -> Server:
    """Starts a server as a pod with a Service."""
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "postgresql",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", START, "postgres", *arguments],
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
    apply(env, pod, service(name, 5432, {"app": name}))
    env.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    psql = ("exec", "-i", name, "--", "psql", "-h", "/tmp", "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1")
    return Server(lambda text: env.inv("kubectl", "--", *psql, stdin=text))


def service(name: str, target: int, selector: dict[str, str]) -> dict[str, Any]:
    spec: dict[str, Any] = {"ports": [{"port": 5432, "targetPort": target}]}
    if selector:
        spec["selector"] = selector
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def apply(env: Environment, *objects: dict[str, Any]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    assert env.inv("kubectl", "--", "apply", "-f", "-", stdin=json.dumps(items)).code == 0


def secret(env: Environment, name: str, **keys: str) -> None:
    """Puts a Secret, its values through standard input."""
    apply(env, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys})


def host(api_server: str) -> str:
    """This machine as pods see it: the other end of the cluster's own wire."""
    inside = ipaddress.ip_interface(api_server.rpartition("/")[2].partition(":")[0] + "/30")
    return next(str(address) for address in inside.network.hosts() if address != inside.ip)


def programs() -> Path:
    """A PostgreSQL of the distribution, which has TLS. Skips where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    missing = [name for name in ("openssl", "setpriv") if shell.which(name) is None]
    if not found or missing:
        pytest.skip(f"no server with TLS on this machine: apt-get install postgresql {' '.join(missing)}")
    return found[-1].parent


@dataclass(frozen=True)
class Certificates:
    """A CA and what it signed: servers' certificates by the name of their file."""

    folder: Path

    def make(self, name: str, host: str, days: int = 5, ca: str = "ca") -> None:
        at = self.folder / name
        if not (self.folder / f"{ca}.crt").exists():
            self._openssl("req", "-x509", *_key(self.folder / ca), f"{ca}.crt", "-subj", f"/CN={ca}", "-days", "9")
        self._openssl("req", *_key(at), f"{name}.csr", "-subj", f"/CN={host}")
        (self.folder / "names").write_text(f"subjectAltName=DNS:{host}")
        signed = ("-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-extfile", "names")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", "-days", str(days), *signed)

    def text(self, name: str) -> str:
        return (self.folder / f"{name}.crt").read_text()

    def _openssl(self, *words: str | Path) -> None:
        output = shell.run(["openssl", *words], cwd=self.folder)
        assert output.code == 0, output.stderr


def _key(at: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}.key", "-out")


@contextmanager
def managed(data: Path, address: str, certificates: Certificates, *settings: str) -> Iterator[Server]:
    """A server outside the cluster that admits nobody without TLS. Its certificate is server.crt in its folder, which is
    not below pytest's own: that one is closed to others whenever a pytest starts."""
    binaries = programs()
    data.chmod(0o700)
    use(certificates, data, "good")

    def run(*words: str | Path, stdin: str = "") -> shell.Output:
        return shell.run([*NOBODY, *words], stdin=stdin, timeout=60)

    os.chown(data, 65534, 65534)
    made = run(
        binaries / "initdb", "-D", data / "db", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"
    )
    assert made.code == 0, made.stderr
    (data / "db/pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
    options = [
        "-p",
        str(PORT),
        "-c",
        f"listen_addresses={address}",
        "-c",
        f"unix_socket_directories={data}",
        "-c",
        "ssl=on",
    ]
    options += ["-c", f"ssl_cert_file={data}/server.crt", "-c", f"ssl_key_file={data}/server.key"]
    options += [word for setting in settings for word in ("-c", setting)]
    control = (binaries / "pg_ctl", "-D", data / "db", "-w", "-l", data / "log")
    began = run(*control, "-o", " ".join(options), "start")
    assert began.code == 0, (data / "log").read_text() if (data / "log").exists() else began.stderr
    psql = (binaries / "psql", "-h", data, "-p", str(PORT), "-U", "postgres", "-d", "postgres", "-XAtq")
    try:
        yield Server(lambda text: run(*psql, "-v", "ON_ERROR_STOP=1", stdin=text))
    finally:
        run(*control, "-m", "immediate", "stop")


def use(certificates: Certificates, data: Path, name: str) -> None:
    """Puts a certificate where the server looks for its own."""
    for end in ("crt", "key"):
        target = data / f"server.{end}"
        target.unlink(missing_ok=True)
        target.write_bytes((certificates.folder / f"{name}.{end}").read_bytes())
        target.chmod(0o600)
        os.chown(target, 65534, 65534)
