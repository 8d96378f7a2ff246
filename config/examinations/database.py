"""The database: there, up to date, durable, and with room for everybody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from config import parts
from config.doctor import Finding, broken, examines, ok, warning
from config.durability import unsafe

OLDEST_SERVER = 14  # what Django 5.2 and the queue's SQL need
LONG_MINUTES = 10
CROWDED = 0.8
SKEW_SECONDS, BAD_SKEW_SECONDS = 1.0, 10.0


@examines(name=_("Database"))
def database() -> Finding:
    try:
        with psycopg.connect(**parts.past_the_pool(), autocommit=True) as direct:
            direct.execute("SELECT 1")
            server = direct.info.server_version
    except psycopg.Error as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        start = _("Start the site with `make run`, or set DATABASE_URL to a server that runs.")
        look = _("Look whether the server that DATABASE_URL names runs and lets this machine in.")
        return broken(
            format_lazy(_("Not reachable: {reason}"), reason=reason[:300]),
            start if settings.DATABASE_IS_EMBEDDED else look,
        )
    if server // 10_000 < OLDEST_SERVER:
        return broken(
            format_lazy(_("PostgreSQL {version} is too old."), version=_dotted(server)),
            format_lazy(_("Upgrade the server to {oldest} or newer."), oldest=OLDEST_SERVER),
        )
    return ok(format_lazy(_("PostgreSQL {version} answers."), version=_dotted(server)))


def _dotted(server_version: int) -> str:
    return f"{server_version // 10_000}.{server_version % 10_000}"


@examines(name=_("Migrations"), needs="database")
def migrations() -> Finding:
    missing = parts.unapplied()
    if missing:
        return broken(
            format_lazy(_("Migrations that are not applied: {n}."), n=missing),
            _("Run manage.py migrate."),
        )
    return ok(_("All migrations are applied."))


@examines(name=_("Durability"), needs="database")
def durability() -> Finding:
    """Whether an acknowledged judgment outlives a power cut."""
    if off := unsafe():
        return broken(
            format_lazy(
                _("Switched off: {settings}. A power cut may lose judgments."),
                settings=", ".join(sorted(off)),
            ),
            _("Switch them on in postgresql.conf and reload the server."),
        )
    return ok(_("Commits are on disk before they are acknowledged."))


@examines(name=_("Size of the database"), needs="database")
def database_size() -> Finding:
    size = int(_value("SELECT pg_database_size(current_database())"))
    return ok(format_lazy(_("{size} GB."), size=f"{size / 1e9:.1f}"))


@examines(name=_("Longest transaction"), needs="database")
def longest_transaction() -> Finding:
    minutes = float(
        _value(
            "SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0) / 60"
            " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )
    if minutes > LONG_MINUTES:
        return warning(
            format_lazy(
                _("One is open for {n} minutes: it keeps the tables from being cleaned."),
                n=f"{minutes:.0f}",
            ),
            _("Find it in pg_stat_activity; end it with pg_terminate_backend if it is stuck."),
        )
    return ok(format_lazy(_("{n} seconds."), n=f"{minutes * 60:.0f}"))


@examines(name=_("Connections"), needs="database")
def connections_used() -> Finding:
    used = int(
        _value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    )
    allowed = int(_value("SELECT current_setting('max_connections')"))
    values = {
        "used": used,
        "allowed": allowed,
        "pool": settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"],
    }
    said = _("{used} of {allowed} are in use; each process may take up to {pool}.")
    if used > allowed * CROWDED:
        return warning(
            format_lazy(said, **values),
            _("Raise max_connections, lower DATABASE_POOL_SIZE, or put a pooler in front."),
        )
    return ok(format_lazy(said, **values))


@examines(name=_("Clock"), needs="database")
def clock_skew() -> Finding:
    """Leases are compared across machines: their clocks must agree."""
    before = datetime.now(UTC)
    there = _value("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    skew = (there - (before + (after - before) / 2)).total_seconds()
    said = format_lazy(_("{n} s apart from the database’s."), n=f"{abs(skew):.2f}")
    remedy = _("Let both machines set their clocks by NTP, e.g. with chrony.")
    if abs(skew) > BAD_SKEW_SECONDS:
        return broken(said, remedy)
    return warning(said, remedy) if abs(skew) > SKEW_SECONDS else ok(said)


def _value(statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]
