"""Workers and the clock tell the database and their own machine that they live.

A thread writes a row every ten seconds, and touches a file that `manage.py alive` looks at: a probe
must not take a worker for dead because the database is away. The loop of the process says by
`heard()` that it turns.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings

from config import gpus, parts
from config.alive import beat_file
from config.version import release

log = logging.getLogger(__name__)

SECONDS = 10.0
# After so long without a word of the loop, though the broker answers, the process is stuck.
STUCK_SECONDS = 300.0
DAY_SECONDS = 24 * 3600

WRITE = """
INSERT INTO config_heartbeat
    (name, kind, queues, machine, pid, version, gpus, started_at, beat_at, heard_at)
VALUES (%(name)s, %(kind)s, %(queues)s, %(machine)s, %(pid)s, %(version)s, %(gpus)s,
    clock_timestamp(), clock_timestamp(), clock_timestamp() - %(silence)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET
    kind = excluded.kind, queues = excluded.queues, machine = excluded.machine,
    version = excluded.version, gpus = excluded.gpus, beat_at = excluded.beat_at,
    heard_at = excluded.heard_at, pid = excluded.pid,
    started_at = CASE WHEN config_heartbeat.pid = excluded.pid
        THEN config_heartbeat.started_at ELSE excluded.started_at END
"""
FORGET = "DELETE FROM config_heartbeat WHERE beat_at < clock_timestamp() - interval '1 day'"


class Heart:
    """Of this process. Its connection is its own, made for every beat and outside Django's pool:
    a worker forks, and a pool's threads do not live on in a child."""

    def __init__(self, *, name: str, kind: str, queues: list[str]) -> None:
        self.name, self.kind, self.queues = name, kind, queues
        self.began = time.monotonic()
        self.heard_at: float | None = None
        self.file = beat_file(Path(settings.DATA_DIR), kind, name)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        # The first beat is not the thread's: it imports what beats need, and a child that is forked
        # while a thread imports waits for that import for ever.
        self._ask(WRITE, self._row())
        self._thread.start()

    def heard(self, **_: Any) -> None:
        self.heard_at = time.monotonic()

    def stop(self) -> None:
        """Take the row along: whoever ends in order is not missed."""
        self._ended.set()
        self._thread.join(SECONDS)
        self.file.unlink(missing_ok=True)
        self._ask("DELETE FROM config_heartbeat WHERE name = %(name)s", {"name": self.name})

    def _run(self) -> None:
        self._forget()
        while True:
            if not self._is_stuck():
                self._touch()
            self._ask(WRITE, self._row())
            if self._ended.wait(SECONDS):
                return

    def _forget(self) -> None:
        """What processes that were killed have left behind."""
        self._ask(FORGET)
        old = time.time() - DAY_SECONDS
        with contextlib.suppress(OSError):
            for file in self.file.parent.glob("*"):
                if file.stat().st_mtime < old:
                    file.unlink()

    def _is_stuck(self) -> bool:
        since = time.monotonic() - (self.heard_at or self.began)
        return since > STUCK_SECONDS and parts.broker() == ""

    def _touch(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.touch()
        except OSError as error:
            log.warning("The file of its beats cannot be written: %s", error)

    def _row(self) -> dict[str, Any]:
        heard = self.heard_at
        return {
            "name": self.name[:200],
            "kind": self.kind,
            "queues": self.queues,
            "machine": socket.gethostname()[:200],
            "pid": os.getpid(),
            "version": release()[:100],
            "gpus": json.dumps(gpus.found() if self.kind == "worker" else []),
            "silence": None if heard is None else time.monotonic() - heard,
        }

    def _ask(self, statement: str, values: dict[str, Any] | None = None) -> None:
        try:
            with psycopg.connect(**parts.past_the_pool(), autocommit=True) as connection:
                connection.execute(statement, values)
        except psycopg.Error as error:
            # Its silence is what is seen; the next beat tries again.
            log.debug("A beat was not written: %s", error)


_heart: Heart | None = None


def begin(*, name: str, kind: str, queues: list[str] | None = None) -> Heart:
    global _heart
    _heart = Heart(name=name, kind=kind, queues=sorted(queues or []))
    _heart.start()
    atexit.register(_heart.stop)
    return _heart


def heard(**_: Any) -> None:
    if _heart is not None:
        _heart.heard()
