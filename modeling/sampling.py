"""Sampling plans that adapt: which of the drawn values lead to labels that say something.

A label is informative when a best and a worst were picked and, where a reward model is given, the
pair was close under that model: what it already tells apart teaches it little. The two candidates
of such a pair took part in it; of a set without one none did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.db import transaction

from annotation.models import Judgment, JudgmentQuerySet
from generation import plans
from generation.bandit import PARAMETERS, Evidence
from generation.models import Candidate, CandidateSet, SamplingPlan, Task
from modeling import information
from modeling.models import RewardModel, SetScore

MOST_SETS = 400  # a task's newest labelled sets that its plan learns from


def labels(task: Task, *, simulated: bool) -> JudgmentQuerySet:
    """Judgments of a best and a worst about sets that were drawn from a plan of the task."""
    return Judgment.objects.counted().filter(
        set__plan__task=task, assignment__item__campaign__simulated=simulated
    )


def newest_sets(task: Task, *, simulated: bool) -> list[CandidateSet]:
    judged = labels(task, simulated=simulated).values("set")
    sets = CandidateSet.objects.filter(pk__in=judged).select_related("source__task")
    return list(sets.order_by("-pk")[:MOST_SETS])


@dataclass
class Said:
    """What a set's labels said: how many there are, and in how many each candidate took part."""

    labels: int
    informative: int
    took_part: dict[int, int]  # by the candidate's index


def said_of(judgments: JudgmentQuerySet, model: RewardModel | None = None) -> dict[int, Said]:
    """By set. With a model only sets and dimensions that it has scored count."""
    rows = judgments.exclude(outcome=Judgment.Outcome.CANNOT_JUDGE).values_list(
        "set", "dimension__slug", "best__index", "worst__index"
    )
    scores = dict[int, dict[str, information.Lists]]()
    if model is not None:
        scored = SetScore.objects.filter(reward_model=model, set__in=judgments.values("set"))
        scores = dict(scored.values_list("set", "by_dimension"))
    found: dict[int, Said] = {}
    for set_id, dimension, best, worst in rows:
        lists = scores.get(set_id, {}).get(dimension)
        if model is not None and lists is None:
            continue
        said = found.setdefault(set_id, Said(0, 0, defaultdict(int)))
        said.labels += 1
        if best is None or (lists is not None and not information.close(lists, best, worst)):
            continue
        said.informative += 1
        said.took_part[best] += 1
        said.took_part[worst] += 1
    return found


def evidence(task: Task, *, simulated: bool, model: RewardModel | None = None) -> Evidence:
    sets = [one.pk for one in newest_sets(task, simulated=simulated)]
    said = said_of(labels(task, simulated=simulated).filter(set__in=sets), model)
    found = Evidence(sets=len(said))
    for row in Candidate.objects.filter(set__in=said, seed__isnull=False):
        of_set = said[row.set_id]
        share = of_set.took_part.get(row.index, 0) / of_set.labels
        for name, drawn in PARAMETERS.items():
            found.add(name, getattr(row, drawn), share)
    return found


def measure(
    tasks: Iterable[Task],
    model: RewardModel,
    *,
    simulated: bool,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Have the model score what the plans of these tasks learn from."""
    sets = [one for task in tasks for one in newest_sets(task, simulated=simulated)]
    return information.measure(model, sets, progress)


@transaction.atomic
def adapt(
    tasks: Iterable[Task], *, simulated: bool, model: RewardModel | None = None
) -> list[SamplingPlan]:
    """The new versions; a task without enough new evidence keeps its plan."""
    made = []
    for task in tasks:
        found = evidence(task, simulated=simulated, model=model)
        because = f"adaptive: from {found.sets} sets"
        if model is not None:
            because += f", close under {model}"
        plan = plans.adapt(task, found, because=because)
        if plan is not None:
            made.append(plan)
    return made
