import shutil
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from config import env


@register(Tags.database)
def database_is_postgresql(**kwargs: Any) -> list[CheckMessage]:
    if settings.DATABASES["default"]["ENGINE"].endswith("postgresql"):
        return []
    return [
        Error(
            "DATABASE_URL does not name a PostgreSQL database.",
            hint="Queues use SKIP LOCKED and constraints that only PostgreSQL has. Write "
            "postgresql://user:password@host/name, or unset it for the embedded one.",
            id="oneloop.E001",
        )
    ]


@register(Tags.security, deploy=True)
def secret_key_is_shared(**kwargs: Any) -> list[CheckMessage]:
    if env.text("SECRET_KEY"):
        return []
    return [
        Warning(
            "SECRET_KEY is not set, so this machine made its own.",
            hint="Set the same SECRET_KEY on every machine that serves the site.",
            id="oneloop.W001",
        )
    ]


@register()
def disk_has_room(**kwargs: Any) -> list[CheckMessage]:
    if not settings.DATA_DIR.exists():
        return []
    free = shutil.disk_usage(settings.DATA_DIR).free
    if free > 2**30:
        return []
    return [
        Warning(
            f"Only {free / 2**20:.0f} MiB are free under {settings.DATA_DIR}.",
            hint="Candidates and checkpoints need room: free some or set ONELOOP_DATA.",
            id="oneloop.W002",
        )
    ]
