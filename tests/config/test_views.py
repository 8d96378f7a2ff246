from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client


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
    assert response.json() == {"ready": True, "database": "ok", "broker": "ok"}
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
    assert "script-src" not in policy


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
