"""Counts of what happens in any process, kept in the database."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction
from django.dispatch import receiver

from annotation.queue import leases_expired

LEASE_EXPIRIES = "lease_expiries"
ADD = """
INSERT INTO config_tally (name, value) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET value = config_tally.value + excluded.value
"""


def add(name: str, count: int) -> None:
    """After the transaction: the row is one for all, and nobody is to wait for its lock."""

    def write() -> None:
        with connection.cursor() as cursor:
            cursor.execute(ADD, [name, count])

    transaction.on_commit(write, robust=True)


@receiver(leases_expired)
def count_expiries(count: int, **_: Any) -> None:
    add(LEASE_EXPIRIES, count)
