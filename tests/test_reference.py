"""Names of images, as github.com/distribution/reference reads them."""

from __future__ import annotations

import pytest

from devenv import reference

DIGEST = "sha256:" + "a" * 64
FULL = {
    "nginx": "docker.io/library/nginx:latest",
    "nginx:1.25": "docker.io/library/nginx:1.25",
    "acme/backend": "docker.io/acme/backend:latest",
    "index.docker.io/nginx": "docker.io/library/nginx:latest",
    "localhost/x": "localhost/x:latest",
    "localhost:5000/x:1": "localhost:5000/x:1",
    "devenv.local/backend:0.1.0": "devenv.local/backend:0.1.0",
    "ghcr.io/acme/a/b:1": "ghcr.io/acme/a/b:1",
    f"nginx@{DIGEST}": f"docker.io/library/nginx@{DIGEST}",
    f"nginx:1@{DIGEST}": f"docker.io/library/nginx@{DIGEST}",
    "a__b/c---d": "docker.io/a__b/c---d:latest",
}
WRONG = [
    "",
    "Nginx",
    "nginx:",
    "nginx@",
    "nginx@sha256:1",
    "a b",
    "ghcr.io/",
    "/nginx",
    "nginx:a:b",
    "a/-b",
    "http://x/y",
]


@pytest.mark.parametrize(("text", "name"), FULL.items())
def test_nothing_is_left_out(text: str, name: str) -> None:
    assert reference.full(text) == name


@pytest.mark.parametrize("text", WRONG)
def test_no_name_of_an_image(text: str) -> None:
    assert reference.parse(text) is None
    assert reference.full(text) == text


def test_with_a_digest_a_registry_is_asked_for_that() -> None:
    named = reference.parse(f"ghcr.io/acme/x:1@{DIGEST}")
    assert named is not None and (named.tag, named.version) == ("1", DIGEST)
