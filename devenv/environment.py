"""From flags to an environment that can be worked on: what it should be, and the clients to reach it. Edge in.

`describe` asks no cluster anything; `connect` chooses the cluster and, where a task may, starts our own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from devenv import identity, paths, profiles, setflag, settings, target, toggles
from devenv.apply import database_name
from devenv.clients.helm import Helm
from devenv.clients.kube import Kube
from devenv.errors import Refused
from devenv.model import Desired, Reference
from devenv.profiles import Profile
from devenv.report import Screen
from devenv.settings import Flags, Settings
from devenv.target import Target
from devenv.values import Origin, Values, compose, leaves

BUNDLED = "environment"
Waits = Callable[[str], None]


class Environment(NamedTuple):
    """What the user asked for, and where."""

    settings: Settings
    profile: Profile
    desired: Desired


def describe(flags: Flags, project: Path = paths.PROJECT) -> Environment:
    """Reads settings and profile and composes the values. Raises InputWrong."""
    said = settings.read(flags, project)
    folder = project / "profiles"
    name = said.profile.text or profiles.DEFAULT
    profile = profiles.load(name, folder, said.profile.origin or "the default")
    choices = toggles.decide(profile.toggles, said.toggles)
    asked = _chart(said, profile, project)
    values = compose([*profile.layers, *(profiles.overlay(choice, folder) for choice in choices if choice.on)])
    values = setflag.over(_with_ours(values, profile, asked.name), said.sets)
    timeouts = {**profile.timeouts, **({"rollout": said.timeout} if said.timeout else {})}
    desired = Desired(
        profile=profile.name,
        release=profile.release,
        namespace=said.namespace.text or profile.namespace,
        chart=str(asked.path or asked.name),
        bundled=asked.name == BUNDLED,
        chart_path=asked.path,
        chart_version="" if asked.path else asked.version,
        values=values,
        choices=choices,
        timeouts=timeouts,
        chart_shown=asked.name if asked.path or not asked.version else f"{asked.name} {asked.version}",
    )
    return Environment(said, profile, desired)


def _chart(said: Settings, profile: Profile, project: Path) -> Reference:
    """The chart that was asked for; relative to the project where a file of the project names it."""
    if not said.chart:
        text, origin, version = profile.chart, f"profile {profile.name}", profile.chart_version
    else:
        text, origin, version = said.chart.text, said.chart.origin, ""
    if text == BUNDLED:
        return Reference(BUNDLED, path=paths.PACKAGE / "charts" / BUNDLED)
    in_project = not said.chart or origin.startswith(".env")
    from devenv import chart

    found = chart.locate(text, project if in_project else Path.cwd(), origin)
    return found._replace(version=version or found.version)


def _with_ours(values: Values, profile: Profile, name: str) -> Values:
    """The one value that the tool itself sets, below all layers: the Secret that it makes for the internal database."""
    if name != BUNDLED or values.get(("global", "postgresql", "enabled")) is not True:
        return values
    ours = {"backend": {"postgresql": {"existingSecret": database_name(profile.release)}}}
    return compose([leaves(ours, Origin("devenv")), values.leaves])


class Session(NamedTuple):
    """A cluster that answers, with the clients bound to it; `started`: it was not running before."""

    target: Target
    kube: Kube
    helm: Helm
    version: str
    started: bool = False


def connect(environment: Environment, waits: Waits, *, start: bool) -> Session:
    """Chooses the cluster and makes sure that it answers; `start`: our own may be built and started.

    Raises Refused where it is not allowed, not running, or silent.
    """
    from devenv.cluster import programs

    chosen = target.choose(environment.settings, environment.profile)
    kubeconfig, started = (chosen.kubeconfig, False) if chosen.kubeconfig else _embedded(chosen, waits, start=start)
    kube = Kube(kubeconfig, chosen.context)
    if not chosen.embedded:
        identity.check(kube, environment.profile.pins.get(chosen.context, {}))
    version = str(kube.get("/version").get("gitVersion", ""))
    helm = Helm(programs.path("helm", waits), kubeconfig, chosen.context, environment.desired.namespace)
    return Session(chosen, kube, helm, version, started)


def _embedded(chosen: Target, waits: Waits, *, start: bool) -> tuple[Path, bool]:
    """The kubeconfig of our own cluster, and whether it had to be started."""
    from devenv.cluster import embedded

    found = embedded.find(chosen.embedded)
    running = found
    if start and (running is None or not embedded.ready(chosen.embedded)):  # a sick one is mended first
        from devenv.cluster import start as starting

        running = starting.up(chosen.embedded, waits)
    if running is not None:
        settings.bypass_proxy(running.server.rpartition("/")[2].partition(":")[0])
        return running.kubeconfig, found is None
    raise Refused(
        "no cluster is running",
        where=f"context {chosen.context} ({chosen.why})",
        why="only redeploy, cluster.up and test start the embedded cluster",
        next="inv cluster.up",
    )


def kubectl_argv(session: Session, namespace: str, *words: str) -> list[str | Path]:
    """kubectl with its words, pinned to the session's cluster and a namespace."""
    from devenv.cluster import programs

    pinned = ["--kubeconfig", str(session.kube.kubeconfig), "--context", session.kube.context, "--namespace", namespace]
    return [programs.path("kubectl"), *pinned, *words]


def reach(environment: Environment, screen: Screen, *, start: bool) -> Session:
    """Connects to the cluster; a cluster that has to be built or started first is a stage of its own."""
    screen.tell(profile=environment.desired.profile, namespace=environment.desired.namespace)
    with screen.stage("cluster") as stage:
        session = connect(environment, stage.waits, start=start)
        if session.started:
            stage.says("built and started")
    desired, where = environment.desired, session.target
    screen.tell(context=where.context, versions={"kubernetes": session.version})
    cluster = "embedded cluster" if where.embedded else f"context {where.context}"
    screen.line(
        f"profile {desired.profile} · namespace {desired.namespace} · {cluster}, Kubernetes {session.version[1:]}"
    )
    for choice in desired.choices:
        if choice.ignored:
            screen.line(f"{choice.toggle.variable} is ignored: {choice.ignored}", "yellow")
    return session


def with_chart(environment: Environment, session: Session, screen: Screen) -> Environment:
    """The same with its chart on disk, whole; what has to be fetched for it is a stage of its own, told in one line."""
    from devenv import chart

    told: list[str] = []
    with screen.stage("chart") as stage:

        def waits(text: str) -> None:
            told.append(text.replace("fetching", "fetched", 1))
            stage.waits(text)

        desired = chart.ready(environment.desired, session.helm, waits)
        if told:
            stage.says(*told)
    return environment._replace(desired=desired)
