"""Reads YAML files as data and nothing else, and remembers the line of every key.

In: a file; out: a `Document`. Aliases, tags, duplicate keys, files over 1 MiB and anything but a map at the top
are refused with file and line, never with the file's content.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from devenv.errors import InputWrong

KeyPath = tuple[str, ...]

LIMIT = 1 << 20
DEPTH = 60


class Document(NamedTuple):
    """A YAML file: its name as shown to people, its tree, and the line (from 1) of each key path."""

    file: str
    tree: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def at(self, path: KeyPath) -> str:
        """`file:line` of a key; of the file where the key is not there."""
        return f"{self.file}:{self.lines[path]}" if path in self.lines else self.file


def read(path: Path, shown: str) -> Document:
    """Reads one file; `shown` is its name in messages. Raises InputWrong."""
    try:
        if not path.is_file():
            raise InputWrong(f"{shown} is not a file", where=shown, next=f"ls {path.parent}")
        if path.stat().st_size > LIMIT:
            raise InputWrong(f"{shown} is larger than 1 MiB", where=shown, next="keep only settings in it")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputWrong(f"{shown} is not UTF-8 text", where=shown, next=f"file {path}") from None
    except OSError as error:
        raise InputWrong(
            f"{shown} cannot be read", where=shown, why=error.strerror or "", next=f"ls -l {path}"
        ) from None
    return parse(text, shown)


def parse(text: str, shown: str) -> Document:
    """Parses YAML text; see `read`."""
    import yaml

    loader = _loader()(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise _wrong(f"{shown} is not YAML: {error.problem or error.context}", shown, line) from None
    except yaml.YAMLError:
        raise _wrong(f"{shown} is not YAML: it holds a character that YAML does not allow", shown, 1) from None
    except RecursionError:
        raise _wrong(f"{shown} is nested too deeply", shown, 1) from None
    finally:
        loader.dispose()
    if node is None:
        return Document(shown, {}, {})
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(f"{shown} must be a map of keys, not a {node.id}", shown, node.start_mark.line + 1)
    builder = _Builder(loader, shown)
    return Document(shown, builder.map(node, ()), builder.lines)


def _wrong(what: str, shown: str, line: int) -> InputWrong:
    return InputWrong(what, where=f"{shown}:{line}", next=f"mend line {line} of {shown}")


class _Builder:
    """Turns nodes into data, one pass, and writes down the line of each key path."""

    def __init__(self, loader: Any, shown: str) -> None:
        self.loader = loader
        self.shown = shown
        self.lines: dict[KeyPath, int] = {}

    def value(self, node: Any, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if len(path) > DEPTH:
            raise _wrong(f"{self.shown} is nested more than {DEPTH} levels deep", self.shown, line)
        if node.id == "mapping":
            return self.map(node, path)
        if node.id == "sequence":
            self.standard(node)
            return [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
        self.standard(node)
        try:
            return self.loader.construct_object(node)
        except (ValueError, ArithmeticError):
            raise _wrong(f"this is no {node.tag.rpartition(':')[2]}", self.shown, line) from None

    def map(self, node: Any, path: KeyPath) -> dict[str, Any]:
        self.standard(node)
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.id != "scalar":
                raise _wrong("a key must be plain text", self.shown, line)
            key = str(key_node.value)
            if key in built:
                first = self.lines[(*path, key)]
                raise _wrong(f"{key!r} is set twice (first on line {first})", self.shown, line)
            self.lines[(*path, key)] = line
            built[key] = self.value(value_node, (*path, key))
        return built

    def standard(self, node: Any) -> None:
        if node.tag not in _STANDARD:
            raise _wrong(f"tags such as {node.tag} are not allowed", self.shown, node.start_mark.line + 1)


_STANDARD = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "value")}


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader without aliases, merge keys and dates."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed here", problem_mark=mark)
            return super().compose_node(parent, index)

    unwanted = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge"}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag not in unwanted]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader
