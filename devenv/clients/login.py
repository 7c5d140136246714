"""Runs the login plugin of a kubeconfig (`exec`), as client-go does. What it prints is never shown.

Source: kubernetes.io, "Authenticating", client-go credential plugins.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devenv.clients import shell
from devenv.errors import Refused

PATIENCE = 60.0  # seconds

Entry = Mapping[str, Any]


def credentials(context: str, cluster: Entry, plugin: Entry) -> dict[str, Any]:
    """What to put into the kubeconfig's user in the place of `exec`. Raises Refused."""
    command = str(plugin.get("command") or "")

    def refused(what: str, why: str, next: str) -> Refused:
        return Refused(f"the login plugin {what}", where=f"context {context}, exec", why=why, next=next)

    if not command or not plugin.get("apiVersion"):
        raise refused(f"of context {context} is not named", "exec needs command and apiVersion", "kubectl config view")
    program = shell.which(command)
    if program is None:
        hint = str(plugin.get("installHint") or "").strip().splitlines()
        install = hint[0][:200] if hint else f"install {Path(command).name}, or --context with another"
        raise refused(f"{command} is not there", "no such program on PATH, or it may not be run", install)
    if plugin.get("interactiveMode") == "Always":
        raise refused(f"{command} wants a terminal", "interactiveMode: Always", "a context without it: --context NAME")
    argv: list[str | Path] = [program, *(str(word) for word in plugin.get("args") or [])]
    own = {str(entry["name"]): str(entry["value"]) for entry in plugin.get("env") or []}
    env = {**own, "KUBERNETES_EXEC_INFO": json.dumps(_question(cluster, plugin))}
    by_hand = f"kubectl --context {context} version   (shows what it says)"
    output = shell.run(argv, env=env, timeout=PATIENCE)
    if output.code == 124:
        why = f"ended after {PATIENCE:.0f} s; it may wait for somebody to log in"
        raise refused(f"{command} does not end", why, by_hand)
    if output.code != 0:
        why = f"exit code {output.code}; what it printed may hold a secret and is not shown"
        raise refused(f"{command} failed", why, by_hand)
    found = _answer(output.stdout, str(plugin["apiVersion"]))
    if found is None:
        why = f"what it printed is no ExecCredential of {plugin['apiVersion']}"
        raise refused(f"{command} gave no credential", why, by_hand)
    return found


def _question(cluster: Entry, plugin: Entry) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        names = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
        told = {name: cluster[name] for name in names if cluster.get(name)}
        if cluster.get("certificate-authority") and "certificate-authority-data" not in told:
            file = Path(str(cluster["certificate-authority"]))
            told["certificate-authority-data"] = base64.b64encode(file.read_bytes()).decode()
        for extension in cluster.get("extensions") or []:
            if extension.get("name") == "client.authentication.k8s.io/exec":
                told["config"] = extension.get("extension")
        spec["cluster"] = told
    return {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}


def _answer(text: str, version: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    status = answer.get("status") if isinstance(answer, dict) and answer.get("kind") == "ExecCredential" else None
    if not isinstance(status, dict) or answer.get("apiVersion") != version:
        return None
    found: dict[str, Any] = {}
    if status.get("token"):
        found["token"] = str(status["token"])
    if status.get("clientCertificateData") and status.get("clientKeyData"):
        for key, name in (("client-certificate-data", "clientCertificateData"), ("client-key-data", "clientKeyData")):
            found[key] = base64.b64encode(str(status[name]).encode()).decode()
    return found or None
