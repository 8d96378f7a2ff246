"""The work itself: jobs nobody takes, leases nobody ends, what failed, what was not sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models.functions import Now
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from annotation.models import Assignment
from config.doctor import Finding, examines, ok, warning
from generation.models import Delivery
from generation.ownership import Job, JobState
from modeling.models import RoundStep

# A worker that is free takes its job within seconds; leases are renewed every five.
UNHEARD = timedelta(minutes=5)
UNOWNED = timedelta(minutes=2)
RECENT = timedelta(days=1)
UNSENT = timedelta(minutes=15)


def kinds() -> list[type[Job]]:
    """Every table whose rows own work."""
    return sorted(Job.__subclasses__(), key=lambda kind: kind.__name__)


@examines(name=_("Jobs"), needs="database")
def stuck_jobs() -> Finding:
    stuck = [row for kind in kinds() for row in _stuck(kind)]
    if not stuck:
        return ok(_("None is stuck."))
    names = ", ".join(str(row) for row in stuck[:5])
    return warning(
        format_lazy(
            _("Waiting for a worker for too long: {n} ({names})."), n=len(stuck), names=names
        ),
        _("Look at the workers and the clock above; they are taken up by themselves after that."),
    )


def _stuck(kind: type[Job]) -> Iterator[Job]:
    running = kind.objects.filter(state=JobState.RUNNING)
    yield from running.filter(lease_until__lt=Now() - UNOWNED)[:5]
    if running.filter(lease_until__gte=Now()).exists():
        return  # others wait their turn behind it
    for row in kind.objects.filter(state=JobState.QUEUED, created_at__lt=Now() - UNHEARD)[:50]:
        # A round's later steps are queued until those before them are done.
        if not isinstance(row, RoundStep):
            yield row


@examines(name=_("Leases"), needs="database")
def leases() -> Finding:
    """Turns that somebody left lying; they hold the places of others until they are ended."""
    open_turns = Assignment.objects.filter(state=Assignment.State.OPEN)
    late = open_turns.filter(lease_until__lt=Now() - UNHEARD)
    count = late.exclude(kind=Assignment.Kind.REVIEW).count()
    if count:
        return warning(
            format_lazy(_("Turns that ran out and were not given back: {n}."), n=count),
            _("Look at the clock and the worker of the queue default: they end leases."),
        )
    return ok(_("None is left lying."))


@examines(name=_("Failures"), needs="database")
def failures() -> Finding:
    failed = [row for kind in kinds() for row in failed_since(kind, RECENT)]
    if not failed:
        return ok(_("No job failed within a day."))
    newest = max(failed, key=lambda row: row.finished_at or row.created_at)
    said = _("Failed within a day: {n}. The newest is {job}: {error}")
    return warning(
        format_lazy(said, n=len(failed), job=str(newest), error=newest.error[:200]),
        _("Mend what the error names and start the job again from its page."),
    )


def failed_since(kind: type[Job], age: timedelta, most: int = 100) -> Iterator[Job]:
    rows = kind.objects.filter(state=JobState.FAILED, finished_at__gte=Now() - age)
    yield from rows.order_by("-finished_at")[:most]


@examines(name=_("Webhooks"), needs="database")
def deliveries() -> Finding:
    waiting = Delivery.objects.due()
    late = waiting.filter(due_at__lt=Now() - UNSENT).count()
    if late:
        return warning(
            format_lazy(_("Messages that should have been sent long ago: {n}."), n=late),
            _("Look at the clock and the worker of the queue default: they send them."),
        )
    lost = Delivery.objects.filter(
        state=Delivery.State.FAILED, created_at__gte=Now() - RECENT
    ).count()
    if lost:
        return warning(
            format_lazy(_("Messages that were given up within a day: {n}."), n=lost),
            _("Look at /webhooks/ for the reason, and send them again there."),
        )
    return ok(_("Nothing waits for long."))
