"""A second factor: set up, asked for, renewed, turned off, and demanded of some roles."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from allauth.usersessions.models import UserSession
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

from config import second_factor
from generation.models import AuditEntry, Role, Verb
from tests.factories import make_user

pytestmark = pytest.mark.django_db
PAGE = "/account/second-factor/"


def code(secret: str, steps: int = 0) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps))


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(autouse=True)
def _no_codes_used() -> None:
    cache.clear()


@pytest.fixture
def anna() -> User:
    return make_user("anna")


def set_up(client: Client) -> tuple[str, list[str]]:
    page = client.get(PAGE).content.decode()
    found = re.search(r'id="secret" value="([A-Z2-7 ]+)"', page)
    assert found is not None
    secret = found[1].replace(" ", "")
    done = client.post(PAGE, {"password": "secret", "code": code(secret, -1)})
    assert done.status_code == 200
    return secret, re.findall(r"<code>(\d{8})</code>", done.content.decode())


def begin(name: str = "anna") -> Client:
    client = Client()
    answer = client.post("/login/?next=/label/", {"username": name, "password": "secret"})
    assert answer["Location"] == "/login/code/"
    assert client.get("/account/").status_code == 302  # nobody is in yet
    return client


def test_it_is_asked_for_after_the_password(anna: User) -> None:
    secret, codes = set_up(client_of(anna))
    assert len(set(codes)) == 10
    client = begin()
    assert "One more step" in client.get("/login/code/").content.decode()
    wrong = client.post("/login/code/", {"code": "000000"})
    assert "This code is not right" in wrong.content.decode()
    answer = client.post("/login/code/", {"code": code(secret)})
    assert answer["Location"] == "/label/"
    assert client.get("/account/").status_code == 200
    verbs = set(AuditEntry.objects.values_list("verb", flat=True))
    assert {Verb.SECOND_FACTOR_ON, Verb.CODE_FAILED, Verb.LOGIN} <= verbs


def test_a_code_works_once(anna: User) -> None:
    secret, codes = set_up(client_of(anna))
    for given in (code(secret), codes[0]):
        assert begin().post("/login/code/", {"code": given}).status_code == 302
        cache.clear()  # as if another process was asked
        assert begin().post("/login/code/", {"code": given}).status_code == 200


def test_codes_cannot_be_guessed(anna: User) -> None:
    secret, _ = set_up(client_of(anna))
    client = begin()
    for n in range(10):
        client.post("/login/code/", {"code": f"{n:06}"})
    answer = client.post("/login/code/", {"code": code(secret)})
    assert "tried too often" in answer.content.decode()
    assert begin().post("/login/code/", {"code": code(secret)}).status_code == 200


def test_the_secret_lies_encrypted(anna: User) -> None:
    secret, _ = set_up(client_of(anna))
    (row,) = Authenticator.objects.filter(type="totp")
    assert secret not in str(row.data)
    assert second_factor.Adapter().decrypt(row.data["secret"]) == secret


def test_setting_it_up_takes_the_password_and_a_code(anna: User) -> None:
    client = client_of(anna)
    client.get(PAGE)
    secret = client.session["mfa.totp.secret"]
    for given in ({"password": "wrong", "code": code(secret)}, {"password": "secret", "code": "1"}):
        assert client.post(PAGE, given).status_code == 422
    assert second_factor.of(anna) is None


def test_codes_are_renewed_and_it_is_turned_off_by_a_code(anna: User) -> None:
    client = client_of(anna)
    secret, old = set_up(client)
    assert client.post(PAGE, {"do": "codes", "code": "123456"}).status_code == 422
    new = client.post(PAGE, {"do": "codes", "code": old[0]}).content.decode()
    codes = re.findall(r"<code>(\d{8})</code>", new)
    assert len(codes) == 10
    assert not set(codes) & set(old)
    assert client.post(PAGE, {"do": "off", "code": old[1]}).status_code == 422
    assert client.post(PAGE, {"do": "off", "code": code(secret)}).status_code == 302
    assert not Authenticator.objects.exists()
    assert Client().post("/login/", {"username": "anna", "password": "secret"})["Location"] == "/"


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ("", set()),
        ("staff", {"staff"}),
        ("managers", {"staff", "max"}),
        ("everyone", {"staff", "max", "anna"}),
    ],
)
def test_some_roles_must_have_one(wanted: str, asked: set[str], settings: Any, anna: User) -> None:
    settings.REQUIRE_SECOND_FACTOR = wanted
    people = [anna, make_user("max", role=Role.MANAGER)]
    people.append(make_user("staff", role=None, is_staff=True))
    found = set()
    for person in people:
        client = client_of(person)
        if client.get("/projects/").status_code == 302:
            found.add(person.username)
            assert client.get("/projects/")["Location"] == PAGE
            assert client.get("/admin/")["Location"] in (PAGE, "/admin/login/?next=/admin/")
            assert "second-factor" in client.get("/api/v1/me").json()["type"]
    assert found == asked
    assert Client().get("/login/").status_code == 200


def test_whoever_must_have_one_goes_on_after_setting_it_up(settings: Any, anna: User) -> None:
    settings.REQUIRE_SECOND_FACTOR = "everyone"
    client = client_of(anna)
    _, codes = set_up(client)
    assert client.get("/projects/").status_code == 200
    client.post(PAGE, {"do": "off", "code": codes[0]})
    assert second_factor.of(anna) is not None


def test_a_lost_one_is_removed_by_a_command(anna: User) -> None:
    set_up(client_of(anna))
    call_command("remove_second_factor", "anna")
    assert not Authenticator.objects.exists()
    assert AuditEntry.objects.filter(verb=Verb.SECOND_FACTOR_OFF, object_id=anna.pk).exists()


# Sessions ---------------------------------------------------------------------------------------


def log_in(name: str = "anna") -> Client:
    client = Client(headers={"User-Agent": "Firefox"})
    client.post("/login/", {"username": name, "password": "secret"})
    return client


def test_somebody_sees_and_ends_their_sessions(anna: User) -> None:
    here, there, third = log_in(), log_in(), log_in()
    make_user("ben")
    bens = log_in("ben")
    page = here.get("/account/sessions/").content.decode()
    assert page.count("Firefox") == 3
    row = UserSession.objects.get(session_key=there.session.session_key)
    here.post("/account/sessions/", {"session": str(row.pk)})
    assert there.get("/account/").status_code == 302
    assert third.get("/account/").status_code == 200
    here.post("/account/sessions/")
    assert third.get("/account/").status_code == 302
    assert here.get("/account/").status_code == 200
    theirs = UserSession.objects.get(session_key=bens.session.session_key)
    assert here.post("/account/sessions/", {"session": str(theirs.pk)}).status_code == 404
    assert bens.get("/account/").status_code == 200


def test_a_new_password_ends_the_other_sessions(anna: User) -> None:
    here, there = log_in(), log_in()
    before = here.session.session_key
    new = {
        "old_password": "secret",
        "new_password1": "umbrella-42x",
        "new_password2": "umbrella-42x",
    }
    assert here.post("/account/password/", new).status_code == 302
    assert here.session.session_key != before
    assert there.get("/account/").status_code == 302
    assert "this one" in here.get("/account/sessions/").content.decode()
    assert UserSession.objects.filter(user=anna).count() == 1


@pytest.mark.parametrize("path", ["/account/password/", PAGE])
def test_whoever_finds_a_session_open_cannot_guess_the_password(path: str, anna: User) -> None:
    client = client_of(anna)
    client.get(PAGE)
    right = {"password": "secret", "old_password": "secret", "code": "1"}
    for n in range(10):
        client.post(path, {"password": f"guess {n}", "old_password": f"guess {n}", "code": "1"})
    answer = client.post(path, right).content.decode()
    assert "tried too often" in answer
    assert "This is not your password" not in answer


def test_a_login_gets_a_session_of_its_own(anna: User) -> None:
    client = Client()
    client.get("/login/")
    session = client.session
    session["planted"] = True
    session.save()
    planted = session.session_key
    assert planted is not None
    client.cookies["sessionid"] = planted
    client.post("/login/", {"username": "anna", "password": "secret"})
    assert client.session.session_key != planted


def test_a_session_that_nobody_uses_ends(anna: User, settings: Any) -> None:
    settings.SESSION_IDLE_MINUTES = 30
    client = log_in()
    assert client.get("/account/").status_code == 200
    for minutes, status in ((29, 200), (31, 302)):
        session = client.session
        session["seen"] = int(time.time()) - minutes * 60
        session.save()
        assert client.get("/account/").status_code == status
