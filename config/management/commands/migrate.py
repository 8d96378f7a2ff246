import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, connections
from psycopg.errors import LockNotAvailable

TRIES = 20
LONGEST_PAUSE = 30.0


class Command(migrate.Command):
    """Django's own, which never lets a migration that waits for a lock hold up everybody else.

    A change of a table waits until the transactions that use it are over, and whoever comes after
    it waits behind it. Here it gives up after MIGRATE_LOCK_SECONDS, lets the others pass, and tries
    again. Each migration is whole or not there, so that the next try goes on where the last ended.
    """

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        for attempt in range(1, TRIES + 1):
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = '{settings.MIGRATE_LOCK_SECONDS}s'")
            try:
                super().handle(*args, **options)
                return
            except OperationalError as error:
                if not isinstance(error.__cause__, LockNotAvailable):
                    raise
                self._wait(attempt)
            finally:
                if connection.connection is not None and not connection.connection.closed:
                    with connection.cursor() as cursor:
                        cursor.execute("RESET lock_timeout")

    def _wait(self, attempt: int) -> None:
        if attempt == TRIES:
            raise CommandError(
                "Something has used a table for too long for it to be changed. The migrations "
                "before are applied. Find what runs in pg_stat_activity, and migrate again."
            )
        pause = min(settings.MIGRATE_LOCK_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE)
        self.stderr.write(f"A table is in use. Trying again in {pause:g} s, others go first.")
        time.sleep(pause)
