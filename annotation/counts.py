"""How much of a campaign is judged, and what a person did today."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from django.core.cache import cache
from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from annotation.models import Assignment, Campaign, Gold, Item
from generation.models import CandidateSet

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Assignment.State
Kind = Assignment.Kind
DONE = [State.SUBMITTED, State.SKIPPED, State.LATE]
T = TypeVar("T")
SHARE_SECONDS = 10
QUICK_SECONDS = 0.03  # what a request may spend on counting
SLOW_SECONDS = 0.3  # what a page counts itself for, again and again


def judged_share(campaign: Campaign) -> tuple[int, int]:
    """Submitted turns, and turns that the campaign asks for in all."""
    done = Assignment.objects.filter(item__campaign=campaign, state=State.SUBMITTED, kind=Kind.WORK)
    done = done.exclude(set__state=CandidateSet.State.WITHDRAWN)
    never = [CandidateSet.State.FAILED, CandidateSet.State.WITHDRAWN]
    items = to_judge(campaign).exclude(set__state__in=never).count()
    return done.count(), items * campaign.overlap


def to_judge(campaign: Campaign) -> QuerySet[Item]:
    """The campaign's items without its practice sets, whose answers everybody has seen."""
    practised = Gold.objects.filter(set=OuterRef("set"), practice=True)
    return campaign.items.filter(~Exists(practised))


@dataclass(frozen=True)
class Share:
    done: int
    wanted: int
    people: int  # who hold turns at this moment


def recent_share(campaign: Campaign) -> Share:
    """`judged_share` as it was a moment ago."""
    return recent(_share_key(campaign), lambda: _share(campaign))


def recent_figures(campaign: Campaign) -> tuple[int, int, int]:
    """Submitted and wanted turns, and how many people have submitted any."""

    def count() -> tuple[int, int, int]:
        turns = Assignment.objects.filter(item__campaign=campaign, state=State.SUBMITTED)
        return *judged_share(campaign), turns.values("annotator").distinct().count()

    return recent(f"campaign-figures-{campaign.pk}", count, kept_from=SLOW_SECONDS)


def recent(key: str, count: Callable[[], T], *, kept_from: float = 0.0) -> T:
    """What `count` gave a moment ago.

    Where counting takes long, as among a million items, nobody waits for it but the first: later
    ones get the last figures, and new ones are counted beside. What took less than `kept_from`
    seconds is counted anew each time.
    """
    found: tuple[T, float, float] | None = cache.get(key)
    if found is None:
        return _counted(key, count, kept_from)
    value, at, took = found
    if time.monotonic() - at < max(SHARE_SECONDS, 100 * took):
        return value
    if took < QUICK_SECONDS:
        return _counted(key, count, kept_from)
    if cache.add(f"{key}-counting", True, 60):
        Thread(target=_count_beside, args=(key, count, kept_from), daemon=True).start()
    return value


def _share_key(campaign: Campaign) -> str:
    return f"judged-share-{campaign.pk}"


def _share(campaign: Campaign) -> Share:
    holding = Assignment.objects.filter(item__campaign=campaign, state=State.OPEN)
    people = holding.values("annotator").distinct().count()
    return Share(*judged_share(campaign), people)


def _counted(key: str, count: Callable[[], T], kept_from: float) -> T:
    began = time.monotonic()
    value = count()
    now = time.monotonic()
    if now - began >= kept_from:
        cache.set(key, (value, now, now - began), 3600)
    return value


def _count_beside(key: str, count: Callable[[], Any], kept_from: float) -> None:
    try:
        _counted(key, count, kept_from)
    finally:
        cache.delete(f"{key}-counting")
        connection.close()  # this thread's own


def midnight() -> datetime:
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)


def done_today(user: User, campaign: Campaign) -> int:
    """Turns that the person finished today: submitted, skipped or late."""
    return Assignment.objects.filter(
        annotator=user, item__campaign=campaign, state__in=DONE, submitted_at__gte=midnight()
    ).count()


def submitted_today(user: User, campaign: Campaign) -> int:
    return Assignment.objects.filter(
        annotator=user,
        item__campaign=campaign,
        state__in=[State.SUBMITTED, State.LATE],
        submitted_at__gte=midnight(),
    ).count()
