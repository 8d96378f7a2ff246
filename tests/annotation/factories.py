"""Rows for the annotation tests, as plain functions on top of tests.factories."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User

from annotation import campaigns, judgments, queue
from annotation.judgments import Answer
from annotation.models import (
    Assignment,
    Campaign,
    Criterion,
    Dimension,
    Gold,
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


def make_gold(candidate_set: CandidateSet, best: int = 0, worst: int = 1, **fields: Any) -> None:
    """A known answer to every dimension of the set's task."""
    by_index = {candidate.index: candidate for candidate in candidate_set.candidates.all()}
    for criterion in candidate_set.source.task.criteria.all():
        Gold.objects.create(
            set=candidate_set,
            dimension=criterion.dimension,
            best=by_index[best],
            worst=by_index[worst],
            **fields,
        )
