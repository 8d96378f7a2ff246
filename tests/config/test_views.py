from typing import Any

import pytest
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
