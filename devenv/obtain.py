"""Whether each image can be had: by a node that has it, or from a registry that gives it. Edge in; `judge` is pure.

In: the objects that are to be applied, and the cluster. Raises Refused for an image that surely nobody gives. What is
not known is no reason to refuse, because the kubelet may know better: a registry that does not answer or does not let
us look, a pod with pull secrets, nodes that may not be seen, that name only their largest images, or that tell of a
new image late (local clusters are asked themselves before anything is refused).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from devenv import look, reference
from devenv.clients import registry
from devenv.cluster import images, others, programs
from devenv.cluster.others import Local
from devenv.environment import Environment, Session
from devenv.errors import Refused
from devenv.model import Node, Snapshot

Object = dict[str, Any]
Waits = Callable[[str], None]

PATIENCE = 1.0  # seconds for all registries together


class Wanted(NamedTuple):
    """An image as pods want it: by which objects, under which pull policy, with pull secrets of their own or not, as
    which service accounts."""

    image: str
    policy: str
    by: tuple[str, ...]
    secrets: bool = False
    accounts: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return reference.full(self.image)


class There(NamedTuple):
    """What the cluster has: full names; `complete`: it has no others, or will be asked for each that is in doubt.

    `local`: what it is, if it is a local one.
    """

    images: frozenset[str]
    complete: bool
    local: Local | None = None
    nodes: tuple[str, ...] = ()
    embedded: bool = False


class Missing(NamedTuple):
    """An image that nobody gives, and the evidence for that."""

    wanted: Wanted
    why: str


def check(environment: Environment, session: Session, objects: Sequence[Object], seen: Snapshot, waits: Waits) -> None:
    """Raises Refused for the images of the objects that cannot be had. Takes about a second at most."""
    needed = wanted(objects)
    if session.target.embedded:  # ours were loaded a moment ago, or will be
        ours = set(images.references().values())
        needed = tuple(one for one in needed if one.policy == "Always" or one.name not in ours)
    if not needed:
        return
    waits("looking who has the images")
    there = _there(session, seen)
    asked = [one for one in needed if one.policy == "Always" or one.name not in there.images]
    missing = judge(asked, there, _answers(asked, there, environment, waits))
    missing = _confirmed(missing, there, waits)
    missing = tuple(one for one in missing if not _with_account(one.wanted, environment, session))
    if missing:
        raise refusal(missing, there)


def wanted(objects: Iterable[Object]) -> tuple[Wanted, ...]:
    """The images of the objects' pods, each once. Tests and what is scaled to nothing want none. Pure."""
    found: dict[tuple[str, str], Wanted] = {}
    for object in objects:
        pod = {} if _idle(object) else _pod(object)
        secrets = bool(pod.get("imagePullSecrets"))
        account = str(pod.get("serviceAccountName") or "default")
        for container in _containers(pod):
            image = str(container.get("image") or "")
            policy = container.get("imagePullPolicy") or _default_policy(image)
            title = f"{object['kind']}/{object['metadata']['name']}"
            one = found.get((image, policy), Wanted(image, policy, (), secrets))
            by = one.by if title in one.by else (*one.by, title)
            accounts = one.accounts | {account}
            found[(image, policy)] = one._replace(by=by, secrets=one.secrets or secrets, accounts=accounts)
    return tuple(found.values())


def names(objects: Iterable[Object]) -> frozenset[str]:
    """The full names of all images that the objects name, wanted now or not. Pure."""
    containers = [container for object in objects for container in _containers(_pod(object))]
    return frozenset(reference.full(str(container.get("image") or "")) for container in containers)


def _containers(pod: Object) -> list[Object]:
    return [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]


def _idle(object: Object) -> bool:
    """Whether the object starts no pod now: a test, or scaled to nothing."""
    hook = str((object["metadata"].get("annotations") or {}).get("helm.sh/hook") or "")
    return "test" in hook or (object.get("spec") or {}).get("replicas") == 0


def _pod(object: Object) -> Object:
    spec, kind = object.get("spec") or {}, object.get("kind")
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    if kind == "Pod":
        return dict(spec)
    templated = kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")
    return dict((spec.get("template") or {}).get("spec") or {}) if templated else {}


def _default_policy(image: str) -> str:
    """As the API server fills it in."""
    named = reference.parse(image)
    return "Always" if named and named.tag == "latest" and not named.digest else "IfNotPresent"


def judge(asked: Iterable[Wanted], there: There, answers: Mapping[str, bool | None]) -> tuple[Missing, ...]:
    """The images that nobody gives; `answers`: full name → whether its registry has it, None where not known. Pure."""
    return tuple(Missing(one, why) for one in asked if (why := _why(one, there, answers.get(one.name))))


def _why(one: Wanted, there: There, answer: bool | None) -> str:
    """Why an image cannot be had; empty where it can, or might."""
    named = reference.parse(one.image)
    if named is None:
        return "this is no name of an image"
    if one.policy != "Always" and one.name in there.images:
        return ""
    ours = named.registry == images.REGISTRY
    absent = there.complete and one.name not in there.images
    said = "no registry serves devenv.local" if ours else f"{named.registry} says that there is none"
    if one.policy == "Never":
        return "no node has it, and imagePullPolicy Never asks no registry" if absent else ""
    if not ours and (answer is not False or one.secrets):
        return ""
    if one.policy == "Always":
        return f"imagePullPolicy Always asks the registry each time: {said}"
    return f"the cluster does not have it, and {said}" if absent else ""


def _there(session: Session, seen: Snapshot) -> There:
    if session.target.embedded:
        from devenv.cluster import start

        socket = start.running(session.target.embedded).containerd
        return There(images.all_present(socket, programs.path("ctr")), complete=True, embedded=True)
    return of_nodes(look.nodes(session.kube), seen)


def of_nodes(nodes: Sequence[Node], seen: Snapshot) -> There:
    """What the nodes say that they have, and what runs in the namespace, which they have too. Pure."""
    running = {
        reference.full(container.image)
        for pod in seen.pods
        for container in pod.containers
        if container.state in ("running", "terminated")
    }
    have = frozenset(running.union(*(node.images for node in nodes)))
    local = others.of_nodes(nodes)
    complete = bool(nodes) and all(node.complete for node in nodes)
    return There(have, complete or local is not None, local, tuple(node.name for node in nodes))


def _answers(asked: Sequence[Wanted], there: There, environment: Environment, waits: Waits) -> dict[str, bool | None]:
    """What the registries say. One that is local to each machine is asked for a cluster on this machine only.

    With `--yes` none is asked: the nodes may have mirrors that nobody else knows of.
    """
    if environment.settings.yes:
        return {}
    names = {named.name: named for one in asked if one.policy != "Never" and (named := reference.parse(one.image))}
    able = {
        name: named
        for name, named in names.items()
        if named.registry != images.REGISTRY and (there.local or not reference.local(named.registry))
    }
    if not able:
        return {}
    waits(f"asking {', '.join(sorted({named.registry for named in able.values()}))}")
    looked = registry.look_all(list(able.values()), environment.settings.docker_config, PATIENCE)
    return dict(zip(able, looked, strict=True))


def _confirmed(missing: Sequence[Missing], there: There, waits: Waits) -> tuple[Missing, ...]:
    """Those that a local cluster does not have when it is asked itself: its nodes tell of new images 40 s late."""
    doubtful = [one.wanted.name for one in missing if one.wanted.policy != "Always"]
    if there.local is None or not doubtful:
        return tuple(missing)
    waits(f"asking {there.local}")
    found = others.has(there.local, doubtful, there.nodes)
    return tuple(one for one in missing if found.get(one.wanted.name, False) is False)


def _with_account(one: Wanted, environment: Environment, session: Session) -> bool:
    """Whether the pods' service accounts have pull secrets, with which another answer than ours may be had."""
    named = reference.parse(one.image)
    if named is None or named.registry == images.REGISTRY or one.policy == "Never":
        return False
    return look.pull_secrets(session.kube, environment.desired.namespace, one.accounts)


def refusal(missing: Sequence[Missing], there: There) -> Refused:
    """The refusal of all images that cannot be had: the first in full. Pure."""
    first, rest = missing[0], missing[1:]
    by = first.wanted.by
    more = "" if not rest else f"; nor {', '.join(one.wanted.image for one in rest[:5])}"
    return Refused(
        f"the image {first.wanted.image} cannot be had{more}",
        where=", ".join(by[:2]) + (f" and {len(by) - 2} more" if len(by) > 2 else ""),
        why=first.why,
        next=hint(first.wanted, there),
    )


def hint(one: Wanted, there: There) -> str:
    """The command that brings an image to the cluster, or what to mend. Pure."""
    named = reference.parse(one.image)
    ours = images.references()
    mend = f"mend the image's name: {one.image}"
    if named is None:
        return mend
    if one.policy == "Always" and one.name in {*there.images, *ours.values()}:
        return f"imagePullPolicy IfNotPresent for {one.image}"
    if named.registry == images.REGISTRY and one.name not in ours.values():
        known = ours.get(named.repository)
        return f"mend the image's name: {f'devenv makes {known}' if known else 'devenv makes ' + ', '.join(ours)}"
    if named.registry == images.REGISTRY and there.local:
        return there.local.load_command
    if named.registry == images.REGISTRY:
        return "./inv cluster.images --push REGISTRY, then ./inv redeploy --set global.imageRegistry=REGISTRY"
    if there.local:
        return f"{others.by_hand(there.local, one.image)}   (or {mend})"
    return f"{mend}   (or --yes, if the nodes have a mirror that gives it)"
