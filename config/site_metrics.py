"""What the database and the broker know, as metrics; asked when somebody scrapes.

Every statement reads an index or a small table, however many judgments there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.db import DatabaseError, connection
from django.db.models import Count, F, Min
from django.db.models.functions import Now
from kombu.exceptions import KombuError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from annotation.models import Assignment
from config import parts, queues
from config.examinations.work import kinds
from config.models import Heartbeat, Tally
from config.tallies import LEASE_EXPIRIES
from config.version import commit, version
from generation.models import Delivery
from generation.ownership import JobState
from modeling.models import Round
from modeling.serving import Ranking

# Of these there may be millions that ended: only those under way are counted.
MANY = {Ranking}
# For each person one look into an index, instead of every turn of the last hour.
LAST_HOUR = """
SELECT coalesce(sum(turns.n), 0), count(*) FILTER (WHERE turns.n > 0)
FROM (SELECT DISTINCT user_id FROM annotation_seat
      UNION SELECT id FROM auth_user WHERE last_login > now() - interval '30 days') people,
LATERAL (
    SELECT count(*) AS n FROM annotation_assignment
    WHERE annotator_id = people.user_id AND submitted_at > now() - interval '1 hour'
) turns
"""
# Every answer takes a number; those of broken-off transactions are counted, too.
JUDGMENTS = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM annotation_judgment_id_seq"
CONNECTIONS = """
SELECT state, count(*) FROM pg_stat_activity WHERE datname = current_database() GROUP BY state
"""


class Site(Collector):
    def describe(self) -> Iterable[Metric]:
        return []  # nothing is asked only because this is registered

    def collect(self) -> Iterator[Metric]:
        yield gauge(
            "oneloop_info",
            "Which OneLoop this is.",
            ["version", "commit"],
            {(version(), commit()): 1},
        )
        up = {
            ("database",): not parts.database(),
            ("broker",): not parts.broker(),
            ("store",): not parts.store(),
        }
        yield gauge("oneloop_part_up", "Whether a part answers.", ["part"], up)
        if up["broker",]:
            yield from _guarded(_queues)
        if up["database",]:
            yield from of_the_database()


def of_the_database() -> Iterator[Metric]:
    for look in (_processes, _jobs, _labelling, _loop, _deliveries, _connections):
        yield from _guarded(look)


def _guarded(look: Callable[[], Iterable[Metric]]) -> list[Metric]:
    """One part that breaks off between two questions does not take the others along."""
    try:
        return list(look())
    except (DatabaseError, KombuError, OSError):
        return []


def gauge(name: str, help: str, labels: list[str], values: dict[Any, Any]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=labels)
    for key, value in values.items():
        family.add_metric([str(one) for one in key], float(value or 0))
    return family


def _queues() -> Iterator[Metric]:
    depths = {(name,): depth for name, depth in queues.depths().items()}
    yield gauge("oneloop_queue_depth", "Jobs that wait.", ["queue"], depths)


def _processes() -> Iterator[Metric]:
    listening = list(Heartbeat.objects.listening().values_list("queues", flat=True))
    workers = {(name,): sum(name in served for served in listening) for name in queues.names()}
    yield gauge("oneloop_workers", "Workers that listen to a queue.", ["queue"], workers)
    rows = Heartbeat.objects.annotate(age=Now() - F("beat_at"))
    ages = {
        (kind, name): age.total_seconds()
        for kind, name, age in rows.values_list("kind", "name", "age")
    }
    yield gauge(
        "oneloop_heartbeat_age_seconds",
        "How long ago a worker or the clock told that it lives.",
        ["kind", "name"],
        ages,
    )
    cards = {
        (name, number, card["name"]): card
        for name, gpus in Heartbeat.objects.alive().values_list("name", "gpus")
        for number, card in enumerate(gpus)
    }
    labels = ["worker", "gpu", "model"]
    for key, what in (("used", "in use"), ("total", "there is")):
        values = {card: found[key] for card, found in cards.items()}
        yield gauge(
            f"oneloop_gpu_memory_{key}_bytes",
            f"GPU memory that is {what}." if key == "used" else "GPU memory.",
            labels,
            values,
        )
    busy = {card: found["busy"] / 100 for card, found in cards.items()}
    yield gauge(
        "oneloop_gpu_busy_ratio", "Share of the last moment that a GPU computed.", labels, busy
    )


def _jobs() -> Iterator[Metric]:
    counts: dict[tuple[str, str], int] = {}
    oldest: dict[tuple[str, str], float] = {}
    for kind in kinds():
        name = str(kind._meta.model_name)
        rows = kind.objects.unfinished() if kind in MANY else kind.objects.all()
        counted = rows.order_by().values_list("state").annotate(n=Count("pk"))
        counts |= {(name, state): n for state, n in counted}
        ages = (
            kind.objects.unfinished()
            .order_by()
            .values_list("state")
            .annotate(waiting=Now() - Min("created_at"), working=Now() - Min("started_at"))
        )
        for state, waiting, working in ages:
            age = working if state == JobState.RUNNING else waiting
            oldest[name, state] = age.total_seconds() if age else 0
    yield gauge("oneloop_jobs", "Rows that own work.", ["kind", "state"], counts)
    yield gauge(
        "oneloop_oldest_job_seconds",
        "Age of the oldest that is under way.",
        ["kind", "state"],
        oldest,
    )


def _labelling() -> Iterator[Metric]:
    turns = Assignment.objects.filter(state=Assignment.State.OPEN)
    overdue = turns.filter(lease_until__lt=Now()).exclude(kind=Assignment.Kind.REVIEW)
    yield gauge("oneloop_turns_open", "Sets that people hold.", [], {(): turns.count()})
    yield gauge(
        "oneloop_turns_overdue", "Of these, with a lease that ran out.", [], {(): overdue.count()}
    )
    judged, active = _row(LAST_HOUR)
    yield gauge("oneloop_judged_sets_last_hour", "Sets judged within an hour.", [], {(): judged})
    yield gauge("oneloop_active_annotators", "People who judged within an hour.", [], {(): active})
    total = CounterMetricFamily("oneloop_judgments", "Answers given, one a dimension.")
    total.add_metric([], float(_row(JUDGMENTS)[0]))
    yield total
    expired = Tally.objects.filter(name=LEASE_EXPIRIES).values_list("value", flat=True).first()
    ended = CounterMetricFamily("oneloop_lease_expiries", "Turns that were taken back.")
    ended.add_metric([], float(expired or 0))
    yield ended


def _loop() -> Iterator[Metric]:
    open_round = Round.objects.filter(finished_at__isnull=True).first()
    yield gauge(
        "oneloop_loop_round",
        "The open round; 0 between rounds.",
        [],
        {(): open_round.number if open_round else 0},
    )
    states, seconds = {}, {}
    if open_round is not None:
        steps = open_round.steps.annotate(working=Now() - F("started_at"))
        for name, state, working in steps.values_list("name", "state", "working"):
            states[name, state] = 1
            if state == JobState.RUNNING and working is not None:
                seconds[name,] = working.total_seconds()
    yield gauge("oneloop_loop_step", "Steps of the open round by state.", ["step", "state"], states)
    yield gauge("oneloop_loop_step_seconds", "How long the running step runs.", ["step"], seconds)


def _deliveries() -> Iterator[Metric]:
    waiting = Delivery.objects.filter(state=Delivery.State.WAITING).count()
    yield gauge("oneloop_deliveries_waiting", "Messages of webhooks to be sent.", [], {(): waiting})
    yield gauge(
        "oneloop_deliveries_due",
        "Of these, those due now.",
        [],
        {(): Delivery.objects.due().count()},
    )


def _connections() -> Iterator[Metric]:
    with connection.cursor() as cursor:
        cursor.execute(CONNECTIONS)
        used = {(state or "none",): n for state, n in cursor.fetchall()}
    yield gauge("oneloop_database_connections", "Connections to the database.", ["state"], used)
    allowed, size = _row(
        "SELECT current_setting('max_connections'), pg_database_size(current_database())"
    )
    yield gauge(
        "oneloop_database_connections_allowed", "How many the server takes.", [], {(): allowed}
    )
    yield gauge("oneloop_database_size_bytes", "Size of the database.", [], {(): size})


def _row(statement: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return tuple(cursor.fetchone())
