"""YAML is read as data and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from devenv import documents
from devenv.errors import InputWrong

REFUSED = {
    "a duplicate key": ("a: 1\nb: 2\na: 3\n", "f.yaml:3", "set twice (first on line 1)"),
    "an alias": ("a: &x [1]\nb: *x\n", "f.yaml:2", "aliases"),
    "a merge key": ("a: &x {b: 1}\nc: {<<: *x}\n", "f.yaml:2", "aliases"),
    "a Python object": ("a: !!python/object:os.system {}\n", "f.yaml:1", "tags"),
    "a tag of one's own": ("a: 1\nb: !env HOME\n", "f.yaml:2", "tags"),
    "a tab": ("a:\n\tb: 1\n", "f.yaml:2", "not YAML"),
    "a list at the top": ("- 1\n", "f.yaml:1", "must be a map"),
    "text at the top": ("hello\n", "f.yaml:1", "must be a map"),
    "a broken map": ("a: [1\nb: 2\n", "f.yaml:2", "not YAML"),
    "a key that is a list": ("? [a]\n: 1\n", "f.yaml:1", "plain text"),
    "sixty-one levels": ("a:\n" + "".join(" " * n + "a:\n" for n in range(1, 70)), "f.yaml:62", "60 levels"),
}


@pytest.mark.parametrize(("text", "where", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_it_refuses(text: str, where: str, what: str) -> None:
    with pytest.raises(InputWrong) as refused:
        documents.parse(text, "f.yaml")
    assert refused.value.where == where
    assert what in refused.value.what


def test_an_alias_bomb_is_refused_at_once() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    started = time.monotonic()
    with pytest.raises(InputWrong):
        documents.parse(bomb, "f.yaml")
    assert time.monotonic() - started < 1


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(InputWrong, match="larger than 1 MiB"):
        documents.read(huge, "huge.yaml")


@pytest.mark.parametrize("kind", ["folder", "missing"])
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.yaml"
    if kind == "folder":
        place.mkdir()
    with pytest.raises(InputWrong, match="is not a file"):
        documents.read(place, "x.yaml")


def test_every_key_remembers_its_line() -> None:
    document = documents.parse("a:\n  b: 1\n  c:\n    - d: 2\n", "f.yaml")
    assert document.tree == {"a": {"b": 1, "c": [{"d": 2}]}}
    assert document.at(("a", "b")) == "f.yaml:2"
    assert document.at(("a", "c")) == "f.yaml:3"
    assert document.at(("nope",)) == "f.yaml"


def test_dates_stay_text_as_helm_sees_them() -> None:
    assert documents.parse("a: 2026-01-02\n", "f.yaml").tree == {"a": "2026-01-02"}


def test_an_empty_file_is_an_empty_map() -> None:
    assert documents.parse("# nothing\n", "f.yaml").tree == {}
