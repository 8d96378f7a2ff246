"""How often somebody may try: counted in the database, for all processes and machines together.

What is counted is kept as a digest: the table holds no name and no address.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from django.core.exceptions import ValidationError
from django.db import connection, models
from django.utils import timezone
from django.utils.translation import ngettext

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class Limit(NamedTuple):
    most: int
    seconds: int


GUESSES = Limit(most=10, seconds=15 * 60)


class Attempts(models.Model):
    """How often something was tried since the window opened."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField()
    started_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "generation_attempts"
        verbose_name_plural = "attempts"

    def __str__(self) -> str:
        return f"{self.key[:12]}: {self.count}"


# One statement, so that tries that come at once are all counted.
COUNT = """
INSERT INTO generation_attempts AS a (key, count, started_at) VALUES (%(key)s, 1, %(now)s)
ON CONFLICT (key) DO UPDATE SET
  count = CASE WHEN a.started_at <= %(old)s THEN 1 ELSE a.count + 1 END,
  started_at = CASE WHEN a.started_at <= %(old)s THEN excluded.started_at ELSE a.started_at END
RETURNING count, started_at
"""


class Spent(NamedTuple):
    """What a try leaves: how many were made in this window, and when the next one opens."""

    tries: int
    limit: Limit
    wait_seconds: int

    @property
    def is_too_much(self) -> bool:
        return self.tries > self.limit.most

    @property
    def said(self) -> str:
        minutes = -(-self.wait_seconds // 60)
        return ngettext(
            "That was tried too often. Wait %(minutes)d minute and try again.",
            "That was tried too often. Wait %(minutes)d minutes and try again.",
            minutes,
        ) % {"minutes": minutes}


def take(limit: Limit, *what: object) -> Spent:
    """Count one try at `what`."""
    now = timezone.now()
    old = now - timedelta(seconds=limit.seconds)
    with connection.cursor() as cursor:
        cursor.execute(COUNT, {"key": _key(what), "now": now, "old": old})
        count, started_at = cursor.fetchone()
    return Spent(count, limit, int((started_at - old).total_seconds()) + 1)


def refuse_guessing(user: User) -> None:
    """Of one's own password, by somebody who found a session open. Raises ValidationError."""
    spent = take(GUESSES, "password", user.pk)
    if spent.is_too_much:
        raise ValidationError(spent.said)


def forget(*what: object) -> None:
    """The tries at `what` were right in the end."""
    Attempts.objects.filter(pk=_key(what)).delete()


def give_back(*what: object) -> None:
    """One try was none after all."""
    Attempts.objects.filter(pk=_key(what), count__gt=0).update(count=models.F("count") - 1)


def sweep(longest: timedelta = timedelta(days=1), *, dry_run: bool = False) -> int:
    """Take away windows that closed long ago."""
    old = Attempts.objects.filter(started_at__lt=timezone.now() - longest)
    return old.count() if dry_run else old.delete()[0]


def _key(what: tuple[object, ...]) -> str:
    return hashlib.sha256("\x1f".join(map(str, what)).encode()).hexdigest()
