"""The records that are passed forward. Pure.

Settings, Profile → Desired ─┐
cluster ──────────→ Snapshot ┴→ Plan → apply → Snapshots → Verdict
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from devenv.toggles import Choice
from devenv.values import Values

R = TypeVar("R")


class External(NamedTuple):
    """The Secret of an external PostgreSQL as it was found: in `source` (namespace/name), for pods under `name`.

    `version` changes with every change of the source. `texts` by key, as the pods should find them.
    """

    source: str
    name: str
    copied: bool
    version: str
    texts: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"External({self.source!r}, {self.name!r})"  # without its texts


class Reference(NamedTuple):
    """Where a chart is: `path` on this machine, or else what Helm asks for, with a version or constraint, or empty."""

    name: str
    version: str = ""
    path: Path | None = None


class Desired(NamedTuple):
    """What the environment should be; `timeouts` in seconds by name.

    `chart` is what Helm is given, `chart_shown` what the user wrote; `chart_digest` is known once the chart is on disk
    with all that it depends on. `external` is known only once the cluster was looked at (devenv/external.py); None: the
    database is internal.
    """

    profile: str
    release: str
    namespace: str
    chart: str
    bundled: bool
    chart_path: Path | None
    chart_version: str
    values: Values
    choices: tuple[Choice, ...]
    timeouts: Mapping[str, float]
    chart_shown: str = ""
    chart_digest: str = ""
    external: External | None = None

    def choice(self, name: str) -> Choice:
        return next(choice for choice in self.choices if choice.toggle.name == name)

    @property
    def temporal(self) -> bool:
        """Whether the bundled chart runs Temporal, whoever set it."""
        return self.values.get(("global", "temporal", "enabled")) is True

    @property
    def sample_backend(self) -> bool:
        """Whether the backend is our sample service, whose answers the proof understands."""
        image = self.values.get(("backend", "image")) or {}
        return self.bundled and not {"repository", "registry", "digest"} & image.keys()

    @property
    def internal_postgres(self) -> bool:
        return self.values.get(("global", "postgresql", "enabled")) is True


class Container(NamedTuple):
    """One container of a pod; `state` is waiting, running or terminated. `probed`: what ready means, it says itself."""

    name: str
    init: bool
    image: str
    ready: bool
    state: str
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    restarts: int = 0
    last_reason: str = ""
    last_exit: int | None = None
    last_message: str = ""
    started: str = ""
    ended: str = ""
    probed: bool = True


class Pod(NamedTuple):
    """A pod; `owner` as Kind/name of the controller above it, `template` the hash of its pod template.

    `scheduled`, `node` and `ready_since` are empty while it is not so. `claims`: the names of those it mounts.
    """

    name: str
    component: str
    owner: str
    template: str
    phase: str
    ready: bool
    deleting: bool
    unscheduled: str
    created: str
    containers: tuple[Container, ...]
    message: str = ""
    scheduled: str = ""
    ready_since: str = ""
    node: str = ""
    claims: tuple[str, ...] = ()


class Workload(NamedTuple):
    """A Deployment, StatefulSet or DaemonSet; `current`: its status speaks of its newest specification."""

    kind: str
    name: str
    component: str
    wanted: int
    total: int
    updated: int
    ready: int
    available: int
    current: bool
    template: str = ""
    created: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def done(self) -> bool:
        up = self.updated >= self.wanted and self.ready >= self.wanted and self.available >= self.wanted
        return self.current and up and self.total <= self.wanted


class ReplicaSet(NamedTuple):
    """Links a pod template hash to its Deployment; `revision` counts up with each new template."""

    name: str
    owner: str
    template: str
    revision: int


class Job(NamedTuple):
    name: str
    component: str
    active: int
    succeeded: bool
    failed: bool
    message: str = ""
    uid: str = ""

    @property
    def key(self) -> str:
        return f"Job/{self.name}"


class Event(NamedTuple):
    """What Kubernetes says about an object, `about` as Kind/name; `at` as RFC 3339."""

    about: str
    reason: str
    message: str
    warning: bool
    at: str


class Claim(NamedTuple):
    name: str
    phase: str
    storage_class: str


class Node(NamedTuple):
    """A node, and the images that it says it has, by their full names; `complete`: it names all of them.

    `provider` is how its maker calls it (kind://docker/NAME/NODE), `runtime` what runs its containers (docker://28.0.1),
    `minikube` the profile that it belongs to.
    """

    name: str
    images: frozenset[str]
    complete: bool
    provider: str = ""
    runtime: str = ""
    minikube: str = ""


class Release(NamedTuple):
    """The newest revision of a Helm release; `labels` are ours, from `--labels`."""

    name: str
    revision: int
    status: str
    labels: Mapping[str, str]
    modified: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """One whole picture of a namespace at one moment; `unready`: nodes that are not ready, as far as pods wait on them
    and they may be seen, each with its reason. `lists`, of a picture that was listed: plural → its resourceVersion and
    records by uid, from which a watch goes on."""

    namespace: str
    exists: bool = True
    workloads: tuple[Workload, ...] = ()
    replica_sets: tuple[ReplicaSet, ...] = ()
    pods: tuple[Pod, ...] = ()
    jobs: tuple[Job, ...] = ()
    events: tuple[Event, ...] = ()
    claims: tuple[Claim, ...] = ()
    unready: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict, repr=False, compare=False)

    # Asked for every workload and pod: with a thousand of them, going through all each time would be most of the work.

    def pods_of(self, owner: str) -> tuple[Pod, ...]:
        return self._pods.get(owner, ())

    def sets_of(self, owner: str) -> tuple[ReplicaSet, ...]:
        return self._sets.get(owner, ())

    def events_about(self, about: str) -> tuple[Event, ...]:
        """The events about an object (Kind/name), the newest last."""
        return self._events.get(about, ())

    @cached_property
    def _pods(self) -> Mapping[str, tuple[Pod, ...]]:
        return _grouped(self.pods, attrgetter("owner"))

    @cached_property
    def _sets(self) -> Mapping[str, tuple[ReplicaSet, ...]]:
        return _grouped(self.replica_sets, attrgetter("owner"))

    @cached_property
    def _events(self) -> Mapping[str, tuple[Event, ...]]:
        return _grouped(sorted(self.events, key=attrgetter("at")), attrgetter("about"))


def _grouped(records: Iterable[R], key: Callable[[R], str]) -> dict[str, tuple[R, ...]]:
    found: defaultdict[str, list[R]] = defaultdict(list)
    for record in records:
        found[key(record)].append(record)
    return {word: tuple(several) for word, several in found.items()}


class Setting(NamedTuple):
    """One value that differs from the revision before (None: not there), and the layer that sets it."""

    key: str
    old: Any
    new: Any
    origin: str

    @property
    def layer(self) -> str:
        """The origin without its place."""
        return self.origin.partition(",")[0]


class Field(NamedTuple):
    """One field that differs: its path, what is there and what should be (None: not there), and what it comes from."""

    path: str
    old: Any
    new: Any
    by: str = ""


class Change(NamedTuple):
    """What happens to one object; `how` is create, change or remove; `by`: what it comes from, as for its fields."""

    how: str
    object: str
    fields: tuple[Field, ...] = ()
    by: str = ""


class Plan(NamedTuple):
    """What redeploy would do, and why; nothing to do when there is no reason.

    `settings` are the values that changed since the revision before, `steps` what redeploy would do in order.
    `impossible` changes are refused by Kubernetes or Temporal; `bound` are those of them that the database refuses to
    any release; `left_behind` is data that the new state does not use.
    """

    reasons: tuple[str, ...]
    changes: tuple[Change, ...]
    revision: int
    inputs: str
    settings: tuple[Setting, ...] = ()
    steps: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()

    @property
    def nothing_to_do(self) -> bool:
        return not self.reasons


class Problem(NamedTuple):
    """Something that stands in the way; `patience` in seconds: 0 fails at once, None waits on. `crashes`: how often.

    `about`: the Kind/name of the object that it befell, empty where that says nothing of when it began.
    """

    key: str
    component: str
    what: str
    where: str
    why: str
    patience: float | None
    pod: str = ""
    container: str = ""
    previous: bool = False
    before_rollout: bool = False
    hint: str = ""
    crashes: int = 0
    about: str = ""


class Verdict(NamedTuple):
    """The judgement of one snapshot: `lines` says of each component "ok" or what it waits for."""

    ready: bool
    lines: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]
