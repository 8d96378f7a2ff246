"""One commit for what one request does: a judgment, and the leases of the sets that follow it.

A commit waits for the disk and costs two trips to the server; both are a good part of the time
between an annotator's key and the next set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected

P = ParamSpec("P")
T = TypeVar("T")
ATTEMPTS = 4  # at what another one blocks
_inside: ContextVar[bool] = ContextVar("one_commit", default=False)


@contextmanager
def one_commit() -> Iterator[None]:
    """All or nothing; the parts begun by `part` have no savepoint of their own."""
    with transaction.atomic():
        token = _inside.set(True)
        try:
            yield
        finally:
            _inside.reset(token)


def part() -> transaction.Atomic:
    """As `transaction.atomic()`; within `one_commit` its failure undoes the whole."""
    return transaction.atomic(savepoint=not _inside.get())


def again_after_deadlock(act: Callable[P, T]) -> Callable[P, T]:
    """Whom the database chose to break a deadlock has changed nothing and does it again."""

    @wraps(act)
    def patient(*args: P.args, **kwargs: P.kwargs) -> T:
        for _attempt in range(ATTEMPTS - 1):
            try:
                return act(*args, **kwargs)
            except OperationalError as error:
                if connection.in_atomic_block or not isinstance(error.__cause__, DeadlockDetected):
                    raise
        return act(*args, **kwargs)

    return patient
