"""How far a campaign is: judged and wanted per task and dimension."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Count, Q, QuerySet, Value

from annotation import counts
from annotation.campaigns import criteria_for
from annotation.models import Assignment, Campaign, Dimension, Judgment, Rating
from generation.models import CandidateSet, Task


@dataclass(frozen=True)
class Cell:
    """One task × dimension; `wanted` counts one judgment for each of the overlap's people."""

    wanted: int
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def judged(self) -> int:
        return self.outcomes.total()

    @property
    def picked(self) -> int:
        return self.outcomes[Judgment.Outcome.PICKED]

    @property
    def no_difference(self) -> int:
        return self.outcomes[Judgment.Outcome.NO_DIFFERENCE]

    @property
    def cannot_judge(self) -> int:
        return self.outcomes[Judgment.Outcome.CANNOT_JUDGE]

    @property
    def percent(self) -> int:
        return round(100 * min(1.0, self.judged / self.wanted)) if self.wanted else 0


@dataclass(frozen=True)
class Row:
    task: Task
    sets: int
    cells: list[Cell | None]  # one per dimension of the table; None where it is not asked


@dataclass(frozen=True)
class Coverage:
    dimensions: list[Dimension]
    rows: list[Row]


def coverage(campaign: Campaign) -> Coverage:
    sets = dict(
        campaign.items.exclude(set__state=CandidateSet.State.FAILED)
        .values_list("set__source__task")
        .annotate(n=Count("pk"))
    )
    counted: dict[tuple[int, int], Counter[str]] = {}
    for task_id, dimension_id, outcome, n in _outcomes(campaign):
        counted.setdefault((task_id, dimension_id), Counter())[outcome] = n
    tasks = list(Task.objects.filter(pk__in=sets))
    asked = {task.pk: criteria_for(campaign, task) for task in tasks}
    dimensions = {c.dimension_id: c.dimension for task in tasks for c in asked[task.pk]}
    rows = []
    for task in tasks:
        mine = {criterion.dimension_id for criterion in asked[task.pk]}
        cells = [
            Cell(sets[task.pk] * campaign.overlap, counted.get((task.pk, pk), Counter()))
            if pk in mine
            else None
            for pk in dimensions
        ]
        rows.append(Row(task, sets[task.pk], cells))
    return Coverage(list(dimensions.values()), rows)


def recent(campaign: Campaign) -> tuple[int, int, Coverage, list[Person]]:
    """Submitted and wanted turns, per task and dimension, and by person, as of a moment ago."""

    def count() -> tuple[int, int, Coverage, list[Person]]:
        return *counts.judged_share(campaign), coverage(campaign), people(campaign)

    return counts.recent(f"progress-{campaign.pk}", count, kept_from=counts.SLOW_SECONDS)


def _outcomes(campaign: Campaign) -> QuerySet[Any, tuple[int, int, str, int]]:
    """How often each task got each outcome on each dimension, in the turns that count."""
    turns = {
        "assignment__item__campaign": campaign,
        "assignment__kind": Assignment.Kind.WORK,
        "assignment__state": Assignment.State.SUBMITTED,
    }
    if campaign.purpose == Campaign.Purpose.RATING:
        ratings = Rating.objects.counted().filter(**turns, dimension__isnull=False)
        return ratings.values_list(
            "assignment__set__source__task", "dimension", Value(Judgment.Outcome.PICKED.value)
        ).annotate(n=Count("pk"))
    judged = Judgment.objects.current().filter(**turns)
    return judged.values_list("set__source__task", "dimension", "outcome").annotate(n=Count("pk"))


@dataclass(frozen=True)
class Person:
    name: str
    submitted: int
    skipped: int


def people(campaign: Campaign) -> list[Person]:
    by_name: dict[str, Counter[str]] = {}
    rows = (
        Assignment.objects.filter(item__campaign=campaign)
        .values_list("annotator__username", "state")
        .annotate(n=Count("pk"))
    )
    for name, state, n in rows:
        by_name.setdefault(name, Counter())[state] = n
    found = [
        Person(name, count[Assignment.State.SUBMITTED], count[Assignment.State.SKIPPED])
        for name, count in by_name.items()
    ]
    found = [person for person in found if person.submitted or person.skipped]
    return sorted(found, key=lambda person: (-person.submitted, person.name))


@dataclass(frozen=True)
class Own:
    """A person's own figures."""

    today: int
    all: int
    median_seconds: float | None  # per set, of those with a known time


def own(user: User) -> Own:
    finished = Assignment.objects.filter(
        annotator=user, state__in=[Assignment.State.SUBMITTED, Assignment.State.LATE]
    )
    totals = finished.aggregate(
        today=Count("pk", filter=Q(submitted_at__gte=counts.midnight())),
        all=Count("pk"),
    )
    recent = finished.exclude(seconds_spent=None).order_by("-submitted_at")
    rows = recent.values_list("seconds_spent", flat=True)[:200]
    seconds: list[float] = [spent for spent in rows if spent is not None]
    return Own(totals["today"], totals["all"], median(seconds) if seconds else None)
