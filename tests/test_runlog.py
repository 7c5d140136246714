"""A run leaves a report: two files, private, without secrets, and never a reason for the run to fail."""

from __future__ import annotations

import base64
import io
import json
import re
import resource
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from devenv import page, runlog, timeline
from devenv.errors import Failure, Interrupted, RolloutFailed
from devenv.model import Change, Container, Field, Plan, Pod, Snapshot
from devenv.proof import Proof
from devenv.report import Screen, Told
from devenv.watch import Tail

BEGAN = 1_790_000_000.0  # 2026-09-21T14:13:20Z
WHEN = "2026-09-21T14:13:"
PASSWORD = 'hunter2<&"secret'

CHANGES = (
    Change("create", "Deployment/backend-temporal-history"),
    Change("change", "Deployment/backend", (Field("spec.replicas", 1, 2), Field("env[KEY].value", "old", PASSWORD))),
    Change("remove", "ConfigMap/old"),
)
PLAN = Plan(("2 to change",), CHANGES, 3, "hash")
TOLD = (
    Told("cluster", BEGAN + 0.1, 0.2, "ok", "", ()),
    Told(
        "plan", BEGAN + 0.3, 0.6, "ok", "Temporal on (ENABLE_TEMPORAL), internal PostgreSQL", ("because 2 to change",)
    ),
    Told("lock", BEGAN + 0.9, 0.02, "ok", "", ()),
    Told("rollout", BEGAN + 1.0, 33.0, "ok", "revision 3, 2 of 2 ok", ("frontend, backend",)),
    Told("proof", BEGAN + 34.0, 0.4, "ok", "workflow ran through backend, listed by visibility", ("wf-1",)),
)
LIVES = (
    timeline.Life("backend-new", "backend", f"{WHEN}22Z", f"{WHEN}22Z", f"{WHEN}27Z", f"{WHEN}40Z", state="ready"),
    timeline.Life("backend-old", "backend", "2026-09-20T00:00:00Z", ended=f"{WHEN}45Z", state="ending"),
    timeline.Life("history", "history", f"{WHEN}23Z", f"{WHEN}23Z", f"{WHEN}26Z", restarts=3, state="CrashLoopBackOff"),
)
FACTS: dict[str, Any] = {
    "profile": "dev",
    "namespace": "demo",
    "context": "embedded",
    "versions": {"kubernetes": "v1.34.4"},
    "plan": PLAN,
    "pods": LIVES,
    "proof": Proof("r", "wf-1", "run-1", "abc"),
}
LOGS = (Tail("history", "temporal", ("starting", f"login with {PASSWORD} refused <b>")),)
BROKEN = RolloutFailed("it broke", where="pod history, container temporal", why=f"said {PASSWORD}", next="inv logs")


def made(failure: Failure | None = None, **facts: Any) -> dict[str, Any]:
    told = TOLD if failure is None else (*TOLD[:3], Told("rollout", BEGAN + 1.0, 33.0, "failed", "", ()))
    return runlog.record("redeploy", BEGAN, 34.5, told, {**FACTS, **facts}, failure)


def screen(**facts: Any) -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    shown = Screen(plain=True, color=False, stream=stream)
    shown.began = BEGAN
    shown.told += TOLD
    shown.facts.update(FACTS, **facts)
    shown.secrets.add(PASSWORD)
    return shown, stream


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def reports(home: Path) -> list[Path]:
    folder = home / ".local" / "state" / "devenv" / "reports"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_a_run_leaves_two_private_files_and_says_where(home: Path) -> None:
    shown, stream = screen()
    runlog.keep(shown, "redeploy", None, BEGAN + 34.5)
    [folder] = reports(home)
    assert folder.name == "20260921-141320-demo-redeploy"
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "report.json": 0o600,
        "report.html": 0o600,
    }
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert stream.getvalue() == f"report ~/.local/state/devenv/reports/{folder.name}/report.html\n"


def test_the_record_is_written_with_a_line_for_each_pod(tmp_path: Path) -> None:
    text = (runlog.write(made(), tmp_path).parent / "report.json").read_text()
    assert json.loads(text) == made()
    lines = [
        json.loads(line.strip().rstrip(",")) for line in text.splitlines() if line.startswith('    {"name": "back')
    ]
    assert [life["name"] for life in lines] == ["backend-new", "backend-old"]


def test_the_record_tells_the_run() -> None:
    record = made()
    assert json.loads(json.dumps(record)) == record
    assert (record["exitCode"], record["failure"], record["workflow"]) == (0, None, "wf-1")
    assert record["stages"][3] == {
        "name": "rollout",
        "start": 1.0,
        "seconds": 33.0,
        "outcome": "ok",
        "text": "revision 3, 2 of 2 ok",
        "more": ["frontend, backend"],
    }
    assert record["plan"]["changes"][1] == {
        "how": "change",
        "object": "Deployment/backend",
        "fields": ["spec.replicas", "env[KEY].value"],
    }


def test_no_secret_is_in_either_file_in_any_form(home: Path) -> None:
    encoded = base64.b64encode(PASSWORD.encode()).decode()
    shown, _ = screen(logs=(*LOGS, Tail("p", "c", (encoded, json.dumps(PASSWORD)))))
    runlog.keep(shown, "redeploy", BROKEN, BEGAN + 34.5)
    for file in reports(home)[0].iterdir():
        text = file.read_text()
        assert "•••" in text
        for form in (PASSWORD, escape(PASSWORD), encoded, "hunter2"):
            assert form not in text


LOOKED = (Told("cluster", BEGAN, 0.1, "ok", "", ()), Told("plan", BEGAN, 0.1, "ok", "nothing to do", ()))
WORTH: dict[str, tuple[tuple[Told, ...], Failure | None, bool]] = {
    "a run that did something": (TOLD, None, True),
    "nothing to do": (LOOKED, None, False),
    "nothing to do, with a proof": ((*LOOKED, TOLD[-1]), None, False),
    "a failure before anything was done": (LOOKED[:1], BROKEN, True),
    "an interruption": (LOOKED, Interrupted("interrupted"), True),
}


@pytest.mark.parametrize(("told", "failure", "worth"), WORTH.values(), ids=WORTH.keys())
def test_a_report_is_for(told: tuple[Told, ...], failure: Failure | None, worth: bool) -> None:
    assert runlog.worth(told, failure) is worth


def test_a_wrong_input_is_no_run(home: Path) -> None:
    shown, _ = screen()
    shown.facts.clear()
    assert runlog.keep(shown, "redeploy", BROKEN, BEGAN) is None
    assert reports(home) == []


def test_the_newest_twenty_are_kept_and_nothing_else_is_touched(home: Path) -> None:
    shown, _ = screen()
    for second in range(23):
        shown.began = BEGAN + second
        runlog.keep(shown, "redeploy", None, BEGAN + 60)
        (reports(home)[0].parent / "mine").mkdir(exist_ok=True)
    names = [path.name for path in reports(home)]
    assert len(names) == 21
    assert "mine" in names
    assert names[0].startswith(re.sub(r"[-:Z]", "", runlog._time(BEGAN + 3)).replace("T", "-"))


def test_two_runs_of_one_second_do_not_share_a_report(home: Path) -> None:
    for _ in range(2):
        runlog.keep(screen()[0], "redeploy", None, BEGAN + 34.5)
    first, second = reports(home)
    assert second.name == f"{first.name}.2"


def test_what_cannot_be_written_is_one_line(home: Path) -> None:
    (home / ".local").write_text("a file in the way")
    shown, stream = screen()
    assert runlog.keep(shown, "redeploy", None, BEGAN + 34.5) is None
    [line] = stream.getvalue().splitlines()
    assert line.startswith("no report was written: ")
    assert "Not a directory" in line


def test_a_disk_that_is_full_leaves_no_half_report(home: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    shown, stream = screen()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        assert runlog.keep(shown, "redeploy", None, BEGAN + 34.5) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert stream.getvalue() == "no report was written: [Errno 27] File too large\n"
    assert reports(home) == []


class Outline(HTMLParser):
    """The tags that are open, and everything that would load something or run."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [
            (tag, name) for name, _ in attributes if name in ("src", "href", "data") or name.startswith("on")
        ]
        if tag in ("script", "link", "img", "iframe", "object"):
            self.loads.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("failure", [None, BROKEN, Interrupted("interrupted")])
def test_the_page_is_whole_and_needs_nothing_else(failure: Failure | None) -> None:
    text = page.html(made(failure, logs=LOGS if failure else ()))
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert outline.loads == []
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_of_a_failure_says_cause_and_log() -> None:
    text = page.html(made(BROKEN, logs=LOGS))
    assert "failed after 34 s, exit code 5" in text
    for told in (BROKEN.what, BROKEN.where, BROKEN.next, "CrashLoopBackOff, 3 restarts", "refused &lt;b&gt;"):
        assert told in text


FIELDS = {
    "name": LIVES[0]._replace(name="<script>"),
    "component": LIVES[0]._replace(component="<script>"),
    "state": LIVES[0]._replace(state="<script>"),
}


@pytest.mark.parametrize("life", FIELDS.values(), ids=FIELDS.keys())
def test_no_word_of_the_cluster_becomes_markup(life: timeline.Life) -> None:
    assert "<script>" not in page.html(made(pods=(life,)))


def test_a_pod_that_was_there_before_and_after_is_only_named() -> None:
    before = "2026-09-20T00:00:00Z"
    life = timeline.Life("db-0", "db", before, before, before, before, state="ready")
    assert "not touched: db-0" in page.html(made(pods=(life,)))


def test_a_run_that_failed_before_the_cluster_answered_has_a_page() -> None:
    record = runlog.record("redeploy", BEGAN, 0.0, [], {"profile": "dev", "namespace": "demo"}, BROKEN)
    assert "it broke" in page.html(record)


DURATIONS = {0.04: "0.0 s", 9.94: "9.9 s", 41.2: "41 s", 119: "119 s", 120: "2 min", 185.4: "3 min 5 s"}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_a_duration_reads(seconds: float, text: str) -> None:
    assert page.duration(seconds) == text


def pod(name: str = "p", phase: str = "Running", ready_since: str = "", **container: Any) -> Pod:
    main = Container("main", False, "image", bool(ready_since), container.pop("state", "running"), **container)
    return Pod(name, "c", "", "", phase, bool(ready_since), False, "", "t0", (main,), "", "t1", ready_since)


def lived(*pods: Pod | None) -> timeline.Life:
    lives: tuple[timeline.Life, ...] = ()
    for moment, seen in enumerate(pods):
        lives = timeline.fold(lives, Snapshot("n", pods=(seen,) if seen else ()), f"now{moment}")
    [life] = lives
    return life


def test_a_pod_that_vanishes_ended_when_it_was_missed_first() -> None:
    assert lived(pod(started="t2", ready_since="t3"), None, None).ended == "now1"


def test_a_container_that_starts_anew_does_not_move_the_first_start() -> None:
    life = lived(pod(started="t2"), pod(started="t9", restarts=1))
    assert (life.started, life.restarts) == ("t2", 1)


def test_a_pod_that_was_ready_once_keeps_that_time() -> None:
    assert lived(pod(started="t2", ready_since="t3"), pod(started="t2")).ready == "t3"


def test_a_job_pod_ends_with_its_container() -> None:
    life = lived(pod(phase="Succeeded", state="terminated", exit_code=0, started="t2", ended="t5"))
    assert (life.ended, life.state) == ("t5", "complete")


STATES = {
    "CrashLoopBackOff": {"state": "waiting", "reason": "CrashLoopBackOff"},
    "exit code 2": {"state": "terminated", "exit_code": 2},
    "not ready": {},
    "ready": {"ready_since": "t3"},
}


@pytest.mark.parametrize(("state", "container"), STATES.items())
def test_a_pod_is_seen_as(state: str, container: dict[str, Any]) -> None:
    assert lived(pod(**container)).state == state
