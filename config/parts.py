"""Do the parts answer that the site cannot do without? Each says "" or, in a few words, why not."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from kombu.connection import Connection
from kombu.exceptions import KombuError

CONNECT_SECONDS = 3


def past_the_pool() -> dict[str, Any]:
    """How psycopg connects by itself: the pool would wait longer than whoever asks."""
    return connection.get_connection_params() | {"connect_timeout": CONNECT_SECONDS}


def unapplied() -> int:
    """How many migrations the database has yet to get."""
    applied = MigrationRecorder(connection).applied_migrations()
    if all(leaf in applied for leaf in _leaves()):
        return 0
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


@cache
def _leaves() -> list[tuple[str, str]]:
    # Read from the disk once: a process runs the code that it was started with.
    return MigrationLoader(None).graph.leaf_nodes()


def database() -> str:
    try:
        missing = unapplied()
    except DatabaseError:
        return "unreachable"
    return f"{missing} migrations are not applied" if missing else ""


def broker(seconds: float = 2) -> str:
    try:
        with Connection(settings.CELERY_BROKER_URL, connect_timeout=seconds) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0.1, timeout=seconds)
    except (KombuError, OSError):
        return "unreachable"
    return ""


def store() -> str:
    """The media store, without writing to it: the doctor does that."""
    if isinstance(default_storage, FileSystemStorage):
        return _folder(Path(default_storage.base_location))
    try:
        default_storage.exists("readyz")
    except Exception:  # each backend has its own
        return "unreachable"
    return ""


def _folder(folder: Path) -> str:
    while not folder.exists():  # it is made with its first file
        folder = folder.parent
    return "" if os.access(folder, os.W_OK | os.X_OK) else "not writable"
