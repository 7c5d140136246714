"""The sample backend's pure parts: its environment, its routes, what it takes for a request."""

from __future__ import annotations

import json
import re
import uuid

import pytest

from devenv import paths
from devenv.images.backend.backend import api, settings

MINIMUM = {"DATABASE_HOST": "db", "DATABASE_NAME": "backend"}
ID = uuid.UUID("6b1f9a0e-0000-4000-8000-000000000000")


def test_defaults() -> None:
    read = settings.read(MINIMUM)
    assert read == settings.Settings(
        port=8080,
        pod="local",
        template="local",
        database=settings.Database("db", 5432, "postgres", "", "backend", "public", "postgres"),
        temporal=None,
    )
    assert read.own_queue == "backend-local"


def test_what_the_secret_has_goes_before_the_chart_and_the_chart_before_the_defaults() -> None:
    chart = {**MINIMUM, "DATABASE_DEFAULT_PORT": "6432", "DATABASE_DEFAULT_USER": "ada"}
    assert settings.read(chart).database.port == 6432
    assert settings.read(chart).database.user == "ada"
    secret = {**chart, "DATABASE_PORT": "7432", "DATABASE_USER": "bob"}
    assert settings.read(secret).database.port == 7432
    assert settings.read(secret).database.user == "bob"


def test_temporal_is_on_where_it_has_an_address() -> None:
    assert settings.read({**MINIMUM, "TEMPORAL_ADDRESS": ""}).temporal is None
    on = settings.read({**MINIMUM, "TEMPORAL_ADDRESS": "frontend:7233", "TEMPORAL_NAMESPACE": ""})
    assert on.temporal == settings.Temporal("frontend:7233", "default")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"DATABASE_HOST": ""}, "DATABASE_HOST is not set"),
        ({"DATABASE_NAME": ""}, "DATABASE_NAME is not set"),
        ({"DATABASE_PORT": "tcp://10.0.0.1:5432"}, "DATABASE_PORT is not a port"),
        ({"PORT": "0"}, "PORT is not a port"),
        ({"PORT": "-1"}, "PORT is not a port"),
    ],
)
def test_a_wrong_variable_is_named(changes: dict[str, str], says: str) -> None:
    with pytest.raises(settings.SettingsWrong, match=re.escape(says)):
        settings.read({**MINIMUM, **changes})


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/healthz", ("healthz", None)),
        ("GET", "/readyz?verbose=1", ("readyz", None)),
        ("GET", "/requests", ("requests", None)),
        ("POST", "/requests/", ("requests", None)),
        ("GET", f"/requests/{ID}", ("requests/<id>", ID)),
    ],
)
def test_routes(method: str, path: str, expected: tuple[str, uuid.UUID | None]) -> None:
    assert api.route(method, path) == expected


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/request", 404),
        ("GET", "/nothing", 404),
        ("GET", "/requests/12", 404),
        ("GET", f"/requests/{ID}/more", 404),
        ("GET", "/healthz/more", 404),
        ("POST", f"/requests/{ID}", 405),
        ("DELETE", "/requests", 405),
        ("POST", "/readyz", 405),
    ],
)
def test_what_is_no_route(method: str, path: str, status: int) -> None:
    with pytest.raises(api.Wrong) as wrong:
        api.route(method, path)
    assert wrong.value.status == status


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"name": " Ada "}', api.Order("Ada", False)),
        ('{"name": "Ада", "pinned": true}', api.Order("Ада", True)),
        (json.dumps({"name": "x" * 200}), api.Order("x" * 200, False)),
    ],
)
def test_orders(body: str, expected: api.Order) -> None:
    assert api.order(body.encode()) == expected


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 60000, "not JSON"),
        (b"[]", "no object"),
        (b"{}", "name should be"),
        (b'{"name": null}', "name should be"),
        (b'{"name": "  "}', "name should be"),
        (json.dumps({"name": "x" * 201}).encode(), "name should be"),
        (b'{"name": "a\\u0000"}', "no database can store"),
        (b'{"name": "\\ud800"}', "no database can store"),
        (b'{"name": "a", "pinned": 1}', "pinned should be"),
        (b'{"name": "a", "surprise": 1}', "unknown keys surprise"),
    ],
)
def test_what_is_no_order(body: bytes, says: str) -> None:
    with pytest.raises(api.Wrong, match=says) as wrong:
        api.order(body)
    assert wrong.value.status == 400


def test_dependencies_are_just_these_and_the_image_has_them_so() -> None:
    wanted = (paths.PACKAGE / "images" / "backend" / "requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in wanted] == ["temporalio", "psycopg[binary]"]
    locked = (paths.PACKAGE / "cluster" / "wheels" / "backend.txt").read_text().split()
    assert {line.replace("[binary]", "") for line in wanted} <= set(locked)
