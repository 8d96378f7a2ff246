"""The headers that browsers obey, over every kind of answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from generation.models import Role
from tests.factories import make_source, make_user

pytestmark = pytest.mark.django_db

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Permitted-Cross-Domain-Policies": "none",
}
POLICY = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "style-src-attr": "'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "frame-src": "'none'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'self'",
}


def policy_of(response: Any) -> dict[str, str]:
    parts = [part.strip().partition(" ") for part in response["Content-Security-Policy"].split(";")]
    return {name: value for name, _, value in parts}


@pytest.fixture
def site(client: Client) -> dict[str, Any]:
    source = make_source()
    client.force_login(make_user("root", role=Role.ADMIN, is_staff=True, is_superuser=True))
    client.raise_request_exception = False
    return {
        "page": "/",
        "api": "/api/v1/me",
        "refused api": "/api/v1/policies/99999",
        "image": f"/images/{source.image.sha256}.png",
        "admin": "/admin/",
        "missing": "/nothing/",
        "static": "/static/config/base.css",
        "health": "/healthz",
    }


def test_every_answer_carries_them(client: Client, site: dict[str, str]) -> None:
    for name, path in site.items():
        response = client.get(path)
        assert response.status_code in (200, 404), name
        for header, value in ALWAYS.items():
            assert response.headers.get(header) == value, (name, header)
        assert policy_of(response) == POLICY, name
        assert "camera=()" in response["Permissions-Policy"], name
        if name != "static":
            assert response["X-Frame-Options"] == "DENY", name
            kept = response["Cache-Control"]
            assert "private" in kept or "no-store" in kept, (name, kept)
            assert "public" not in kept, name


def test_the_answer_to_an_error_carries_them(client: Client, site: dict[str, str]) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE generation_project RENAME TO gone")
    response = client.get("/projects/")
    assert response.status_code == 500
    assert policy_of(response) == POLICY
    assert response["X-Frame-Options"] == "DENY"


def test_production_insists_on_tls(client: Client, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 31536000
    settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    plain = Client().get("/login/")
    assert plain.status_code == 301
    assert plain["Location"] == "https://testserver/login/"
    over_tls = Client(headers={"X-Forwarded-Proto": "https"}).get("/login/")
    assert over_tls["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    assert "upgrade-insecure-requests" in over_tls["Content-Security-Policy"]
    assert Client().get("/healthz").status_code == 200


def test_cookies_are_for_this_host_alone(client: Client, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
    user = make_user("ben")
    user.set_password("right")
    user.save()
    response = client.post("/login/", {"username": "ben", "password": "right"}, secure=True)
    session, csrf = response.cookies["__Host-sessionid"], response.cookies["__Host-csrftoken"]
    assert session["httponly"]
    for cookie in (session, csrf):
        assert cookie["secure"]
        assert cookie["samesite"] == "Lax"
        assert cookie["path"] == "/"
        assert not cookie["domain"]


def test_no_page_holds_a_script_or_a_style_of_its_own(settings: Any) -> None:
    inline = re.compile(
        r"<style|<script(?![^>]*\bsrc=)(?![^>]*application/json)|\son\w+=\"|javascript:"
    )
    found = [
        str(file)
        for file in Path(settings.BASE_DIR, "templates").rglob("*.html")
        if inline.search(file.read_text())
    ]
    assert not found


def test_an_object_stores_pictures_may_be_shown(client: Client, settings: Any) -> None:
    settings.MEDIA_ORIGINS = ["https://pictures.example.org"]
    policy = policy_of(client.get("/login/"))
    assert policy["img-src"].endswith("blob: https://pictures.example.org")
    assert policy["connect-src"] == "'self' https://pictures.example.org"
    assert policy["script-src"] == "'self'"
