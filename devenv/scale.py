"""A chart of many workloads for simulated nodes, and what one run of our own process costs. Edge out: files, /proc.

For the scale test and for `inv bench`: `inv cluster.up --simulated-nodes 10` first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from devenv.clients import shell

CHART = """apiVersion: v2
name: scale
version: 1.0.0
"""
VALUES = """workloads: {workloads}
replicas: {replicas}
text: first
simulate: {{}} # workload number to crash, image or unready
"""
TEMPLATE = """{{- range $n := until (int .Values.workloads) }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ printf "workload-%03d" $n }}}
spec:
  replicas: {{ $.Values.replicas }}
  selector: {matchLabels: {app: {{ printf "workload-%03d" $n }}}}
  template:
    metadata:
      labels:
        app: {{ printf "workload-%03d" $n }}
        {{- with get $.Values.simulate (toString $n) }}
        devenv.local/simulate: {{ . }}
        {{- end }}
    spec:
      nodeSelector: {devenv.local/simulated: "true"}
      tolerations: [{key: devenv.local/simulated, operator: Exists}]
      containers:
      - name: main
        image: devenv.local/pause:1
        env: [{name: TEXT, value: {{ $.Values.text | quote }}}]
        readinessProbe: {tcpSocket: {port: 80}}
{{- end }}
"""


class Cost(NamedTuple):
    """One run: what it said, seconds on the clock, seconds of CPU of the process itself, its largest resident set."""

    output: shell.Output
    seconds: float
    cpu: float
    memory: int


def write_chart(folder: Path, workloads: int, replicas: int) -> Path:
    """The chart, in a folder of its own below `folder`."""
    chart = folder / "scale"
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    (chart / "Chart.yaml").write_text(CHART)
    (chart / "values.yaml").write_text(VALUES.format(workloads=workloads, replicas=replicas))
    (chart / "templates/workloads.yaml").write_text(TEMPLATE)
    return chart


def measure(argv: Sequence[str | Path], env: Mapping[str, str]) -> Cost:
    """Runs a program and looks at its process every 20 ms; what it starts itself, such as Helm, does not count."""
    began = time.monotonic()
    running = shell.Running(argv, env=env)
    process = Path(f"/proc/{running.pid}")
    cpu, memory = 0.0, 0
    while running.alive:
        cpu, memory = max(cpu, _cpu(process)), max(memory, _memory(process))
        time.sleep(0.02)
    return Cost(running.wait(), time.monotonic() - began, cpu, memory)


def _cpu(process: Path) -> float:
    """Seconds of CPU in user and system mode. Source: proc(5), stat, fields 14 and 15."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(process: Path) -> int:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
