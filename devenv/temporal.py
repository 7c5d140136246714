"""The environment's own programs: Temporal's health, smoke test, Web UI and CLI; kubectl and helm. Edge out."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from devenv import look, proof
from devenv.clients import shell
from devenv.clients.helm import Helm
from devenv.environment import Environment, Session, connect, kubectl_argv, reach
from devenv.errors import InputWrong, Refused, RolloutFailed
from devenv.report import Screen

ROLES = ("frontend", "history", "matching", "worker")


def kubectl(environment: Environment, screen: Screen, arguments: Sequence[str]) -> None:
    """Becomes kubectl, pinned to the environment's cluster and namespace."""
    session = _quiet(environment)
    shell.replace(kubectl_argv(session, environment.desired.namespace, *arguments))


def helm(environment: Environment, screen: Screen, arguments: Sequence[str]) -> None:
    """Becomes helm, pinned to the environment's cluster and namespace."""
    session = _quiet(environment)
    # What the user types wins over the namespace that is pinned, as with helm itself.
    pinned = Helm(session.helm.program, session.helm.kubeconfig, session.helm.context, environment.desired.namespace)
    own = {"HELM_NAMESPACE": pinned.namespace, "HELM_KUBECONTEXT": pinned.context, "KUBECONFIG": str(pinned.kubeconfig)}
    shell.replace([str(pinned.program), *arguments], env=own)


def _quiet(environment: Environment) -> Session:
    return connect(environment, lambda _: None, start=False)


def _needs_temporal(session: Session, environment: Environment) -> None:
    name = f"{environment.desired.release}-temporal-frontend"
    if session.kube.find(f"/apis/apps/v1/namespaces/{environment.desired.namespace}/deployments/{name}") is None:
        raise Refused(
            "Temporal is not deployed here",
            where=f"Deployment/{name} in namespace {environment.desired.namespace}",
            next="ENABLE_TEMPORAL=true ./inv redeploy",
        )


def cli(environment: Environment, screen: Screen, arguments: Sequence[str]) -> None:
    """Becomes the temporal CLI of the admin tools pod."""
    import sys

    session = _quiet(environment)
    _needs_temporal(session, environment)
    desired = environment.desired
    terminal = ["-it"] if sys.stdin.isatty() and sys.stdout.isatty() else ["-i"]
    target = f"deployment/{desired.release}-temporal-admintools"
    words = ["exec", *terminal, target, "-c", "admintools", "--", "temporal", *arguments]
    shell.replace(kubectl_argv(session, desired.namespace, *words))


def health(environment: Environment, screen: Screen) -> dict[str, Any]:
    """Frontend serving, all four roles ready, namespace `default` there."""
    session = reach(environment, screen, start=False)
    _needs_temporal(session, environment)
    desired = environment.desired
    snapshot = look.once(session.kube, desired.namespace)
    checks: list[dict[str, Any]] = []
    for role in ROLES:
        workload = next((one for one in snapshot.workloads if one.name == f"{desired.release}-temporal-{role}"), None)
        ready = workload is not None and workload.done
        detail = f"{workload.ready}/{workload.wanted} ready" if workload else "not there"
        checks.append({"check": role, "ok": ready, "detail": detail})
    for name, words in (
        ("cluster", ("operator", "cluster", "health")),
        ("namespace default", ("operator", "namespace", "describe", "-n", "default")),
    ):
        output = proof.admintools(session, desired, *words)
        detail = "ok" if output.code == 0 else output.last_line
        checks.append({"check": name, "ok": output.code == 0, "detail": detail})
    for check in checks:
        screen.line(
            f"{'ok  ' if check['ok'] else 'FAIL'} {check['check']}: {check['detail']}", "" if check["ok"] else "red"
        )
    return health_record(checks)


def health_record(checks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Healthy is where every check passed."""
    return {
        "schema": "devenv/temporal-health/v1",
        "healthy": all(check["ok"] for check in checks),
        "checks": list(checks),
    }


def smoke(environment: Environment, screen: Screen) -> dict[str, Any]:
    """Runs a workflow, through the backend where it is our sample. Raises RolloutFailed where none could be proven."""
    session = reach(environment, screen, start=False)
    _needs_temporal(session, environment)
    proven = proof.prove(environment.desired, session, screen, temporal=True)
    if proven is None:
        raise Refused(
            "no workflow can be run in a chart of your own",
            where=environment.desired.chart,
            why="its backend and its admin tools are not known here",
            next="inv temporal.cli -- workflow start --help",
        )
    return smoke_record(proven)


def smoke_record(proven: proof.Proof) -> dict[str, Any]:
    return {"schema": "devenv/temporal-smoke/v1", "workflow": proven.workflow, "run": proven.run}


def ui(environment: Environment, screen: Screen, port: int) -> None:
    """Forwards a local port to the Web UI until Ctrl-C; the port is freed with it."""
    if not 0 <= port <= 65535:
        raise InputWrong(f"{port} is no port", where="--port", next="--port 8080")
    session = reach(environment, screen, start=False)
    _needs_temporal(session, environment)
    desired = environment.desired
    service = f"service/{desired.release}-temporal-web"
    argv = kubectl_argv(session, desired.namespace, "port-forward", service, f"{port or ''}:8080")

    def told(line: str) -> None:
        match = re.search(r"Forwarding from (127\.0\.0\.1:\d+)", line)
        if match:
            screen.line(f"Temporal UI: http://{match.group(1)}   (Ctrl-C ends it)", "bold")

    started = time.monotonic()
    try:
        output = shell.run(argv, on_line=told)
    except KeyboardInterrupt:
        return
    lasted = time.monotonic() - started
    if "address already in use" in output.stderr:
        raise Refused(
            f"port {port} is taken", where=f"127.0.0.1:{port}", next="inv temporal.ui --port 0   (any free one)"
        )
    raise RolloutFailed(
        f"the way to the Web UI broke off after {lasted:.0f} s",
        where=service,
        why=output.last_line,
        next="inv temporal.ui",
    )
