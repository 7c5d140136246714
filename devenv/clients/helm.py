"""Runs Helm, and reads what it keeps. Values go in by standard input, never by argv.

Every call on a cluster names kubeconfig, context and namespace; of the HELM_* variables of the user's environment only
those reach it that say where charts come from.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from devenv.clients import shell
from devenv.clients.kube import Kube, NotThere, Object
from devenv.errors import InputWrong, Refused, StepFailed

HISTORY = "10"
# Where the user's repositories, registry logins and downloaders are.
HOMES = (
    *("HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME", "HELM_PLUGINS"),
    *("HELM_REPOSITORY_CONFIG", "HELM_REGISTRY_CONFIG"),
)
FETCH_TIMEOUT = 120.0  # seconds for one repository, registry or chart
# Helm lives for a moment: to collect garbage below a gigabyte is a third of the time that it takes to render a chart.
QUICK = {"GOGC": "off", "GOMEMLIMIT": "1GiB"}


class Helm(NamedTuple):
    """A Helm program bound to one namespace of one cluster."""

    program: Path
    kubeconfig: Path
    context: str
    namespace: str

    def argv(self, *words: str) -> list[str | Path]:
        pinned = ["--kubeconfig", str(self.kubeconfig), "--kube-context", self.context, "--namespace", self.namespace]
        return [self.program, *words, *pinned]

    def run(self, *words: str, stdin: str | None = None, on_line: Callable[[str], None] | None = None) -> shell.Output:
        return shell.run(self.argv(*words), stdin=stdin, env=QUICK, on_line=on_line, drop=("HELM_",))

    def version(self) -> str:
        """Such as 4.1.4. Raises Refused for Helm 2 or a program that is no Helm."""
        output = shell.run([self.program, "version", "--template", "{{.Version}}"])
        match = re.search(r"v(\d+)\.(\d+)\.(\d+)\S*", output.stdout)
        if output.code != 0 or not match or int(match.group(1)) < 3:
            raise Refused(
                "this is no Helm 3 or 4",
                where=str(self.program),
                why=output.last_line[:200],
                next="remove it from PATH: devenv brings its own",
            )
        return match.group(0)[1:]

    def rendering(self, release: str, chart: str, values: Mapping[str, Any], cluster: str) -> Callable[[], str]:
        """Starts to render; what comes back waits for the manifests as Helm would apply them to a cluster of version
        `cluster`, or raises InputWrong."""
        argv = self.argv("template", release, chart, "--values", "-", "--kube-version", cluster)
        running = shell.Running(argv, stdin=json.dumps(values), env=QUICK, drop=("HELM_",))

        def manifests() -> str:
            output = running.wait()
            if output.code != 0:
                raise InputWrong(
                    "the chart cannot be rendered with these values",
                    where=chart,
                    why=reason(output),
                    next="inv values   (shows each value; --explain KEY says who set it)",
                )
            return output.stdout

        return manifests

    def render(self, release: str, chart: str, values: Mapping[str, Any], cluster: str) -> str:
        """The same, waited for. Raises InputWrong."""
        return self.rendering(release, chart, values, cluster)()

    def upgrade(
        self,
        release: str,
        chart: str,
        labels: Mapping[str, str],
        timeout: float,
        validate: bool,
        version: str = "",
    ) -> shell.Running:
        """Starts `helm upgrade --install`, which waits for hooks only: the rollout is followed by us.

        It is to be fed with the values, as JSON. It looks whether there is a release, then reads them, and changes
        nothing before. Source: helm.sh/helm/v4/pkg/cmd/upgrade.go, "Must load values AFTER".

        `validate`: Helm fetches the cluster's OpenAPI and holds the manifests against it before the API server does the
        same at each apply; that takes as long as all the rest.
        """
        words = ["upgrade", release, chart, *_version(version), "--install", "--values", "-", "--history-max", HISTORY]
        words += ["--timeout", f"{timeout:.0f}s"]
        words += ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())]
        words += ["--server-side=true", "--force-conflicts"]
        words += [] if validate else ["--disable-openapi-validation"]
        return shell.Running(self.argv(*words), later=True, env=QUICK, drop=("HELM_",))

    def rollback(self, release: str, revision: int, timeout: float) -> shell.Running:
        """Starts `helm rollback`, which waits for hooks only: what becomes of it is followed by us."""
        words = ["rollback", release, str(revision), "--history-max", HISTORY, "--timeout", f"{timeout:.0f}s"]
        words += ["--server-side=true", "--force-conflicts"]
        return shell.Running(self.argv(*words), drop=("HELM_",))

    def elsewhere(self, *words: str, env: Mapping[str, str]) -> shell.Output:
        """Runs Helm on charts, without a cluster; ended when it takes too long."""
        return shell.run([self.program, *words], env=env, timeout=FETCH_TIMEOUT, drop=("HELM_",), keep=HOMES)

    def test(self, release: str, timeout: float) -> shell.Running:
        """Starts the release's own tests."""
        return shell.Running(self.argv("test", release, "--timeout", f"{timeout:.0f}s"), drop=("HELM_",))

    def uninstall(self, release: str, timeout: float) -> shell.Output:
        return self.run("uninstall", release, "--wait", "--ignore-not-found", "--timeout", f"{timeout:.0f}s")


def _version(version: str) -> list[str]:
    return ["--version", version] if version else []


def failed(output: shell.Output, release: str, namespace: str) -> StepFailed:
    """A failed Helm run as a failure that names Helm's own reason."""
    return StepFailed(
        f"helm could not apply release {release}",
        where=f"release {release} in namespace {namespace}",
        why=reason(output),
        next="inv plan   (shows what it would do), then the same command again",
    )


_NOISE = re.compile(r"^(level=\S+ msg=|Error: |UPGRADE FAILED: |INSTALLATION FAILED: |time=\S+ )+")


def reason(output: shell.Output) -> str:
    """Helm's own words for what went wrong: the last error line, without its wrapping."""
    lines = [line.strip() for line in output.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:")]
    text = errors[-1] if errors else (lines[-1] if lines else f"exit code {output.code}")
    after = lines[lines.index(text) + 1 :][:6] if text in lines else []
    text = _NOISE.sub("", " ".join([text, *after]))
    rendered = re.search(r"error calling fail: (.*)", text)
    return (rendered.group(1) if rendered else text)[:800]


def content(kube: Kube, namespace: str, release: str, revision: int) -> Object:
    """What Helm keeps of a revision (manifest, config, chart, info); empty where it is gone.

    Source: helm.sh/helm/v4/pkg/storage/driver/util.go: base64 of gzip of JSON, in a Secret.
    """
    try:
        secret = kube.get(f"/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.{release}.v{revision}")
    except NotThere:
        return {}
    return _content(secret)


def manifest(kube: Kube, namespace: str, release: str, revision: int) -> str:
    """The manifest that Helm keeps with a revision; empty where it is gone."""
    return str(content(kube, namespace, release, revision).get("manifest") or "")


def hooks(kube: Kube, namespace: str, release: str, revision: int) -> list[Object]:
    """The hooks that Helm keeps with a revision, its tests among them; none where the revision is gone."""
    found = content(kube, namespace, release, revision).get("hooks") or []
    return [object for hook in found for object in objects(str(hook.get("manifest") or ""), namespace)]


def kept(kube: Kube, namespace: str, release: str) -> list[tuple[Object, dict[str, str]]]:
    """What Helm keeps of each revision of a release: its content, and the labels of its Secret."""
    query = {"labelSelector": f"owner=helm,name={release}"}
    secrets = kube.get(f"/api/v1/namespaces/{namespace}/secrets", query).get("items") or []
    return [(_content(secret), secret["metadata"].get("labels") or {}) for secret in secrets]


def _content(secret: Object) -> Object:
    name = secret["metadata"]["name"]
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        content: Object = json.loads(gzip.decompress(packed))
    except (KeyError, ValueError, OSError):
        raise StepFailed(
            f"what Helm keeps about revision {name.rpartition('.v')[2]} cannot be read",
            where=f"Secret {name}",
            next=f"inv kubectl -- delete secret {name}",
        ) from None
    return content


def objects(manifest: str, namespace: str) -> list[Object]:
    """The objects of a manifest, in its order; those of a List one by one, as Helm applies them. Only those of another
    namespace than the release's say theirs. Raises InputWrong for what is no object."""
    import yaml

    found: list[Object] = []
    for document in yaml.load_all(manifest, Loader=_loader()):
        if document is not None:
            items = _of(document, "items") if str(_of(document, "kind")).endswith("List") else None
            found += items if isinstance(items, list) else [document]
    for object in found:
        meta = _of(object, "metadata")
        if not (_of(object, "apiVersion") and _of(object, "kind") and (_of(meta, "name") or _of(meta, "generateName"))):
            raise InputWrong(
                "the chart renders what is no Kubernetes object",
                where=f"{_of(object, 'kind') or 'a document'} {_of(meta, 'name')}".strip(),
                why="apiVersion, kind and metadata.name are all needed",
                next="inv helm -- template CHART   (shows what it renders)",
            )
        if meta.get("namespace") == namespace:
            del meta["namespace"]
    return found


def _of(node: Any, key: str) -> Any:
    return node.get(key, "") if isinstance(node, dict) else ""


@cache
def _loader() -> Any:
    """YAML as Go reads it: dates and times of day are text, and so is a lone `=`."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("Loader", (base,), {})
    unwanted = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
    loader.yaml_implicit_resolvers = {
        first: [(tag, _without_clocks(tag, pattern)) for tag, pattern in rules if tag not in unwanted]
        for first, rules in base.yaml_implicit_resolvers.items()
    }
    return loader


def _without_clocks(tag: str, pattern: re.Pattern[str]) -> re.Pattern[str]:
    """YAML 1.1 takes `12:30` for a number to the base of 60."""
    if tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
        return pattern
    return re.compile(f"(?!.*:)(?:{pattern.pattern})", pattern.flags)
