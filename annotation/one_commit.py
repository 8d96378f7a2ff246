"""One commit for what one request does: a judgment, and the leases of the sets that follow it.

A commit waits for the disk and costs two trips to the server; both are a good part of the time
between an annotator's key and the next set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import transaction

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
