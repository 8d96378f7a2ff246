"""Which campaigns have all the answers they asked for, and telling so once."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from annotation.campaigns import tell
from annotation.models import Assignment, Campaign, Item
from generation.models import CandidateSet


def note() -> int:
    """Mark open campaigns that are completed; how many are new. Safe to run at any time."""
    campaigns = Campaign.objects.open()
    campaigns.filter(~complete(), completed_at__isnull=False).update(completed_at=None)
    found = 0
    for campaign in campaigns.filter(complete(), completed_at=None):
        with transaction.atomic():
            mine = Campaign.objects.filter(pk=campaign.pk, completed_at=None)
            if mine.update(completed_at=timezone.now()) == 1:
                tell("completed", campaign)
                found += 1
    return found


def complete() -> Exists:
    """Whether the outer campaign has sets, each judged as often as asked, none of them still held.

    Sets that could not be made are nobody's work.
    """
    items = Item.objects.filter(campaign=OuterRef("pk"))
    waiting = items.filter(full=False).exclude(set__state=CandidateSet.State.FAILED)
    held: QuerySet[Assignment] = Assignment.objects.filter(
        item__campaign=OuterRef("pk"),
        kind=Assignment.Kind.WORK,
        state=Assignment.State.OPEN,
    )
    mine = Campaign.objects.filter(pk=OuterRef("pk"))
    return Exists(mine.filter(Exists(items), ~Exists(waiting), ~Exists(held)))
