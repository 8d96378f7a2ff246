"""What production says of the policies, and whether it says what people say when asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime
from math import ceil, floor, sqrt
from typing import Any

from django.db.models import QuerySet

from annotation import feedback, preferences
from annotation.feedback import TAKEN
from annotation.models import Dimension, Feedback, Judgment
from generation.models import Policy, Project
from modeling.statistics import Z95, Interval, wilson


@dataclass(frozen=True)
class PolicyRow:
    policy: str
    events: int
    accepted: Interval  # share of the sets somebody reacted to: one of its pictures was taken
    completion: Interval | None  # median seconds from the order to the first picture taken
    value: float

    @property
    def percent(self) -> list[int]:
        return _percent(self.accepted)


@dataclass(frozen=True)
class AgreementRow:
    dimension: str
    agreed: (
        Interval  # share of the pairs that people judged, too, the same picture is the better one
    )

    @property
    def percent(self) -> list[int]:
        return _percent(self.agreed)


def _percent(found: Interval) -> list[int]:
    """Value, ends and width of the interval, for a page."""
    value, low, high = (round(100 * share) for share in (found.value, found.low, found.high))
    return [value, low, high, high - low]


@dataclass(frozen=True)
class Report:
    events: int
    kinds: dict[str, int]
    preferences: int
    policies: list[PolicyRow]
    agreement: list[AgreementRow]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def report(projects: QuerySet[Project]) -> Report:
    rows = Feedback.objects.filter(project__in=projects)
    kinds = Counter(rows.values_list("kind", flat=True))
    implied = list(feedback.derive(rows))
    return Report(
        events=kinds.total(),
        kinds={kind: kinds[kind] for kind in Feedback.Kind.values},
        preferences=len(implied),
        policies=_policies(rows),
        agreement=_agreement(implied),
    )


def _policies(rows: QuerySet[Feedback]) -> list[PolicyRow]:
    # A case is a set of pictures that one person reacted to, under one policy.
    cases: dict[int, dict[tuple[int, str], datetime | None]] = defaultdict(dict)
    started: dict[int, datetime] = {}
    events: Counter[int] = Counter()
    value: dict[int, float] = defaultdict(float)
    for row in rows.select_related("candidate__set").order_by("happened_at", "pk"):
        made = row.candidate.set
        started[made.pk] = made.created_at
        case = (made.pk, row.user)
        if row.kind in TAKEN and cases[row.policy_id].get(case) is None:
            cases[row.policy_id][case] = row.happened_at
        cases[row.policy_id].setdefault(case, None)
        events[row.policy_id] += 1
        value[row.policy_id] += row.value or 0
    names = dict(Policy.objects.filter(pk__in=cases).values_list("pk", "name"))
    found = []
    for policy, mine in sorted(cases.items(), reverse=True):
        taken = {case: when for case, when in mine.items() if when is not None}
        waits = [(when - started[case[0]]).total_seconds() for case, when in taken.items()]
        found.append(
            PolicyRow(
                policy=names[policy],
                events=events[policy],
                accepted=wilson(len(taken), len(mine)),
                completion=median(waits) if waits else None,
                value=value[policy],
            )
        )
    return found


def _agreement(implied: list[feedback.Implied]) -> list[AgreementRow]:
    """Pairs that people judged as well, dimension by dimension; each pair counts once a dimension.

    Where people disagree about a pair, their majority counts, and a pair without one is left out.
    """
    sets = {one.preference.set for one in implied}
    votes: dict[tuple[str, int, str, str], int] = defaultdict(int)
    for said in preferences.derive(Judgment.objects.counted().filter(set__in=sets)):
        low, high = sorted((said.chosen, said.rejected))
        votes[said.dimension, said.set, low, high] += 1 if said.chosen == low else -1
    mine: dict[tuple[int, str, str], int] = defaultdict(int)
    for one in implied:
        found = one.preference
        low, high = sorted((found.chosen, found.rejected))
        mine[found.set, low, high] += 1 if found.chosen == low else -1
    agreed: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    for (dimension, *pair), people in votes.items():
        production = mine.get((pair[0], pair[1], pair[2]), 0)  # type: ignore[arg-type]
        if people and production:
            compared[dimension] += 1
            agreed[dimension] += (people > 0) == (production > 0)
    order = Dimension.objects.filter(slug__in=compared).order_by("pk")
    return [
        AgreementRow(dimension.name, wilson(agreed[dimension.slug], compared[dimension.slug]))
        for dimension in order
    ]


def median(values: list[float]) -> Interval:
    """With its 95 % interval, between two of the values (Conover 1999, normal approximation)."""
    ordered = sorted(values)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    reach = Z95 * sqrt(n) / 2
    low, high = max(0, floor(n / 2 - reach)), min(n - 1, ceil(n / 2 + reach) - 1)
    return Interval(middle, ordered[low], ordered[high], n)
