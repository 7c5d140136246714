"""PostgreSQL servers that are not the release's: real ones, in a namespace of their own and outside the cluster."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import socket
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devenv import paths
from devenv.clients import shell
from devenv.cluster import fetch, store
from devenv.errors import Refused
from tests.cluster.conftest import Environment

IMAGE = "devenv.local/postgres:18.6"
NOBODY = ("setpriv", "--reuid=nobody", "--clear-groups", "env", "HOME=/tmp")
SUPERUSER = "rdsadmin"
# Every printable character of ASCII that Temporal's connection string can carry: all but the space.
CARRIED = "".join(letter for letter in string.printable if letter.isprintable() and letter != " ")
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


def outward(env: Environment, name: str, address: str, port: int) -> None:
    """A Service for a server outside the cluster, so that it has a name."""
    ends: dict[str, Any] = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}}
    ends["subsets"] = [{"addresses": [{"ip": address}], "ports": [{"port": port}]}]
    apply(env, service(name, port, {}), ends)


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
    return asking(env, name)


def asking(env: Environment, name: str, database: str = "postgres") -> Server:
    psql = ("psql", "-h", "/tmp", "-U", "postgres", "-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1")
    return Server(lambda text: env.inv("kubectl", "--", "exec", "-i", name, "--", *psql, stdin=text))


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


@dataclass(frozen=True)
class Programs:
    """A PostgreSQL with TLS, which ours has not, and openssl: the distribution's, unpacked and not installed. `folder`
    holds the server's programs, `root` all that was unpacked."""

    root: Path
    folder: Path
    psql: Path
    openssl: Path

    def below(self, root: Path) -> Programs:
        """The same, copied to where everybody may read them: the server does not run as root."""
        shutil.copytree(self.root, root, symlinks=True, dirs_exist_ok=True)
        place = {name: root / path.relative_to(self.root) for name, path in vars(self).items()}
        return Programs(**place)

    @property
    def env(self) -> dict[str, str]:
        folders = fetch.library_folders(self.root / "postgresql")
        return {"LD_LIBRARY_PATH": ":".join(map(str, folders))}


def programs() -> Programs:
    """Fetched once. Skips where there is no apt-get, never in CI."""
    try:
        root = store.make(
            paths.cache() / "tests/postgresql", _fetch, what="a PostgreSQL with TLS", waits=lambda _: None
        )
    except Refused as refused:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{refused.what}: {refused.next}")
    server = next((root / "postgresql").rglob("bin/initdb"))
    return Programs(root, server.parent, root / "psql/bin/psql", root / "openssl/bin/openssl")


def _fetch(into: Path) -> None:
    version = _version()
    for name, package, program in (
        ("postgresql", f"postgresql-{version}", "postgres"),
        ("psql", f"postgresql-client-{version}", "psql"),
        ("openssl", "openssl", "openssl"),
    ):
        fetch.package(package, program, into / name, lambda _: None)


def _version() -> str:
    """The distribution's PostgreSQL."""
    if shell.which("apt-cache") is None:
        raise Refused("no PostgreSQL with TLS can be fetched", where="PATH", next="a machine that has apt-get")
    for update in (False, True):
        if update:
            shell.run(["apt-get", "update"])
        output = shell.run(["apt-cache", "depends", "postgresql"])
        found = re.search(r"Depends: postgresql-(\d+)$", output.stdout, re.M)
        if found:
            return found.group(1)
    raise Refused("this distribution has no PostgreSQL", where="apt-cache", why=output.last_line, next="apt-get update")


@dataclass(frozen=True)
class Certificates:
    """A CA and what it signed: servers' certificates by the name of their file."""

    folder: Path
    programs: Programs

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
        conf = self.programs.root / "openssl" / "root" / "etc/ssl/openssl.cnf"
        output = shell.run([self.programs.openssl, *words], cwd=self.folder, env={"OPENSSL_CONF": str(conf)})
        assert output.code == 0, output.stderr


def _key(at: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}.key", "-out")


@contextmanager
def managed(data: Path, address: str, port: int, certificates: Certificates, *settings: str) -> Iterator[Server]:
    """A server outside the cluster as managed ones are: it admits nobody without TLS, and `postgres` is no superuser.

    Its certificate is server.crt in its folder, which is not below pytest's own: that one is closed to others whenever a
    pytest starts.
    """
    data.chmod(0o700)
    use(certificates, data, "good")
    programs = certificates.programs.below(data / "programs")

    def run(*words: str | Path, stdin: str = "") -> shell.Output:
        return shell.run([*NOBODY, *words], stdin=stdin, timeout=60, env=programs.env)

    os.chown(data, 65534, 65534)
    with_locale = ("--auth=trust", "--encoding=UTF8", "--locale=C")
    made = run(programs.folder / "initdb", "-D", data / "db", "-U", SUPERUSER, *with_locale)
    assert made.code == 0, made.stderr
    (data / "db/pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
    options = [f"listen_addresses={address}", f"port={port}", f"unix_socket_directories={data}", "ssl=on"]
    options += [f"ssl_cert_file={data}/server.crt", f"ssl_key_file={data}/server.key", *settings]
    control = (programs.folder / "pg_ctl", "-D", data / "db", "-w", "-l", data / "log")
    began = run(*control, "-o", " ".join(f"-c {option}" for option in options), "start")
    assert began.code == 0, (data / "log").read_text() if (data / "log").exists() else began.stderr
    psql = (programs.psql, "-h", data, "-p", str(port), "-U", SUPERUSER, "-d", "postgres", "-XAtq")
    server = Server(lambda text: run(*psql, "-v", "ON_ERROR_STOP=1", stdin=text))
    try:
        server.sql("CREATE ROLE rds_superuser; CREATE ROLE postgres LOGIN CREATEDB CREATEROLE IN ROLE rds_superuser;")
        yield server
    finally:
        run(*control, "-m", "immediate", "stop")


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def use(certificates: Certificates, data: Path, name: str) -> None:
    """Puts a certificate where the server looks for its own."""
    for end in ("crt", "key"):
        target = data / f"server.{end}"
        target.unlink(missing_ok=True)
        target.write_bytes((certificates.folder / f"{name}.{end}").read_bytes())
        target.chmod(0o600)
        os.chown(target, 65534, 65534)
