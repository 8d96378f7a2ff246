"""Connections whose health is seen, mostly, without asking the server.

The pool asks `execute("")` before each request, one trip to the server in fifteen of an annotator's
cycle. A server that ended, or ended this connection, has closed the socket: it can be read from. So
the server itself is asked only then, and now and then for the rare network that fell silent.
"""

from __future__ import annotations

import select
import time
from typing import Any

import psycopg

ASK_EVERY = 5.0  # seconds


class Connection(psycopg.Connection[Any]):
    asked_at = 0.0

    def execute(self, query: Any, *args: Any, **more: Any) -> psycopg.Cursor[Any]:
        if query != "":
            return super().execute(query, *args, **more)
        if self.pgconn.socket >= 0 and time.monotonic() < self.asked_at + ASK_EVERY:
            poll = select.poll()
            poll.register(self.pgconn.socket, select.POLLIN | select.POLLHUP | select.POLLERR)
            if not poll.poll(0):
                return self.cursor()
        try:
            found = super().execute(query, *args, **more)
        except psycopg.OperationalError:
            # Its neighbours ended with it, most likely. One by one the pool would wait longer and
            # longer between them, and after the fifth the request would have to fail.
            if (pool := getattr(self, "_pool", None)) is not None:
                pool.check()
            raise
        self.asked_at = time.monotonic()
        return found
