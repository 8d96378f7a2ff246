"""What is being done right now, for every line of the log: the request, the job, the run.

It is kept by the thread, handed to jobs in their headers and to subprocesses in their environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token

NAMES = ("request_id", "job_id", "run")
PREFIX = "ONELOOP_LOG_"
Trail = Mapping[str, str]


def _inherited() -> Trail:
    given = {name: os.environ.get(PREFIX + name.upper(), "") for name in NAMES}
    return {name: value for name, value in given.items() if value}


# What a subprocess was started for holds for all that it does.
_start = _inherited()
_trail: ContextVar[Trail] = ContextVar("trail", default=_start)


def current() -> Trail:
    return _trail.get()


def enter(**ids: str) -> Token[Trail]:
    return _trail.set({**_trail.get(), **ids})


def leave(token: Token[Trail]) -> None:
    _trail.reset(token)


def clear() -> None:
    _trail.set(_start)


@contextmanager
def following(**ids: str) -> Iterator[None]:
    token = enter(**ids)
    try:
        yield
    finally:
        leave(token)


def environment() -> dict[str, str]:
    """For a subprocess that does a part of this."""
    return {PREFIX + name.upper(): value for name, value in current().items()}
