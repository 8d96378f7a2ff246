"""How often a password may be tried, and by whom."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from config import log_in
from generation import throttle
from generation.models import Attempts, AuditEntry, Verb
from generation.throttle import Limit
from tests.factories import make_user

pytestmark = pytest.mark.django_db

HERE, THERE = "203.0.113.5", "198.51.100.7"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_in, "PAIR", Limit(3, 900))
    monkeypatch.setattr(log_in, "PLACE", Limit(5, 900))
    monkeypatch.setattr(log_in, "NAME", Limit(8, 3600))


@pytest.fixture
def anna() -> User:
    return make_user("anna")


def tried(name: str, password: str, address: str = HERE, path: str = "/login/") -> Any:
    return Client(REMOTE_ADDR=address).post(path, {"username": name, "password": password})


def test_it_stops_guessing_from_one_place_and_lets_others_in(anna: User) -> None:
    assert [tried("anna", "wrong").status_code for _ in range(3)] == [200] * 3
    stopped = tried("anna", "secret")
    assert stopped.status_code == 429
    assert "Wait 15 minutes" in stopped.content.decode()
    assert 0 < int(stopped["Retry-After"]) <= 900
    assert tried("anna", "secret", THERE).status_code == 302


def test_it_opens_again_after_the_window(anna: User) -> None:
    for _ in range(4):
        tried("anna", "wrong")
    Attempts.objects.update(started_at=timezone.now() - timedelta(seconds=901))
    assert tried("anna", "secret").status_code == 302


def test_it_stops_whoever_tries_many_names(anna: User) -> None:
    assert [tried(f"name-{n}", "wrong").status_code for n in range(5)] == [200] * 5
    assert tried("anna", "secret").status_code == 429


def test_many_places_do_not_lock_the_owner_out(anna: User) -> None:
    assert tried("anna", "secret").status_code == 302  # the owner's own place
    answers = [tried("anna", "wrong", f"192.0.2.{n}").status_code for n in range(9)]
    assert answers == [200] * 8 + [429]
    assert tried("anna", "secret", THERE).status_code == 429
    assert tried("anna", "secret", HERE).status_code == 302


def test_logins_that_succeed_count_nowhere(anna: User) -> None:
    assert {tried("anna", "secret").status_code for _ in range(10)} == {302}


def test_it_counts_the_network_of_an_ipv6_address(anna: User) -> None:
    for n in range(3):
        tried("anna", "wrong", f"2001:db8::{n}")
    assert tried("anna", "secret", "2001:db8::ffff").status_code == 429
    assert tried("anna", "secret", "2001:db8:0:1::1").status_code == 302


def test_it_counts_whom_the_proxy_saw(anna: User, settings: Any) -> None:
    settings.BEHIND_PROXY = True
    for n in range(4):
        # What the visitor wrote themselves stands before what the proxy adds.
        forged = Client(headers={"X-Forwarded-For": f"10.0.0.{n}, {HERE}"})
        answer = forged.post("/login/", {"username": "anna", "password": "wrong"})
    assert answer.status_code == 429


def test_it_writes_a_flood_down_once(anna: User) -> None:
    for _ in range(9):
        tried("anna", "wrong")
    assert AuditEntry.objects.filter(verb=Verb.LOGIN_FAILED).count() == 3
    # One for the name from here, and one for this address.
    assert AuditEntry.objects.filter(verb=Verb.LOGIN_THROTTLED, object_id=anna.pk).count() == 2


def test_a_flood_of_names_leaves_few_rows() -> None:
    for n in range(20):
        tried(f"name-{n}", "wrong")
    assert Attempts.objects.count() == 1 + 2 * log_in.PLACE.most


def test_the_admin_has_no_login_of_its_own(anna: User) -> None:
    page = Client().get("/admin/login/?next=/admin/auth/user/")
    assert page.status_code == 302
    assert page["Location"] == "/login/?next=/admin/auth/user/"
    client = Client()
    client.force_login(anna)
    assert client.get("/admin/login/").status_code == 403


def test_tries_are_counted_given_back_forgotten_and_swept() -> None:
    limit = Limit(2, 60)
    counts = [throttle.take(limit, "x").tries for _ in range(4)]
    assert counts == [1, 2, 3, 4]
    throttle.give_back("x")
    assert throttle.take(limit, "x").tries == 4
    throttle.forget("x")
    assert throttle.take(limit, "x").tries == 1
    Attempts.objects.update(started_at=timezone.now() - timedelta(days=2))
    assert throttle.sweep() == 1
