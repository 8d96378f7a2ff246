"""How much of a campaign is judged, and what a person did today."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import TYPE_CHECKING

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
SHARE_SECONDS = 10
QUICK_SECONDS = 0.03  # what a request may spend on counting


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
    """`judged_share` as it was a moment ago.

    Where counting takes long, as among a million items, nobody waits for it but the first: later
    ones get the last figures, and new ones are counted beside.
    """
    found: tuple[Share, float, float] | None = cache.get(_share_key(campaign))
    if found is None:
        return _count_share(campaign)
    share, at, took = found
    if time.monotonic() - at < max(SHARE_SECONDS, 100 * took):
        return share
    if took < QUICK_SECONDS:
        return _count_share(campaign)
    if cache.add(f"{_share_key(campaign)}-counting", True, 60):
        Thread(target=_count_beside, args=(campaign,), daemon=True).start()
    return share


def _share_key(campaign: Campaign) -> str:
    return f"judged-share-{campaign.pk}"


def _count_share(campaign: Campaign) -> Share:
    began = time.monotonic()
    holding = Assignment.objects.filter(item__campaign=campaign, state=State.OPEN)
    people = holding.values("annotator").distinct().count()
    share = Share(*judged_share(campaign), people)
    now = time.monotonic()
    cache.set(_share_key(campaign), (share, now, now - began), 3600)
    return share


def _count_beside(campaign: Campaign) -> None:
    try:
        _count_share(campaign)
    finally:
        cache.delete(f"{_share_key(campaign)}-counting")
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
