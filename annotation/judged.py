"""A campaign's judgments as columns, so that figures about 100,000 of them take moments.

`row` leads from a judgment to its turn. Best and worst are candidate indexes, -1 where none was
picked.

T turns   J judgments   8 the most candidates a set has
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
from django.db.models import QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from numpy.typing import NDArray

from annotation.agreement import Floats, Ints
from annotation.models import Assignment, Campaign, Judgment

Kind = Assignment.Kind
Outcome = Judgment.Outcome
Bools = NDArray[np.bool_]

MOST = 8
WORK, GOLD, REPEAT = 0, 1, 2
KINDS = {Kind.WORK.value: WORK, Kind.GOLD.value: GOLD, Kind.REPEAT.value: REPEAT}
PICKED, NO_DIFFERENCE, CANNOT_JUDGE = 0, 1, 2
OUTCOMES = {
    Outcome.PICKED.value: PICKED,
    Outcome.NO_DIFFERENCE.value: NO_DIFFERENCE,
    Outcome.CANNOT_JUDGE.value: CANNOT_JUDGE,
}
CHUNK = 5000


@dataclass(frozen=True)
class Filters:
    """Which part of a campaign's judgments; None is all. Days are whole ones, `until` included."""

    task: int | None = None
    dimension: int | None = None
    since: date | None = None
    until: date | None = None
    person: int | None = None

    @property
    def any(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))

    def turns(self, turns: QuerySet[Assignment]) -> QuerySet[Assignment]:
        if self.task is not None:
            turns = turns.filter(set__source__task=self.task)
        if self.since is not None:
            turns = turns.filter(submitted_at__gte=_midnight(self.since))
        if self.until is not None:
            turns = turns.filter(submitted_at__lt=_midnight(self.until + timedelta(days=1)))
        if self.person is not None:
            turns = turns.filter(annotator=self.person)
        return turns


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


EVERYTHING = Filters()


@dataclass(frozen=True)
class Judged:
    turn: Ints  # (T,) ids, ascending
    item: Ints  # (T,)
    set: Ints  # (T,)
    person: Ints  # (T,)
    task: Ints  # (T,)
    kind: Ints  # (T,) WORK, GOLD or REPEAT
    seconds: Floats  # (T,) NaN where the browser sent none
    at: Floats  # (T,) seconds since 1970
    order: Ints  # (T, 8) candidate indexes from left to right, then -1
    row: Ints  # (J,) into the turns
    dimension: Ints  # (J,)
    outcome: Ints  # (J,)
    best: Ints  # (J,)
    worst: Ints  # (J,)

    @property
    def shown(self) -> Ints:
        """(T,) how many candidates stood side by side."""
        return np.asarray((self.order >= 0).sum(1))

    @property
    def place(self) -> Ints:
        """(J,) the place of the best from the left, from 0; -1 where none was picked."""
        found = self.order[self.row] == self.best[:, None]
        return np.where(self.best >= 0, found.argmax(1), -1)

    def only(self, judgments: Bools) -> Judged:
        """The same turns with these judgments alone."""
        parts = {name: getattr(self, name)[judgments] for name in JUDGMENT_COLUMNS}
        return replace(self, **parts)


JUDGMENT_COLUMNS = ("row", "dimension", "outcome", "best", "worst")


def submitted(campaign: Campaign, filters: Filters = EVERYTHING) -> QuerySet[Assignment]:
    """The turns that figures are about: everything submitted but practice and review."""
    turns = Assignment.objects.filter(
        item__campaign=campaign, state=Assignment.State.SUBMITTED, kind__in=list(KINDS)
    )
    return filters.turns(turns)


def standing(campaign: Campaign, filters: Filters = EVERYTHING) -> QuerySet[Judgment]:
    """The judgments of those turns that stand."""
    judgments = Judgment.objects.current().filter(assignment__in=submitted(campaign, filters))
    return judgments.filter(dimension=filters.dimension) if filters.dimension else judgments


def load(campaign: Campaign, filters: Filters = EVERYTHING) -> Judged:
    """In two queries, whatever the number of judgments."""
    turns = submitted(campaign, filters).order_by("pk")
    names = ("pk", "item_id", "set_id", "annotator_id", "set__source__task_id")
    ids, order = array("q"), array("q")
    kinds, times = array("q"), array("d")
    more = ("kind", "seconds_spent", "submitted_at", "order")
    for row in turns.values_list(*names, *more).iterator(chunk_size=CHUNK):
        *keys, kind, seconds, at, shown = row
        ids.extend(keys)
        kinds.append(KINDS[kind])
        times.extend((np.nan if seconds is None else seconds, at.timestamp()))
        order.extend(shown)
        order.extend([-1] * (MOST - len(shown)))
    table = _ints(ids).reshape(-1, len(names))
    clock = np.frombuffer(times, np.float64).reshape(-1, 2)
    row, dimension, outcome, best, worst = _judgments(standing(campaign, filters), table[:, 0])
    return Judged(
        turn=table[:, 0],
        item=table[:, 1],
        set=table[:, 2],
        person=table[:, 3],
        task=table[:, 4],
        kind=_ints(kinds),
        seconds=clock[:, 0],
        at=clock[:, 1],
        order=_ints(order).reshape(-1, MOST),
        row=row,
        dimension=dimension,
        outcome=outcome,
        best=best,
        worst=worst,
    )


def _judgments(judgments: QuerySet[Judgment], turns: Ints) -> Iterable[Ints]:
    rows = judgments.values_list(
        "assignment_id",
        "dimension_id",
        "outcome",
        Coalesce("best__index", -1),
        Coalesce("worst__index", -1),
    )
    numbers = array("q")
    found: Any
    for found in rows.iterator(chunk_size=CHUNK):
        turn, dimension, outcome, best, worst = found
        numbers.extend((turn, dimension, OUTCOMES[outcome], best, worst))
    table = _ints(numbers).reshape(-1, 5)
    # What was submitted between the two queries has no turn here.
    place = np.searchsorted(turns, table[:, 0])
    known = place < len(turns)
    known[known] = turns[place[known]] == table[known, 0]
    table, place = table[known], place[known]
    return place, table[:, 1], table[:, 2], table[:, 3], table[:, 4]


def _ints(numbers: array[int]) -> Ints:
    return np.frombuffer(numbers, np.int64) if numbers else np.zeros(0, np.int64)
