"""An external PostgreSQL, as people have them: in another namespace, outside the cluster, with TLS forced, with a role that
may do little. Real servers, the real cluster, a workflow that runs. In order."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devenv import external
from devenv.clients import shell
from devenv.paths import START
from tests.cluster import outside
from tests.cluster.conftest import CONTEXT, Environment
from tests.cluster.outside import CARRIED, Certificates, Server
from tests.conftest import measured

pytestmark = pytest.mark.cluster

COPY = "backend-external-postgresql"
NAME = f"pg-{os.getpid()}"
MODE = "backend.temporalConfig.postgres.tls.mode"
OFF = ("--set", f"{MODE}=off")


@pytest.fixture(scope="module")
def beside(make_environment: Callable[[str], Environment]) -> Environment:
    """The namespace of the servers and of the Secrets that name them."""
    made = make_environment("outside")
    assert made.inv("kubectl", "--", "create", "namespace", made.namespace).code == 0
    return made


@pytest.fixture(scope="module")
def server(beside: Environment) -> Server:
    """A plain server, and a Secret for it as people make them: by `echo`, so with a newline."""
    made = outside.start(beside, "plain", "-c", "max_connections=150")
    role(made, "app", CARRIED, "CREATEDB")
    outside.secret(beside, NAME, host="plain", username="app", password=f"{CARRIED}\n")
    return made


def role(server: Server, name: str, password: str, rights: str) -> None:
    quoted = password.replace("'", "''")
    server.sql(f"CREATE ROLE {name} LOGIN {rights} PASSWORD '{quoted}';")


@pytest.fixture(scope="module")
def env(make_environment: Callable[[str], Environment], server: Server) -> Environment:
    return make_environment("external")


def answer(env: Environment, named: str, *words: str, code: int = 0) -> dict[str, Any]:
    output = env.inv(*words, "--output", "json", TEMPORAL_EXTERNAL_SECRET=named)
    assert output.code == code
    record: dict[str, Any] = json.loads(output.stdout)
    assert CARRIED not in output.stdout + output.stderr
    return record


def refused(env: Environment, named: str, *words: str) -> dict[str, Any]:
    """The failure of a redeploy that touches nothing: no release before it, none after, no pod left."""
    failure: dict[str, Any] = answer(env, named, "redeploy", *words, code=3)["failure"]
    assert no_pod_of_ours(env)
    return failure


def alone() -> bool:
    """Whether a time says something about devenv, and not about what else this machine does."""
    return os.getloadavg()[0] < 2 * (os.cpu_count() or 1)


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def quickest(env: Environment, named: str, *words: str) -> float:
    """Seconds of a redeploy with nothing to do, the best of four."""
    records = [answer(env, named, "redeploy", *words) for _ in range(4)]
    assert all(record["nothingToDo"] for record in records)
    return min(float(record["seconds"]) for record in records)


def no_pod_of_ours(env: Environment) -> bool:
    deadline = time.monotonic() + 60  # it is deleted without waiting, and on a busy machine a pod ends late
    left = "?"
    while left and time.monotonic() < deadline:
        left = env.kubectl("get", "pods", "-l", "devenv/preflight=true", "-o", "name").strip()
    return not left


def read(env: Environment, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(env.kubectl("get", "secret", name, "-o", "json"))
    return found


def texts(secret: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(text).decode() for key, text in secret["data"].items()}


def test_a_name_that_is_elsewhere_is_refused_with_what_to_type(env: Environment, beside: Environment) -> None:
    failure = answer(env, NAME, "redeploy", code=3)["failure"]
    assert failure["hint"] == f"TEMPORAL_EXTERNAL_SECRET={beside.namespace}/{NAME}"


def test_a_server_without_tls_is_not_used_without_it_unasked(env: Environment, beside: Environment) -> None:
    failure = refused(env, f"{beside.namespace}/{NAME}")
    assert failure["reason"] == "the server refuses TLS"
    assert "tls.mode=off" in failure["hint"]


def test_a_workflow_runs_on_a_database_of_another_namespace(
    env: Environment, beside: Environment, server: Server
) -> None:
    source = f"{beside.namespace}/{NAME}"
    assert answer(env, source, "redeploy", *OFF)["workflow"]
    assert answer(env, source, "plan", *OFF)["nothingToDo"]
    copy = read(env, COPY)
    assert texts(copy) == {"host": f"plain.{beside.namespace}.svc", "username": "app", "password": CARRIED}
    assert copy["metadata"]["annotations"][external.SOURCE_MARK] == source
    assert server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'temporal%' ORDER BY 1;").split() == [
        "temporal",
        "temporal_visibility",
    ]


def test_an_unchanged_one_is_not_asked_again(env: Environment, beside: Environment) -> None:
    named = f"{beside.namespace}/{NAME}"
    other = (*OFF, "--set", "backend.additionalEnv[0].name=HELLO,backend.additionalEnv[0].value=world")
    output = env.inv("redeploy", *other, TEMPORAL_EXTERNAL_SECRET=named)
    assert output.code == 0
    assert "preflight" not in output.stderr
    assert answer(env, named, "redeploy", *OFF)["workflow"]


def doctored(env: Environment, named: str, code: int) -> tuple[float, dict[str, list[str]]]:
    """The seconds that doctor took, and what it says of the database, by outcome."""
    record = answer(env, named, "doctor", *OFF, code=code)
    said: dict[str, list[str]] = {}
    for one in record["checks"]:
        if one["check"] == "database" or one["outcome"] == "fail":
            said.setdefault(one["outcome"], []).append(f"{one['says']} → {one['next']}")
    assert no_pod_of_ours(env)
    return float(record["seconds"]), said


def test_doctor_asks_it_for_login_schemas_and_rights(env: Environment, beside: Environment) -> None:
    seconds, said = doctored(env, f"{beside.namespace}/{NAME}", 0)
    assert said.keys() == {"pass"}
    opens, store, visibility = said["pass"]
    assert f"plain.{beside.namespace}.svc opens for app: PostgreSQL" in opens
    assert store.startswith("temporal 1.")
    assert visibility.startswith("temporal_visibility 1.")
    measured.append(f"doctor, an external database: {seconds:.1f} s, {load()}")
    assert seconds < 5 or not alone()


def test_doctor_names_a_database_that_does_not_open(env: Environment, beside: Environment, server: Server) -> None:
    named = f"{beside.namespace}/{NAME}"
    server.sql("ALTER ROLE app NOLOGIN;")
    try:
        _, said = doctored(env, named, 5)
    finally:
        server.sql("ALTER ROLE app LOGIN;")
    assert any("not permitted to log in" in line for line in said["fail"]), said


def test_a_wrong_password_is_named_within_10_seconds_and_nothing_is_touched(
    env: Environment, beside: Environment
) -> None:
    before = (read(env, COPY)["data"], env.kubectl("get", "secrets", "-o", "name"))
    outside.secret(beside, NAME, password="another-password")
    started = time.monotonic()
    failure = answer(env, f"{beside.namespace}/{NAME}", "redeploy", *OFF, code=3)["failure"]
    took = time.monotonic() - started
    assert failure["reason"] == "the password does not open the database"
    assert "another-password" not in json.dumps(failure)
    assert no_pod_of_ours(env)
    assert (read(env, COPY)["data"], env.kubectl("get", "secrets", "-o", "name")) == before
    measured.append(f"a wrong password is named after {took:.1f} s, {load()}")
    assert took < 10 or not alone()


def test_a_password_that_changed_at_its_source_is_followed(
    env: Environment, beside: Environment, server: Server
) -> None:
    named = f"{beside.namespace}/{NAME}"
    server.sql("ALTER ROLE app PASSWORD 'another-password';")
    assert answer(env, named, "plan", *OFF)["reasons"][0] == f"Secret {named} changed at its source"
    assert answer(env, named, "redeploy", *OFF)["workflow"]
    assert texts(read(env, COPY))["password"] == "another-password"
    assert answer(env, named, "plan", *OFF)["nothingToDo"]


def test_a_copy_edited_by_hand_is_mended(env: Environment, beside: Environment) -> None:
    named = f"{beside.namespace}/{NAME}"
    outside.secret(env, COPY, username="another")
    assert "was edited" in answer(env, named, "plan", *OFF)["reasons"][0]
    assert answer(env, named, "redeploy", *OFF)["workflow"]
    assert texts(read(env, COPY))["username"] == "app"


@pytest.fixture(scope="module")
def second(make_environment: Callable[[str], Environment], server: Server) -> Environment:
    """Another environment, where nothing is ever deployed, and nothing may be that is not restricted."""
    made = make_environment("second")
    meta = {"name": made.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    outside.apply(made, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    return made


def test_the_database_of_one_release_is_refused_to_another(
    second: Environment, env: Environment, beside: Environment
) -> None:
    failure = refused(second, f"{beside.namespace}/{NAME}", *OFF)
    assert failure["reason"] == f"database temporal belongs to {env.namespace}/backend"
    assert second.kubectl("get", "secrets", "-o", "name").strip() == ""


OTHER_NAME = (*OFF, "--set", "backend.temporalConfig.postgres.database=another")
CAUSES: dict[str, tuple[dict[str, str], str, str]] = {
    "the host is unknown": ({"host": "nowhere.example.invalid"}, "", "the host of the database is unknown"),
    "nothing listens": ({"port": "5433"}, "", "nothing listens at the database's host and port"),
    "the role may not create databases": ({}, "NOCREATEDB", "the role may not create databases"),
    "the role has few connections": ({}, "CREATEDB CONNECTION LIMIT 9", "too few connections"),
    "the role may not log in": ({}, "NOLOGIN", "the role cannot log in"),
}


@pytest.mark.parametrize(("keys", "rights", "what"), CAUSES.values(), ids=CAUSES.keys())
def test_the_one_cause_is_named_where(
    second: Environment, beside: Environment, server: Server, keys: dict[str, str], rights: str, what: str
) -> None:
    user = "app"
    if rights:
        user = "r" + str(abs(hash(rights)) % 10**9)
        role(server, user, "pass-word", "")
        server.sql(f"ALTER ROLE {user} {rights};")
    outside.secret(
        beside, "other", **{"host": "plain", "port": "5432", "username": user, "password": "pass-word", **keys}
    )
    failure = refused(second, f"{beside.namespace}/other", *OTHER_NAME)
    assert failure["reason"].startswith(what)
    assert "pass-word" not in json.dumps(failure)


def test_databases_of_somebody_else_are_refused_with_what_mends_it(
    second: Environment, beside: Environment, server: Server
) -> None:
    server.sql("CREATE DATABASE foreigners; CREATE DATABASE foreigners_visibility;")
    role(server, "guest", "pass-word", "")
    outside.secret(beside, "other", host="plain", port="5432", username="guest", password="pass-word")
    words = (*OFF, "--set", "backend.temporalConfig.postgres.database=foreigners")
    for name in ("foreigners", "foreigners_visibility"):
        failure = refused(second, f"{beside.namespace}/other", *words)
        assert failure["reason"] == f"database {name} is somebody else's"
        statement, _, who = failure["hint"].partition(", as ")
        assert who == "postgres"
        server.sql(f"{statement};")
    server.sql("DROP DATABASE foreigners_visibility;")
    assert refused(second, f"{beside.namespace}/other", *words)["reason"] == "the role may not create databases"


@pytest.fixture(scope="module")
def bare(beside: Environment) -> Server:
    """As some managed ones are: no database `postgres`, and no extension until it is allowed."""
    made = outside.start(beside, "bare", "-c", "max_connections=150")
    role(made, "app", CARRIED, "CREATEDB")
    made.sql("ALTER SYSTEM SET extension_control_path = '/nowhere'; SELECT pg_reload_conf();")
    made.sql("\\connect template1\nALTER DATABASE postgres RENAME TO defaultdb;")
    outside.secret(beside, "bare", host="bare", username="app", password=CARRIED)
    return outside.asking(beside, "bare", "defaultdb")


def test_a_server_without_a_database_postgres_and_without_an_extension_is_named(
    make_environment: Callable[[str], Environment], second: Environment, beside: Environment, bare: Server
) -> None:
    named = f"{beside.namespace}/bare"
    failure = refused(second, named, *OFF)
    assert failure["reason"] == "there is no database of that name"
    assert failure["hint"].endswith("backend.temporalConfig.postgres.adminDatabase=defaultdb")
    words = (*OFF, *failure["hint"].partition(": ")[2].split())
    assert refused(second, named, *words)["reason"] == "the server has no extension btree_gin"
    bare.sql("ALTER SYSTEM RESET extension_control_path; SELECT pg_reload_conf();")
    env = make_environment("defaultdb")
    words += ("--set", "backend.temporalConfig.postgres.database=My-Temporal")
    assert answer(env, named, "redeploy", *words)["workflow"]
    assert "My-Temporal_visibility" in bare.sql("SELECT datname FROM pg_database;").split()
    assert env.inv("destroy").code == 0


@pytest.fixture(scope="module")
def silent(beside: Environment, running: Any) -> Iterator[str]:
    """A Secret for a host that takes connections and never says a word."""
    with socket.create_server((outside.host(running.server), 0)) as listener:
        host, port = listener.getsockname()
        outside.secret(beside, "silent", host=host, port=str(port), password="pass-word")
        yield f"{beside.namespace}/silent"


def test_a_host_that_does_not_answer_is_named(second: Environment, silent: str) -> None:
    assert refused(second, silent, *OFF)["reason"] == "the database's host does not answer"


def test_interrupted_while_it_asks_no_pod_is_left(second: Environment, silent: str) -> None:
    argv: list[str | Path] = [sys.executable, START, "redeploy", *OFF]
    argv += ["--context", CONTEXT, "--namespace", second.namespace]
    named = {"ENABLE_TEMPORAL": "1", "TEMPORAL_EXTERNAL_SECRET": silent}
    asking = False

    def told(line: str) -> None:
        nonlocal asking
        asking = asking or "asking PostgreSQL" in line

    running = shell.Running(argv, env=named, on_line=told)
    deadline = time.monotonic() + 60
    while not asking and running.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    running.stop()
    assert running.wait().code == 130
    assert asking
    assert no_pod_of_ours(second)


def test_a_secret_that_is_not_ours_is_never_written_over(second: Environment, beside: Environment) -> None:
    outside.secret(second, COPY, host="theirs", password="theirs")
    failure = refused(second, f"{beside.namespace}/{NAME}", *OFF)
    assert "not devenv's" in failure["reason"]
    assert texts(read(second, COPY)) == {"host": "theirs", "password": "theirs"}
    second.kubectl("delete", "secret", COPY)


def test_a_newline_in_the_releases_own_namespace_is_mended_by_the_command_that_is_given(second: Environment) -> None:
    outside.secret(second, "own", host="nowhere.example.invalid", password=f"{CARRIED}\n")
    failure = refused(second, "own", *OFF)
    assert "key password of the Secret ends with a newline" in failure["reason"]
    program = f"'{sys.executable}' '{START}'"
    inv = f'inv() {{ task=$1; shift; {program} "$task" --context {CONTEXT} --namespace {second.namespace} "$@"; }}'
    output = shell.run(["/bin/sh"], stdin=f"{inv}\n{failure['hint']}\n")
    assert output.code == 0, output.stderr
    assert texts(read(second, "own"))["password"] == CARRIED
    assert refused(second, "own", *OFF)["reason"] == "the host of the database is unknown"


def test_to_the_internal_database_and_back_wants_a_yes_and_loses_nothing(
    env: Environment, beside: Environment, server: Server
) -> None:
    named = f"{beside.namespace}/{NAME}"
    workflow = answer(env, named, "redeploy", "--smoke", *OFF)["workflow"]
    outer = quickest(env, named, *OFF)
    failure = answer(env, "", "redeploy", code=3)["failure"]
    assert failure["reason"] == "this change leaves data behind"
    assert COPY in failure["evidence"]
    assert any(COPY in text for text in answer(env, "", "plan")["leftBehind"])
    assert answer(env, "", "redeploy", "--yes")["workflow"]
    assert COPY not in env.kubectl("get", "secrets,configmaps", "-o", "name")
    inner = quickest(env, "")
    measured.append(f"nothing to do: external {outer:.1f} s, internal {inner:.1f} s, {load()}")
    assert outer - inner <= 0.3 or not alone()
    assert answer(env, named, "redeploy", *OFF, code=3)["failure"]["reason"] == "this change leaves data behind"
    assert answer(env, named, "redeploy", "--yes", *OFF)["workflow"]
    assert "data-backend-postgresql-0" in env.kubectl("get", "pvc", "-o", "name")
    listed = env.inv("temporal.cli", "--", "workflow", "list", "--output", "json").stdout
    assert workflow in listed


def test_destroy_removes_the_copy_and_leaves_the_source(env: Environment, beside: Environment) -> None:
    before = read(beside, NAME)
    output = env.inv("destroy")
    assert output.code == 0
    assert f'"temporal" and "temporal_visibility" stay in the external PostgreSQL of Secret {COPY}' in output.stderr
    assert COPY not in env.kubectl("get", "secrets,configmaps", "-o", "name")
    assert read(beside, NAME) == before


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory, beside: Environment) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"), outside.programs())
    host = f"managed.{beside.namespace}.svc"
    made.make("good", host)
    made.make("elsewhere", "elsewhere.example.com")
    made.make("expired", host, days=-1)
    made.make("foreign", host, ca="another")
    return made


@pytest.fixture(scope="module")
def managed(beside: Environment, certificates: Certificates, running: Any) -> Iterator[tuple[Server, Path]]:
    """As managed ones are: outside the cluster, TLS forced, a role that may nearly nothing, databases made for it."""
    address = outside.host(running.server)
    port = outside.free_port(address)
    outside.outward(beside, "managed", address, port)
    with (
        tempfile.TemporaryDirectory(prefix="devenv-test-") as folder,
        outside.managed(Path(folder), address, port, certificates, "max_connections=100") as server,
    ):
        role(server, "tenant", CARRIED, "NOCREATEDB")
        server.sql("CREATE DATABASE temporal OWNER tenant;")
        server.sql("CREATE DATABASE temporal_visibility OWNER tenant;")
        keys = {"host": "managed", "username": "tenant", "password": CARRIED, "ca.crt": certificates.text("ca")}
        outside.secret(beside, "managed", **keys)
        yield server, Path(folder)


VERIFY = ("--set", f"{MODE}=verify-full")
TLS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "demanded": ("good", "ca", OFF, "the server demands TLS"),
    "of another CA": ("foreign", "ca", VERIFY, "the server's certificate is of a CA that is not trusted"),
    "another CA trusted": ("good", "another", VERIFY, "the server's certificate is of a CA that is not trusted"),
    "expired": ("expired", "ca", VERIFY, "the server's certificate has expired"),
    "for another host": ("elsewhere", "ca", VERIFY, "the server's certificate is for another host"),
}


@pytest.mark.parametrize(("served", "trusted", "mode", "what"), TLS.values(), ids=TLS.keys())
def test_tls_is(
    second: Environment,
    beside: Environment,
    managed: tuple[Server, Path],
    certificates: Certificates,
    served: str,
    trusted: str,
    mode: tuple[str, ...],
    what: str,
) -> None:
    server, data = managed
    outside.use(certificates, data, served)
    server.sql("SELECT pg_reload_conf();")
    outside.secret(beside, "managed", **{"ca.crt": certificates.text(trusted)})
    assert refused(second, f"{beside.namespace}/managed", *mode)["reason"].startswith(what)


def test_a_workflow_runs_on_a_managed_server_over_verified_tls(
    make_environment: Callable[[str], Environment],
    beside: Environment,
    managed: tuple[Server, Path],
    certificates: Certificates,
) -> None:
    server, data = managed
    outside.use(certificates, data, "good")
    server.sql("SELECT pg_reload_conf();")
    outside.secret(beside, "managed", **{"ca.crt": certificates.text("ca")})
    env = make_environment("managed")
    assert answer(env, f"{beside.namespace}/managed", "redeploy", *VERIFY)["workflow"]
    ssl = server.sql(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'tenant';"
    )
    assert ssl == "t"
    assert answer(env, f"{beside.namespace}/managed", "plan", *VERIFY)["nothingToDo"]
    assert env.inv("destroy").code == 0
    assert answer(env, f"{beside.namespace}/managed", "redeploy", *VERIFY)["workflow"]  # migrated, and no CREATEDB
    assert env.inv("destroy").code == 0
