"""How far a campaign is: judged and wanted per task and dimension."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from django.db.models import Count

from annotation.campaigns import criteria_for
from annotation.models import Assignment, Campaign, Dimension, Judgment
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
    outcomes = (
        Judgment.objects.current()
        .filter(assignment__item__campaign=campaign, assignment__kind=Assignment.Kind.WORK)
        .values_list("set__source__task", "dimension", "outcome")
        .annotate(n=Count("pk"))
    )
    for task_id, dimension_id, outcome, n in outcomes:
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


@dataclass(frozen=True)
class Person:
    name: str
    submitted: int
    skipped: int


def people(campaign: Campaign) -> list[Person]:
    counts: dict[str, Counter[str]] = {}
    rows = (
        Assignment.objects.filter(item__campaign=campaign)
        .values_list("annotator__username", "state")
        .annotate(n=Count("pk"))
    )
    for name, state, n in rows:
        counts.setdefault(name, Counter())[state] = n
    found = [
        Person(name, count[Assignment.State.SUBMITTED], count[Assignment.State.SKIPPED])
        for name, count in counts.items()
    ]
    found = [person for person in found if person.submitted or person.skipped]
    return sorted(found, key=lambda person: (-person.submitted, person.name))
