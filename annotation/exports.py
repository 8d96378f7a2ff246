"""Which judgments and ratings leave: by campaign, task, dimension, time, agreement, origin …

Names that nobody knows are refused with a sentence that says which there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from django.db.models import Count, FloatField, Model, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from annotation import campaigns
from annotation.errors import DatasetError, Refused
from annotation.models import (
    Campaign,
    Dimension,
    Judgment,
    JudgmentQuerySet,
    Rating,
    RatingQuerySet,
)
from generation.models import Project, Split, Task

USABLE = "usable"  # stands for the ratings that are about no dimension


class Origin(StrEnum):
    """Whose answers these are."""

    PEOPLE = "people"
    SIMULATED = "simulated"
    IMPORTED = "imported"


def origin_of(campaign: Campaign) -> str:
    if campaign.simulated:
        return Origin.SIMULATED
    return Origin(campaign.origin)


@dataclass(frozen=True)
class Selection:
    """Empty and None leave nothing out.

    `since` and `until` are moments, or whole days, `until` included. `min_agreement` is the share
    of the people who answered about an item on a dimension that named the same best (of a rating:
    gave the same value); whoever answered alone agrees with themselves.
    """

    campaigns: Sequence[str] = ()  # names or numbers
    tasks: Sequence[str] = ()  # slugs
    dimensions: Sequence[str] = ()  # slugs
    splits: Sequence[str] = ()
    since: date | None = None
    until: date | None = None
    min_agreement: float | None = None
    origins: Sequence[str] = ()
    projects: Sequence[str] = ()  # slugs

    def judgments(self) -> JudgmentQuerySet:
        chosen = Judgment.objects.counted(imported=True).filter(self._about())
        if self.dimensions:
            chosen = chosen.filter(dimension__in=self._dimensions())
        if self.min_agreement is not None:
            peers = Judgment.objects.counted(imported=True).exclude(
                outcome=Judgment.Outcome.CANNOT_JUDGE
            )
            same = ["assignment__item"]
            chosen = _agreed(chosen, peers, same, "best", self.min_agreement)
        return chosen

    def ratings(self) -> RatingQuerySet:
        chosen = Rating.objects.counted(imported=True).filter(self._about())
        if self.dimensions:
            kept = Q(dimension__in=self._dimensions())
            if USABLE in self.dimensions:
                kept |= Q(dimension__isnull=True)
            chosen = chosen.filter(kept)
        if self.min_agreement is not None:
            same = ["assignment__item", "candidate"]
            chosen = _agreed(
                chosen, Rating.objects.counted(imported=True), same, "value", self.min_agreement
            )
        return chosen

    def _dimensions(self) -> list[Dimension]:
        return _found(Dimension, "slug", [slug for slug in self.dimensions if slug != USABLE])

    def _about(self) -> Q:
        """What judgments and ratings are chosen by in the same way."""
        chosen = Q()
        if self.campaigns:
            found = [_campaign(name) for name in self.campaigns]
            chosen &= Q(assignment__item__campaign__in=found)
        if self.tasks:
            chosen &= Q(set__source__task__in=_found(Task, "slug", self.tasks))
        if self.projects:
            chosen &= Q(set__source__project__in=_found(Project, "slug", self.projects))
        if self.splits:
            _require("split", self.splits, Split.values)
            chosen &= Q(set__source__split__in=self.splits)
        if self.origins:
            _require("origin", self.origins, list(Origin))
            chosen &= _of_origins(self.origins)
        if self.since is not None:
            chosen &= Q(created_at__gte=_moment(self.since))
        if self.until is not None:
            ends = "lte" if isinstance(self.until, datetime) else "lt"
            chosen &= Q(**{f"created_at__{ends}": _moment(self.until, days=1)})
        return chosen


def _of_origins(origins: Sequence[str]) -> Q:
    """As `origin_of` says."""
    campaign = "assignment__item__campaign__"
    chosen = Q(pk__in=[])
    for origin in origins:
        if origin == Origin.SIMULATED:
            chosen |= Q(**{f"{campaign}simulated": True})
        else:
            chosen |= Q(**{f"{campaign}simulated": False, f"{campaign}origin": origin})
    return chosen


def _moment(when: date, *, days: int = 0) -> datetime:
    """The moment itself; of a day, its beginning or that of so many days later."""
    if isinstance(when, datetime):
        return when if timezone.is_aware(when) else timezone.make_aware(when)
    return timezone.make_aware(datetime.combine(when + timedelta(days=days), time.min))


def _agreed(
    rows: QuerySet[Any], peers: QuerySet[Any], same: Sequence[str], answer: str, share: float
) -> Any:
    """Those of `rows` where so many of the peers who were asked the same gave one answer."""
    if not 0 <= share <= 1:
        raise DatasetError(f"The least agreement is a share between 0 and 1, not {share:g}.")
    # A rating of whether a candidate is usable is about no dimension.
    about = Coalesce(OuterRef("dimension_id"), Value(0))
    peers = peers.order_by().alias(about=Coalesce("dimension_id", Value(0))).filter(about=about)
    peers = peers.filter(**{key: OuterRef(key) for key in same})
    most = peers.values(answer).annotate(n=Count("pk")).order_by("-n").values("n")[:1]
    everybody = peers.values("set").annotate(n=Count("pk")).values("n")
    agreed = Cast(Subquery(most), FloatField()) / Cast(Subquery(everybody), FloatField())
    # A share such as 2/3 is not to fail for its last digit.
    return rows.alias(agreed=agreed).filter(agreed__gte=share - 1e-9)


def _campaign(name: str) -> Campaign:
    try:
        return campaigns.named(name)
    except Refused as error:
        raise DatasetError(error.message) from None


def _found(model: type[Model], key: str, names: Iterable[str]) -> list[Any]:
    rows = {
        getattr(row, key): row for row in model._default_manager.filter(**{f"{key}__in": names})
    }
    kind = str(model._meta.verbose_name)
    for name in names:
        if name not in rows:
            there = model._default_manager.values_list(key, flat=True).order_by(key)
            raise _unknown(kind, name, there)
    return list(rows.values())


def _require(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise _unknown(kind, name, known)


def _unknown(kind: str, name: str, there: Iterable[Any]) -> DatasetError:
    known = ", ".join(f"“{one}”" for one in there) or "none yet"
    return DatasetError(f"There is no {kind} “{name}”. There are: {known}.")
