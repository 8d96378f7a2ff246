"""Whether some kinds of pictures are served or judged worse: figures per value of a source's tag.

The unit is the source: several answers about one count as their mean. A group is compared with the
other sources that carry the tag, task by task and weighted by the group's own mix of tasks, so that
a group of hard tasks is not called badly served. p is a permutation test's within tasks, two-sided,
after Holm over the whole table.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.core.cache import cache
from django.db.models import Avg, Max, QuerySet
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from numpy.typing import NDArray

from annotation.models import Rating
from generation import shared
from generation.models import CandidateSet, Policy, Project, Source, Task
from modeling.models import Evaluation, EvaluationPair, RewardModel, TrainingRun
from modeling.statistics import Interval, bootstrap, holm, wilson

Floats = NDArray[np.float64]
Values = dict[int, float]  # source → its mean

SIGNIFICANT = 0.05
FEWEST = 10  # sources a group, and what it is compared with, need for a test
# Resamples of a test: as many for few sources, fewer for many, so that a page takes a moment.
MOST_DRAWS, LEAST_DRAWS = 4000, 1000
BLOCK = 2_000_000  # numbers held at once, and drawn in all where that leaves enough resamples
MOST_KEYS = 20  # tags that alerts are looked for in
REMEMBERED_SECONDS = 600
USABLE, ACCURACY, MARGIN = "usable", "accuracy", "margin"
NAMES = {
    USABLE: lazy("Usable"),
    ACCURACY: lazy("Reward model right"),
    MARGIN: lazy("Margin for the new pictures"),
}
# A difference from the rest that matters: 5 points of a share, a quarter of a logit.
THRESHOLDS = {USABLE: 0.05, ACCURACY: 0.05, MARGIN: 0.25}
COLUMNS = [
    *("tag", "group", "figure", "value", "low", "high", "sources"),
    *("difference", "difference_low", "difference_high", "p", "alert"),
]


@dataclass(frozen=True)
class Subject:
    """Whose figures: a policy's pictures and a reward model's judgments."""

    policy: Policy | None
    reward: RewardModel | None
    task: Task | None = None


@dataclass(frozen=True)
class Figure:
    measure: str
    interval: Interval
    difference: Interval | None = None  # from the rest; None: too few for a test
    p: float | None = None  # after Holm

    @property
    def name(self) -> str:
        return str(NAMES[self.measure])

    @property
    def is_share(self) -> bool:
        return self.measure != MARGIN

    @property
    def alert(self) -> str:
        """ "worse", "better" (of a margin: a bias, too) or "" where nothing is clear."""
        if self.difference is None or self.p is None or self.p >= SIGNIFICANT:
            return ""
        if abs(self.difference.value) < THRESHOLDS[self.measure]:
            return ""
        return "worse" if self.difference.value < 0 else "better"


@dataclass
class Group:
    name: str
    sources: int
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def cells(self) -> list[Figure | None]:
        return [self.figures.get(measure) for measure in NAMES]


@dataclass
class Audit:
    keys: list[str]  # tags that measured sources carry
    key: str
    groups: list[Group] = field(default_factory=list)
    bases: dict[str, str] = field(default_factory=dict)  # measure → where its figures come from

    @property
    def alerts(self) -> list[tuple[Group, Figure]]:
        return [
            (group, one) for group in self.groups for one in group.figures.values() if one.alert
        ]


def audit(subject: Subject, projects: QuerySet[Project], key: str = "") -> Audit:
    """Figures per value of the tag `key`; of the first one there is where none is named."""
    measured, bases = measure(subject, projects)
    ids = {source for values in measured.values() for source in values}
    rows = Source.objects.filter(pk__in=ids).values_list("pk", "task_id", "tags")
    sources = {pk: (task, tags) for pk, task, tags in rows}
    keys = sorted({name for _task, tags in sources.values() for name in tags})
    key = key if key in keys else next(iter(keys), "")
    if not key:
        return Audit(keys, key)
    members = _members({pk: tags for pk, (_task, tags) in sources.items()}, key)
    groups = {name: Group(name, len(ids)) for name, ids in members.items()}
    tasks = {pk: task for pk, (task, _tags) in sources.items()}
    for name, values in measured.items():
        for group, figure in _compare_groups(name, values, members, tasks).items():
            groups[group].figures[name] = figure
    made = Audit(keys, key, [groups[name] for name in sorted(groups)], bases)
    _correct(made)
    return made


@dataclass(frozen=True)
class Alert:
    key: str
    group: str
    figure: str


def alerts(subject: Subject, projects: QuerySet[Project]) -> list[Alert]:
    """Over all tags, what `Audit.alerts` says; remembered for a while, as it takes a second."""
    newest = Evaluation.objects.aggregate(newest=Max("pk"))["newest"]
    asked = [*sorted(projects.values_list("pk", flat=True)), newest, get_language()]
    rows = [row.pk if row else 0 for row in (subject.policy, subject.reward, subject.task)]
    name = f"tag-alerts-{hashlib.sha256(repr([asked, rows]).encode()).hexdigest()}"
    found: list[Alert] | None = cache.get(name)
    if found is None:
        first = audit(subject, projects)
        tables = [first, *(audit(subject, projects, key) for key in first.keys[1:MOST_KEYS])]
        found = [
            Alert(made.key, group.name, figure.name)
            for made in tables
            for group, figure in made.alerts
        ]
        cache.set(name, found, REMEMBERED_SECONDS)
    return found


def _members(tags: Mapping[int, Mapping[str, Any]], key: str) -> dict[str, set[int]]:
    """Sources by their value of the tag. Those without it are a group only where it is a mere word:
    whoever declares an age says nothing about pictures without people."""
    found: dict[str, set[int]] = defaultdict(set)
    for pk, own in tags.items():
        value = own.get(key)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                found[_("yes") if one is True else str(one)].add(pk)
    if set(found) == {_("yes")}:
        found[_("no")] = {pk for pk, own in tags.items() if key not in own}
    return {name: members for name, members in found.items() if members}


# What was measured --------------------------------------------------------------------------------


def measure(
    subject: Subject, projects: QuerySet[Project]
) -> tuple[dict[str, Values], dict[str, str]]:
    """Each figure's value per source of these projects, and in words where it comes from."""
    sources = Source.objects.filter(project__in=projects)
    if subject.task is not None:
        sources = sources.filter(task=subject.task)
    found: dict[str, Values] = {}
    bases: dict[str, str] = {}
    if subject.policy is not None:
        found |= _of_policy(subject.policy, sources, bases)
    if subject.reward is not None and (values := _accuracy(subject.reward, sources)):
        found[ACCURACY] = values
        bases[ACCURACY] = _("“%(name)s” against held-out best/worst pairs") % {
            "name": subject.reward.name
        }
    return found, bases


def _of_policy(
    policy: Policy, sources: QuerySet[Source], bases: dict[str, str]
) -> dict[str, Values]:
    evaluation = Evaluation.objects.filter(policy=policy).first()
    pairs = EvaluationPair.objects.filter(evaluation=evaluation, source__in=sources)
    rows = list(pairs.values_list("source_id", "scores")) if evaluation is not None else []
    found: dict[str, Values] = {}
    if usable := _means(_truths(rows)):
        found[USABLE] = usable
        bases[USABLE] = _("ground truth of “%(name)s” on held-out sources") % {"name": policy.name}
    elif usable := _rated(policy, sources):
        found[USABLE] = usable
        bases[USABLE] = _("people's ratings of “%(name)s”") % {"name": policy.name}
    for key in ("margin", "reward_margin"):
        given = [(pk, scores[key]) for pk, scores in rows if scores.get(key)]
        if given and evaluation is not None:
            found[MARGIN] = _means((pk, float(np.mean(list(one.values())))) for pk, one in given)
            judge = (evaluation.figures.get(key) or {}).get("all", {}).get("judge", "–")
            bases[MARGIN] = _("log-odds by “%(name)s” against the parent's pictures") % {
                "name": judge
            }
            break
    return found


def _truths(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Iterator[tuple[int, float]]:
    from modeling.starter import truth

    for pk, scores in rows:
        if scores.get("new"):
            yield pk, float(truth.usable(scores["new"]))


def _rated(policy: Policy, sources: QuerySet[Source]) -> Values:
    ratings = Rating.objects.counted().filter(
        dimension=None, candidate__policy=policy, set__source__in=sources
    )
    rows = ratings.values("set__source").annotate(mean=Avg("value"))
    return {row["set__source"]: float(row["mean"]) for row in rows}


def _accuracy(model: RewardModel, sources: QuerySet[Source]) -> Values:
    """From the training's own file of held-out questions; a registered model has none."""
    run = TrainingRun.objects.filter(reward_model=model).first()
    path = shared.file_of(run.directory, "holdout.jsonl") if run is not None else None
    if path is None:
        return {}
    answers = []
    for line in path.read_text().splitlines():
        one = json.loads(line)
        if one["relation"] == "direct":
            score = one["winner_first"] - one["winner_second"]
            answers.append((int(one["key"].split(":")[0]), 0.5 if score == 0 else float(score > 0)))
    sets = CandidateSet.objects.filter(pk__in={pk for pk, _right in answers}, source__in=sources)
    source_of = dict(sets.values_list("pk", "source_id"))
    return _means((source_of[pk], right) for pk, right in answers if pk in source_of)


def _means(rows: Iterable[tuple[int, float]]) -> Values:
    of: dict[int, list[float]] = defaultdict(list)
    for pk, value in rows:
        of[pk].append(value)
    return {pk: float(np.mean(values)) for pk, values in of.items()}


# Groups against the rest --------------------------------------------------------------------------


def _compare_groups(
    name: str, values: Values, members: Mapping[str, set[int]], tasks: Mapping[int, int]
) -> dict[str, Figure]:
    tagged = sorted(pk for pk in values if any(pk in group for group in members.values()))
    every = np.array([values[pk] for pk in tagged])
    strata = np.array([tasks[pk] for pk in tagged])
    found = {}
    for group, ids in members.items():
        inside = np.array([pk in ids for pk in tagged], bool)
        if not inside.any():
            continue
        difference, p = compare(every, inside, strata)
        found[group] = Figure(name, _interval(every[inside]), difference, p)
    return found


def _interval(values: Floats) -> Interval:
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(float(values.sum()), len(values))
    return bootstrap(values)


def compare(
    values: Floats, inside: NDArray[np.bool_], strata: NDArray[np.int64], *, seed: int = 0
) -> tuple[Interval | None, float | None]:
    """Mean inside less mean outside, within strata that have both, weighted by the inside's counts;
    with its bootstrap interval and the two-sided p of a permutation within strata."""
    parts = [(values[here & inside], values[here & ~inside]) for here in _masks(strata)]
    parts = [(a, b) for a, b in parts if len(a) and len(b)]
    n, others = sum(len(a) for a, _ in parts), sum(len(b) for _, b in parts)
    if min(n, others) < FEWEST:
        return None, None
    observed = sum(len(a) * (a.mean() - b.mean()) for a, b in parts) / n
    rng = np.random.default_rng(seed)
    draws = min(MOST_DRAWS, max(LEAST_DRAWS, BLOCK // len(values)))
    drawn, shuffled = np.zeros(draws), np.zeros(draws)
    for a, b in parts:
        both = np.concatenate([a, b])
        rows = max(1, BLOCK // len(both))
        for start in range(0, draws, rows):
            end = min(draws, start + rows)
            again = (rng.choice(part, (end - start, len(part))).mean(1) for part in (a, b))
            drawn[start:end] += len(a) / n * (next(again) - next(again))
            mixed = rng.permuted(np.tile(both, (end - start, 1)), axis=1)
            step = mixed[:, : len(a)].mean(1) - mixed[:, len(a) :].mean(1)
            shuffled[start:end] += len(a) / n * step
    low, high = np.quantile(drawn, [0.025, 0.975])
    hits = int((np.abs(shuffled) >= abs(observed) - 1e-12).sum())
    return Interval(float(observed), float(low), float(high), n), (hits + 1) / (draws + 1)


def _masks(strata: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    for one in np.unique(strata):
        yield strata == one


def _correct(made: Audit) -> None:
    """Holm over all groups and figures of the table; two groups are each other's rest, once."""
    twins = len(made.groups) == 2
    raw = {
        f"{name}:{0 if twins else place}": figure.p
        for place, group in enumerate(made.groups)
        for name, figure in group.figures.items()
        if figure.p is not None
    }
    adjusted = holm(raw)
    for place, group in enumerate(made.groups):
        for name, figure in group.figures.items():
            if figure.p is not None:
                p = adjusted[f"{name}:{0 if twins else place}"]
                group.figures[name] = Figure(name, figure.interval, figure.difference, p)


def records(made: Audit) -> Iterator[list[Any]]:
    """The table's rows under `COLUMNS`."""
    for group in made.groups:
        for name, one in group.figures.items():
            apart = one.difference
            yield [
                *(made.key, group.name, name),
                *(one.interval.value, one.interval.low, one.interval.high, one.interval.n),
                *((apart.value, apart.low, apart.high) if apart else (None, None, None)),
                *(one.p, one.alert),
            ]
