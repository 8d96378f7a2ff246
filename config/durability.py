"""Whether what was acknowledged outlives a power cut, as far as the database's settings say."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections

# Each with the values under which a commit is on the disk before it is acknowledged.
SAFE = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    "synchronous_commit": {"on", "local", "remote_write", "remote_apply"},
}


def unsafe() -> dict[str, str]:
    """Settings of the server, as this program's connections have them, that risk commits."""
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", [list(SAFE)]
        )
        return {name: value for name, value in cursor.fetchall() if value not in SAFE[name]}


@register(Tags.database)
def commits_are_durable(databases: Iterable[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Looked at by `migrate`, which comes before every start, and by `check --database default`."""
    if "default" not in (databases or ()):
        return []
    try:
        found = unsafe()
    except DatabaseError:
        return []  # that it does not answer is said elsewhere
    if not found:
        return []
    said = ", ".join(f"{name} = {value}" for name, value in sorted(found.items()))
    kind = Error if settings.PRODUCTION else Warning
    return [
        kind(
            f"The database may forget what it has acknowledged: it runs with {said}.",
            hint="A power cut would lose judgments that people were told are stored. Set them back "
            "to “on” in postgresql.conf, or with ALTER DATABASE … SET synchronous_commit = on.",
            id="oneloop.E020" if settings.PRODUCTION else "oneloop.W020",
        )
    ]
