"""What the bench measured: its record, and the table for README, with the machine that it was taken on.

Pure, but for `machine`, which reads /proc.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """One thing that was measured: seconds for each round; a side is empty where it has nothing like it.

    `proof` is the part of devenv's seconds in which it proved the environment, which the others do not do. `cpu` and
    `memory` are the seconds of CPU and the bytes that devenv's own process took, where that was measured.
    """

    name: str
    devenv: tuple[float, ...]
    helm: tuple[float, ...] = ()
    proof: tuple[float, ...] = ()
    helmfile: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()
    memory: tuple[int, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The median of the pairs' ratios, devenv to Helm, the proof not counted."""
        proof = self.proof or (0.0,) * len(self.devenv)
        return _ratio([ours - proving for ours, proving in zip(self.devenv, proof, strict=True)], self.helm)

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "devenv": _rounded(self.devenv),
            "helm": _rounded(self.helm),
            "proof": _rounded(self.proof),
            "helmfile": _rounded(self.helmfile),
            "cpu": _rounded(self.cpu),
            "memoryMB": [round(size / 1e6) for size in self.memory],
            "devenvMedian": _median(self.devenv),
            "helmMedian": _median(self.helm),
            "proofMedian": _median(self.proof),
            "helmfileMedian": _median(self.helmfile),
            "ratio": self.ratio,
            "helmfileRatio": _ratio(self.helmfile, self.helm) if self.helmfile else None,
        }

    def told(self) -> str:
        """In a few words, with both sides."""
        record = self.record()
        both = f"{record['devenvMedian']:.2f} s, helm {record['helmMedian']:.2f} s, ratio {record['ratio']}"
        helmfile = f", helmfile {record['helmfileMedian']:.2f} s" if self.helmfile else ""
        return f"{self.name}: {both}{helmfile}{_own(record)}"


def _ratio(side: Sequence[float], helm: Sequence[float]) -> float | None:
    if not helm:
        return None
    return round(statistics.median(ours / theirs for ours, theirs in zip(side, helm, strict=True)), 2)


def _median(seconds: Sequence[float]) -> float | None:
    return round(statistics.median(seconds), 3) if seconds else None


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(one, 3) for one in seconds]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    except (OSError, ValueError, IndexError):
        memory = 0
    return {
        "cpus": os.cpu_count() or 0,
        "model": model or platform.machine(),
        "memoryMB": memory,
        "system": platform.system(),
    }


def table(record: Mapping[str, Any]) -> str:
    """The figures as Markdown, for README, with the machine that they were taken on."""
    where, versions = record["machine"], record["versions"]
    three = any(one["helmfile"] for one in record["measures"])
    heads = ["", "devenv", "of it proof", "helm", "ratio without proof", *(("helmfile", "ratio") if three else ())]
    lines = [f"| {' | '.join(heads)} |".replace("|  |", "| |"), "|---" * len(heads) + "|"]
    for one in record["measures"]:
        cells = [_seconds(one[key]) for key in ("devenvMedian", "proofMedian", "helmMedian")]
        cells += [_number(one["ratio"])]
        cells += [_seconds(one["helmfileMedian"]), _number(one["helmfileRatio"])] if three else []
        lines.append(f"| {one['name']}{_own(one)} | {' | '.join(cells)} |")
    helmfile = f", Helmfile {versions['helmfile']}" if three else ""
    lines += [
        "",
        f"Medians of {record['rounds']} rounds; Temporal {'on' if record['temporal'] else 'off'}; {where['cpus']} CPUs "
        f"({where['model']}), {where['memoryMB'] / 1024:.0f} GB, load {where['load']} before; "
        f"Kubernetes {versions['kubernetes'].removeprefix('v')}, Helm {versions['helm']}{helmfile}, "
        f"Python {versions['python']}.",
    ]
    if where["load"] > where["cpus"]:
        lines.append("The machine was busy with other things: only the ratios say something.")
    return "\n".join(lines)


def _own(one: Mapping[str, Any]) -> str:
    """What devenv's own process took, where that was measured."""
    if not one["cpu"]:
        return ""
    return f" (our process: {statistics.median(one['cpu']):.2f} s of CPU, {max(one['memoryMB'])} MB)"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
