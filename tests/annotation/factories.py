"""Rows for the annotation tests, as plain functions on top of tests.factories."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from annotation import campaigns, judgments, queue
from annotation.judgments import Answer
from annotation.models import (
    Assignment,
    Campaign,
    Criterion,
    Dimension,
    Gold,
    Item,
    Judgment,
    Wording,
)
from generation.models import CandidateSet, Task
from tests.factories import make_set, make_source, make_task

_numbers = itertools.count(1)


def make_dimension(slug: str = "", *, task: Task | None = None, **fields: Any) -> Dimension:
    """A worded dimension, asked of `task` where one is given."""
    slug = slug or f"dimension-{next(_numbers)}"
    name = slug.replace("-", " ").capitalize()
    dimension = Dimension.objects.create(slug=slug, **({"name": name} | fields))
    Wording.objects.create(
        dimension=dimension,
        question=f"Which has the best {name.lower()}, and which the worst?",
        query=f"Is the first image better in {name.lower()} than the second?",
        guideline=f"Look at {name.lower()} alone.",
    )
    if task is not None:
        order = task.criteria.count()
        Criterion.objects.create(task=task, dimension=dimension, order=order)
    return dimension


def make_judged_task(dimensions: int = 2, **fields: Any) -> Task:
    """A task with so many dimensions of its own."""
    task = make_task(**fields)
    for _ in range(dimensions):
        make_dimension(task=task)
    return task


def make_campaign(
    *,
    task: Task | None = None,
    sets: Sequence[CandidateSet | campaigns.Entry] | int = 1,
    name: str = "",
    **fields: Any,
) -> Campaign:
    task = task or make_judged_task()
    if isinstance(sets, int):
        sets = [make_set(make_source(task)) for _ in range(sets)]
    name = name or f"Campaign {next(_numbers)}"
    return campaigns.open_campaign(name=name, sets=sets, tasks=[task], **fields)


def claim(user: User, campaign: Campaign) -> Assignment:
    claimed = queue.claim(user=user, campaign=campaign)
    assert claimed is not None
    return claimed


def slugs(assignment: Assignment) -> list[str]:
    asked = campaigns.dimensions_for(assignment.item.campaign, assignment.set.source.task)
    return [dimension.slug for dimension in asked]


def picks(assignment: Assignment, best: int = 0, worst: int = 1) -> dict[str, Answer]:
    """The same best and worst on every dimension."""
    return {slug: Answer("picked", best, worst) for slug in slugs(assignment)}


def submit(
    assignment: Assignment, answers: dict[str, Answer] | None = None, **fields: Any
) -> list[Judgment]:
    return judgments.record(
        assignment=assignment,
        user=assignment.annotator,
        answers=picks(assignment) if answers is None else answers,
        **fields,
    )


# Turns as they lie in the database, without the queue -------------------------------------------


def make_turn(
    item: Item,
    user: User,
    said: Mapping[Dimension, tuple[int, int] | str] | None = None,
    *,
    kind: str = Assignment.Kind.WORK,
    order: list[int] | None = None,
    at: datetime | None = None,
    slot: int | None = None,
    **fields: Any,
) -> Assignment:
    """A submitted turn; `said` maps a dimension to (best, worst) indexes or to an outcome."""
    at = at or timezone.now()
    taken = item.assignments.filter(kind=kind).count()
    turn = Assignment.objects.create(
        item=item,
        set_id=item.set_id,
        annotator=user,
        kind=kind,
        slot=taken if slot is None else slot,
        order=list(range(item.set.size)) if order is None else order,
        state=Assignment.State.SUBMITTED,
        lease_until=at,
        submitted_at=at,
        **fields,
    )
    by_index = {candidate.index: candidate for candidate in item.set.candidates.all()}
    for dimension, answer in (said or {}).items():
        best, worst, outcome = None, None, Judgment.Outcome.PICKED.value
        if isinstance(answer, str):
            outcome = answer
        else:
            best, worst = (by_index[index] for index in answer)
        Judgment.objects.create(
            assignment=turn,
            set_id=item.set_id,
            dimension=dimension,
            wording=dimension.wording,
            outcome=outcome,
            best=best,
            worst=worst,
        )
    return turn


def make_gold(
    set_: CandidateSet, dimension: Dimension, best: int = 0, worst: int = 1, **fields: Any
) -> Gold:
    by_index = {candidate.index: candidate for candidate in set_.candidates.all()}
    return Gold.objects.create(
        set=set_, dimension=dimension, best=by_index[best], worst=by_index[worst], **fields
    )


def make_golds(candidate_set: CandidateSet, best: int = 0, worst: int = 1, **fields: Any) -> None:
    """A known answer to every dimension of the set's task."""
    for criterion in candidate_set.source.task.criteria.all():
        make_gold(candidate_set, criterion.dimension, best, worst, **fields)
