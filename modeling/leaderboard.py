"""Which policy is best: strengths from all blind comparisons, usable rates and costs.

Comparisons come from campaigns that show pictures of several policies for one source, pairs as well
as sets: whoever was called best beats the others that stood there, and each of those beats the
worst; "no difference" is a tie of all. Nothing is stored: the page is what the judgments say now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from django.db.models import Count, Max, QuerySet

from annotation.campaigns import COPY
from annotation.models import Campaign, Dimension, Judgment, Rating
from generation.models import Candidate, Policy, Project, Task
from modeling import strengths
from modeling.clusters import Answers, mean, share
from modeling.statistics import Interval
from modeling.strengths import FIRST, SECOND, TIE, Comparisons

SIGNIFICANT = 0.05
CHUNK = 5000


@dataclass(frozen=True)
class Scope:
    """Which judgments a board is about; None is all of them.

    Simulated annotators never stand beside people, and what was imported stands where its campaign
    is named.
    """

    project: Project
    task: Task | None = None
    dimension: Dimension | None = None
    campaigns: tuple[Campaign, ...] = ()
    simulated: bool = False

    @property
    def imported(self) -> bool:
        return any(one.origin == Campaign.Origin.IMPORTED for one in self.campaigns)


@dataclass(frozen=True)
class Cost:
    """Seconds per picture, over the logged pictures of the policy."""

    seconds: float
    images: int
    device: str

    @property
    def processor(self) -> str:
        """GPU or CPU; empty where it is not known."""
        if not self.device:
            return ""
        return "CPU" if self.device.startswith("cpu") else "GPU"


@dataclass(frozen=True)
class Row:
    policy: Policy
    rank: int | None  # within the group
    group: int | None
    strength: Interval | None  # on Elo's scale; n are the comparisons
    won: int
    tied: int
    lost: int
    usable: Interval | None
    score: Interval | None  # 1 to 5 on the board's dimension
    cost: Cost | None


@dataclass(frozen=True)
class Duel:
    """How the row's policy did against the column's; ties are half a win."""

    share: Interval
    p: float | None  # corrected for all pairs of the board; None between groups

    @property
    def verdict(self) -> str:
        if self.p is None or self.p >= SIGNIFICANT:
            return ""
        return "better" if self.share.value > 0.5 else "worse"


@dataclass(frozen=True)
class Board:
    rows: list[Row]
    duels: dict[tuple[int, int], Duel]  # by the ids of two policies
    comparisons: int
    ratings: int
    people: int
    groups: int
    tie: float | None = None
    matrix: list[tuple[Row, list[Duel | None]]] = field(default_factory=list)


def board(scope: Scope) -> Board:
    met, found = comparisons(scope)
    policies, duels, tie = _strengths(met, found)
    rated = ratings(scope, dimension=None)
    scored = ratings(scope, dimension=scope.dimension) if scope.dimension else {}
    known = Policy.objects.in_bulk({*policies, *rated, *scored})
    costs = cost_per_image(scope, list(known))
    rows = []
    for key, policy in known.items():
        place = policies.get(key)
        ended = place.ended if place else (0, 0, 0)
        rows.append(
            Row(
                policy=policy,
                rank=place.rank if place else None,
                group=place.group if place else None,
                strength=place.strength if place else None,
                won=ended[0],
                tied=ended[1],
                lost=ended[2],
                usable=share(rated[key]) if key in rated else None,
                score=mean(scored[key]) if key in scored else None,
                cost=costs.get(key),
            )
        )
    last = float("-inf")
    rows.sort(
        key=lambda row: (
            row.group if row.group is not None else 10**6,
            row.rank or 0,
            -(row.usable.value if row.usable else last),
            row.policy.name,
        )
    )
    compared = [row for row in rows if row.rank is not None]
    matrix = [
        (row, [duels.get((row.policy.pk, other.policy.pk)) for other in compared])
        for row in compared
    ]
    people = {*found.person.tolist()} | {
        person for answers in rated.values() for person in answers.person.tolist()
    }
    return Board(
        rows=rows,
        duels=duels,
        comparisons=len(found),
        ratings=sum(len(answers.value) for answers in rated.values()),
        people=len(people),
        groups=len({row.group for row in compared}),
        tie=tie,
        matrix=matrix,
    )


@dataclass(frozen=True)
class Place:
    group: int
    rank: int
    strength: Interval
    ended: tuple[int, int, int]  # won, tied, lost


def _strengths(
    met: list[int], found: Comparisons
) -> tuple[dict[int, Place], dict[tuple[int, int], Duel], float | None]:
    """Places by policy, and every pair that met; `met` names the policy behind each number."""
    places: dict[int, Place] = {}
    duels: dict[tuple[int, int], Duel] = {}
    ties: list[float | None] = []
    if not len(found):
        return places, duels, None
    for number, group in enumerate(strengths.connected(len(met), found)):
        within = np.flatnonzero(np.isin(found.first, group))
        order = {policy: place for place, policy in enumerate(group)}
        part = found.only(within)
        renamed = Comparisons(
            np.array([order[one] for one in part.first.tolist()], np.int64),
            np.array([order[one] for one in part.second.tolist()], np.int64),
            part.outcome,
            part.source,
            part.person,
        )
        fitted = strengths.fit(len(group), renamed)
        ties.append(fitted.tie)
        ranked = np.argsort(-fitted.theta, kind="stable").tolist()
        p_values = fitted.p_values()
        for rank, one in enumerate(ranked, 1):
            ended = _ended(renamed, one)
            interval = fitted.interval(one)
            strength = Interval(interval.value, interval.low, interval.high, sum(ended))
            places[met[group[one]]] = Place(number, rank, strength, ended)
        for a, b in combinations(range(len(group)), 2):
            for one, other in ((a, b), (b, a)):
                won = share_of_wins(renamed, one, other)
                if won.n:
                    duels[met[group[one]], met[group[other]]] = Duel(won, p_values[a, b])
    return places, duels, ties[0] if len(ties) == 1 else None


def _ended(rows: Comparisons, one: int) -> tuple[int, int, int]:
    first, second = rows.first == one, rows.second == one
    tied = int(((first | second) & (rows.outcome == TIE)).sum())
    won = int((first & (rows.outcome == FIRST)).sum() + (second & (rows.outcome == SECOND)).sum())
    return won, tied, int((first | second).sum()) - won - tied


def share_of_wins(rows: Comparisons, one: int, other: int) -> Interval:
    forth = (rows.first == one) & (rows.second == other)
    back = (rows.first == other) & (rows.second == one)
    # FIRST, TIE and SECOND are worth 1, a half and 0 to whoever stood first.
    worth = 1 - rows.outcome / 2
    chosen = forth | back
    value = np.where(forth, worth, 1 - worth)[chosen]
    return share(Answers(value, rows.source[chosen], rows.person[chosen]))


# Judgments --------------------------------------------------------------------------------------


def judgments(scope: Scope) -> QuerySet[Judgment]:
    """What people said in the scope and stands."""
    counted = Judgment.objects.counted(imported=scope.imported)
    found = counted.exclude(outcome=Judgment.Outcome.CANNOT_JUDGE)
    found = found.filter(
        assignment__item__campaign__project=scope.project,
        assignment__item__campaign__simulated=scope.simulated,
    )
    if scope.campaigns:
        found = found.filter(assignment__item__campaign__in=scope.campaigns)
    if scope.task is not None:
        found = found.filter(set__source__task=scope.task)
    return found.filter(dimension=scope.dimension) if scope.dimension else found


def comparisons(scope: Scope) -> tuple[list[int], Comparisons]:
    """Who was preferred to whom, and which policy each number stands for."""
    numbers: dict[int, int] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    for said in compared(judgments(scope)):
        for ours, theirs, outcome in said.pairs:
            first = numbers.setdefault(ours, len(numbers))
            second = numbers.setdefault(theirs, len(numbers))
            rows.append((first, second, outcome, said.source, said.person))
    return list(numbers), Comparisons.of(rows)


@dataclass(frozen=True)
class Compared:
    """What one judgment says about pairs of policies."""

    source: int
    person: int
    task: int
    dimension: int
    pairs: list[tuple[int, int, int]]  # the ids of two policies, and how it ended


def compared(found: QuerySet[Judgment]) -> Iterable[Compared]:
    mixed = (
        found.order_by()
        .values("set_id")
        .annotate(policies=Count("set__candidates__policy", distinct=True))
        .filter(policies__gt=1)
        .values("set_id")
    )
    shown = _shown(mixed)
    rows = found.filter(set_id__in=mixed).values_list(
        *("set_id", "outcome", "best_id", "worst_id", "assignment__order"),
        *("set__source_id", "assignment__annotator_id", "set__source__task_id", "dimension_id"),
    )
    for set_id, outcome, best, worst, order, source, person, task, dimension in rows.iterator(
        chunk_size=CHUNK
    ):
        pictures = [shown[set_id][index] for index in order if index in shown[set_id]]
        pairs = list(_pairs(pictures, outcome, best, worst))
        if pairs:
            yield Compared(source, person, task, dimension, pairs)


# A candidate, its policy and its picture.
Shown = tuple[int, int, int]


def _shown(sets: Any) -> dict[int, dict[int, Shown]]:
    found: dict[int, dict[int, Shown]] = defaultdict(dict)
    rows = Candidate.objects.filter(set_id__in=sets, image__isnull=False)
    names = ("set_id", "index", "pk", "policy_id", "image_id")
    for set_id, index, pk, policy, image in rows.values_list(*names).iterator(chunk_size=CHUNK):
        found[set_id][index] = (pk, policy, image or 0)
    return found


def _pairs(
    pictures: list[Shown], outcome: str, best: int | None, worst: int | None
) -> Iterable[tuple[int, int, int]]:
    for ours, theirs in combinations(pictures, 2):
        # The same policy, or by chance the same pixels: nothing to learn of who is better.
        if ours[1] == theirs[1] or ours[2] == theirs[2]:
            continue
        if outcome == Judgment.Outcome.NO_DIFFERENCE:
            yield ours[1], theirs[1], TIE
        elif best == ours[0] or worst == theirs[0]:
            yield ours[1], theirs[1], FIRST
        elif best == theirs[0] or worst == ours[0]:
            yield ours[1], theirs[1], SECOND


def ratings(
    scope: Scope, *, dimension: Dimension | None, at_least: int | None = None
) -> dict[int, Answers]:
    """Per policy what was said of single pictures: usable or not, or 1 to 5 on a dimension.

    `at_least` turns scores into whether they reach it.
    """
    found = Rating.objects.counted(imported=scope.imported).filter(
        assignment__item__campaign__project=scope.project,
        assignment__item__campaign__simulated=scope.simulated,
        dimension=dimension,
    )
    if scope.campaigns:
        found = found.filter(assignment__item__campaign__in=scope.campaigns)
    if scope.task is not None:
        found = found.filter(set__source__task=scope.task)
    said: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
    names = ("candidate__policy_id", "value", "set__source_id", "assignment__annotator_id")
    for policy, value, source, person in found.values_list(*names).iterator(chunk_size=CHUNK):
        shown = float(value if at_least is None else value >= at_least)
        said[policy].append((shown, source, person))
    return {
        policy: Answers.of(*(list(column) for column in zip(*rows, strict=True)))
        for policy, rows in said.items()
    }


def cost_per_image(scope: Scope, policies: list[int]) -> dict[int, Cost]:
    """Computing time per picture. Pictures of one batch share the time that the batch took."""
    logged = Candidate.objects.filter(
        policy__in=policies,
        latency_ms__isnull=False,
        set__source__project=scope.project,
    ).exclude(versions__has_key=COPY)
    if scope.task is not None:
        logged = logged.filter(set__source__task=scope.task)
    totals: dict[int, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    devices: dict[int, str] = {}
    batches = logged.filter(batch__isnull=False).values_list("policy_id", "batch")
    alone = logged.filter(batch__isnull=True).values_list("policy_id", "pk")
    for rows in (batches, alone):
        measured = rows.annotate(
            images=Count("pk"), longest=Max("latency_ms"), where=Max("device")
        ).values_list("policy_id", "images", "longest", "where")
        for policy, images, longest, where in measured.iterator(chunk_size=CHUNK):
            seconds, n = totals[policy]
            totals[policy] = (seconds + longest / 1000, n + images)
            devices[policy] = where or devices.get(policy, "")
    return {
        policy: Cost(seconds / n, n, devices[policy]) for policy, (seconds, n) in totals.items()
    }


# For programs -----------------------------------------------------------------------------------

COLUMNS = [
    *("policy", "kind", "rank", "group", "strength", "strength_low", "strength_high"),
    *("comparisons", "won", "tied", "lost", "usable", "usable_low", "usable_high", "usable_n"),
    *("score", "score_low", "score_high", "score_n", "seconds_per_image", "images", "device"),
]


def records(found: Board) -> list[dict[str, Any]]:
    """The rows of the board with plain values, under the names of `COLUMNS`."""
    return [
        {
            "policy": row.policy.name,
            "kind": row.policy.kind,
            "rank": row.rank,
            "group": None if row.group is None else row.group + 1,
            **_plain("strength", row.strength, n="comparisons"),
            "won": row.won,
            "tied": row.tied,
            "lost": row.lost,
            **_plain("usable", row.usable),
            **_plain("score", row.score),
            "seconds_per_image": round(row.cost.seconds, 3) if row.cost else None,
            "images": row.cost.images if row.cost else None,
            "device": row.cost.device if row.cost else None,
        }
        for row in found.rows
    ]


def _plain(name: str, interval: Interval | None, n: str = "") -> dict[str, Any]:
    values = asdict(interval) if interval else dict.fromkeys(("value", "low", "high", "n"))
    return {
        name: _number(values["value"]),
        f"{name}_low": _number(values["low"]),
        f"{name}_high": _number(values["high"]),
        n or f"{name}_n": values["n"],
    }


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 4)


def as_json(found: Board) -> dict[str, Any]:
    names = {row.policy.pk: row.policy.name for row in found.rows}
    return {
        "comparisons": found.comparisons,
        "ratings": found.ratings,
        "people": found.people,
        "groups": found.groups,
        "policies": records(found),
        "head_to_head": [
            {
                "policy": names[one],
                "against": names[other],
                **_plain("share", duel.share, n="n"),
                "p_holm": None if duel.p is None else round(duel.p, 6),
            }
            for (one, other), duel in sorted(found.duels.items())
        ],
    }
