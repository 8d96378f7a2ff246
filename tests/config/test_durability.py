import pytest
from django.core.checks import run_checks
from django.core.checks.messages import CheckMessage
from django.db import connection
from django.test import override_settings

from config import durability

pytestmark = pytest.mark.django_db(transaction=True)


def found() -> list[CheckMessage]:
    messages = run_checks(databases=["default"])
    return [one for one in messages if one.id in {"oneloop.E020", "oneloop.W020"}]


def setting(value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET synchronous_commit = {value}")


def test_it_refuses_a_database_that_forgets_in_production() -> None:
    setting("off")
    (warning,) = found()
    assert "synchronous_commit = off" in warning.msg
    assert warning.id == "oneloop.W020"
    with override_settings(PRODUCTION=True):
        (error,) = found()
    assert (error.id, error.is_serious()) == ("oneloop.E020", True)
    assert "postgresql.conf" in (error.hint or "")

    setting("on")
    assert "synchronous_commit" not in durability.unsafe()
    connection.close()
