"""What can be typed: exit codes, one clear message, no traceback. Runs the real command line."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from devenv.clients import shell
from devenv.paths import START

PROJECT = Path(__file__).parent.parent


def inv(*words: str, home: Path, **env: str) -> shell.Output:
    return shell.run([sys.executable, START, *words], env={"HOME": str(home), **env}, cwd=home)


WRONG: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "a variable that is neither on nor off": (("values",), {"ENABLE_TEMPORAL": "tru"}, "neither on nor off"),
    "an unknown profile": (("values", "--profile", "nope"), {}, "no profile 'nope'"),
    "a set without =": (("values", "--set", "a.b"), {}, "= is missing"),
    "a namespace that is no label": (("values", "--namespace", "A_b"), {}, "is no namespace"),
    "a chart that is not there": (("values", "--chart", "./nope"), {}, "there is no chart"),
    "an unknown key to explain": (("values", "--explain", "nope"), {}, "no layer sets nope"),
    "an unknown output": (("values", "--output", "xml"), {}, "is not known"),
    "an unknown task": (
        ("redploy",),
        {},
        "No idea what 'redploy' is where the command line why did you mean redeploy?",
    ),
    "an unknown flag": (("redeploy", "--profil", "x"), {}, "did you mean --profile? next inv redeploy --help"),
    "an unknown word after a task": (("status", "extra"), {}, "No idea what 'extra' is"),
    "a flag without its value": (("redeploy", "--profile"), {}, "needed value and was not given one"),
    "arguments of kubectl without the dashes": (("kubectl", "get", "pods"), {}, "next inv kubectl -- get pods"),
    "an image of nothing": (("redeploy", "--image", "x:1"), {}, "names no image of a component"),
    "an image of two words": (
        ("redeploy", "--image", "backend=a", "--image", "backend=A:1"),
        {},
        "is no name of an image",
    ),
    "an unknown cluster to load into": (("cluster.images", "--load", "kin"), {}, "--load kin is not known"),
    "a registry that is an address": (("cluster.images", "--push", "https://x.io"), {}, "is no registry"),
    "no cluster, and the longest tests on it": (("test", "--fast", "--all"), {}, "do not go together"),
    "a wrong time": (("values", "--timeout", "soon"), {}, "is no time"),
}


@pytest.mark.parametrize(("words", "env", "message"), WRONG.values(), ids=WRONG.keys())
def test_exit_code_2_for(
    words: tuple[str, ...],
    env: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import tasks

    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        tasks.Devenv(name="devenv", namespace=tasks.namespace, binary="inv").run(["inv", *words])
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert message in " ".join(told.err.split())
    assert told.out == ""


def test_a_wrong_command_line_ends_the_real_program_without_a_traceback(tmp_path: Path) -> None:
    output = inv("values", "--profile", "nope", home=tmp_path)
    assert output.code == 2
    assert output.stderr.startswith("  what    there is no profile 'nope'")
    assert "Traceback" not in output.stderr


def test_exit_code_3_for_a_context_that_is_not_allowed(tmp_path: Path) -> None:
    config = tmp_path / "config"
    cluster = {"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "users": []}
    contexts = {"contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}], "current-context": "prod"}
    config.write_text(json.dumps({**cluster, **contexts}))
    output = inv("plan", "--output", "json", home=tmp_path, KUBECONFIG=str(config))
    assert output.code == 3
    failure = json.loads(output.stdout)["failure"]
    assert failure["class"] == "refused"
    assert "may not touch context prod" in failure["reason"]


def test_exit_code_3_for_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    config = tmp_path / "config"
    cluster = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    contexts = {"contexts": [{"name": "kind-x", "context": {"cluster": "c", "user": "u"}}], "current-context": "kind-x"}
    config.write_text(json.dumps({**cluster, **contexts}))
    output = inv("status", home=tmp_path, KUBECONFIG=str(config))
    assert output.code == 3
    assert "does not answer" in output.stderr
    assert "Traceback" not in output.stderr


def test_json_is_the_only_thing_on_standard_output(tmp_path: Path) -> None:
    record = json.loads(inv("values", "--output", "json", "--explain", "global", home=tmp_path).stdout)
    assert record["schema"] == "devenv/values/v1"
    assert record["values"]["global"] == {"postgresql": {"enabled": True}}
    assert record["explained"][0]["setBy"][0]["by"].startswith("profile dev, profiles/dev.yaml:")


def test_set_may_be_given_again_and_again(tmp_path: Path) -> None:
    output = inv("values", "--output", "json", "--set", "x.a=1", "--set", "x.b=two", home=tmp_path)
    assert json.loads(output.stdout)["values"]["x"] == {"a": 1, "b": "two"}


POSITIONALS = {
    "logs history": "logs --component history",
    "logs --follow history": "logs --follow --component history",
    "logs --namespace n history": "logs --namespace n --component history",
    "logs --namespace=n history --previous": "logs --namespace=n --component history --previous",
    "logs --namespace logs": "logs --namespace logs",
    "logs": "logs",
    "values --explain logs": "values --explain logs",
}


@pytest.mark.parametrize(("typed", "meant"), POSITIONALS.items())
def test_the_first_argument_may_come_without_its_flag(typed: str, meant: str) -> None:
    import tasks

    assert tasks._with_flags(["inv", *typed.split()]) == ["inv", *meant.split()]


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    output = shell.run(["sh", "-c", f"'{sys.executable}' '{START}' --list | true"], env={"HOME": str(tmp_path)})
    assert output.stderr == ""


def test_what_the_user_told_invoke_for_other_tasks_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".invoke.yaml").write_text("{: no YAML")
    output = shell.run([sys.executable, START, "--list"], env={"HOME": str(tmp_path)}, cwd=tmp_path)
    assert (output.code, output.stderr) == (0, "")


@pytest.mark.parametrize(("variable", "kept"), {"PYTHONUNBUFFERED": True, "PYTHONDONTWRITEBYTECODE": False}.items())
def test_what_a_task_compiles_of_python_is_kept_unless_told_otherwise(
    tmp_path: Path, variable: str, kept: bool
) -> None:
    """invoke turns that off for the whole process, so each start would compile all that a task imports."""
    env = {"PYTHONPYCACHEPREFIX": str(tmp_path), variable: "1"}
    assert shell.run([sys.executable, START, "values"], env=env, drop=("PYTHONDONT",)).code == 0
    assert bool(list(tmp_path.rglob("devenv/profiles.*.pyc"))) is kept


# A task may import only what it needs: the rest is paid for by every start.
NEEDLESS = {
    ("--list",): ("kubernetes", "sh", "rich", "dotenv", "importlib.metadata", "unittest.mock", "asyncio"),
    ("values", "--output", "json"): ("kubernetes", "sh"),
}


@pytest.mark.parametrize(("words", "modules"), NEEDLESS.items())
def test_nothing_needless_is_imported(tmp_path: Path, words: tuple[str, ...], modules: tuple[str, ...]) -> None:
    output = shell.run([sys.executable, "-X", "importtime", START, *words], env={"HOME": str(tmp_path)}, cwd=tmp_path)
    imported = {
        line.rpartition("|")[2].strip() for line in output.stderr.splitlines() if line.startswith("import time:")
    }
    assert output.code == 0
    assert imported & set(modules) == set()


def test_the_bootstrap_costs_nothing_the_second_time(tmp_path: Path) -> None:
    inv_path = PROJECT / "inv"
    if not (PROJECT / ".venv" / "requirements.lock").exists():
        pytest.skip("these tests were not started by ./inv, so there is no .venv of its making")

    def timed(argv: list[str | Path]) -> float:
        started = time.monotonic()
        shell.run(argv, env={"HOME": str(tmp_path)}, cwd=tmp_path)
        return time.monotonic() - started

    # Other programs of this machine only ever add time, so the best of each side is nearest to the truth.
    by_hand = by_inv = float("inf")
    for _ in range(60):
        by_hand = min(by_hand, timed([PROJECT / ".venv" / "bin" / "python", START, "--version"]))
        by_inv = min(by_inv, timed([inv_path, "--version"]))
        if by_inv - by_hand <= 0.02:
            return
    raise AssertionError(f"{by_inv - by_hand:.3f} s more than without it")


def test_every_task_and_every_flag_says_what_it_is() -> None:
    import tasks

    tasks = importlib.reload(tasks)  # invoke forgets the help of a task whose command line it has read once
    contexts = tasks.namespace.to_contexts()
    assert len(contexts) > 25
    mute = [f"{one.name} {flags}" for one in contexts for flags, text in one.help_tuples() if not text]
    assert mute == []
    assert [one.name for one in contexts if not tasks.namespace[one.name].__doc__] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_starts_it_ends_with_130_and_no_traceback(tmp_path: Path, number: signal.Signals) -> None:
    pipe, told = os.pipe()
    start = f"trap '' INT; exec '{sys.executable}' '{START}' values"  # as ./inv does it
    actions = [(os.POSIX_SPAWN_DUP2, told, 2)]
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", start], {"HOME": str(tmp_path)}, file_actions=actions)
    os.close(told)
    time.sleep(0.15)
    os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(pipe) as stream:
        assert "Traceback" not in stream.read()
    assert os.waitstatus_to_exitcode(status) in (130, 0, -number)  # the last: before Python had read a line of ours


def test_every_task_has_its_row_in_the_readme() -> None:
    import tasks

    rows = [line for line in (PROJECT / "README.md").read_text().splitlines() if line.startswith("| `")]

    def told(name: str) -> bool:
        folder, dot, own = name.rpartition(".")
        return any(f"`{name}" in row or (dot and f"`{folder}." in row and f"`.{own}" in row) for row in rows)

    assert [name for name in tasks.namespace.task_names if not told(name)] == []
