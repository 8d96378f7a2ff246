"""The API's description: valid, complete and readable; and what follows it is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.test import Client
from django.urls import URLResolver, get_resolver

from config import schema
from tests.factories import make_user

ABOUT_ITSELF = {"/api/v1/schema/", "/api/v1/docs/"}


def routes(resolver: Any, before: str = "/") -> list[str]:
    found = []
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        found += routes(pattern, route) if isinstance(pattern, URLResolver) else [route]
    return found


def test_it_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(file))
    assert "openapi: 3.1.0" in file.read_text()


def test_it_describes_every_address() -> None:
    found = {route for route in routes(get_resolver()) if route.startswith("/api/")}
    assert len(schema.document()["paths"]) == len(found - ABOUT_ITSELF)


def test_every_operation_says_what_it_does_and_how_it_refuses() -> None:
    for path, operations in schema.document()["paths"].items():
        for method, one in operations.items():
            assert one.get("description"), (method, path)
            assert {"400", "401", "403", "404", "429"} < set(one["responses"])
            assert one["security"], (method, path)
    for one in schema.document()["components"]["responses"].values():
        assert list(one["content"]) == ["application/problem+json"]


def test_it_comes_as_yaml_and_as_json(client: Client) -> None:
    as_json = client.get("/api/v1/schema/?format=json")
    assert as_json.json()["servers"] == [{"url": "http://testserver"}]
    as_yaml = client.get("/api/v1/schema/")
    assert as_yaml.content.startswith(b"openapi: 3.1.0")


def test_the_page_shows_every_operation(client: Client, db: None) -> None:
    client.force_login(make_user())
    page = client.get("/api/v1/docs/").content.decode()
    assert "POST /api/v1/campaigns" in page
    assert 'id="CampaignOrderRequest"' in page
