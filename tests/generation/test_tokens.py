import hashlib
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory

from generation import tokens
from generation.authentication import needs_scope
from generation.models import AuditEntry, Project, Role, Scope, Token, Verb
from generation.tokens import TokenError
from tests.factories import make_user

pytestmark = pytest.mark.django_db


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


class TestMake:
    def test_it_keeps_the_digest_and_not_the_secret(self) -> None:
        token, secret = tokens.make(user=make_user(), name="script", scopes=["read"])
        assert secret.startswith("olp_")
        assert len(secret) == len("olp_") + 43  # 256 bits
        token.refresh_from_db()
        assert token.digest == hashlib.sha256(secret.encode()).hexdigest()
        row = Token.objects.filter(pk=token.pk).values().get()
        assert secret not in str(row)
        assert secret.startswith(token.prefix)
        days = (token.expires_at - timezone.now()).total_seconds() / 86400
        assert days == pytest.approx(90, abs=0.01)

    @pytest.mark.parametrize(
        ("scopes", "days", "says"),
        [
            (["read"], 366, "1 to 365 days"),
            (["read"], 0, "1 to 365 days"),
            ([], 9, "Choose what"),
            (["read", "rule"], 9, "Choose what the token may do among read, label"),
        ],
    )
    def test_it_refuses_what_would_last_too_long_or_do_too_much(
        self, scopes: list[str], days: int, says: str
    ) -> None:
        with pytest.raises(TokenError, match=says):
            tokens.make(user=make_user(), name="x", scopes=scopes, days=days)
        assert not Token.objects.exists()

    def test_the_database_refuses_it_too(self) -> None:
        token, _ = tokens.make(user=make_user(), name="x", scopes=["read"], days=365)
        rows = Token.objects.filter(pk=token.pk)
        with pytest.raises(IntegrityError, match="token_at_most_a_year"), transaction.atomic():
            rows.update(expires_at=token.created_at + timedelta(days=366))
        for scopes in (["rule"], []):
            with pytest.raises(IntegrityError, match="token_scopes_known"), transaction.atomic():
                rows.update(scopes=scopes)


class TestMe:
    def test_it_says_who_one_is_and_what_the_token_may(self, client: Client) -> None:
        user = make_user("anna", role=Role.REVIEWER, email="anna@example.org")
        Project.objects.create(slug="elsewhere", name="Elsewhere")
        _, secret = tokens.make(user=user, name="script", scopes=["export", "read"])
        response = client.get("/api/v1/me", headers=bearer(secret))
        assert response.status_code == 200
        said = response.json()
        assert (said["username"], said["email"]) == ("anna", "anna@example.org")
        assert said["roles"] == {"main": "reviewer"}
        assert said["scopes"] == ["read", "export"]
        assert said["token"]["name"] == "script"

    def test_it_knows_a_browser_by_its_session(self, client: Client) -> None:
        client.force_login(make_user("anna"))
        said = client.get("/api/v1/me").json()
        assert (said["username"], said["token"]) == ("anna", None)
        assert said["scopes"] == list(Scope.values)

    def test_it_turns_others_away_with_a_reason(self, client: Client) -> None:
        user = make_user()
        made = {name: tokens.make(user=user, name=name, scopes=["read"]) for name in "abc"}
        tokens.revoke(made["a"][0], actor=user)
        long_ago = timezone.now() - timedelta(days=100)
        Token.objects.filter(name="b").update(
            created_at=long_ago, expires_at=timezone.now() - timedelta(seconds=1)
        )
        for header, says in (
            ({}, "credentials were not provided"),
            (bearer("olp_wrong"), "not known"),
            (bearer("olp_é"), "not known"),
            (bearer(made["a"][1]), "was revoked"),
            (bearer(made["b"][1]), "ran out on"),
            (bearer(f"{made['c'][1]} twice"), "with one token"),
            ({"Authorization": "Bearer"}, "with one token"),
            ({"Authorization": f"Basic {made['c'][1]}"}, "credentials were not provided"),
        ):
            response = client.get("/api/v1/me", headers=header)
            assert response.status_code == 401, says
            assert says in response.json()["detail"]
            assert response["WWW-Authenticate"] == "Bearer"
        assert client.get("/api/v1/me", headers=bearer(made["c"][1])).status_code == 200
        user.is_active = False
        user.save()
        closed = client.get("/api/v1/me", headers=bearer(made["c"][1]))
        assert (closed.status_code, "is closed" in closed.json()["detail"]) == (401, True)

    def test_it_notes_its_use_at_most_once_a_minute(
        self, client: Client, django_assert_num_queries: Any
    ) -> None:
        token, secret = tokens.make(user=make_user(), name="x", scopes=["read"])
        client.get("/api/v1/me", headers=bearer(secret))
        token.refresh_from_db()
        first = token.last_used_at
        assert first is not None
        with django_assert_num_queries(3):  # the token, memberships, projects: nothing is written
            client.get("/api/v1/me", headers=bearer(secret))
        token.refresh_from_db()
        assert token.last_used_at == first
        Token.objects.update(last_used_at=first - timedelta(seconds=61))
        client.get("/api/v1/me", headers=bearer(secret))
        token.refresh_from_db()
        assert token.last_used_at is not None
        assert token.last_used_at >= first

    def test_it_does_not_open_pages(self, client: Client) -> None:
        _, secret = tokens.make(user=make_user(), name="x", scopes=["read", "manage"])
        assert client.get("/account/", headers=bearer(secret)).status_code == 302


@api_view(["GET"])
@permission_classes([IsAuthenticated, needs_scope("export")])
def exported(request: Request) -> Response:
    return Response({"labels": 3})


class TestScopes:
    def test_it_lets_a_token_do_only_what_its_scopes_say(self) -> None:
        user = make_user()
        _, reads = tokens.make(user=user, name="reads", scopes=["read"])
        _, exports = tokens.make(user=user, name="exports", scopes=["export"])
        requests = APIRequestFactory()
        refused = exported(requests.get("/", headers=bearer(reads)))
        assert refused.status_code == 403
        assert "lacks the scope “export”" in refused.data["detail"]
        assert exported(requests.get("/", headers=bearer(exports))).data == {"labels": 3}
        assert exported(requests.get("/")).status_code == 401


class TestPages:
    def test_it_shows_a_new_token_once(self, client: Client) -> None:
        client.force_login(make_user())
        sent = {"name": "script", "scopes": ["read"], "days": 30}
        made = client.post("/account/tokens/", sent)
        html = made.content.decode()
        token = Token.objects.get()
        start = html.index('value="olp_') + len('value="')
        secret = html[start : html.index('"', start)]
        assert tokens.usable(secret) == token
        assert "no-store" in made["Cache-Control"]
        later = client.get("/account/").content.decode()
        assert secret not in later
        assert f"{token.prefix}…" in later
        assert AuditEntry.objects.filter(verb=Verb.TOKEN_MADE, object_id=token.pk).count() == 1
        assert secret not in str(list(AuditEntry.objects.values()))

    def test_it_explains_what_it_refuses(self, client: Client) -> None:
        client.force_login(make_user())
        response = client.post("/account/tokens/", {"name": "x", "scopes": ["rule"], "days": 999})
        assert response.status_code == 422
        assert not Token.objects.exists()

    def test_it_lets_the_owner_revoke_and_nobody_else(self, client: Client) -> None:
        owner = make_user()
        token, secret = tokens.make(user=owner, name="night job", scopes=["read"])
        client.force_login(make_user(is_superuser=True))
        assert client.post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
        assert "night job" not in client.get("/account/").content.decode()
        tokens.usable(secret)
        client.force_login(owner)
        client.post(f"/account/tokens/{token.pk}/revoke/")
        client.post(f"/account/tokens/{token.pk}/revoke/")
        with pytest.raises(TokenError, match="was revoked"):
            tokens.usable(secret)
        assert AuditEntry.objects.filter(verb=Verb.TOKEN_REVOKED).count() == 1
