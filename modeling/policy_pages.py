"""A policy beside others on the same sources and noise, and how it came to be as good as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from generation import shared
from generation.models import Image, Policy, Project, Source, Task
from modeling import intervals_chart, leaderboard
from modeling.clusters import Answers, mean, share
from modeling.leaderboard import Scope
from modeling.models import Evaluation, EvaluationPair
from modeling.pages import lineage, mean_score
from modeling.statistics import Interval, wilson
from modeling.strengths import FIRST, SECOND

LORA_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Frame:
    policy: Policy
    image: Image | None
    score: float | None


@dataclass
class Row:
    """One source and noise under every policy that was measured on it."""

    source: Source
    frames: list[Frame] = field(default_factory=list)
    before: Frame | None = None
    after: Frame | None = None
    change: float | None = None
    dimensions: list[tuple[str, float]] = field(default_factory=list)  # worst change first


@dataclass(frozen=True)
class Across:
    policies: list[Policy]
    against: Policy | None
    rows: list[Row]  # worst regressions first
    tasks: list[Task]


# A picture and the scores behind it.
Seen = tuple[Image, float | None, dict[str, float]]


def across(
    policy: Policy,
    projects: QuerySet[Project],
    *,
    against: int | None = None,
    task: int | None = None,
) -> Across:
    """Every held-out source that the policy was measured on, under whatever else was, too.

    `against` is the id of the policy to compare with, its parent where none is given.
    """
    pairs = EvaluationPair.objects.filter(source__project__in=projects)
    mine = pairs.filter(Q(evaluation__policy=policy) | Q(evaluation__parent_policy=policy))
    keys = set(mine.values_list("source_id", "seed"))
    same = pairs.filter(source__in={source for source, _seed in keys}).select_related(
        "source__task", "source__image", "image", "parent_image", "evaluation"
    )
    seen: dict[tuple[int, int], dict[int, Seen]] = defaultdict(dict)
    sources: dict[int, Source] = {}
    margins: dict[tuple[int, int], dict[tuple[int, int], float]] = defaultdict(dict)
    for pair in same.order_by("evaluation_id"):
        key = (pair.source_id, pair.seed)
        if key not in keys:
            continue
        sources[pair.source_id] = pair.source
        evaluation = pair.evaluation
        new, parent = evaluation.policy_id or 0, evaluation.parent_policy_id or 0
        for owner, side, image in ((new, "new", pair.image), (parent, "parent", pair.parent_image)):
            seen[key][owner] = (image, mean_score(pair, side), pair.scores.get(side) or {})
        if judged := [float(value) for value in (pair.scores.get("margin") or {}).values()]:
            margins[key][new, parent] = float(np.mean(judged))
    found = Policy.objects.in_bulk({one for cells in seen.values() for one in cells})
    policies = sorted(found.values(), key=lambda one: one.pk)
    others = [one for one in policies if one != policy]
    wished = {one.pk: one for one in others}
    chosen = wished.get(against or policy.parent_id or 0) or (others[-1] if others else None)
    rows = [
        _row(sources[key[0]], cells, policies, policy, chosen, margins[key])
        for key, cells in seen.items()
        if task is None or sources[key[0]].task_id == task
    ]
    rows.sort(key=lambda row: (row.change is None, row.change or 0.0, row.source.pk))
    tasks = {source.task_id: source.task for source in sources.values()}
    return Across(policies, chosen, rows, [tasks[key] for key in sorted(tasks)])


def _row(
    source: Source,
    cells: dict[int, Seen],
    policies: list[Policy],
    policy: Policy,
    against: Policy | None,
    margins: dict[tuple[int, int], float],
) -> Row:
    row = Row(source)
    for one in policies:
        image, score, _scores = cells.get(one.pk, (None, None, {}))
        frame = Frame(one, image, score)
        row.frames.append(frame)
        if one == policy:
            row.after = frame
        elif one == against:
            row.before = frame
    if against is None or against.pk not in cells:
        return row
    before, after = cells[against.pk], cells[policy.pk]
    if before[1] is not None and after[1] is not None:
        row.change = after[1] - before[1]
        changes = {name: after[2][name] - before[2][name] for name in after[2] if name in before[2]}
        row.dimensions = sorted(changes.items(), key=lambda pair: pair[1])
    else:
        # Without ground truth a reward model's margin says who is better.
        row.change = margins.get((policy.pk, against.pk))
    return row


# Over the policies ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """What was measured of one policy of the line."""

    policy: Policy
    truth: Interval | None  # usable by ground truth, on held-out sources
    people: Interval | None  # usable by people
    reward: Interval | None  # margin over its parent by a reward model that did not train it
    net: Interval | None  # people's good - bad against its parent


def course(policy: Policy, projects: Iterable[Project]) -> list[Point]:
    """The policy and its ancestors, oldest first."""
    chain = lineage(policy)
    rated: dict[int, list[Answers]] = defaultdict(list)
    said: dict[tuple[int, int], list[tuple[float, int, int]]] = defaultdict(list)
    wanted = {(one.pk, one.parent_id) for one in chain if one.parent_id}
    for project in projects:
        scope = Scope(project)
        for key, answers in leaderboard.ratings(scope, dimension=None).items():
            rated[key].append(answers)
        for compared in leaderboard.compared(leaderboard.judgments(scope)):
            for first, second, outcome in compared.pairs:
                sign = {FIRST: 1.0, SECOND: -1.0}.get(outcome, 0.0)
                for pair, value in (((first, second), sign), ((second, first), -sign)):
                    if pair in wanted:
                        said[pair].append((value, compared.source, compared.person))
    points = []
    for one in chain:
        figures = _figures(one)
        votes = said.get((one.pk, one.parent_id or 0))
        points.append(
            Point(
                policy=one,
                truth=_truth(one, chain, figures),
                people=share(_joined(rated[one.pk])) if one.pk in rated else None,
                reward=_margin(figures),
                net=mean(Answers.of(*(list(part) for part in zip(*votes, strict=True))))
                if votes
                else None,
            )
        )
    return points


def _figures(policy: Policy) -> dict[str, Any]:
    found = Evaluation.objects.filter(policy=policy).first()
    return found.figures if found is not None else {}


def _truth(policy: Policy, chain: list[Policy], figures: dict[str, Any]) -> Interval | None:
    side = "new"
    if not figures:
        # The first of the line was measured as somebody's parent.
        child = next((one for one in chain if one.parent_id == policy.pk), None)
        figures, side = (_figures(child), "parent") if child else ({}, "")
    usable = (figures.get("usable") or {}).get("all")
    if not usable or not usable.get("n"):
        return None
    return wilson(usable[side] * usable["n"], usable["n"])


def _margin(figures: dict[str, Any]) -> Interval | None:
    found = (figures.get("margin") or {}).get("all")
    return Interval(found["mean"], found["low"], found["high"], found["n"]) if found else None


def _joined(parts: list[Answers]) -> Answers:
    names = ("value", "source", "person")
    value, source, person = (np.concatenate([getattr(p, name) for p in parts]) for name in names)
    return Answers(value, source, person)


def course_charts(points: list[Point]) -> list[intervals_chart.IntervalChart]:
    titles = {
        "truth": (_("Usable on held-out sources, by ground truth"), 100.0, 0, " %"),
        "people": (_("Usable, as people say"), 100.0, 0, " %"),
        "reward": (_("Reward margin over the parent, in logits"), 1.0, 2, ""),
        "net": (_("Good − bad against the parent, as people say, in points"), 100.0, 0, ""),
    }
    charts = []
    for name, (title, scale, decimals, unit) in titles.items():
        rows = [(p.policy.name, one) for p in points if (one := getattr(p, name)) is not None]
        chart = intervals_chart.dots(title, rows, scale=scale, decimals=decimals, unit=unit)
        if chart is not None:
            charts.append(chart)
    return charts


def lora_file(policy: Policy) -> Path | None:
    """The policy's LoRA as one file, where it lies on this machine."""
    if not policy.adapter:
        return None
    path = Path(shared.local(policy.adapter)).expanduser()
    for file in (path, path / LORA_FILE):
        if file.is_file() and file.suffix == ".safetensors":
            return file
    return None
