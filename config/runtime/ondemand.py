"""Starts the embedded PostgreSQL for a single command that was run without `up`."""

import sys
from collections.abc import Sequence

# These never touch the database, look after it themselves, or say that it is down.
WITHOUT_DATABASE = {
    "alive",
    "bench",
    "chaos",
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "doctor",
    "help",
    "makemessages",
    "startapp",
    "startproject",
    "up",
    "version",
}
# These decide themselves which migrations are applied.
WITHOUT_MIGRATIONS = {
    "dbshell",
    "flush",
    "makemigrations",
    "migrate",
    "restore",
    "showmigrations",
}


def prepare_database(argv: Sequence[str]) -> None:
    command = argv[1] if len(argv) > 1 else "help"
    asks_for_help = {"-h", "--help", "--version"} & set(argv[1:])
    if command in WITHOUT_DATABASE or asks_for_help:
        return

    from django.conf import settings

    if not settings.DATABASE_IS_EMBEDDED:
        return

    from config.runtime.postgres import Postgres, PostgresError

    try:
        Postgres(settings.DATA_DIR).acquire()
    except PostgresError as error:
        sys.exit(str(error))
    if command not in WITHOUT_MIGRATIONS:
        _migrate_when_new()


def _migrate_when_new() -> None:
    import django
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.recorder import MigrationRecorder

    django.setup()
    if not MigrationRecorder(connection).has_table():
        print("Preparing a new database …", file=sys.stderr)
        call_command("migrate", verbosity=0)
