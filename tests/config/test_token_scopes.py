"""What a token of each scope opens: every operation of the API, and nothing but the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from generation import tokens
from generation.models import Scope
from tests.config.test_permissions import PUBLIC, TABLE, Row, make_site

pytestmark = pytest.mark.django_db

ANY = set(Scope)
USUAL = {"get": {Scope.READ}, "post": {Scope.MANAGE}}
SERVE = {"get": {Scope.SERVE}, "post": {Scope.SERVE}}
EXPORT = dict.fromkeys(["get", "post", "delete"], {Scope.EXPORT})
# Where it is not the usual: reading needs “read”, writing “manage”.
UNUSUAL: dict[str, dict[str, set[Scope]]] = {
    "/api/v1/me": {"get": ANY},
    "/api/v1/images/{picture}.png": {"get": {Scope.READ, Scope.SERVE}},
    "/api/v1/edits": SERVE,
    "/api/v1/edits/{edit}": SERVE,
    "/api/v1/rerank": SERVE,
    "/api/v1/rerank/{ranking}": SERVE,
    "/api/v1/feedback": {"get": {Scope.READ}, "post": {Scope.FEEDBACK}},
    "/api/v1/exports": EXPORT,
    "/api/v1/exports/{export}": EXPORT,
    "/api/v1/exports/{export}/download": EXPORT,
}
API = [row for route, row in TABLE.items() if route.startswith("api/v1/")]


def operations() -> Iterator[tuple[str, Row]]:
    for row in API:
        for method, rule in (("get", row.get), ("post", row.post), ("delete", row.delete)):
            # The description is for everybody, and its page is a page.
            if rule not in (None, PUBLIC) and row.path != "/api/v1/docs/":
                yield method, row


@pytest.mark.parametrize("scope", list(Scope))
def test_a_token_opens_what_its_scope_says(scope: Scope) -> None:
    site = make_site()
    _, secret = tokens.make(user=site["people"]["root"], name="x", scopes=[scope])
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    found, expected = {}, {}
    for method, row in operations():
        response = getattr(client, method)(row.path.format(**site))
        named = f"{method} {row.path}"
        found[named] = response.status_code not in (401, 403)
        assert response.status_code != 403 or "lacks the scope" in response.json()["detail"], named
        expected[named] = scope in UNUSUAL.get(row.path, USUAL)[method]
    assert found == expected
    assert len(found) > 50


def test_a_token_opens_no_page() -> None:
    site = make_site()
    _, secret = tokens.make(user=site["people"]["root"], name="x", scopes=list(Scope))
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    rows = [row for route, row in TABLE.items() if not route.startswith("api/")]
    paths = [row.path.format(**site) for row in rows if row.get not in (None, PUBLIC)]
    answers: dict[str, Any] = {path: client.get(path) for path in [*paths, "/admin/"]}
    open_ = [path for path, answer in answers.items() if answer.status_code == 200]
    # Asks before it leaves for the provider; there is none here.
    assert open_ == []
