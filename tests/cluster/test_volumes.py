"""The embedded cluster's volumes: a pod that is not root writes to them, and what they cannot do is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.conftest import Environment

pytestmark = pytest.mark.cluster

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: writer}}
spec:
  restartPolicy: Never
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 1000
    fsGroup: 4321
    seccompProfile: {{type: RuntimeDefault}}
  containers:
  - name: writer
    image: {image}
    command: [sh, -c, "umask 007; echo kept > /data/file; ls -ldn /data /data/file; id -G"]
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
"""


@pytest.fixture(scope="module")
def environment(make_environment: Callable[[str], Environment]) -> Environment:
    """A namespace under the restricted Pod Security Standard, with one claim."""
    made = make_environment("volumes")
    made.kubectl("create", "namespace", made.namespace)
    made.kubectl("label", "namespace", made.namespace, "pod-security.kubernetes.io/enforce=restricted")
    assert made.inv("kubectl", "--", "apply", "-f", "-", stdin=CLAIM).code == 0
    return made


def test_a_volume_belongs_to_the_group_that_the_pod_names(environment: Environment) -> None:
    from devenv.cluster import images

    pod = POD.format(image=images.references()["backend"])
    assert environment.inv("kubectl", "--", "apply", "-f", "-", stdin=pod).code == 0
    environment.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/writer", "--timeout=60s")
    folder, file, groups = environment.kubectl("logs", "writer").splitlines()
    assert folder.split()[0].startswith("drwxrws") and folder.split()[3] == "4321"
    assert file.split()[2:4] == ["1000", "4321"]
    assert "4321" in groups.split()


def test_a_volume_that_is_to_grow_is_refused_with_the_reason(environment: Environment) -> None:
    environment.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "--timeout=30s")
    larger = '{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}'
    output = environment.inv("kubectl", "--", "patch", "pvc", "data", "--patch", larger)
    assert output.code != 0
    assert "the storageclass that provisions the pvc must support resize" in output.stderr
