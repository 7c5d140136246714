"""The catalogue of broken environments: what must be said of each, its class, and its grace. Pure.

A fault is a row; `broken.py` says what a row is.
"""

from __future__ import annotations

import json

from devenv import ailments, watch
from devenv.broken import (
    WAITS,
    Broken,
    Object,
    app,
    claim,
    client,
    database,
    from_secret,
    job,
    made,
    mounted,
    node,
    python,
    requests,
    service,
    temporal,
)

# The third crash, or a later one: where kills take long, there may be no pause before the fourth.
CRASHED = r"reason='CrashLoopBackOff'.{0,500}?restarts=[2-9]"
PULL = r"reason='Failed', message='Failed to pull"
REFUSED = "reason='FailedCreate'"
UNSCHEDULED = r"unscheduled=.0/"
CONFIG = "CreateContainerConfigError"
NO_ROOM = "the nodes have no room for it"
TAINTED, SILENT = "NAMESPACE-tainted", "NAMESPACE-silent"  # what is outside of a namespace is called after it
STALLED_PORT, CLASHING_PORT = 39218, 39217
NOWHERE, ELSEWHERE = "registry.invalid/nothing:1", "registry.invalid/backend:9.9.9"
STALLED = f"127.0.0.1:{STALLED_PORT}/stalled:1"

PROBE = {"tcpSocket": {"port": 9999}, "periodSeconds": 1}
CPU, MEMORY = requests(cpu="500"), requests(memory="9Ti")
LIMITS: Object = {"limits": {"cpu": "200m"}}
SMALL: Object = {"limits": {"memory": "64Mi"}}
PORT: Object = {"ports": [{"containerPort": 8080, "hostPort": CLASHING_PORT}]}
SLEEPS = "import time; time.sleep(600)"
FULL = mounted(
    "/full", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, python("open('/full/x', 'wb').write(b'x' * 2**22)")
)
BIG = mounted(
    "/e",
    {"emptyDir": {"sizeLimit": "1Mi"}},
    python(f"open('/e/x', 'wb').write(b'x' * 2**23); {SLEEPS}"),
    readinessProbe=PROBE,
)
LATER: Object = {
    "command": python("import time; time.sleep(20); raise SystemExit('lost it')"),
    "readinessProbe": {**PROBE, "initialDelaySeconds": 30},
}
READ_ONLY: Object = {"command": python("open('/etc/x', 'w')"), "securityContext": {"readOnlyRootFilesystem": True}}
QUOTA = made("ResourceQuota", "none", spec={"hard": {"pods": "0"}})
LIMIT_RANGE = made("LimitRange", "small", spec={"limits": [{"type": "Container", "max": {"cpu": "100m"}}]})
OTHER_LABELS = json.loads(json.dumps(app()).replace('"app": "app"', '"app": "other"'))
TWICE = [{"name": "TWICE", "value": "1"}, {"name": "TWICE", "value": "2"}]
NO_DNS: Object = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]}}
RESOLVE = python("import socket; socket.getaddrinfo('db', 5432)")
DEDICATED = {"key": "dedicated", "value": "database", "effect": "NoSchedule"}
CORDONED = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}
WEBHOOK: Object = {
    "name": "down.devenv.test", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    "clientConfig": {"service": {"name": "nobody", "namespace": "NAMESPACE", "path": "/"}},
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "NAMESPACE"}}, "timeoutSeconds": 3,
}  # fmt: skip
REGISTRY = made(
    "Pod", "registry",
    spec={
        "hostNetwork": True, "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "stalls", "image": app()["spec"]["template"]["spec"]["containers"][0]["image"],
            "command": python(f"import socket; s = socket.create_server(('127.0.0.1', {STALLED_PORT})); kept = []\nwhile True: kept.append(s.accept())"),
            "readinessProbe": {"exec": {"command": python(f"import socket; socket.create_connection(('127.0.0.1', {STALLED_PORT}))")}, "periodSeconds": 1},
        }],
    },
)  # fmt: skip
OLD_SCHEMA = """CREATE DATABASE temporal;
\\connect temporal
CREATE TABLE schema_version (version_partition INT, db_name VARCHAR(255), creation_time TIMESTAMP,
  curr_version VARCHAR(64), min_compatible_version VARCHAR(64), PRIMARY KEY (version_partition, db_name));
INSERT INTO schema_version VALUES (0, 'temporal', now(), '1.0', '1.0');"""
STORE = (
    "{sql: {pluginName: postgres12, databaseName: temporal, connectAddr: 'db:5432', connectProtocol: tcp, "
    "user: postgres, password: right, maxConns: 2, maxIdleConns: 2, maxConnLifetime: %s}}"
)
SERVER = """log: {stdout: true, level: info}
persistence: {defaultStore: default, visibilityStore: default, numHistoryShards: 4, datastores: {default: STORE}}
global: {membership: {maxJoinDuration: 30s, broadcastAddress: 127.0.0.1}}
services:
  frontend: {rpc: {grpcPort: 7233, membershipPort: 6933, bindOnIP: 0.0.0.0}}
  history: {rpc: {grpcPort: 7234, membershipPort: 6934, bindOnIP: 0.0.0.0}}
  matching: {rpc: {grpcPort: 7235, membershipPort: 6935, bindOnIP: 0.0.0.0}}
  worker: {rpc: {grpcPort: 7239, membershipPort: 6939, bindOnIP: 0.0.0.0}}
clusterMetadata:
  {failoverVersionIncrement: 10, masterClusterName: active, currentClusterName: active, clusterInformation:
    {active: {enabled: true, initialFailoverVersion: 1, rpcName: frontend, rpcAddress: '127.0.0.1:7233'}}}
"""

AT_ONCE: dict[str, Broken] = {
    "a missing Secret": Broken(
        (app(env=from_secret("nope", "a")),), "Deployment/app cannot be started", ('secret "nope" not found',), CONFIG,
    ),
    "a missing key": Broken(
        (app(env=from_secret("there", "nope")),),
        "Deployment/app cannot be started", ("couldn't find key nope in Secret",), CONFIG,
        before=(made("Secret", "there", stringData={"a": "b"}),),
    ),
    "a missing Secret as a volume": Broken(
        (mounted("/s", {"secret": {"secretName": "nope"}}, python(SLEEPS)),),
        "Deployment/app cannot be started", ('secret "nope" not found',), "FailedMount",
    ),
    "an image's name that is none": Broken(
        (app(image="NOT/A:name:1"),), "the image NOT/A:name:1 cannot be had", ("no name of an image",), code=3,
    ),
    "a program that is not in the image": Broken(
        (app(command=["no-such-program"]),),
        "Deployment/app cannot be started", ('"no-such-program": executable file not found',), "executable file not found",
    ),
    "a crash at start": Broken(
        (app(command=python("raise SystemExit('no luck today')")),), "Deployment/app does not start", ("no luck today",), CRASHED,
    ),
    "a wrong password": Broken(
        (*database("SELECT 1"), client("wrong")), "Deployment/app does not start", ("password authentication failed",), CRASHED,
    ),
    "a schema that is too old": Broken(
        (*database(OLD_SCHEMA), *temporal(SERVER.replace("STORE", STORE % "1h"))),
        "Deployment/app does not start", ("greater than Actual version: 1.0",), CRASHED,
    ),
    "an error in Temporal's configuration": Broken(
        temporal(SERVER.replace("STORE", STORE % "soon")), "Deployment/app does not start", ("cannot unmarshal", "soon"), CRASHED,
    ),
    "DNS that does not answer": Broken(
        (app(command=RESOLVE, pod=NO_DNS),), "Deployment/app does not start", ("name resolution",), CRASHED,
    ),
    "killed for its memory": Broken(
        (app(command=python("x = b'x' * 2**30"), resources=SMALL),), "Deployment/app does not start", ("OOMKilled",), CRASHED,
    ),
    "a read-only file system": Broken(
        (app(**READ_ONLY),), "Deployment/app does not start", ("Read-only file system",), CRASHED,
    ),
    "a full volume": Broken((FULL,), "Deployment/app does not start", ("No space left on device",), CRASHED),
    "a quota": Broken((app(),), "Deployment/app may not make its pods", ("exceeded quota",), REFUSED, before=(QUOTA,)),
    "a LimitRange": Broken(
        (app(resources=LIMITS),), "Deployment/app may not make its pods", ("maximum cpu usage per Container is 100m",), REFUSED,
        before=(LIMIT_RANGE,),
    ),
    "Pod Security": Broken(
        (app(),), "Deployment/app may not make its pods", ("violates PodSecurity",), REFUSED,
        namespace={"pod-security.kubernetes.io/enforce": "restricted"},
    ),
    "a missing StorageClass": Broken(
        (claim("nope"), mounted("/d", {"persistentVolumeClaim": {"claimName": "data"}}, python(SLEEPS))),
        "Deployment/app has no volume", ('storageclass.storage.k8s.io "nope" not found',), "ProvisioningFailed",
    ),
    "a hook that fails": Broken(
        (app(), job("raise SystemExit('the hook has no luck')", hook="pre-install")),
        "Job/once failed", ("the hook has no luck",), "failed=True", code=4,
    ),
    "a hook that fails and is deleted": Broken(
        (app(), job("raise SystemExit('the hook has no luck')", hook="pre-install", kept="before-hook-creation,hook-failed")),
        "Job/once failed", ("the hook has no luck",), code=4,
    ),
    "a Job's deadline": Broken(
        (app(), job(SLEEPS, activeDeadlineSeconds=3)), "Job/once failed", ("longer than specified deadline",), "failed=True",
    ),
    "two variables of one name": Broken((app(env=TWICE),), "helm could not apply", ("TWICE",), code=4),
    "an immutable field": Broken(
        (OTHER_LABELS,), "cannot be made in place", ("selector",), code=3, first=(app(),),
    ),
    "no node with the CPU": Broken((app(resources=CPU),), NO_ROOM, ("Insufficient cpu|CPU too little",), code=3),
    "no node with the memory": Broken((app(resources=MEMORY),), NO_ROOM, ("Insufficient memory|GiB too little",), code=3),
    "no node with the label": Broken(
        (app(pod={"nodeSelector": {"disk": "none"}}),), NO_ROOM, ("node affinity/selector|no label disk=none",), code=3,
    ),
    "a taint": Broken(
        (app(pod={"nodeSelector": {"devenv.test/node": TAINTED}, "tolerations": [CORDONED]}),),
        NO_ROOM, ("untolerated taint|has the taint dedicated=database",), code=3, before=(node(TAINTED, DEDICATED, ready="True"),),
    ),
    "a liveness probe that kills it": Broken(
        (app(livenessProbe=PROBE),), "Deployment/app is killed by its liveness probe", ("Liveness probe failed",), CRASHED,
    ),
    "a hook after the start that fails": Broken(
        (app(lifecycle={"postStart": {"exec": {"command": ["/bin/sh", "-c", "exit 4"]}}}),),
        "Deployment/app is killed by its postStart hook", ("PostStartHook failed",), CRASHED,
    ),
    "a Job that gives up, and whose pods go": Broken(
        (app(), job("raise SystemExit('the Job has no luck')", restart="OnFailure")), "Job/once failed", ("the Job has no luck",),
        "failed=True",
    ),
    "a crash after 20 seconds": Broken((app(**LATER),), "Deployment/app does not start", ("lost it",), CRASHED),
    "evicted for its volume's size": Broken((BIG,), "Deployment/app is put out", ("exceeds the limit",), "phase='Failed'"),
}  # fmt: skip

AFTER_A_GRACE: dict[str, Broken] = {
    "a Service that leads nowhere": Broken(
        (app(), service("web", "wbe", 8080)), "Service/web leads nowhere", ("app=wbe",), "available=1",
        watch.SERVICE_GRACE + watch.STEADY,
    ),
    "a wrong image": Broken((app(image=NOWHERE),), "Deployment/app gets no image", (NOWHERE, "no such host"), PULL, ailments.PULL_GRACE),
    "a wrong tag on one of two": Broken(
        (app("web"), app("api", image=ELSEWHERE)), "Deployment/api gets no image", (ELSEWHERE,), PULL, ailments.PULL_GRACE,
        never=("web",),
    ),
    "a volume claim that is not there": Broken(
        (mounted("/d", {"persistentVolumeClaim": {"claimName": "nope"}}, python(SLEEPS)),),
        "Deployment/app has no volume", ('persistentvolumeclaim "nope" not found',), 'claim "nope" not found', ailments.SCHEDULING_GRACE,
    ),
    "an admission webhook that is down": Broken(
        (app(),), "Deployment/app may not make its pods", ("failed calling webhook",), REFUSED, ailments.WEBHOOK_GRACE,
        before=(made("ValidatingWebhookConfiguration", "NAMESPACE", "admissionregistration.k8s.io/v1", webhooks=[WEBHOOK]),),
    ),
    "no node with the CPU, where nodes may be added": Broken(
        (app(resources=CPU),), "Deployment/app finds no node", ("Insufficient cpu",), UNSCHEDULED, ailments.SCHEDULING_GRACE,
        flags=("--yes",),
    ),
    "a port that is taken": Broken(
        (app("one", **PORT), app("two", **PORT)), "finds no node", ("free ports",), UNSCHEDULED, ailments.SCHEDULING_GRACE,
    ),
    "a node that is not ready": Broken(
        (app(pod={"nodeName": SILENT}),), "Deployment/app is on a node that is not ready", (SILENT, "container runtime is down"),
        "node='NAMESPACE-silent'", ailments.NODE_GRACE, before=(node(SILENT, ready="False"),),
    ),
}  # fmt: skip

WAITED_FOR: dict[str, Broken] = {
    "a probe that never passes": Broken(
        (app(readinessProbe=PROBE),), "waiting for its readiness probe", ("connection refused",), timeout=WAITS,
    ),
    "an image that is pulled for ever": Broken(
        (app(image=STALLED),), f"pulling {STALLED}", (STALLED,), before=(REGISTRY,), timeout=WAITS,
    ),
    "an init container that hangs": Broken(
        (app(init={"command": python(SLEEPS)}),), "init container wait runs", ("init container wait",), timeout=WAITS,
    ),
    "a hook that hangs": Broken(
        (app(), job("import time; print('waiting for Godot', flush=True); time.sleep(600)", hook="pre-install")),
        "Job/once, a hook, is not over", ("waiting for Godot",), code=4, timeout=WAITS,
    ),
}  # fmt: skip

CATALOGUE = {**AT_ONCE, **AFTER_A_GRACE, **WAITED_FOR}
