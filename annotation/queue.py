"""Handing out work: each set of a campaign goes to as many people as its overlap asks, once each.

A turn (`Assignment`) holds one of the item's slots under a lease. An item is locked while a slot of
it is given away, so that claimers at the same moment get different items or different slots; the
unique constraints on (item, slot) and (item, annotator) stand behind that.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.db.models import Count, Exists, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.formats import date_format

from annotation.campaigns import admits
from annotation.models import Assignment, Campaign, Item
from generation.models import CandidateSet

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Assignment.State


def claim(*, user: User, campaign: Campaign) -> Assignment | None:
    """The person's unfinished turn, with its lease renewed, or a turn at the next free item."""
    if campaign.state != Campaign.State.OPEN or not admits(campaign, user):
        return None
    now = timezone.now()
    lease_until = now + timedelta(seconds=campaign.lease_seconds)
    with transaction.atomic():
        _one_claim_at_a_time(user, campaign)
        held = _held(user, campaign).select_for_update(of=("self",)).order_by("pk").first()
        if held is not None:
            held.lease_until = lease_until
            held.save(update_fields=["lease_until"])
            return held
        full: set[int] = set()
        while (item := _lock_next(user, campaign, now, full)) is not None:
            slot = _take_slot(item, campaign, now)
            if slot is None:
                full.add(item.pk)
                continue
            return Assignment.objects.create(
                item=item,
                set_id=item.set_id,
                annotator=user,
                slot=slot,
                order=_display_order(item),
                lease_until=lease_until,
            )
    return None


def upcoming(*, user: User, campaign: Campaign, after: Assignment) -> Item | None:
    """The item this person will probably get next, so that its pictures can be there already."""
    held = _held(user, campaign).exclude(pk=after.pk).order_by("pk").first()
    if held is not None:
        return held.item
    return _free(user, campaign, timezone.now(), [after.item_id]).first()


def _one_claim_at_a_time(user: User, campaign: Campaign) -> None:
    # Two tabs of one person get the same turn rather than two turns.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s::int, %s::int)", [campaign.pk, user.pk])


def _held(user: User, campaign: Campaign) -> QuerySet[Assignment]:
    # An open turn whose lease ran out is still this person's until somebody else needs the slot.
    return Assignment.objects.filter(
        annotator=user, item__campaign=campaign, state=State.OPEN
    ).select_related("item")


def _live(now: datetime) -> Q:
    return Q(state=State.SUBMITTED) | Q(state=State.OPEN, lease_until__gt=now)


def _free(
    user: User, campaign: Campaign, now: datetime, without: Collection[int] = ()
) -> QuerySet[Item]:
    turns = Assignment.objects.filter(item=OuterRef("pk"))
    taken = turns.filter(_live(now)).order_by().values("item").annotate(n=Count("pk")).values("n")
    return (
        Item.objects.filter(campaign=campaign, set__state=CandidateSet.State.READY)
        .exclude(pk__in=without)
        .filter(~Exists(turns.filter(annotator=user).exclude(state=State.EXPIRED)))
        .alias(taken=Coalesce(Subquery(taken, output_field=IntegerField()), 0))
        .filter(taken__lt=campaign.overlap)
        .order_by("position", "pk")
    )


def _lock_next(user: User, campaign: Campaign, now: datetime, full: Collection[int]) -> Item | None:
    free = _free(user, campaign, now, full)
    # Items that others are claiming at this moment are passed over; only when nothing else is left
    # is it worth waiting for one of them, which may still have a slot.
    return (
        free.select_for_update(skip_locked=True, no_key=True, of=("self",)).first()
        or free.select_for_update(no_key=True, of=("self",)).first()
    )


def _take_slot(item: Item, campaign: Campaign, now: datetime) -> int | None:
    # Read again under the lock: another claimer may have committed since the item was chosen.
    turns = Assignment.objects.filter(item=item)
    turns.filter(state=State.OPEN, lease_until__lte=now).update(state=State.EXPIRED)
    taken = set(
        turns.filter(state__in=[State.OPEN, State.SUBMITTED]).values_list("slot", flat=True)
    )
    return next((slot for slot in range(campaign.overlap) if slot not in taken), None)


def _display_order(item: Item) -> list[int]:
    indexes = list(item.set.candidates.order_by("index").values_list("index", flat=True))
    return random.SystemRandom().sample(indexes, len(indexes))


@dataclass(frozen=True)
class Empty:
    """Why there is nothing to hand out, and what to do about it."""

    code: str
    reason: str
    remedy: str


def why_empty(*, user: User, campaign: Campaign) -> Empty:
    if campaign.state != Campaign.State.OPEN:
        return _not_open(campaign)
    if not admits(campaign, user):
        return Empty(
            "member",
            f"“{campaign}” has a list of members and you are not on it.",
            "Ask the person who runs it to add you.",
        )
    if not campaign.items.exists():
        return Empty(
            "no_items", f"“{campaign}” has no candidate sets yet.", "Come back when some are made."
        )
    now = timezone.now()
    turns = Assignment.objects.filter(item__campaign=campaign)
    unfinished = (
        campaign.items.filter(set__state=CandidateSet.State.READY)
        .alias(n=Count("assignments", filter=Q(assignments__state=State.SUBMITTED)))
        .filter(n__lt=campaign.overlap)
        .values("pk")
    )
    left = unfinished.count()
    if not left:
        return _nothing_left(campaign)
    mine = turns.filter(annotator=user, item__in=unfinished).exclude(state=State.EXPIRED)
    held = (
        turns.filter(item__in=unfinished, state=State.OPEN, lease_until__gt=now)
        .exclude(item__in=mine.values("item"))
        .order_by("lease_until")
        .first()
    )
    if held is not None:
        until = date_format(timezone.localtime(held.lease_until), "H:i")
        return Empty(
            "held",
            f"Other people hold what is left; the first turn runs out at {until}.",
            f"Try again after {until}, or take another campaign.",
        )
    sets = "set still needs" if left == 1 else "sets still need"
    return Empty(
        "limit",
        f"You have had every set. {left} {sets} somebody else’s eyes.",
        "Nothing is left for you here; take another campaign.",
    )


def _nothing_left(campaign: Campaign) -> Empty:
    pending = campaign.items.filter(set__state=CandidateSet.State.DRAWN).count()
    if pending:
        sets = "set is" if pending == 1 else "sets are"
        return Empty(
            "pending",
            f"{pending} {sets} still being made.",
            "Reload this page in a minute. If nothing comes, the generation worker may be down.",
        )
    return Empty("done", "Every set has all its judgments.", "The work here is done. Thank you!")


def _not_open(campaign: Campaign) -> Empty:
    if campaign.state == Campaign.State.PAUSED:
        return Empty(
            "paused",
            f"“{campaign}” is paused. What you submitted is kept.",
            "Wait until it is opened again, or take another campaign.",
        )
    if campaign.state == Campaign.State.CLOSED:
        return Empty("closed", f"“{campaign}” is closed.", "Take another campaign.")
    return Empty("draft", f"“{campaign}” has not been opened yet.", "Take another campaign.")


def judged_share(campaign: Campaign) -> tuple[int, int]:
    """Submitted turns, and turns that the campaign asks for in all."""
    done = Assignment.objects.filter(item__campaign=campaign, state=State.SUBMITTED).count()
    items = campaign.items.exclude(set__state=CandidateSet.State.FAILED).count()
    return done, items * campaign.overlap


def submitted_today(user: User, campaign: Campaign) -> int:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return Assignment.objects.filter(
        annotator=user,
        item__campaign=campaign,
        state=State.SUBMITTED,
        submitted_at__gte=midnight,
    ).count()


def reopen(turn: Assignment, campaign: Campaign) -> bool:
    """Give a finished turn back to its person; False when its item has no slot left for it."""
    item = Item.objects.select_for_update(no_key=True).get(pk=turn.item_id)
    if turn.state != State.SUBMITTED:
        slot = _take_slot(item, campaign, timezone.now())
        if slot is None:
            return False
        turn.slot = slot
    turn.state = State.OPEN
    turn.skip_reason = ""
    turn.submitted_at = None
    turn.lease_until = timezone.now() + timedelta(seconds=campaign.lease_seconds)
    turn.save(update_fields=["slot", "state", "skip_reason", "submitted_at", "lease_until"])
    return True
