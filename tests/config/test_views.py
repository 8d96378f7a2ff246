import threading
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client

from config import health


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    health.ready.forget()


@pytest.mark.django_db
def test_it_answers_healthz_without_a_login(client: Client) -> None:
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.content == b"ok\n"


@pytest.mark.django_db
def test_it_is_ready_when_database_and_broker_answer(
    client: Client, broker_url: str, settings: Any
) -> None:
    settings.CELERY_BROKER_URL = broker_url
    response = client.get("/readyz")
    assert response.json() == {
        "ready": True,
        "database": "ok",
        "broker": "ok",
        "store": "ok",
        "degraded": [],
    }
    assert response.status_code == 200


@pytest.mark.django_db
def test_it_is_not_ready_without_its_broker(client: Client, settings: Any, tmp_path: Path) -> None:
    settings.CELERY_BROKER_URL = f"redis+socket://{tmp_path}/nothing.sock"
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["broker"] == "unreachable"


@pytest.mark.django_db
def test_it_forbids_scripts_from_elsewhere(client: Client) -> None:
    policy = client.get("/login/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "script-src 'self';" in policy


@pytest.mark.django_db
def test_it_logs_in_and_out(client: Client) -> None:
    User.objects.create_user("anna", password="right")
    wrong = client.post("/login/", {"username": "anna", "password": "wrong"})
    assert "do not fit together" in wrong.content.decode()
    right = client.post("/login/", {"username": "anna", "password": "right"})
    assert right.headers["Location"] == "/"
    out = client.post("/logout/")
    assert out.headers["Location"] == "/login/"
    assert client.get("/").status_code == 302


@pytest.mark.django_db
def test_it_explains_an_unknown_address(client: Client) -> None:
    response = client.get("/nothing/")
    assert response.status_code == 404
    assert "There is nothing here" in response.content.decode()


@pytest.mark.django_db(transaction=True)
def test_it_says_when_the_database_does_not_answer(client: Client) -> None:
    user = User.objects.create_user("anna")
    client.force_login(user)
    client.raise_request_exception = False
    locked, answered = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                connection.cursor().execute("LOCK TABLE auth_user IN ACCESS EXCLUSIVE MODE")
                locked.set()
                answered.wait(20)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert locked.wait(20)
        connection.cursor().execute("SET lock_timeout = '50ms'")
        response = client.get("/")
    finally:
        answered.set()
        holder.join()
        connection.cursor().execute("RESET lock_timeout")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert "The database does not answer" in response.content.decode()
    assert client.get("/").status_code == 200


@pytest.mark.django_db
def test_it_says_that_something_failed(client: Client, settings: Any) -> None:
    client.force_login(User.objects.create_user("anna"))
    client.raise_request_exception = False
    settings.TEMPLATES = []  # no page can be made
    response = client.get("/")
    assert response.status_code == 500
    assert "Retry-After" not in response.headers
