"""The embedded cluster's network: NetworkPolicies hold, and Services of type LoadBalancer answer from this machine."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.conftest import Environment

pytestmark = pytest.mark.cluster

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  containers:
  - name: web
    image: {image}
    command: [sh, -c, "exec python3 -m http.server --directory /etc 8000"]
    ports: [{{name: web, containerPort: 8000}}]
    readinessProbe: {{tcpSocket: {{port: 8000}}, periodSeconds: 1}}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: server}}, type: {type}, ports: [{{port: 80, targetPort: web}}]}}
"""
ALL = {"friend", "stranger"}
OTHER_NAMESPACE = "{matchLabels: {kubernetes.io/metadata.name: kube-system}}"

# What a policy says, and who of friend and stranger still reaches the server.
POLICIES: list[tuple[str, str, set[str]]] = [
    ("nobody is named", "podSelector: {}, policyTypes: [Ingress]", set()),
    (
        "pods by their labels and a port by its name",
        "podSelector: {matchLabels: {app: server}}, ingress: "
        "[{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: web}]}]",
        {"friend"},
    ),
    (
        "another port",
        "podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: 8001, endPort: 9000}]}]",
        set(),
    ),
    (
        "another namespace",
        f"podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{{namespaceSelector: {OTHER_NAMESPACE}}}]}}]",
        set(),
    ),
    (
        "all addresses",
        "podSelector: {matchLabels: {app: server}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]",
        ALL,
    ),
    (
        "what the stranger may reach",
        "podSelector: {matchLabels: {app: stranger}}, policyTypes: [Egress], egress: [{ports: [{port: 5432}]}]",
        {"friend"},
    ),
    (
        "what all may reach, a port by its name",
        "podSelector: {}, policyTypes: [Egress], "
        "egress: [{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{port: web}]}]",
        ALL,
    ),
]


@pytest.fixture(scope="module")
def environment(make_environment: Callable[[str], Environment]) -> Environment:
    """A server behind a Service, and two pods beside it that talk to it."""
    from devenv.cluster import images

    made = make_environment("network")
    image = images.references()["backend"]
    made.kubectl("create", "namespace", made.namespace)
    pods = "---".join(POD.format(name=name, image=image) for name in ("server", "friend", "stranger"))
    apply(made, pods + "---" + SERVICE.format(name="server", type="ClusterIP"))
    made.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    return made


def apply(environment: Environment, text: str) -> None:
    output = environment.inv("kubectl", "--", "apply", "-f", "-", stdin=text)
    assert output.code == 0


def policy(rule: str) -> str:
    kind = "apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: tried}"
    return f"{{{kind}, spec: {{{rule}}}}}"


def reach(environment: Environment, pod: str, host: str = "server") -> str:
    """ "ok", or what the pod is told when it asks the server."""
    code = f"import urllib.request; print(urllib.request.urlopen('http://{host}', timeout=3).status)"
    output = environment.inv("kubectl", "--", "exec", pod, "--", "python3", "-c", code)
    return "ok" if output.stdout.strip() == "200" else output.stderr


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.2)


def reaching(environment: Environment) -> set[str]:
    pods = ("friend", "stranger")
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda pod: reach(environment, pod), pods)
        return {pod for pod, answer in zip(pods, said, strict=True) if answer == "ok"}


@pytest.mark.parametrize(("name", "rule", "open"), POLICIES, ids=[row[0] for row in POLICIES])
def test_a_network_policy_holds_and_its_removal_opens_again(
    environment: Environment, name: str, rule: str, open: set[str]
) -> None:
    apply(environment, policy(rule))
    try:
        until(lambda: reaching(environment) == open)
        assert reaching(environment) == open
    finally:
        environment.kubectl("delete", "networkpolicy", "tried")
    until(lambda: reaching(environment) == ALL)


def test_who_is_denied_is_told_so_at_once_and_the_server_stays_ready(environment: Environment) -> None:
    apply(environment, policy("podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]"))
    try:
        until(lambda: reach(environment, "friend") != "ok")
        assert "No route to host" in reach(environment, "friend")
        time.sleep(3)  # three probes, which come from the node
        pod = json.loads(environment.kubectl("get", "pod", "server", "--output", "json"))
        ready = {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}["Ready"]
        assert ready == "True"
    finally:
        environment.kubectl("delete", "networkpolicy", "tried")


def test_a_new_pod_is_denied_from_its_first_packet_on(environment: Environment) -> None:
    apply(environment, policy("podSelector: {matchLabels: {app: newcomer}}, policyTypes: [Egress]"))
    first = "import urllib.request; urllib.request.urlopen('http://server', timeout=3)"
    pod = POD.split("command:")[0].format(name="newcomer", image=_image())
    pod += f'command: [python3, -c, "{first}"]\n  restartPolicy: Never\n'
    try:
        until(lambda: reach(environment, "friend") == "ok")
        apply(environment, pod)
        environment.kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "pod/newcomer", "--timeout=30s")
        assert "No route to host" in environment.kubectl("logs", "newcomer")
    finally:
        environment.kubectl("delete", "networkpolicy", "tried")
        environment.kubectl("delete", "pod", "newcomer", "--ignore-not-found")


def _image() -> str:
    from devenv.cluster import images

    return images.references()["backend"]


def service(environment: Environment, name: str) -> Any:
    return json.loads(environment.kubectl("get", "service", name, "--output", "json"))


def address(environment: Environment, name: str) -> str:
    given = service(environment, name)["status"]["loadBalancer"].get("ingress") or [{}]
    return str(given[0].get("ip", ""))


def answers(ip: str, port: int = 80) -> bool:
    try:
        return bool(urllib.request.urlopen(f"http://{ip}:{port}", timeout=3).status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_services_of_type_load_balancer_answer_each_at_an_address_of_its_own(environment: Environment) -> None:
    apply(environment, "---".join(SERVICE.format(name=name, type="LoadBalancer") for name in ("one", "two")))
    until(lambda: address(environment, "one") and address(environment, "two"))
    one, two = address(environment, "one"), address(environment, "two")
    assert one != two
    until(lambda: answers(one) and answers(two))
    assert reach(environment, "friend", one) == "ok"
    assert not answers(one, 81)

    environment.kubectl("patch", "service", "one", "--patch", '{"spec": {"type": "ClusterIP"}}')
    until(lambda: not address(environment, "one"))
    until(lambda: not answers(one))
    assert answers(two)
    environment.kubectl("delete", "service", "one", "two")
    until(lambda: not answers(two))
