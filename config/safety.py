"""What a production deployment (ONELOOP_ENV=production) is not started with, and the remedies.

The rules are system checks, so that every command stops at them; the web server, the workers and
beat run no checks and ask `refuse_unsafe` first. Whoever takes a risk names its id in
ACCEPTED_RISKS.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth.models import User
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DatabaseError, connection

from config import env
from config.durability import commits_are_durable

logger = logging.getLogger(__name__)

SHORTEST_KEY = 50
LOCAL = {"localhost", "127.0.0.1", "[::1]", "::1"}


class Rule(NamedTuple):
    id: str
    is_broken: Callable[[], bool]
    what: str
    remedy: str


def _key_is_weak() -> bool:
    key = settings.SECRET_KEY
    return len(key) < SHORTEST_KEY or len(set(key)) < 10 or key.startswith("django-insecure-")


def _hosts_are_open() -> bool:
    names = set(settings.ALLOWED_HOSTS)
    return any(name.startswith("*") for name in names) or names <= LOCAL


def _origins_are_open() -> bool:
    origins = settings.CSRF_TRUSTED_ORIGINS
    return any("*" in origin or not origin.startswith("https://") for origin in origins)


RULES = [
    Rule(
        "oneloop.E101",
        lambda: settings.DEBUG,
        "DEBUG is on: error pages would show settings and code to anybody.",
        "Unset DEBUG.",
    ),
    Rule(
        "oneloop.E102",
        lambda: not env.secret("SECRET_KEY"),
        "SECRET_KEY is not set: each machine would make its own, and none could read the others' "
        "sessions.",
        "Set the same SECRET_KEY, or SECRET_KEY_FILE, on every machine. This makes one: "
        'python -c "import secrets; print(secrets.token_urlsafe(50))"',
    ),
    Rule(
        "oneloop.E103",
        _key_is_weak,
        f"SECRET_KEY is weak: shorter than {SHORTEST_KEY} characters, or an example.",
        'Make a new one: python -c "import secrets; print(secrets.token_urlsafe(50))"',
    ),
    Rule(
        "oneloop.E104",
        _hosts_are_open,
        "ALLOWED_HOSTS names no host of yours, or lets any host through.",
        "Set ALLOWED_HOSTS to the site's names, separated by commas, e.g. loop.example.org.",
    ),
    Rule(
        "oneloop.E105",
        lambda: not settings.SECURE_SSL_REDIRECT,
        "SECURE_SSL_REDIRECT is off: passwords could travel unencrypted.",
        "Unset SECURE_SSL_REDIRECT. Behind a proxy that ends TLS also set BEHIND_TLS_PROXY=1, and "
        "let the proxy set X-Forwarded-Proto.",
    ),
    Rule(
        "oneloop.E106",
        lambda: not settings.SECURE_COOKIES,
        "SECURE_COOKIES is off: browsers would send the session's cookie unencrypted.",
        "Unset SECURE_COOKIES; in production it is on.",
    ),
    Rule(
        "oneloop.E107",
        lambda: settings.SECURE_HSTS_SECONDS < 1,
        "HSTS_SECONDS is 0: a browser's first request could go unencrypted each time.",
        "Unset HSTS_SECONDS (a year), or begin with HSTS_SECONDS=3600 to try it.",
    ),
    Rule(
        "oneloop.E108",
        lambda: settings.DATABASE_IS_EMBEDDED,
        "The embedded database is for one machine and has no backups.",
        "Set DATABASE_URL, or DATABASE_URL_FILE, to a PostgreSQL server of yours: "
        "postgresql://user:password@host/name.",
    ),
    Rule(
        "oneloop.E109",
        lambda: settings.BROKER_IS_EMBEDDED,
        "The embedded broker is for one machine.",
        "Set CELERY_BROKER_URL, or CELERY_BROKER_URL_FILE, e.g. redis://:password@host:6379/0.",
    ),
    Rule(
        "oneloop.E110",
        lambda: settings.WEBHOOK_PRIVATE_ADDRESSES,
        "WEBHOOK_PRIVATE_ADDRESSES is on: whoever manages a project could reach the inner network.",
        "Unset it. If all managers may reach that network, set ACCEPTED_RISKS=oneloop.E110.",
    ),
    Rule(
        "oneloop.E111",
        _origins_are_open,
        "CSRF_TRUSTED_ORIGINS lets in a whole domain or an unencrypted origin.",
        "Write whole origins with https://, e.g. https://loop.example.org, or unset it.",
    ),
    Rule(
        "oneloop.E112",
        lambda: settings.MEDIA_REDIRECT_SECONDS > 0 and not settings.MEDIA_ORIGINS,
        "MEDIA_REDIRECT_SECONDS is set and MEDIA_ORIGINS is not: browsers would show no picture.",
        "Set MEDIA_ORIGINS to the object store's origin as browsers reach it, or unset both.",
    ),
]


@register(Tags.security)
def production_is_safe(**kwargs: Any) -> list[CheckMessage]:
    if not settings.PRODUCTION:
        return []
    return [Error(rule.what, hint=rule.remedy, id=rule.id) for rule in RULES if rule.is_broken()]


@register(Tags.database)
def database_is_safe(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Asks the database: `check --database default`, and every start of a web server or worker."""
    if not settings.PRODUCTION or not databases:
        return []
    return _demo_logins()


def _demo_logins() -> list[CheckMessage]:
    from modeling.starter_project import PASSWORD, PEOPLE

    if "auth_user" not in connection.introspection.table_names():
        return []  # before the first migration
    people = User.objects.filter(username__in=PEOPLE, is_active=True)
    names = [user.username for user in people if user.check_password(PASSWORD)]
    if not names:
        return []
    return [
        Error(
            f"Anybody may log in as {', '.join(names)}: the starter project's password is known.",
            hint="Give them other passwords (manage.py changepassword NAME), or close the accounts "
            "in the admin.",
            id="oneloop.E120",
        )
    ]


def refuse_unsafe() -> None:
    """End this process if production's settings are unsafe."""
    if not settings.PRODUCTION:
        return
    _end_if_any(production_is_safe())
    try:
        asked = ["default"]
        durable = commits_are_durable(databases=asked)
        _end_if_any([*durable, *database_is_safe(databases=asked)])
    except DatabaseError as error:
        logger.warning("The database was not examined, since it does not answer: %s", error)
    finally:
        # A worker forks after this: no child may inherit a connection.
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL has one


def _end_if_any(found: Sequence[CheckMessage]) -> None:
    broken = [message for message in found if not message.is_silenced()]
    if broken:
        lines = [f"{message.msg} {message.hint} ({message.id})" for message in broken]
        raise SystemExit("\n".join(["OneLoop does not start like this:", *lines]))
