"""What each migration does to tables that people are using while it runs."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration
from django.test import override_settings
from psycopg import sql

from tests.conftest import address

OURS = {"annotation", "config", "generation", "modeling"}
DECLARED = Path(__file__).with_name("migration_locks.txt")
# While one of these is held, nobody can write into the table, or not even read it.
HEAVY = ["AccessExclusiveLock", "ExclusiveLock", "ShareLock", "ShareRowExclusiveLock"]
TABLES = """
SELECT c.oid, c.relname, c.relfilenode, coalesce(s.seq_scan, 0)
FROM pg_class c LEFT JOIN pg_stat_xact_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""
LOCKS = """
SELECT relation FROM pg_locks
WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode = ANY(%s)
"""
Row = tuple[str, int, int]


class Watch(MigrationExecutor):
    """Says of every migration which tables it read or wrote as a whole while others were locked
    out. A lock alone is no harm: `migrate` waits for it in short tries, and it is soon released."""

    found: dict[str, set[str]]

    def apply_migration(self, state: Any, migration: Migration, *args: Any, **more: Any) -> Any:
        if migration.app_label not in OURS:
            return super().apply_migration(state, migration, *args, **more)
        known = self.connection.connection
        # The server books what it counted when it finds time, and counts from zero again.
        known.execute("SELECT pg_stat_force_next_flush()")
        before = self._tables()
        seen: set[str] = set()

        def look(execute: Callable[..., Any], statement: Any, *rest: Any) -> Any:
            result = execute(statement, *rest)
            # Within the same transaction, past Django's own cursors.
            locked = {oid for (oid,) in known.execute(LOCKS, [HEAVY])} & before.keys()
            after = self._tables() if locked else {}
            for oid in locked & after.keys():
                name, file, scans = before[oid]
                if after[oid][1] != file:
                    seen.add(f"{name} rewritten")
                elif after[oid][2] > scans:
                    seen.add(f"{name} read")
            return result

        with self.connection.execute_wrapper(look):
            done = super().apply_migration(state, migration, *args, **more)
        if seen:
            self.found[f"{migration.app_label}.{migration.name}"] = seen
        return done

    def _tables(self) -> dict[int, Row]:
        rows = self.connection.connection.execute(TABLES)
        return {oid: (name, file, scans) for oid, name, file, scans in rows}


@pytest.fixture
def empty(transactional_db: None) -> Iterator[Any]:
    """A connection of Django's to a database without tables."""
    name = f"{connection.settings_dict['NAME']}_empty"
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(address("postgres"), autocommit=True) as server:
        server.execute(drop)
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        fresh = connection.copy("default")
        fresh.settings_dict = {**connection.settings_dict, "NAME": name, "OPTIONS": {}}
        usual = connections["default"]
        connections["default"] = fresh
        try:
            yield fresh
        finally:
            fresh.close()
            connections["default"] = usual
            server.execute(drop)


def migrations() -> dict[str, str]:
    """Name and digest of each of ours."""
    loader = MigrationLoader(None)
    found = {}
    for (app, name), migration in (loader.disk_migrations or {}).items():
        if app in OURS:
            path = Path(str(sys.modules[type(migration).__module__].__file__))
            found[f"{app}.{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return found


def declared() -> dict[str, tuple[str, set[str]]]:
    """What was found of each migration when it was looked at, and the digest it had then."""
    lines = DECLARED.read_text().splitlines()
    rows = [line.split(maxsplit=2) for line in lines if line[:1] not in ("", "#")]
    return {name: (digest, set(said.split(", "))) for name, digest, said in rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    "always", [False, pytest.param(True, marks=pytest.mark.long)], ids=["new", "all"]
)
def test_no_migration_shuts_people_out_of_a_large_table(always: bool, empty: Any) -> None:
    there, known = migrations(), declared()
    if not always and all(known.get(name, "?")[0] == there[name] for name in there):
        return  # none that has not been looked at: that takes a while
    watch = Watch(empty)
    watch.found = {}
    watch.migrate(watch.loader.graph.leaf_nodes())
    lines = [
        f"{name} {digest} {', '.join(sorted(watch.found.get(name, {'instant'})))}"
        for name, digest in sorted(there.items())
    ]
    for line in lines:
        name, _digest, _said = line.split(maxsplit=2)
        new = watch.found.get(name, set()) - known.get(name, ("", set()))[1]
        assert not new, (
            f"{name} goes through a whole table while nobody can use it: {', '.join(new)}. "
            "Make an index with AddIndexConcurrently, a constraint with NOT VALID and validate it "
            "in a second migration, a column nullable or with a db_default. If the table is small "
            f"for ever, put this into {DECLARED.name}:\n{line}"
        )
    listed = {line for line in DECLARED.read_text().splitlines() if line.split(" ")[0] in known}
    assert listed <= set(lines), "listed, and not seen so any more"


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_waits_lets_others_pass(capsys: pytest.CaptureFixture[str]) -> None:
    reader = psycopg.connect(address(), autocommit=False)
    reader.execute("SELECT 1 FROM modeling_setscore")
    waited: list[float] = []
    over = threading.Event()

    def read() -> None:
        with psycopg.connect(address(), autocommit=True) as another:
            another.execute("SET statement_timeout = '30s'")
            while not over.wait(0.02):
                began = time.monotonic()
                try:
                    another.execute("SELECT 1 FROM modeling_setscore")
                except psycopg.errors.QueryCanceled:
                    over.set()
                waited.append(time.monotonic() - began)
                if max(waited) > 0.5 > waited[-1]:  # it stood behind the migration, and passed it
                    over.set()
        reader.rollback()  # now the table is free

    thread = threading.Thread(target=read)
    thread.start()
    try:
        with override_settings(MIGRATE_LOCK_SECONDS=1):
            call_command("migrate", "modeling", "0012", verbosity=0)
    finally:
        over.set()
        thread.join()
        reader.close()
        call_command("migrate", verbosity=0)
    assert "A table is in use. Trying again in 1 s" in capsys.readouterr().err
    assert 0.5 < max(waited) < 1.5
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)
