"""Who owns long work: a database row with a fencing token, a lease and a heartbeat.

The broker only rings doorbells. A worker claims a row by conditional update (epoch + 1), renews its
lease while it works, and commits every effect under `WHERE epoch = mine`; a worker that lost its
lease writes nothing more. A row whose lease ran out is claimed by the next worker that hears the
bell, which goes on from what was committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.db import connection, connections, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _

from generation import faults, trail

LEASE = timedelta(seconds=settings.JOB_LEASE_SECONDS)
HEARTBEAT_SECONDS = settings.JOB_LEASE_SECONDS / 6
ATTEMPTS = 20  # while the database comes and goes


class LeaseLost(Exception):
    """Another worker owns the row now, or it was cancelled: stop and write nothing."""


class JobState(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")


class JobQuerySet(models.QuerySet[Any]):
    def claimable(self) -> Self:
        """Queued rows, and running ones whose owner stopped renewing its lease."""
        return self.filter(
            Q(state=JobState.QUEUED) | Q(state=JobState.RUNNING, lease_until__lt=Now())
        )

    def unfinished(self) -> Self:
        return self.filter(state__in=[JobState.QUEUED, JobState.RUNNING])


class Job(models.Model):
    """A row that owns minutes or hours of work."""

    state = models.CharField(max_length=12, choices=JobState, default=JobState.QUEUED)
    epoch = models.PositiveIntegerField(default=0, editable=False)  # the fencing token
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    attempt = models.PositiveIntegerField(default=0, editable=False)
    progress = models.PositiveIntegerField(default=0, editable=False)
    total = models.PositiveIntegerField(default=0, editable=False)
    message = models.CharField(max_length=500, blank=True, editable=False)
    error = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = JobQuerySet.as_manager()

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=JobState.values), name="%(app_label)s_%(class)s_state_known"
            ),
            models.CheckConstraint(
                condition=~Q(state=JobState.RUNNING) | Q(lease_until__isnull=False),
                name="%(app_label)s_%(class)s_running_has_lease",
            ),
        ]

    def claim(self) -> bool:
        """Take the row if it is free; True when this caller owns it now."""
        with transaction.atomic():
            row = (
                type(self)
                .objects.claimable()
                .select_for_update(skip_locked=True)
                .filter(pk=self.pk)
                .first()
            )
            if row is None:
                return False
            type(self).objects.filter(pk=self.pk).update(
                state=JobState.RUNNING,
                epoch=F("epoch") + 1,
                attempt=F("attempt") + 1,
                lease_until=Now() + LEASE,
                started_at=Coalesce("started_at", Now()),
                finished_at=None,
                error="",
            )
        self.refresh_from_db()
        return True

    def _mine(self) -> models.QuerySet[Any]:
        return type(self).objects.filter(pk=self.pk, epoch=self.epoch, state=JobState.RUNNING)

    def renew(self, **values: Any) -> None:
        """Extend the lease and store progress; LeaseLost when the row is another's now."""
        if self._mine().update(lease_until=Now() + LEASE, **values) != 1:
            raise LeaseLost(f"{self._meta.verbose_name} {self.pk} is no longer owned here")

    @transaction.atomic
    def finish(self, **values: Any) -> None:
        if not self._mine().update(
            state=JobState.SUCCEEDED, finished_at=Now(), lease_until=None, **values
        ):
            raise LeaseLost(f"{self._meta.verbose_name} {self.pk} is no longer owned here")
        self.refresh_from_db()
        self.ended()

    @transaction.atomic
    def fail(self, error: str) -> None:
        """Record a readable reason; does nothing when the row is no longer this worker's."""
        mine = self._mine().update(
            state=JobState.FAILED, finished_at=Now(), lease_until=None, error=error
        )
        self.refresh_from_db()
        if mine:
            self.ended()

    def may_pass(self, error: Exception) -> bool:
        """Whether the database or the store went away, and not the work is at fault.

        The row is left as it is then: once its lease has run out, the next worker goes on.
        """
        return faults.is_away(error) and self.attempt < ATTEMPTS

    def ended(self) -> None:
        """What else happens when it has succeeded, failed or was cancelled, in one transaction."""

    @transaction.atomic
    def cancel(self) -> bool:
        """Stop queued or running work; its owner notices at the next renewal."""
        done = (
            type(self)
            .objects.unfinished()
            .filter(pk=self.pk)
            .update(state=JobState.CANCELLED, finished_at=Now(), lease_until=None)
        )
        if done:
            self.refresh_from_db()
            self.ended()
        return done == 1

    def retry(self) -> bool:
        """Queue a failed or cancelled row again; committed work is kept."""
        done = (
            type(self)
            .objects.filter(pk=self.pk, state__in=[JobState.FAILED, JobState.CANCELLED])
            .update(state=JobState.QUEUED, finished_at=None, error="")
        )
        return done == 1

    @contextmanager
    def heartbeat(
        self,
        values: Callable[[], dict[str, Any]] = dict,
        every: float = HEARTBEAT_SECONDS,
    ) -> Iterator[threading.Event]:
        """Renew the lease from a thread meanwhile; the event is set when the lease was lost.

        `values` are stored with each beat: how far the work is, where it holds a transaction open.
        """
        stop, lost = threading.Event(), threading.Event()

        def renew() -> None:
            try:
                while not stop.wait(every):
                    try:
                        self.renew(**values())
                    except LeaseLost:
                        lost.set()
                        return
                    except Exception:  # the database is restarting: the next beat tries again
                        connection.close()
            finally:
                connections.close_all()

        thread = threading.Thread(target=renew, name=f"heartbeat-{self.pk}", daemon=True)
        thread.start()
        try:
            with trail.following(run=f"{self._meta.model_name} {self.pk}"):
                yield lost
        finally:
            stop.set()
            thread.join()
