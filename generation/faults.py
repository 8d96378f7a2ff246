"""What breaks beneath the program: a database or a store that is away, a disk that is full."""

from __future__ import annotations

import errno

import psycopg
from django import db
from django.utils.translation import gettext as _
from psycopg.errors import DiskFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Django's, and the driver's own where rows are read past Django: cursors of the server, COPY.
DATABASE_AWAY = (
    db.InterfaceError,
    db.OperationalError,
    psycopg.InterfaceError,
    psycopg.OperationalError,
)


class StoreUnavailable(OSError):
    """One readable sentence: why the object store cannot be used now, and what to look at."""


def is_away(error: BaseException | None) -> bool:
    """Whether the same may succeed a little later, with nobody doing anything."""
    if is_full(error):
        return False
    return isinstance(error, (*DATABASE_AWAY, StoreUnavailable))


def is_full(error: BaseException | None) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    if isinstance(error, db.OperationalError):
        error = error.__cause__
    return isinstance(error, DiskFull)


def sentence(error: BaseException | None) -> str:
    """For whoever's work broke off; "" where it is none of these."""
    if is_full(error):
        return _("The disk is full, so nothing more can be stored. Free some room, then try again.")
    if isinstance(error, StoreUnavailable):
        return _("The store of pictures does not answer. Try again in a moment.")
    if isinstance(error, DATABASE_AWAY):
        return _("The database does not answer. Try again in a moment.")
    return ""
