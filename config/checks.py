import shutil
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from generation.models import Role


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


@register(Tags.security)
def single_sign_on_is_whole(**kwargs: Any) -> list[CheckMessage]:
    names = ["OIDC_SERVER_URL", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"]
    missing = settings.OIDC_MISSING
    found: list[CheckMessage] = []
    if missing and len(missing) < len(names):
        found.append(
            Error(
                f"Single sign-on is half configured: {', '.join(missing)} missing.",
                hint="Set all three of OIDC_SERVER_URL, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET (or "
                "OIDC_CLIENT_SECRET_FILE), as the provider's page about this client says, or none.",
                id="oneloop.E002",
            )
        )
    url = urlsplit(settings.OIDC.get("server_url", "https://"))
    if url.scheme != "https" and url.hostname not in {"localhost", "127.0.0.1", "::1"}:
        found.append(
            Error(
                "OIDC_SERVER_URL does not begin with https://.",
                hint="Whoever sits between could log in as anybody. Use the provider's https "
                "address; only one on this machine may do without.",
                id="oneloop.E003",
            )
        )
    role = settings.OIDC_DEFAULT_ROLE
    if role and role not in Role.values:
        found.append(
            Error(
                f"OIDC_DEFAULT_ROLE={role!r} is not a role.",
                hint=f"Choose among {', '.join(Role.values)}, or unset it: new people are then in "
                "no project until somebody adds them.",
                id="oneloop.E004",
            )
        )
    if role and missing:
        found.append(
            Warning(
                "OIDC_DEFAULT_ROLE is set and single sign-on is not.",
                hint="Set OIDC_SERVER_URL, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, or unset it.",
                id="oneloop.W003",
            )
        )
    return found


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
