"""The tasks: what can be typed. The only user of invoke; turns a failure into its exit code.

`./inv TASK` calls `main` (devenv/__main__.py); plain `inv TASK` in an active environment finds `namespace` below.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, cast

from devenv import lean

# More than half of invoke's import is for its version, for a stand-in in tests, and for what reads files of settings of
# its own, which none of our tasks has.
UNASKED = {
    "importlib.metadata": {"version": str},
    "unittest.mock": {"Mock": str},
    "invoke.vendor.yaml": {"YAMLError": str},
}
with lean.without(UNASKED):
    from invoke.collection import Collection
    from invoke.config import Config
    from invoke.exceptions import Exit, ParseError
    from invoke.program import Program
    from invoke.tasks import Task, task

from devenv import __version__
from devenv.errors import Failure, InputWrong, Interrupted, nearest
from devenv.settings import Flags, Settings

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
# Tasks whose first argument may be given without its flag: task → flag.
POSITIONAL = {"logs": "--component", "rollback": "--revision"}

SHARED: dict[str, tuple[Any, str]] = {
    "profile": ("", "profile in profiles/ (DEVENV_PROFILE; default dev)"),
    "namespace": ("", "namespace of the environment (DEVENV_NAMESPACE)"),
    "context": ("", "kubeconfig context, or `embedded` for our own cluster (DEVENV_CONTEXT)"),
    "set": ([], "KEY=VALUE laid over the values, as Helm's --set; again and again"),
    "chart": ("", "bundled name, folder, .tgz, repo/name[:VERSION], oci://… or address (DEVENV_CHART)"),
    "timeout": ("", "for the rollout: 90, 90s, 10m (DEVENV_TIMEOUT)"),
    "yes": (False, "answer yes to what would be asked"),
    "output": ("text", "text or json"),
}

# What the flags of single tasks say in their help.
OWN = {
    "smoke": "run the proof also when there is nothing to do",
    "no_wait": "do not wait where another run is at work: end with 3",
    "fresh": "remove the release first; the data stays",
    "reset_data": "with --fresh: delete volume and password too",
    "detailed_exitcode": "end with 10 when something would change",
    "explain": "a key: its value, who set it, what that overrode",
    "component": "only this one's, such as backend or history",
    "follow": "go on with what comes, until Ctrl-C",
    "previous": "of the containers that crashed",
    "since": "only what is younger: 90s, 10m, 1h30m",
    "delete_data": "delete volume and password too",
    "rounds": "how often each is measured",
    "failures": "the catalogue of broken environments instead: seconds to the exit, and is the cause named",
    "scale": "1,000 simulated pods, too, on a cluster of their own, which goes afterwards",
    "revision": "go back to this one; else to the last good one",
    "simulated_nodes": "how many nodes that do not exist, for pods that ask for them; 0: none; else as before",
    "database": "backend, temporal or temporal_visibility",
    "port": "the local port; 0: any free one",
    "name": "which embedded cluster; with --load, which one of kind's, k3d's or minikube's",
    "image": "backend=REPO:TAG or backend=FILE.tar: the image just built",
    "load": "kind, k3d, minikube or docker: build our images and bring them in",
    "push": "a registry, such as ghcr.io/acme: build our images and push them",
    "prune": "remove the images that nothing uses from the cache, and from the cluster that runs",
    "merge": "write the cluster's context into your kubeconfig; all else in it stays",
    "wheel": "write them as a wheel into dist/, for a team's own index or any address",
    "fast": "without the real cluster",
    "all": "the long ones too",
}

_after_dashes: list[str] = []


def _flags(shared: dict[str, Any]) -> Flags:
    named = {name: shared[name] for name in ("profile", "namespace", "context", "chart", "timeout", "yes", "output")}
    return Flags(**named, sets=tuple(shared["set"]))


def _screen(flags: Flags) -> Any:
    from devenv import settings
    from devenv.report import Screen

    ci, color = settings.look_and_feel()
    return Screen(plain=ci or not settings.is_terminal(), color=color)


def _guard(run: Callable[[Any], None], flags: Flags, kind: str) -> None:
    """Runs a task's body; a failure is told in four lines, in JSON as `failure`, and becomes its exit code."""
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)  # invoke turned it off: see its --write-pyc
    screen = _screen(flags)
    for one in INTERRUPTIONS:
        signal.signal(one, _interrupted)
    try:
        run(screen)
    except (Failure, KeyboardInterrupt) as error:
        failure = error if isinstance(error, Failure) else _told_interruption()
        if flags.output == "json":
            screen.answer({"schema": f"devenv/{kind}/v1", "failure": failure.record()})
        screen.failure(failure)
        _keep_report(screen, kind, failure)
        raise Exit(code=failure.code) from None
    except Exception as bug:
        if not isinstance(bug, Exit):
            _keep_report(screen, kind, Failure(f"{type(bug).__name__}: {bug}", why="a bug of devenv's own"))
        raise
    _keep_report(screen, kind, None)


def _keep_report(screen: Any, kind: str, failure: Failure | None) -> None:
    """The tasks that change an environment leave a report of what they did."""
    if kind in ("redeploy", "rollback", "destroy"):
        from devenv import runlog

        runlog.keep(screen, kind, failure, time.time())


def _told_interruption() -> Interrupted:
    return Interrupted("interrupted", why="nothing is lost", next="the same command again goes on from here")


_interruptions: list[int] = []


def _interrupted(number: int, _: Any) -> None:
    """The first is passed on and awaited; the second ends this process at once, and helm with it (clients/shell.py)."""
    _interruptions.append(number)
    if len(_interruptions) > 1:
        shown = b"\x1b[?25h\n" if os.isatty(2) else b""  # the live line hides the cursor
        os.write(2, shown + b"ended at once; the same command again goes on from here\n")
        os._exit(130)
    shell = sys.modules.get("devenv.clients.shell")
    if shell is None or not shell.keeps_interruption():
        raise KeyboardInterrupt


def environment_task(body: Callable[..., None]) -> Task[Callable[..., Any]]:
    """A task on an environment: the body gets the screen, the shared flags as one record, and its own parameters."""
    own = list(inspect.signature(body).parameters.values())[2:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, (default, _) in SHARED.items()
    ]

    @functools.wraps(body)
    def run(_context: Any, **given: Any) -> None:
        flags = _flags({name: given.pop(name) for name in SHARED})
        _guard(lambda screen: body(screen, flags, **given), flags, run.__name__.replace("_", "-"))

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    context = inspect.Parameter("_context", inspect.Parameter.POSITIONAL_ONLY)
    run.__signature__ = inspect.Signature([context, *keyword_only, *shared])  # type: ignore[attr-defined]
    texts = {**_told(own), **{name: text for name, (_, text) in SHARED.items()}}
    again = ["set", *(parameter.name for parameter in own if isinstance(parameter.default, list))]
    made = task(run, auto_shortflags=False, iterable=again, help=texts, positional=[])
    return cast(Task[Callable[..., Any]], made)


def plain_task(body: Callable[..., None]) -> Task[Callable[..., Any]]:
    """A task without an environment: the body gets the screen and its own parameters, `output` among them or not."""
    own = list(inspect.signature(body).parameters.values())[1:]

    @functools.wraps(body)
    def run(_context: Any, **given: Any) -> None:
        flags = Flags(output=given.get("output", "text"))
        name = run.__name__.replace("_", "-")
        _guard(lambda screen: body(screen, **given), flags, "cluster" if name == "cluster-status" else name)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    context = inspect.Parameter("_context", inspect.Parameter.POSITIONAL_ONLY)
    run.__signature__ = inspect.Signature([context, *keyword_only])  # type: ignore[attr-defined]
    made = task(run, auto_shortflags=False, positional=[], help=_told(own))
    return cast(Task[Callable[..., Any]], made)


def _told(parameters: list[inspect.Parameter]) -> dict[str, str]:
    texts = {**OWN, "output": SHARED["output"][1]}
    return {one.name: texts[one.name] for one in parameters if one.name in texts}


@environment_task
def redeploy(
    screen: Any,
    flags: Flags,
    smoke: bool = False,
    no_wait: bool = False,
    fresh: bool = False,
    reset_data: bool = False,
    image: list[str] = [],  # noqa: B006 invoke makes a new one for each run
) -> None:
    """Bring the environment to what it should be, and prove it; --image backend=REPO:TAG for the image just built."""
    from devenv import environment
    from devenv import redeploy as story

    if reset_data and not fresh:
        raise InputWrong("--reset-data goes with --fresh only", where="--reset-data", next="--fresh --reset-data")
    wanted = environment.describe(flags)
    how = story.How(smoke=smoke, wait=not no_wait, fresh=fresh, reset_data=reset_data, images=_just_built(image))
    result = story.redeploy(wanted, screen, how)
    if flags.output == "json":
        screen.answer(result.record())
    screen.line(story.farewell(wanted.desired, result), "bold green")


def _just_built(images: list[str]) -> tuple[Any, ...]:
    if not images:
        return ()
    from devenv import built

    return built.parse(images)


@environment_task
def plan(screen: Any, flags: Flags, detailed_exitcode: bool = False) -> None:
    """Show what redeploy would do, and why. Changes nothing; --detailed-exitcode: 10 when something would change."""
    from devenv import draw, environment, external, show

    wanted = environment.describe(flags)
    session = environment.reach(wanted, screen, start=False)
    wanted = external.settle(environment.with_chart(wanted, session, screen), session.kube, screen.secrets)
    drawn = draw.draw(wanted, session, lambda _: None)
    made = draw.explained(wanted, session, drawn)
    if flags.output == "text":
        show.plan(wanted.desired, made)
    draw.refuse(wanted, session, drawn)
    if flags.output == "json":
        screen.answer(show.plan_record(made))
    if detailed_exitcode and not made.nothing_to_do:
        raise Exit(code=10)


@environment_task
def values(screen: Any, flags: Flags, explain: str = "") -> None:
    """Show the composed values; --explain KEY: who set it, and what that overrode."""
    from devenv import environment, show

    desired = environment.describe(flags).desired
    if flags.output == "json":
        screen.answer(show.values_record(desired.values, explain))
    else:
        show.show_values(desired.values, explain)


@environment_task
def status(screen: Any, flags: Flags) -> None:
    """Show what is running: components, versions, databases, and how to reach all of it."""
    from devenv import environment
    from devenv import status as running

    wanted = environment.describe(flags)
    session = environment.reach(wanted, screen, start=False)
    record = running.read(wanted.desired, session)
    if flags.output == "json":
        screen.answer(record)
    else:
        running.show(record)


@environment_task
def doctor(screen: Any, flags: Flags) -> None:
    """Check everything: each line passes, warns or fails, with the command that mends it."""
    from devenv import doctor as doctoring
    from devenv import environment

    record = doctoring.doctor(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)
    else:
        doctoring.show(record, screen)
    if not record["healthy"]:
        raise Exit(code=5)


@environment_task
def logs(
    screen: Any, flags: Flags, component: str = "", follow: bool = False, previous: bool = False, since: str = ""
) -> None:
    """Show all logs, or one component's, merged by time: logs [COMPONENT] [--since 10m] [--follow] [--previous]."""
    from devenv import environment, settings
    from devenv import logs as reading

    wanted = environment.describe(flags)
    past = settings.seconds(since, "--since") if since else None
    session = environment.reach(wanted, screen, start=False)
    reading.show(session.kube, wanted.desired.namespace, component, follow=follow, previous=previous, since=past)


@environment_task
def destroy(screen: Any, flags: Flags, delete_data: bool = False) -> None:
    """Remove the release; data and password stay, unless --delete-data."""
    from devenv import destroy as removing
    from devenv import environment

    wanted = environment.describe(flags)
    session = environment.reach(wanted, screen, start=False)
    result = removing.destroy(wanted.desired, session, screen, delete_data=delete_data)
    if flags.output == "json":
        screen.answer(result.record())


@environment_task
def history(screen: Any, flags: Flags) -> None:
    """Show the release's revisions: when, what, by whom."""
    from devenv import environment
    from devenv import history as past

    wanted = environment.describe(flags)
    found = past.read(environment.reach(wanted, screen, start=False), wanted.desired)
    if flags.output == "json":
        screen.answer(past.record(wanted.desired, found))
    else:
        past.show(found)


@environment_task
def rollback(screen: Any, flags: Flags, revision: str = "") -> None:
    """Go back to a revision, or to the last good one, and prove it: rollback [REVISION]; data stays as it is."""
    from devenv import environment
    from devenv import history as past

    record = past.rollback(environment.describe(flags), screen, revision)
    if flags.output == "json":
        screen.answer(record)


@environment_task
def db_status(screen: Any, flags: Flags) -> None:
    """Show the databases: there or not, owner, schema against what the server needs, size, connections."""
    from devenv import database, environment

    record = database.status(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)
    else:
        database.show(record)


@environment_task
def db_create(screen: Any, flags: Flags) -> None:
    """Make the databases that are missing."""
    from devenv import database, environment

    record = database.create(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)


@environment_task
def db_migrate(screen: Any, flags: Flags) -> None:
    """Migrate Temporal's databases now, by the release's own schema Job."""
    from devenv import database, environment

    record = database.migrate(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)


@environment_task
def db_reset(screen: Any, flags: Flags) -> None:
    """Drop Temporal's databases, make them anew, and prove it. All workflows are lost; asks, unless --yes."""
    from devenv import database, environment

    record = database.reset(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)


@environment_task
def db_shell(screen: Any, flags: Flags, database: str = "backend") -> None:
    """Open psql in the database's pod: db.shell [--database temporal] [-- ARGS]."""
    from devenv import database as databases
    from devenv import environment

    databases.psql(environment.describe(flags), screen, database, _after_dashes)


@environment_task
def db_repair_password(screen: Any, flags: Flags) -> None:
    """Make password and volume belong together again, the data kept: the Secret is lost or another."""
    from devenv import environment, repair

    record = repair.repair(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)


@environment_task
def kubectl(screen: Any, flags: Flags) -> None:
    """Run kubectl on the environment's cluster and namespace: kubectl -- ARGS."""
    from devenv import environment, temporal

    temporal.kubectl(environment.describe(flags), screen, _after_dashes)


@environment_task
def helm(screen: Any, flags: Flags) -> None:
    """Run helm on the environment's cluster and namespace: helm -- ARGS."""
    from devenv import environment, temporal

    temporal.helm(environment.describe(flags), screen, _after_dashes)


@environment_task
def forward(screen: Any, flags: Flags) -> None:
    """Open lasting ways to all web and gRPC ports, until Ctrl-C."""
    from devenv import environment
    from devenv import forward as forwarding

    wanted = environment.describe(flags)
    forwarding.open_all(environment.reach(wanted, screen, start=False), wanted.desired, screen)


@environment_task
def rbac(screen: Any, flags: Flags) -> None:
    """Print the least-privilege Role for a redeploy, with a service account: rbac | kubectl apply -f -"""
    from devenv import draw, environment
    from devenv import rbac as rights

    wanted = environment.describe(flags)
    namespace = wanted.desired.namespace
    if wanted.desired.bundled:
        print(rights.yaml_text("devenv", namespace), end="")
        return
    session = environment.reach(wanted, screen, start=False)
    desired = environment.with_chart(wanted, session, screen).desired
    more, beyond = rights.of_chart(draw.rendered(desired, session, desired.values.tree()), session.kube.kind)
    print(rights.yaml_text("devenv", namespace, more, beyond), end="")


@environment_task
def temporal_health(screen: Any, flags: Flags) -> None:
    """Show whether the Temporal cluster is healthy: frontend, members, namespace."""
    from devenv import environment, temporal

    record = temporal.health(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)
    if not record["healthy"]:
        raise Exit(code=5)


@environment_task
def temporal_smoke(screen: Any, flags: Flags) -> None:
    """Run a real workflow through the backend, and find it in Temporal's list."""
    from devenv import environment, temporal

    record = temporal.smoke(environment.describe(flags), screen)
    if flags.output == "json":
        screen.answer(record)


@environment_task
def temporal_ui(screen: Any, flags: Flags, port: int = 8080) -> None:
    """Open a way to Temporal's Web UI, until Ctrl-C."""
    from devenv import environment, temporal

    temporal.ui(environment.describe(flags), screen, port)


@environment_task
def temporal_cli(screen: Any, flags: Flags) -> None:
    """Run the temporal CLI in the environment: temporal.cli -- ARGS."""
    from devenv import environment, temporal

    temporal.cli(environment.describe(flags), screen, _after_dashes)


@plain_task
def temporal_schemas(screen: Any) -> None:
    """Write the pinned server's SQL schemas into the chart, temporal/sql-schemas/; the schema Job then uses them."""
    from devenv.cluster import schemas

    with screen.stage("schemas") as stage:
        written = schemas.write(stage.waits)
        found = ", ".join(f"{name} {version}" for name, version in zip(schemas.DATABASES, written.newest, strict=True))
        stage.says(f"of server {written.server}: {found}", str(written.folder))


@plain_task
def cluster_up(screen: Any, name: str = "default", simulated_nodes: int = -1) -> None:
    """Build and start the embedded cluster; at once when it runs, anew when its programs are newer."""
    from devenv.cluster import start

    with screen.stage("cluster") as stage:
        running = start.up(name, stage.waits, None if simulated_nodes == -1 else simulated_nodes, renew=True)
        stage.says(f"{name} is ready at {running.server}", f"kubeconfig {running.kubeconfig}")


@plain_task
def cluster_build(screen: Any, wheel: bool = False, output: str = "text") -> None:
    """Make the embedded cluster's Go programs, those of Temporal too; --wheel: write them as a wheel into dist/."""
    from devenv import show
    from devenv.cluster import wheel as packing

    with screen.stage("programs") as stage:
        built = packing.build(stage.waits, wheel=wheel)
        stage.says(built.told)
    if output == "json":
        screen.answer(built.record())
    else:
        show.programs(built)


@plain_task
def cluster_down(screen: Any, name: str = "default") -> None:
    """Stop the embedded cluster; its data stays."""
    from devenv.cluster import embedded

    with screen.stage("cluster") as stage:
        was = embedded.find(name) is not None
        embedded.down(name, stage.waits)
        stage.says(f"{name} is stopped, its data is kept" if was else f"{name} was not running")


@plain_task
def cluster_delete(screen: Any, name: str = "default") -> None:
    """Stop the embedded cluster and delete all of its data."""
    from devenv.cluster import embedded

    with screen.stage("cluster") as stage:
        embedded.delete(name, stage.waits)
        stage.says(f"{name} is gone")


@plain_task
def cluster_status(screen: Any, name: str = "default", output: str = "text") -> None:
    """Show the embedded cluster: its components, where its kubeconfig and logs are."""
    from devenv import show
    from devenv.cluster import embedded

    record = embedded.status(name).record()
    if output == "json":
        screen.answer(record)
    else:
        show.cluster(record)


@plain_task
def cluster_kubeconfig(screen: Any, name: str = "default", merge: bool = False) -> None:
    """Print the path of the embedded cluster's kubeconfig; --merge: write its context into yours."""
    from devenv import kubeconfig, show
    from devenv.cluster import start

    ours = start.running(name).kubeconfig
    if merge:
        show.merged(screen, kubeconfig.merge(ours, name, _said().kubeconfigs))
    else:
        print(ours)


@plain_task
def cluster_images(
    screen: Any, name: str = "", load: str = "", push: str = "", prune: bool = False, output: str = "text"
) -> None:
    """Show our images; --load kind|k3d|minikube|docker, --push REGISTRY: bring them there; --prune: remove old ones."""
    from devenv import show
    from devenv.cluster import ship

    done = ship.ship(_said(), screen, name=name, load=load, push=push, prune=prune)
    if output == "json":
        screen.answer(done.record())
    else:
        show.shipment(done)


def _said() -> Settings:
    """The settings, for a task that has none of the shared flags."""
    from devenv import paths, settings

    return settings.read(Flags(), paths.PROJECT)


@plain_task
def test(screen: Any, fast: bool = False, all: bool = False) -> None:
    """Run the tests of devenv itself; --fast: without the cluster; --all: those that take long, too."""
    from devenv import develop

    if fast and all:
        raise InputWrong("--fast and --all do not go together", where="the command line", next="inv test --all")
    raise Exit(code=develop.test(screen, fast=fast, all=all))


@environment_task
def bench(screen: Any, flags: Flags, rounds: int = 5, failures: bool = False, scale: bool = False) -> None:
    """Measure devenv against plain Helm, and Helmfile if on PATH, side by side on the embedded cluster."""
    from devenv import bench as measuring
    from devenv import benchtable

    if failures:
        from devenv import failures as failing

        told = failing.bench(flags, screen)
        screen.answer(told) if flags.output == "json" else print(failing.table(told))
        return
    record = measuring.run(flags, screen, rounds, scale)
    if flags.output == "json":
        screen.answer(record)
    else:
        print(benchtable.table(record))


@plain_task
def check(screen: Any) -> None:
    """Run ruff and mypy over devenv itself."""
    from devenv import develop

    raise Exit(code=develop.check())


@plain_task
def fix(screen: Any) -> None:
    """Let ruff mend and format devenv itself."""
    from devenv import develop

    raise Exit(code=develop.fix())


def _collection(**tasks: Task[Callable[..., Any]]) -> Collection:
    made = Collection()
    for name, one in tasks.items():
        made.add_task(one, name=name)
    return made


namespace = _collection(
    redeploy=redeploy, plan=plan, values=values, status=status, doctor=doctor, logs=logs, history=history,
    rollback=rollback, destroy=destroy, kubectl=kubectl, helm=helm, forward=forward, rbac=rbac, test=test, bench=bench,
    check=check,
    fix=fix,
)  # fmt: skip
namespace.add_collection(
    _collection(
        status=db_status, create=db_create, migrate=db_migrate, reset=db_reset, shell=db_shell,
        **{"repair-password": db_repair_password},
    ),
    name="db",
)  # fmt: skip
namespace.add_collection(
    _collection(
        health=temporal_health, smoke=temporal_smoke, ui=temporal_ui, cli=temporal_cli, schemas=temporal_schemas
    ),
    name="temporal",
)
namespace.add_collection(
    _collection(
        up=cluster_up, build=cluster_build, down=cluster_down, delete=cluster_delete, status=cluster_status,
        kubeconfig=cluster_kubeconfig, images=cluster_images,
    ),
    name="cluster",
)  # fmt: skip


class Unread(Config):
    """invoke's settings without the files that it would read them from: those of the user are for other tasks."""

    def load_base_conf_files(self) -> None:
        pass

    def load_project(self, merge: bool = True) -> None:
        pass


class Devenv(Program):
    """invoke's Program with exit code 2 for a wrong command line, and arguments after `--` taken as they are."""

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        words = list(sys.argv if argv is None else argv)
        if "--" in words:
            _after_dashes[:] = words[words.index("--") + 1 :]
            words = words[: words.index("--")]
        super().run(_with_flags(words), exit)

    def parse_core(self, argv: list[str] | None) -> None:
        self._parsed(lambda: super(Devenv, self).parse_core(argv))

    def parse_tasks(self) -> None:
        self._parsed(super().parse_tasks)

    def parse_cleanup(self) -> None:
        self._parsed(super().parse_cleanup)

    def _parsed(self, parse: Callable[[], None]) -> None:
        """A wrong command line is told as every failure is."""
        try:
            parse()
        except ParseError as error:
            failure = _wrong_line(str(error), list(self.argv[1:]), error.context)
            _screen(Flags()).failure(failure)
            raise Exit(code=failure.code) from None

    def print_help(self) -> None:
        print("inv TASK [--flags]: one command brings an environment on Kubernetes to what it should be.\n")
        print("  inv redeploy                          with PostgreSQL and a backend")
        print("  ENABLE_TEMPORAL=true inv redeploy     and Temporal, proven by a workflow that ran\n")
        self.list_tasks()

    def print_task_help(self, name: str) -> None:
        print(f"{inspect.getdoc(self.collection[name])}\n")
        flags = self.parser.contexts[name].help_tuples()
        if flags:
            self.print_columns(flags)

    def task_list_opener(self, extra: str = "") -> str:
        return "Tasks (inv TASK --help tells more)"


TAKING_ARGS = ("kubectl", "helm", "temporal.cli", "db.shell")


def _wrong_line(error: str, words: list[str], context: Any) -> InputWrong:
    """invoke's words for a wrong command line, and what was meant."""
    found = re.fullmatch(r"No idea what '(.*)' is!", error)
    word, task = (found[1] if found else ""), words[0] if words else ""
    if not word:
        return InputWrong(error.strip(), where="the command line", next=f"inv {task} --help".replace("  ", " "))
    if task in TAKING_ARGS and word != task:
        rest = words[1:]
        return InputWrong(
            f"inv does not know {word!r}", where="the command line",
            why=f"what {task} is to get stands after --", next=f"inv {task} -- {' '.join(rest)}",
        )  # fmt: skip
    if word.startswith("-") and context is not None:
        flags = [flag for flag in context.flags if flag.startswith("--")]
        why, next = nearest(word, flags), f"inv {task} --help"
    else:
        why, next = nearest(word, namespace.task_names), "inv --list"
    return InputWrong(f"No idea what {word!r} is", where="the command line", why=why, next=next)


# Flags that stand alone; every other flag of a task takes the next word as its value.
SWITCHES = frozenset({"--follow", "--previous", "--yes"})


def _with_flags(words: list[str]) -> list[str]:
    """`logs --follow history` as `logs --follow --component history`."""
    task = next((place for place, word in enumerate(words) if place and word in POSITIONAL), 0)
    place = task + 1
    while task and place < len(words):
        word = words[place]
        if not word.startswith("-"):
            return [*words[:place], POSITIONAL[words[task]], *words[place:]]
        place += 1 if word in SWITCHES or "=" in word else 2
    return words


def main() -> None:
    """Runs the command line; a reader that stops reading (`inv logs | head`) is no error."""
    try:
        Devenv(name="devenv", namespace=namespace, version=__version__, binary="inv", config_class=Unread).run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        os._exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
