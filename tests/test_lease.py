"""One writer at a time; a dead one is known by its process or by its silence, never guessed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from devenv import lease
from devenv.clients import shell
from devenv.clients.kube import Kube
from devenv.errors import Refused
from tests.fake_api import FakeApi

PATH = "/apis/coordination.k8s.io/v1/namespaces/n/leases"


class Stored:
    """One Lease as an API server keeps it: a write with an old resourceVersion is refused."""

    def __init__(self, api: FakeApi, lease: dict[str, Any] | None = None) -> None:
        self.lease = lease
        self.version = 1
        if lease is not None:
            lease["metadata"]["resourceVersion"] = "1"
        api.answers[f"GET {PATH}/devenv-r"] = lambda _: (200, self.lease) if self.lease else (404, {})
        api.answers[f"POST {PATH}"] = lambda body: self.write(body) if self.lease is None else (409, {})
        api.answers[f"PUT {PATH}/devenv-r"] = self.write

    def write(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.lease and body["metadata"].get("resourceVersion") != str(self.version):
            return 409, {"message": "changed"}
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.lease = body
        return 200, body


def other(process: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": "devenv-r", "annotations": {lease.ANNOTATION: process}},
        "spec": {"holderIdentity": "ann@laptop"},
    }


def test_it_is_had_at_once_and_given_back(api: FakeApi, kube: Kube) -> None:
    stored = Stored(api)
    with lease.held(kube, "n", "r", lambda _: None) as taken:
        assert not taken.waited
        assert stored.lease is not None
        assert f"pid {os.getpid()}" in stored.lease["spec"]["holderIdentity"]
    assert stored.lease["spec"]["holderIdentity"] == ""


def test_a_holder_is_waited_for_by_name(api: FakeApi, kube: Kube) -> None:
    stored, said = Stored(api, other()), []

    def waits(text: str) -> None:
        said.append(text)
        assert stored.lease is not None
        stored.lease["spec"]["holderIdentity"] = ""

    with lease.held(kube, "n", "r", waits) as taken:
        assert taken.waited
        assert taken.over == ""
    assert said == ["waiting for ann@laptop, who is at work here"]


def test_with_no_wait_it_is_refused_with_the_holders_name(api: FakeApi, kube: Kube) -> None:
    Stored(api, other())
    with pytest.raises(Refused) as refused, lease.held(kube, "n", "r", lambda _: None, wait=False):
        pass
    assert refused.value.why == "ann@laptop"


def test_a_silent_holder_is_dead_after_15_seconds_of_our_own_clock(
    api: FakeApi, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stored(api, other())
    now = [100.0]
    monkeypatch.setattr("devenv.lease.time.monotonic", lambda: now[0])
    monkeypatch.setattr("devenv.lease.time.sleep", lambda _: now.__setitem__(0, now[0] + 5.0))
    with lease.held(kube, "n", "r", lambda _: None) as taken:
        assert taken.over == "ann@laptop"
        assert now[0] == 115.0


def test_a_holder_whose_process_here_is_gone_is_dead_at_once(api: FakeApi, kube: Kube) -> None:
    script = "from devenv import lease; import os; print(lease.process(os.getpid()))"
    gone = shell.run([sys.executable, "-c", script]).stdout.strip()
    assert lease.is_dead(gone)
    Stored(api, other(gone))
    with lease.held(kube, "n", "r", lambda _: None, wait=False) as taken:
        assert taken.over == "ann@laptop"


ALIVE = {
    "ourselves": lambda: lease.process(os.getpid()),
    "somebody of another boot": lambda: f"other-boot {Path('/proc/self/ns/pid').readlink()} 999999 1",
    "somebody in another process namespace": lambda: " ".join(
        [lease.process(os.getpid()).split()[0], "pid:[1]", "999999", "1"]
    ),
    "somebody unknown": lambda: "",
}


@pytest.mark.parametrize("holder", ALIVE.values(), ids=ALIVE.keys())
def test_nobody_is_called_dead_who_may_be_alive(holder: Any) -> None:
    assert not lease.is_dead(holder())


def test_a_program_ends_with_us_even_when_we_are_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = (
        "from devenv.clients import shell; import os, signal, time\n"
        f"r = shell.Running(['sh', '-c', 'echo $$ > {mark}; sleep 60'])\n"
        f"while not os.path.exists('{mark}') or not open('{mark}').read(): time.sleep(0.05)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert shell.run([sys.executable, "-c", script]).code == 137
    pid = int(mark.read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        shell.run(["sleep", "0.05"])
    raise AssertionError(f"{pid} still runs")
