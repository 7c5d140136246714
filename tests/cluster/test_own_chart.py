"""A user's own chart, without Temporal and without any of our values: all tasks work on it, wherever it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart_servers import ChartServer, write
from tests.cluster.conftest import Environment

pytestmark = pytest.mark.cluster

POD = """
        securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
        terminationGracePeriodSeconds: 1
"""

# A web chart: a Deployment and a Service, a value, a test hook, no labels of ours.
WEB = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.3\n",
    "values.yaml": "text: hello\n",
    "templates/web.yaml": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}-web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: devenv.local/backend:0.1.0
          command: [python3, -c]
          args: ["print('up: {{ .Values.text }}', flush=True); import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"]
          workingDir: /tmp
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}-web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
""",
    "templates/test.yaml": """
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations: {helm.sh/hook: test}
spec:
  restartPolicy: Never
  containers: [{name: test, image: "devenv.local/backend:0.1.0", command: [python3, -c, "print('tested')"]}]
""",
}

# A batch chart: a subchart, a pre-install hook, a StatefulSet, a Job, a value that differs in each rendering.
BATCH = {
    "Chart.yaml": "apiVersion: v2\nname: batch\nversion: 0.1.0\ndependencies: [{name: store, version: 0.1.0}]\n",
    "charts/store/Chart.yaml": "apiVersion: v2\nname: store\nversion: 0.1.0\n",
    "charts/store/templates/store.yaml": """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: {{ .Release.Name }}-store}
spec:
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: store, image: "devenv.local/backend:0.1.0", command: [python3, -c, "import time; time.sleep(99999)"]}]
""",
    "templates/hook.yaml": """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-before
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: before, image: "devenv.local/backend:0.1.0", command: [python3, -c, "{{ .Values.hook }}"]}]
""",
    "templates/job.yaml": """
apiVersion: batch/v1
kind: Job
metadata: {name: {{ .Release.Name }}-once-{{ .Release.Revision }}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: once, image: "devenv.local/backend:0.1.0", command: [python3, -c, "print('once')"]}]
""",
    "templates/random.yaml": """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-random}
data: {id: {{ randAlphaNum 12 | quote }}}
""",
    "values.yaml": "hook: print('before')\n",
}


CHARTS = {"web": WEB, "batch": BATCH}


@pytest.mark.parametrize("name", CHARTS)
def test_a_users_own_chart_lives_its_whole_life(
    name: str, make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    env, chart = make_environment(name), write(tmp_path / name, CHARTS[name])
    first = env.inv("redeploy", "--chart", chart, "--output", "json", temporal=False)
    assert first.code == 0
    assert json.loads(first.stdout)["revision"] == 1

    again = json.loads(env.inv("redeploy", "--chart", chart, "--output", "json", temporal=False).stdout)
    assert (again["nothingToDo"], again["revision"]) == (True, 1)
    assert env.inv("plan", "--chart", chart, "--detailed-exitcode", temporal=False).code == 0

    status = json.loads(env.inv("status", "--chart", chart, "--output", "json", temporal=False).stdout)
    assert status["ready"]
    assert env.inv("logs", "--chart", chart, temporal=False).code == 0

    assert env.inv("destroy", "--chart", chart, temporal=False).code == 0
    assert env.kubectl("get", "deployments,statefulsets", "-o", "name").split() == []


def test_a_value_reaches_a_users_own_chart_and_only_that_is_named(
    make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    env, chart = make_environment("value"), write(tmp_path / "web", WEB)
    env.inv("redeploy", "--chart", chart, temporal=False)
    plan = json.loads(env.inv("plan", "--chart", chart, "--set", "text=bye", "--output", "json", temporal=False).stdout)
    assert [change["object"] for change in plan["changes"]] == ["Deployment/backend-web"]
    env.inv("redeploy", "--chart", chart, "--set", "text=bye", temporal=False)
    assert "up: bye" in env.inv("logs", "web", "--chart", chart, temporal=False).stdout


POD_HOOK = """
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-before
  annotations: {helm.sh/hook: "pre-install,pre-upgrade"}
spec:
  restartPolicy: Never
  containers: [{name: before, image: "devenv.local/backend:0.1.0", command: [python3, -c, {{ .Values.hook | quote }}]}]
"""


@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_a_hook_that_fails_is_named_with_its_log(
    make_environment: Callable[[str], Environment], tmp_path: Path, kind: str
) -> None:
    files = BATCH if kind == "Job" else {**BATCH, "templates/hook.yaml": POD_HOOK}
    env, chart = make_environment(f"hook-{kind.lower()}"), write(tmp_path / "batch", files)
    script = "raise SystemExit('the hook has no luck')"
    output = env.inv("redeploy", "--chart", chart, "--set", f"hook={script}", "--output", "json", temporal=False)
    failure = json.loads(output.stdout)["failure"]
    assert output.code == 4
    assert failure["reason"] == f"{kind}/backend-before failed"
    assert "the hook has no luck" in failure["evidence"]


def test_a_chart_that_holds_its_own_namespace_is_refused(
    make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    env = make_environment("namespace")
    own = {"templates/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: {{ .Release.Namespace }}}\n"}
    output = env.inv("redeploy", "--chart", write(tmp_path / "web", {**WEB, **own}), "--output", "json", temporal=False)
    assert output.code == 2
    assert "all data in it" in json.loads(output.stdout)["failure"]["evidence"]


def test_what_a_chart_puts_elsewhere_or_into_a_list_is_compared_too(
    make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    env, other = make_environment("far"), make_environment("elsewhere")
    env.inv("kubectl", "--", "create", "namespace", other.namespace)
    template = """
{{- define "map" }}{apiVersion: v1, kind: ConfigMap, metadata: {name: {{ .name }}, namespace: {{ .namespace }}}, data: {day: 2024-01-01, at: 12:30}}{{ end }}
apiVersion: v1
kind: List
items:
  - {{ include "map" (dict "name" "near" "namespace" .Release.Namespace) }}
  - {{ include "map" (dict "name" "near" "namespace" .Values.other) }}
"""
    files = {"Chart.yaml": "apiVersion: v2\nname: far\nversion: 0.1.0\n", "templates/all.yaml": template}
    words = ("--chart", write(tmp_path / "far", files), "--set", f"other={other.namespace}")
    assert env.inv("redeploy", *words, temporal=False).code == 0
    assert env.inv("plan", *words, "--detailed-exitcode", temporal=False).code == 0
    other.kubectl("delete", "configmap", "near")
    plan = json.loads(env.inv("plan", *words, "--output", "json", temporal=False).stdout)
    assert [change["object"] for change in plan["changes"]] == [f"ConfigMap/{other.namespace}/near"]
    assert env.inv("redeploy", *words, temporal=False).code == 0
    assert env.inv("plan", *words, "--detailed-exitcode", temporal=False).code == 0
    assert env.inv("destroy", *words, temporal=False).code == 0
    assert "near" not in other.kubectl("get", "configmaps", "-o", "name")


@pytest.fixture
def server() -> Iterator[ChartServer]:
    running = ChartServer().start()
    yield running
    running.stop()


def version(files: dict[str, str], number: str) -> dict[str, str]:
    return {**files, "Chart.yaml": re.sub(r"(?m)^version: .*", f"version: {number}", files["Chart.yaml"])}


def test_all_tasks_work_on_a_chart_of_a_repository(
    make_environment: Callable[[str], Environment], server: ChartServer, tmp_path: Path
) -> None:
    server.publish(WEB)
    known = tmp_path / "repositories.yaml"
    known.write_text(json.dumps({"repositories": [{"name": "mine", "url": server.repository}]}))
    env = make_environment("repository")

    def inv(*words: str) -> dict[str, Any]:
        task, *rest = words
        given = {"DEVENV_CHART": "mine/web", "HELM_REPOSITORY_CONFIG": str(known)}
        output = env.inv(task, *rest, "--output", "json", temporal=False, **given)
        return {"code": output.code, "text": output.stderr, **json.loads(output.stdout or "{}")}

    planned = {change["object"] for change in inv("plan")["changes"]}
    assert planned == {"Deployment/backend-web", "Service/backend-web"}
    first = inv("redeploy")
    assert (first["code"], first["revision"]) == (0, 1)
    assert "chart's test passed" in first["text"]
    assert inv("redeploy")["nothingToDo"]
    assert inv("redeploy", "--set", "text=bye")["revision"] == 2

    server.publish(version(WEB, "1.3.0"))
    newer = inv("redeploy", "--set", "text=bye")
    assert (newer["nothingToDo"], newer["revision"]) == (False, 3)
    assert "chart mine/web 1.3.0" in newer["text"]

    server.stop()
    silent = inv("redeploy")
    assert (silent["code"], silent["failure"]["reason"]) == (3, f"{server.repository} does not answer")
    assert inv("status")["ready"]
    assert [one["chart"] for one in inv("history")["revisions"]] == ["web 1.2.3", "web 1.2.3", "web 1.3.0"]
    assert inv("rollback", "1")["revision"] == 4
    assert "up: hello" in env.inv("logs", "web", temporal=False, DEVENV_CHART="mine/web").stdout
    assert inv("values", "--set", "text=x")["values"]["text"] == "x"
    assert env.inv("helm", "--", "test", "backend", temporal=False).code == 0
    assert inv("destroy")["removed"]
    env.kubectl("wait", "--for=delete", "pods", "--all", "--timeout=60s")  # what a rollback replaced may still end
    assert env.kubectl("get", "deployments,services,pods,jobs", "-o", "name").split() == []


@pytest.mark.parametrize("tls", [False, True], ids=["without TLS", "with TLS"])
def test_a_chart_of_a_registry_is_deployed_in_the_version_of_the_profile(
    make_environment: Callable[[str], Environment], running: Any, tls: bool
) -> None:
    pki = running.state / "pki"
    server = ChartServer()
    server.start(*((pki / "apiserver.crt", pki / "apiserver.key") if tls else ()))
    for number in ("1.2.3", "1.3.0"):
        server.push(version(WEB, number))
    env = make_environment(f"registry-{'tls' if tls else 'plain'}")
    chart = f"oci://localhost:{server.port}/team/web:1.2.3"
    trust = {"SSL_CERT_FILE": str(pki / "ca.crt")} if tls else {}
    if tls:
        refused = env.inv("redeploy", "--chart", chart, "--output", "json", temporal=False)
        assert refused.code == 3
        assert "not trusted" in json.loads(refused.stdout)["failure"]["reason"]
    assert env.inv("redeploy", "--chart", chart, temporal=False, **trust).code == 0
    server.stop()  # a pinned version needs nobody
    again = env.inv("redeploy", "--chart", chart, "--output", "json", temporal=False, **trust)
    assert json.loads(again.stdout)["nothingToDo"]
    listed = json.loads(env.inv("helm", "--", "list", "--output", "json", temporal=False).stdout)
    assert [entry["chart"] for entry in listed] == ["web-1.2.3"]
    assert env.inv("destroy", "--chart", chart, temporal=False).code == 0


def test_a_fresh_clone_is_deployed_with_what_it_depends_on(
    make_environment: Callable[[str], Environment], server: ChartServer, tmp_path: Path
) -> None:
    server.publish(version(WEB, "1.2.3"))
    needs = (
        f"{{name: web, version: ^1.0.0, repository: '{server.repository}', alias: site}}, "
        f"{{name: web, version: ^1.0.0, repository: '{server.repository}', condition: web.enabled}}, "
        "{name: store, version: 0.1.0, repository: 'file://../store'}"
    )
    write(
        tmp_path / "store",
        {name.removeprefix("charts/store/"): text for name, text in BATCH.items() if "store" in name},
    )
    own = {"Chart.yaml": f"apiVersion: v2\nname: shop\nversion: 0.1.0\ndependencies: [{needs}]\n"}
    chart = write(tmp_path / "shop", {**own, "values.yaml": "web: {enabled: false}\nsite: {text: sold}\n"})
    env = make_environment("dependencies")
    first = env.inv("redeploy", "--chart", chart, temporal=False)
    assert first.code == 0
    assert "fetched web, web for chart shop" in first.stderr
    assert "up: sold" in env.inv("logs", "web", "--chart", chart, temporal=False).stdout
    assert "statefulset.apps/backend-store" in env.kubectl("get", "statefulsets", "-o", "name")
    server.stop()
    again = json.loads(env.inv("redeploy", "--chart", chart, "--output", "json", temporal=False).stdout)
    assert again["nothingToDo"]


TESTS = {
    "with its log": ("print('the shop is shut'); raise SystemExit(3)", {}, 'exit code 3: "the shop is shut"'),
    "whose pod helm deletes": (
        "import time; print('the shop is shut', flush=True); time.sleep(2); raise SystemExit(3)",
        {"helm.sh/hook-delete-policy": "hook-failed,before-hook-creation"},
        'exit code 3: "the shop is shut"',
    ),
}


@pytest.mark.parametrize(("script", "policy", "why"), TESTS.values(), ids=TESTS.keys())
def test_a_test_of_the_chart_that_fails_is_named(
    make_environment: Callable[[str], Environment], tmp_path: Path, script: str, policy: dict[str, str], why: str
) -> None:
    test = yaml.safe_load(WEB["templates/test.yaml"].replace("{{ .Release.Name }}", "backend"))
    test["metadata"]["annotations"] |= policy
    test["spec"]["containers"][0]["command"][-1] = script
    env = make_environment("failing")
    chart = write(tmp_path / "web", {**WEB, "templates/test.yaml": yaml.safe_dump(test)})
    output = env.inv("redeploy", "--chart", chart, "--output", "json", temporal=False)
    failure = json.loads(output.stdout)["failure"]
    assert (output.code, failure["reason"], failure["evidence"]) == (5, "the chart's test backend-test failed", why)
    assert env.inv("redeploy", "--chart", chart, temporal=False).code == 5  # deployed, but not proven yet
    assert env.inv("destroy", "--chart", chart, temporal=False).code == 0


def test_a_test_of_the_chart_that_cannot_start_ends_it_at_once(
    make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    test = WEB["templates/test.yaml"].replace("restartPolicy", "volumes: []\n  restartPolicy")
    test = test.replace("name: test,", "name: test, envFrom: [{secretRef: {name: nope}}],")
    env = make_environment("unstartable")
    chart = write(tmp_path / "web", {**WEB, "templates/test.yaml": test})
    output = env.inv("redeploy", "--chart", chart, "--output", "json", temporal=False)
    failure = json.loads(output.stdout)["failure"]
    assert output.code == 5
    assert "the chart's test cannot run" in failure["reason"]
    assert 'secret "nope" not found' in failure["evidence"]
