"""What production refuses to start with; the same processes with safe settings start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from config import safety

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SAFE = {
    "ONELOOP_ENV": "production",
    "ALLOWED_HOSTS": "loop.example.org",
    "BEHIND_TLS_PROXY": "1",
    "DATABASE_URL": "postgresql://loop:secret@127.0.0.1:9/loop",
    "CELERY_BROKER_URL": "redis://:secret@127.0.0.1:9/0",
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_safe_production_passes_djangos_own_examination(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hVm2k9Qx7LpZr4TnWc8JdYs1BfGu5EaKo3Ni6RtXv0Ml-PqSwHbC")
    check = ["manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    found = run(*check, ONELOOP_DATA=str(tmp_path), SECRET_KEY_FILE=str(key), **SAFE)
    said = found.stdout + found.stderr
    # How full the disk is here says nothing about the settings.
    assert set(re.findall(r"\(([\w.]+\.[EW]\d+)\)", said)) <= {"oneloop.W002"}, said
    assert "System check identified" in said


def test_production_is_stricter_by_itself(tmp_path: Path) -> None:
    ask = """
import django, json
django.setup()
from django.conf import settings as s
from django.urls import reverse
length = [v["OPTIONS"] for v in s.AUTH_PASSWORD_VALIDATORS if "Length" in v["NAME"]]
print(json.dumps([reverse("admin:index"), length, s.SESSION_COOKIE_NAME, s.SESSION_COOKIE_SECURE,
    s.CSRF_COOKIE_NAME, s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS, s.ACCOUNT_RATE_LIMITS]))
"""
    extra = {"ADMIN_PATH": "/desk", "DJANGO_SETTINGS_MODULE": "config.settings"}
    found = run("-c", ask, ONELOOP_DATA=str(tmp_path), **SAFE, **extra)
    assert json.loads(found.stdout) == [
        *("/desk/", [{"min_length": 12}], "__Host-sessionid", True),
        *("__Host-csrftoken", True, 31536000, False),
    ]


@pytest.mark.parametrize(
    "start",
    [
        ["-c", "import config.wsgi"],
        pytest.param(
            ["-m", "celery", "-A", "config", "worker", "--pool", "solo"], marks=pytest.mark.long
        ),
        pytest.param(["-m", "celery", "-A", "config", "beat"], marks=pytest.mark.long),
        pytest.param(["manage.py", "migrate"], marks=pytest.mark.long),
    ],
    ids=["web", "worker", "beat", "command"],
)
def test_an_unsafe_production_does_not_start(start: list[str], tmp_path: Path) -> None:
    unsafe = {
        "DEBUG": "1",
        "SECRET_KEY": "short",
        "SECURE_COOKIES": "0",
        "SECURE_SSL_REDIRECT": "0",
    }
    unsafe |= {"WEBHOOK_PRIVATE_ADDRESSES": "1", "HSTS_SECONDS": "0", "MEDIA_REDIRECT_SECONDS": "9"}
    found = run(*start, ONELOOP_ENV="production", ONELOOP_DATA=str(tmp_path), **unsafe)
    assert found.returncode != 0
    for rule in safety.RULES:
        expected = rule.id not in ("oneloop.E102", "oneloop.E111")
        assert (rule.what in found.stderr and rule.remedy in found.stderr) is expected, rule.id


def test_it_asks_nothing_of_a_machine_that_is_not_in_production(settings: Any) -> None:
    assert not settings.PRODUCTION
    assert safety.production_is_safe() == []
    safety.refuse_unsafe()


def ids(found: list[Any]) -> set[str]:
    return {message.id for message in found}


@pytest.mark.parametrize(
    ("hosts", "safe"),
    [
        (["loop.example.org"], True),
        (["loop.example.org", "localhost"], True),
        (["localhost", "127.0.0.1", "[::1]"], False),
        (["*"], False),
        (["loop.example.org", "*"], False),
        ([], False),
    ],
)
def test_it_wants_hosts_of_its_own(hosts: list[str], safe: bool, settings: Any) -> None:
    settings.PRODUCTION, settings.ALLOWED_HOSTS = True, hosts
    assert ("oneloop.E104" not in ids(safety.production_is_safe())) is safe


@pytest.mark.parametrize(
    ("origin", "safe"),
    [("https://a.example", True), ("http://a.example", False), ("https://*.example", False)],
)
def test_it_wants_whole_origins(origin: str, safe: bool, settings: Any) -> None:
    settings.PRODUCTION, settings.CSRF_TRUSTED_ORIGINS = True, [origin]
    assert ("oneloop.E111" not in ids(safety.production_is_safe())) is safe


def test_whoever_takes_a_risk_names_it(settings: Any) -> None:
    settings.PRODUCTION = True
    settings.SILENCED_SYSTEM_CHECKS = sorted(ids(safety.production_is_safe()))
    assert all(message.is_silenced() for message in safety.production_is_safe())


@pytest.mark.django_db
def test_it_finds_the_starters_logins(settings: Any) -> None:
    settings.PRODUCTION = True
    user = User.objects.create_user("anna", password="oneloop")
    User.objects.create_user("ben", password="another one")
    (found,) = [one for one in safety.database_is_safe(["default"]) if one.id == "oneloop.E120"]
    assert "log in as anna:" in found.msg
    user.is_active = False
    user.save()
    assert "oneloop.E120" not in ids(safety.database_is_safe(["default"]))


@pytest.mark.django_db
def test_a_database_that_forgets_is_not_started_on(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PRODUCTION = True
    monkeypatch.setattr(safety, "RULES", [])
    for hold in ("close", "close_pool"):  # the test's own connection
        monkeypatch.setattr(connection, hold, lambda: None)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    with pytest.raises(SystemExit, match="synchronous_commit = off"):
        safety.refuse_unsafe()
