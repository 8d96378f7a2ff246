"""What a reward model is like: accuracy over time, calibration, order bias, where people disagree.

The figures of a run's held-out questions are read from its directory, `holdout.jsonl`; nothing here
needs the model.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from annotation.campaigns import add_sets, open_campaign
from annotation.models import Campaign, Dimension, Judgment
from generation import audit, shared
from generation.models import Candidate, CandidateSet, Project, Task, Verb
from modeling import intervals_chart
from modeling.models import Evaluation, RewardModel
from modeling.pages import Cell
from modeling.statistics import Interval, wilson

BINS = 5
MOST_DISPUTES = 12
MOST_MODELS = 8


@dataclass(frozen=True)
class Question:
    """A held-out question of `modeling.reward.evaluate`, seen from the picture people preferred."""

    key: str
    task: str
    dimension: str
    relation: str
    winner_first: float
    winner_second: float

    @property
    def score(self) -> float:
        return (self.winner_first - self.winner_second) / 2


def questions(model: RewardModel) -> list[Question]:
    """Empty where the model was not trained here, or its run is gone."""
    run = getattr(model, "run", None)
    path = shared.file_of(run.directory, "holdout.jsonl") if run is not None else None
    if path is None:
        return []
    rows = [Question(**json.loads(line)) for line in path.read_text().splitlines()]
    return [row for row in rows if row.relation in ("direct", "implied")]


# Accuracy over time -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Heat:
    models: list[RewardModel]  # oldest first
    rows: list[tuple[str, str, list[Cell | None]]]  # task, dimension, a cell per model


def history(model: RewardModel) -> Heat:
    """The newest figures of each reward model up to this one, at most eight of them."""
    latest: dict[int, Evaluation] = {}
    found = Evaluation.objects.filter(
        kind=Evaluation.Kind.REWARD, reward_model__pk__lte=model.pk
    ).select_related("reward_model")
    for evaluation in found:  # newest first
        latest.setdefault(evaluation.reward_model_id or 0, evaluation)
    chosen = [latest[key] for key in sorted(latest)][-MOST_MODELS:]
    tasks = dict(Task.objects.values_list("slug", "name"))
    dimensions = dict(Dimension.objects.values_list("slug", "name"))
    cells: dict[tuple[str, str], list[Cell | None]] = {}
    for place, evaluation in enumerate(chosen):
        for task, row in (evaluation.figures.get("reward_accuracy") or {}).items():
            for dimension, one in row.items():
                if one.get("accuracy") is None:
                    continue
                name = (tasks.get(task, task), dimensions.get(dimension, dimension))
                line = cells.setdefault(name, [None] * len(chosen))
                line[place] = Cell(one["accuracy"], one.get("low"), one.get("high"), one.get("n"))
    models = [one.reward_model for one in chosen if one.reward_model is not None]
    return Heat(models, [(*name, line) for name, line in cells.items()])


# Calibration and order --------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    name: str  # what the model said
    said: float
    right: Interval


def reliability(found: Sequence[Question]) -> list[Bin]:
    """How often the model is right where it says so with a probability of 50–60 %, 60–70 %, …"""
    groups: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for question in found:
        for margin in (question.winner_first, -question.winner_second):
            chance = 1 / (1 + exp(-max(-60.0, min(60.0, margin))))
            confidence = max(chance, 1 - chance)
            place = min(BINS - 1, int((confidence - 0.5) * 2 * BINS))
            groups[place].append((confidence, float(margin > 0)))
    bins = []
    for place in sorted(groups):
        rows = groups[place]
        low = 50 + 50 * place // BINS
        right = wilson(sum(hit for _, hit in rows), len(rows))
        said = sum(confidence for confidence, _ in rows) / len(rows)
        bins.append(Bin(f"{low}–{low + 50 // BINS} %", said, right))
    return bins


def reliability_chart(bins: list[Bin]) -> intervals_chart.IntervalChart | None:
    return intervals_chart.dots(
        _("How often it is right, by how sure it says it is"),
        [(one.name, one.right) for one in bins],
        scale=100,
        unit=" %",
    )


@dataclass(frozen=True)
class Order:
    dimension: str
    first: Interval  # share of questions answered "the first", half being fair
    same: Interval  # share of pairs with the same winner in both orders


def order_bias(found: Sequence[Question]) -> list[Order]:
    """Over all dimensions, then per dimension."""
    names = dict(Dimension.objects.values_list("slug", "name"))
    groups: dict[str, list[Question]] = {_("All dimensions"): list(found)} if found else {}
    for question in found:
        groups.setdefault(names.get(question.dimension, question.dimension), []).append(question)
    rows = []
    for name, group in groups.items():
        firsts = [float(margin > 0) for q in group for margin in (q.winner_first, q.winner_second)]
        same = [float((q.winner_first > 0) == (q.winner_second < 0)) for q in group]
        # Two orders of one pair hang together: the interval counts pairs.
        share = sum(firsts) / len(firsts)
        rows.append(
            Order(name, wilson(share * len(group), len(group)), wilson(sum(same), len(same)))
        )
    return rows


# Disagreement -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dispute:
    """A pair on which the model is sure of the opposite of what people said."""

    set: CandidateSet
    dimension: Dimension
    chosen: Candidate
    rejected: Candidate
    margin: float  # for the picture that people preferred


def disputes(found: Sequence[Question], projects: QuerySet[Project]) -> list[Dispute]:
    """The surest mistakes first, of the sources one may see."""
    wrong = sorted(
        (q for q in found if q.relation == "direct" and q.score < 0), key=lambda q: q.score
    )
    dimensions = {one.slug: one for one in Dimension.objects.all()}
    made: list[Dispute] = []
    for question in wrong:
        group, *hashes, slug = question.key.split(":")
        if not group.isdecimal() or len(hashes) != 2 or slug not in dimensions:
            continue
        said = Judgment.objects.counted().filter(
            set=int(group),
            set__source__project__in=projects,
            dimension=dimensions[slug],
            outcome=Judgment.Outcome.PICKED,
        )
        said = said.select_related(
            "set__source__task", "set__source__image", "best__image", "worst__image"
        )
        # Corrected or withdrawn since: then there is nothing to dispute.
        judgment = next((one for one in said if _ends(one) == set(hashes)), None)
        if judgment is None or judgment.best is None or judgment.worst is None:
            continue
        made.append(
            Dispute(judgment.set, dimensions[slug], judgment.best, judgment.worst, question.score)
        )
        if len(made) == MOST_DISPUTES:
            break
    return made


def _ends(judgment: Judgment) -> set[str]:
    """The beginnings of the hashes of best and worst, as a question's key has them."""
    ends = (judgment.best, judgment.worst)
    return {one.image.sha256[:16] for one in ends if one is not None and one.image is not None}


def judge_again(model: RewardModel, one: CandidateSet, *, user: User) -> tuple[Campaign, bool]:
    """Put a set into the campaign of what this model disputes; whether it is new there."""
    project, task = one.source.project, one.source.task
    name = _("Judge again: %(model)s, %(project)s") % {"model": model, "project": project}
    with transaction.atomic():
        # Two clicks at one moment make one campaign.
        RewardModel.objects.select_for_update(no_key=True).get(pk=model.pk)
        found = Campaign.objects.filter(name=name[:120], project=project).first()
        if found is None:
            made = open_campaign(
                name=name[:120], sets=[one], tasks=[task], project=project, created_by=user
            )
            return made, True
        found.tasks.add(task)
        added = add_sets(found, [one])
        if added:
            audit.record(actor=user, verb=Verb.SETS_ADDED, thing=found, after={"sets": added})
        return found, bool(added)
