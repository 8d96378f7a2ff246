"""Who works: the broker, the workers of each queue, the clock, and the GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from config import parts, queues
from config.doctor import Finding, State, broken, examines, ok, warning
from config.models import SILENT, Heartbeat, HeartbeatQuerySet
from config.version import release

LONG_QUEUE = 1000
REMEMBERED = timedelta(hours=1)


@examines(name=_("Broker"))
def broker() -> Finding:
    if parts.broker():
        start = _("Start the site with `make run`, or set CELERY_BROKER_URL to a server that runs.")
        look = _(
            "Look whether the server that CELERY_BROKER_URL names runs and lets this machine in."
        )
        return broken(_("Not reachable."), start if settings.BROKER_IS_EMBEDDED else look)
    return ok(_("It answers."))


@examines(name=_("Queues"), needs="broker")
def queue_lengths() -> Finding:
    depths = queues.depths()
    said = ", ".join(f"{name} {depth}" for name, depth in depths.items())
    if max(depths.values()) > LONG_QUEUE:
        return warning(
            format_lazy(_("Jobs that wait: {queues}."), queues=said),
            _("Start more workers for the long queue, and look at what its jobs wait for."),
        )
    return ok(format_lazy(_("Jobs that wait: {queues}."), queues=said))


@examines(name=_("Workers"), needs="database")
def workers() -> list[Finding]:
    rows = Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER)
    listening = list(rows.listening())
    found = []
    for queue in queues.names():
        named = format_lazy(_("Worker of the queue {queue}"), queue=queue)
        here = [row for row in listening if queue in row.queues]
        if here:
            names = ", ".join(row.name for row in here)
            found.append(Finding(named, State.OK, names))
        elif any(queue in row.queues for row in rows.alive()):
            found.append(
                Finding(
                    named,
                    State.BROKEN,
                    _("It runs and does not hear the broker."),
                    _("Look whether it can reach CELERY_BROKER_URL; its log says more."),
                )
            )
        else:
            found.append(
                Finding(
                    named,
                    State.BROKEN,
                    _("None runs: what is sent to this queue waits."),
                    format_lazy(_("Start one: celery -A config worker -Q {queue}"), queue=queue),
                )
            )
    return [*found, *_silent(rows), *_of_other_versions(listening)]


def _silent(rows: HeartbeatQuerySet) -> Iterator[Finding]:
    """Those that were killed an hour ago at most, and were not started again."""
    gone = rows.filter(beat_at__lt=Now() - SILENT, beat_at__gte=Now() - REMEMBERED)
    for name, age in gone.annotate(age=Now() - F("beat_at")).values_list("name", "age"):
        yield Finding(
            name,
            State.WARNING,
            format_lazy(_("Silent for {n} seconds."), n=f"{age.total_seconds():.0f}"),
            _("Look why it ended: its log says more. Work that it held goes on elsewhere."),
        )


def _of_other_versions(rows: list[Heartbeat]) -> Iterator[Finding]:
    others = [f"{row.name} ({row.version})" for row in rows if row.version != release()]
    if others:
        said = _("Workers run another version than this process, {version}: {others}.")
        yield warning(
            format_lazy(said, version=release(), others=", ".join(others)),
            _("Deploy the same version everywhere."),
        )


@examines(name=_("Clock of the jobs"), needs="database")
def beat() -> Finding:
    rows = Heartbeat.objects.filter(kind=Heartbeat.Kind.BEAT)
    ticking = list(rows.listening())
    if not ticking:
        return broken(
            _("Beat does not tick: nothing is rung again, no lease ends, no schedule starts."),
            _("Start one: celery -A config beat"),
        )
    if len(ticking) > 1:
        names = ", ".join(row.name for row in ticking)
        return warning(
            format_lazy(
                _("More than one ticks: {names}. Everything is rung for twice."), names=names
            ),
            _("Stop all but one."),
        )
    return ok(format_lazy(_("{name} ticks."), name=ticking[0].name))


@examines(name=_("GPU"), needs="database")
def gpu() -> Finding:
    rows = Heartbeat.objects.listening().filter(queues__contains=["gpu"])
    cards = [card for row in rows for card in row.gpus]
    if not rows:
        return warning(
            _("No worker of the gpu queue can be asked."), _("Start one; it tells what it has.")
        )
    if not cards:
        said = _("None: models compute on the processor, which is enough for the starter models.")
        remedy = _("Run the worker of the gpu queue on a machine with a GPU and its driver.")
        return warning(said, remedy) if settings.PRODUCTION else ok(said)
    told = [
        f"{card['name']} {card['used'] / 2**30:.1f}/{card['total'] / 2**30:.0f} GiB"
        for card in cards
    ]
    return ok("; ".join(told))
