"""A user's own chart, without Temporal and without any of our values: all tasks work on it. Two charts, unlike each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

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


def write(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


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


def test_a_hook_that_fails_is_named_with_its_log(
    make_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    env, chart = make_environment("hook"), write(tmp_path / "batch", BATCH)
    script = "raise SystemExit('the hook has no luck')"
    output = env.inv("redeploy", "--chart", chart, "--set", f"hook={script}", "--output", "json", temporal=False)
    failure = json.loads(output.stdout)["failure"]
    assert output.code in (4, 5)
    assert "the hook has no luck" in failure["evidence"]
    assert "backend-before" in failure["object"] + failure["reason"]
