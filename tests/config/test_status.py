"""The status page, what the start page says of parts that are down, and the version's footer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone, translation

from config import doctor, status
from config.doctor import Finding, State
from config.kept import Kept
from config.models import Heartbeat, LastFinding
from config.version import release
from generation.models import Role
from tests.config.test_doctor import make_heartbeat
from tests.factories import make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    status.findings.forget()
    status.depths.forget()


@pytest.fixture
def staff(client: Client, settings: Any, broker_url: str) -> Client:
    settings.CELERY_BROKER_URL = broker_url
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    return client


def text_of(client: Client, path: str = "/status/", **headers: str) -> str:
    response = client.get(path, headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def test_it_shows_every_part_those_that_need_somebody_first(staff: Client) -> None:
    make_heartbeat("default@here", "default")
    make_heartbeat("gpu@there", "gpu", ago=90, heard=90)
    make_run(state="running", lease_until=timezone.now(), message="set 3 of 9", progress=3, total=9)
    make_run(state="failed", error="The disk is full.", finished_at=timezone.now())
    shown = text_of(staff)
    names = [row.finding.name for row in status.collect().rows]
    states = [row.finding.state for row in status.collect().rows]
    assert states == sorted(states, key=lambda one: -list(State).index(State(one)))
    assert all(str(name) in shown for name in names)
    assert "Run manage.py" not in shown  # the migrations are all applied
    assert "default@here" in shown
    assert "set 3 of 9" in shown
    assert "The disk is full." in shown
    assert "waiting in the queue gpu" in shown


def test_it_refreshes_a_part_of_the_page(staff: Client) -> None:
    assert "<html" in text_of(staff)
    part = text_of(staff, **{"HX-Request": "true"})
    assert "<html" not in part
    assert part.startswith('<section id="status"')


def test_it_is_for_staff(client: Client) -> None:
    assert client.get("/status/").status_code == 302
    client.force_login(make_user("boss", role=Role.ADMIN))
    assert client.get("/status/").status_code == 403


def test_it_stands_without_a_broker(staff: Client, settings: Any, tmp_path: Any) -> None:
    settings.CELERY_BROKER_URL = f"redis+socket://{tmp_path}/nothing.sock"
    shown = text_of(staff)
    assert "CELERY_BROKER_URL" in shown
    assert "waiting in the queue" not in shown


def test_slow_examinations_are_kept_in_every_language(staff: Client) -> None:
    assert "Not looked at yet" in text_of(staff)
    status.look_slowly()
    kept = {row.key: row.findings for row in LastFinding.objects.all()}
    assert set(kept) == {one.key for one in doctor.examinations() if one.is_slow}
    assert kept["media_store"][0]["state"] == State.OK
    shown = text_of(staff)
    assert "A file was written, read back and deleted." in shown
    assert "Not looked at yet" not in shown
    staff.cookies["django_language"] = "ja"
    assert kept["media_store"][0]["what"]["ja"] in text_of(staff)


# The start page ---------------------------------------------------------------------------------


def test_managers_are_told_that_a_queue_is_deserted(client: Client) -> None:
    client.force_login(make_user("max", role=Role.MANAGER))
    make_heartbeat("default@here", "default")
    make_heartbeat("beat@here")
    assert "No worker takes jobs" not in text_of(client, "/")
    make_heartbeat("gpu@here", "gpu", ago=120, heard=120)
    shown = text_of(client, "/")
    assert "No worker takes jobs of the queue gpu" in shown
    assert "/status/" not in shown  # he may not open it

    Heartbeat.objects.filter(kind="beat").update(heard_at=timezone.now() - timedelta(minutes=5))
    assert "The clock of the jobs does not tick" in text_of(client, "/")


def test_staff_are_led_to_the_remedy(client: Client) -> None:
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    found = doctor.broken("The store is gone.", "Bring it back.")
    words = status._kept(Finding("Media store", found.state, found.what, found.remedy))
    LastFinding.objects.create(key="media_store", findings=[words], looked_at=timezone.now())
    shown = text_of(client, "/")
    assert "The store is gone. Bring it back." in shown
    assert 'href="/status/"' in shown


def test_annotators_are_not_troubled_with_it(client: Client) -> None:
    make_heartbeat("gpu@here", "gpu", ago=120, heard=120)
    client.force_login(make_user("anna", role=Role.ANNOTATOR))
    assert "No worker takes jobs" not in text_of(client, "/")


def test_pages_say_which_version_this_is(client: Client) -> None:
    assert release() not in client.get("/login/").content.decode()
    client.force_login(make_user("anna"))
    assert f"OneLoop {release()}" in text_of(client, "/")


def test_findings_are_read_in_the_readers_language() -> None:
    from config.examinations import installation

    found = installation.secrets()
    assert isinstance(found, Finding)
    english = str(found.what)
    with translation.override("zh-hans"):
        assert str(found.what) != english


# Kept answers -----------------------------------------------------------------------------------


def test_an_answer_is_kept_for_its_time() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    kept = Kept(make, seconds=60)
    assert [kept(), kept()] == [0, 0]
    kept.forget()
    assert kept() == 1
    kept.seconds = 0
    kept.forget()
    assert [kept(), kept()] == [2, 3]


def test_whoever_comes_meanwhile_gets_the_last_answer() -> None:
    import threading

    begun, go_on = threading.Event(), threading.Event()
    answers = iter(["first", "second"])

    def make() -> str:
        answer = next(answers)
        if answer == "second":
            begun.set()
            go_on.wait(10)
        return answer

    kept = Kept(make, seconds=0)
    assert kept() == "first"
    slow = threading.Thread(target=kept)
    slow.start()
    assert begun.wait(10)
    assert kept() == "first"  # without waiting
    go_on.set()
    slow.join()
