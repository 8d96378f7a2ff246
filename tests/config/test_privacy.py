"""What is kept about a person: taken away, erased, and forgotten in time."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone

from annotation.models import Assignment, Export, Judgment
from config import erasure, privacy, retention, second_factor
from generation import audit, members, tokens, webhooks
from generation.models import (
    AuditEntry,
    Delivery,
    Endpoint,
    Image,
    Membership,
    Project,
    Role,
    Token,
    Verb,
    default_project,
)
from tests.annotation.factories import claim, make_campaign
from tests.config.test_permissions import make_judgment
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
PERSON = {"first_name": "Anna", "last_name": "Quistgaard", "email": "anna.q@example.org"}


@pytest.fixture
def anna() -> User:
    """Somebody who did a little of everything."""
    user = make_user("anna", **PERSON)
    client = Client(REMOTE_ADDR="203.0.113.5", headers={"User-Agent": "Firefox"})
    client.post("/login/", {"username": "anna", "password": "secret"})
    client.post("/account/", PERSON | {"first_name": "Anne"})
    user.refresh_from_db()
    tokens.make(user=user, name="my script", scopes=["read"])
    second_factor.turn_on(user, "A" * 32)
    turn = claim(user, make_campaign(sets=1))
    make_judgment(turn)
    # Others act on the account, and mention it.
    boss = make_user("boss", role=Role.ADMIN)
    held = Membership.objects.get(user=user)
    members.change_role(held, role=Role.REVIEWER, actor=boss)
    after = {"asked": f"invited {PERSON['email']}", "members": ["anna", "ben"]}
    audit.record(actor=boss, verb=Verb.CAMPAIGN_PEOPLE, thing=turn.item.campaign, after=after)
    return user


def everything() -> str:
    """Each row of each table, as the database has it."""
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT json_agg(t)::text FROM "{table}" t')
            rows.append(str(cursor.fetchone()[0]))
        return "".join(rows)


def test_a_person_takes_their_data_away(anna: User) -> None:
    client = Client()
    client.force_login(anna)
    assert "judgments" in client.get("/account/data/").content.decode()
    answer = client.post("/account/data/")
    assert answer["Content-Disposition"].startswith("attachment")
    data = json.loads(answer.content)
    assert data["account"]["email"] == PERSON["email"]
    assert [row["name"] for row in data["tokens"]] == ["my script"]
    assert len(data["judgments"]) == 1
    assert len(data["assignments"]) == 1
    assert {row["ip"] for row in data["user sessions"]} >= {"203.0.113.5"}
    assert {"logged in", "changed a role"} <= {row["verb"] for row in data["audit entries"]}
    secret = Authenticator.objects.get(type="totp").data["secret"]
    hidden = [secret, anna.password, Token.objects.get().digest]
    assert not [word for word in hidden if word in answer.content.decode()]
    assert AuditEntry.objects.filter(actor=anna, verb=Verb.DATA_TAKEN).exists()


def test_nothing_of_others_is_in_it(anna: User) -> None:
    ben = make_user("ben")
    found = privacy.of(ben)
    assert found["judgments"] == found["tokens"] == found["audit entries"] == []


def test_erasing_leaves_the_judgments_and_takes_the_person(anna: User) -> None:
    turns = list(Assignment.objects.values_list("pk", "annotator"))
    acts = list(AuditEntry.objects.order_by("pk").values_list("pk", "at", "verb", "actor"))
    plan = erasure.plan(anna)
    assert plan["judgments that stay"] == 1
    assert plan["tokens"] == 1
    assert erasure.erase(anna, actor=None) == plan

    assert list(Assignment.objects.values_list("pk", "annotator")) == turns
    assert Judgment.objects.filter(assignment__annotator=anna).count() == 1
    kept = AuditEntry.objects.exclude(verb=Verb.ERASED).order_by("pk")
    assert list(kept.values_list("pk", "at", "verb", "actor")) == acts
    assert not kept.filter(actor=anna).exclude(address=None).exists()
    anna.refresh_from_db()
    assert (anna.username, anna.is_active) == (f"erased-{anna.pk}", False)
    left = everything()
    for word in ("Quistgaard", "Anne", PERSON["email"], "203.0.113.5", "my script", "Firefox"):
        assert word not in left, word
    assert '"anna"' not in left
    last = AuditEntry.objects.latest("pk")
    assert (last.verb, last.name) == (Verb.ERASED, f"erased-{anna.pk}")
    assert (last.detail["after"]["judgments that stay"]) == 1


def test_the_erased_are_out_at_once(anna: User) -> None:
    client = Client()
    client.force_login(anna)
    _, secret = tokens.make(user=anna, name="x", scopes=["read"])
    erasure.erase(anna, actor=None)
    assert client.get("/account/").status_code == 302
    bearer = {"Authorization": f"Bearer {secret}"}
    assert Client().get("/api/v1/me", headers=bearer).status_code == 401
    with pytest.raises(erasure.ErasureError, match="already"):
        erasure.erase(anna, actor=None)


def test_only_a_superuser_erases_and_only_by_the_name(anna: User) -> None:
    path = f"/people/{anna.pk}/erase/"
    client = Client()
    for user, status in (
        (make_user("max", role=Role.ADMIN), 404),
        (make_user("staff", is_staff=True), 403),
    ):
        client.force_login(user)
        assert client.post(path, {"name": "anna"}).status_code == status
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    assert "Erase anna?" in client.get(path).content.decode()
    assert client.post(path, {"name": "ben"}).status_code == 422
    anna.refresh_from_db()
    assert anna.is_active
    assert client.post(path, {"name": "anna"}).status_code == 302
    anna.refresh_from_db()
    assert not anna.is_active


def test_the_last_superuser_stays() -> None:
    root = make_user("root", is_staff=True, is_superuser=True)
    with pytest.raises(erasure.ErasureError, match="last superuser"):
        erasure.erase(root, actor=root)
    root.refresh_from_db()
    assert root.username == "root"


def test_the_command_says_the_numbers_first(anna: User, capsys: Any) -> None:
    call_command("erase_person", "anna", "--dry-run")
    assert "1  judgments that stay" in capsys.readouterr().out
    anna.refresh_from_db()
    assert anna.is_active
    call_command("erase_person", "anna", "--yes")
    assert f"anna is erased-{anna.pk} now" in capsys.readouterr().out
    with pytest.raises(CommandError, match="Nobody is called"):
        call_command("erase_person", "anna")


# The audit log ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE generation_auditentry SET name = 'x'",
        "UPDATE generation_auditentry SET address = NULL, actor_name = ''",
        "DELETE FROM generation_auditentry",
        "SET LOCAL oneloop.erasing = 'yes'; UPDATE generation_auditentry SET verb = 'x'",
        "SET LOCAL oneloop.erasing = 'yes'; UPDATE generation_auditentry SET at = now()",
        "SET LOCAL oneloop.erasing = 'yes'; UPDATE generation_auditentry SET actor_id = NULL",
        "SET LOCAL oneloop.erasing = 'yes'; DELETE FROM generation_auditentry",
    ],
)
def test_the_database_refuses_to_change_the_log(change: str) -> None:
    audit.record(actor=make_user("anna"), verb=Verb.LOGIN, thing=None)
    with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
        connection.cursor().execute(change)


def test_the_log_is_closed_again_after_an_erasure() -> None:
    audit.record(actor=make_user("anna"), verb=Verb.LOGIN, thing=None)
    with audit.erasing():
        AuditEntry.objects.update(address=None)
    with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
        AuditEntry.objects.update(address=None)


# Retention --------------------------------------------------------------------------------------


def long_ago(days: int) -> Any:
    return timezone.now() - timedelta(days=days)


def test_a_day_takes_away_what_is_old(settings: Any) -> None:
    settings.RETAIN_ADDRESS_DAYS = settings.RETAIN_DELIVERY_DAYS = settings.RETAIN_EXPORT_DAYS = 30
    settings.RETAIN_UNUSED_DAYS = 30
    project = Project.objects.get(pk=default_project())
    for days in (1, 31):
        entry = AuditEntry(verb=Verb.LOGIN, kind="", address="203.0.113.5", at=long_ago(days))
        entry.save()
        Session.objects.create(session_key=f"s{days}", expire_date=long_ago(days - 2))
        UserSession.objects.create(user=make_user(), session_key=f"s{days}", ip="203.0.113.5")
        key = default_storage.save(f"exports/{days}.zip", ContentFile(b"PK"))
        export = Export.objects.create(project=project, state="succeeded", archive=key, byte_size=2)
        Export.objects.filter(pk=export.pk).update(created_at=long_ago(days))
    endpoint = Endpoint.objects.create(project=project, url="https://a.example/", topics=["run"])
    old, waiting = webhooks.send_test(endpoint), webhooks.send_test(endpoint)
    Delivery.objects.update(created_at=long_ago(31))
    Delivery.objects.filter(pk=old.pk).update(state="delivered", ended_at=timezone.now())
    unused, fresh, used = make_image(), make_image(), make_source().image
    Image.objects.exclude(pk=fresh.pk).update(created_at=long_ago(31))

    found = retention.clean_up(dry_run=True)
    assert default_storage.exists(f"images/{unused.storage_key}")
    assert retention.clean_up() == found
    assert found["addresses in the audit log"] == 1
    assert list(AuditEntry.objects.filter(verb=Verb.LOGIN).values_list("address", flat=True)) == [
        None,
        "203.0.113.5",
    ]
    assert list(Session.objects.values_list("session_key", flat=True)) == ["s1"]
    assert list(UserSession.objects.values_list("session_key", flat=True)) == ["s1"]
    assert list(Export.objects.exclude(archive="").values_list("archive", flat=True)) == [
        "exports/1.zip"
    ]
    assert not default_storage.exists("exports/31.zip")
    assert list(Delivery.objects.values_list("pk", flat=True)) == [waiting.pk]
    assert not Image.objects.filter(pk=unused.pk).exists()
    assert not default_storage.exists(f"images/{unused.storage_key}")
    for kept in (fresh, used):
        assert Image.objects.filter(pk=kept.pk).exists()
        assert default_storage.exists(f"images/{kept.storage_key}")


def test_it_keeps_what_is_set_to_be_kept(settings: Any) -> None:
    settings.RETAIN_ADDRESS_DAYS = settings.RETAIN_DELIVERY_DAYS = settings.RETAIN_EXPORT_DAYS = 0
    settings.RETAIN_UNUSED_DAYS = 0
    unused = make_image()
    Image.objects.update(created_at=long_ago(10_000))
    AuditEntry(verb="x", kind="", address="203.0.113.5", at=long_ago(10_000)).save()
    assert set(retention.clean_up().values()) == {0}
    assert Image.objects.filter(pk=unused.pk).exists()
    assert AuditEntry.objects.exclude(address=None).exists()
