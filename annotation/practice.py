"""Practice: turns at sets whose answer is known, with the answer shown after each.

A campaign's practice sets are its items whose set has an answer (`Gold`) that is marked for
practice. Practice turns are stored like all others and count for nothing but the person's pass.
Only the first answer of a turn is looked at: it was given before the right one was seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet
from django.utils import timezone

from annotation.campaigns import admits, dimensions_for, draw_order
from annotation.models import Assignment, Campaign, Dimension, Gold, Item, Judgment, Seat
from generation.models import CandidateSet

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Assignment.State
SCORES = {"right": 1.0, "half": 0.5, "wrong": 0.0}


def needed(*, user: User, campaign: Campaign) -> bool:
    """Whether this person has to pass the practice before their work counts."""
    if not campaign.practice_sets or campaign.purpose == Campaign.Purpose.RATING:
        return False
    return not Seat.objects.filter(
        campaign=campaign, user=user, practice_passed_at__isnull=False
    ).exists()


def practice_items(campaign: Campaign) -> QuerySet[Item]:
    """Items with a known answer for practice on a dimension that the campaign asks about."""
    golds = Gold.objects.filter(
        set=OuterRef("set"),
        practice=True,
        dimension__active=True,
        dimension__criteria__task=OuterRef("set__source__task"),
    )
    chosen = list(campaign.dimensions.values_list("pk", flat=True))
    if chosen:
        golds = golds.filter(dimension__in=chosen)
    return Item.objects.filter(
        Exists(golds), campaign=campaign, set__state=CandidateSet.State.READY
    )


def missing(campaign: Campaign) -> int:
    """How many practice sets the campaign asks for and does not have."""
    return max(0, campaign.practice_sets - practice_items(campaign).count())


def next_practice(*, user: User, campaign: Campaign) -> Assignment | None:
    """The person's unfinished practice turn, or a new one; never the same set twice in a row."""
    if campaign.state != Campaign.State.OPEN or not admits(campaign, user):
        return None
    lease_until = timezone.now() + timedelta(seconds=campaign.lease_seconds)
    with transaction.atomic():
        _lock_seat(user, campaign)
        turns = _turns(user, campaign)
        held = turns.filter(state=State.OPEN).order_by("pk").first()
        if held is not None:
            held.lease_until = lease_until
            held.save(update_fields=["lease_until"])
            return held
        item = _next_item(user, campaign)
        if item is None:
            return None
        return Assignment.objects.create(
            item=item,
            set_id=item.set_id,
            annotator=user,
            kind=Assignment.Kind.PRACTICE,
            slot=0,
            order=draw_order(item),
            lease_until=lease_until,
        )


def _lock_seat(user: User, campaign: Campaign) -> Seat:
    Seat.objects.get_or_create(campaign=campaign, user=user)
    return Seat.objects.select_for_update().get(campaign=campaign, user=user)


def _turns(user: User, campaign: Campaign) -> QuerySet[Assignment]:
    return Assignment.objects.filter(
        annotator=user, item__campaign=campaign, kind=Assignment.Kind.PRACTICE
    ).select_related("item")


def _next_item(user: User, campaign: Campaign) -> Item | None:
    """One of those the person has practised on least, but not the last one again."""
    mine = Q(assignments__annotator=user, assignments__kind=Assignment.Kind.PRACTICE)
    rows = list(
        practice_items(campaign)
        .annotate(times=Count("assignments", filter=mine), last=Max("assignments__pk", filter=mine))
        .order_by("pk")
    )
    latest = max((row.last or 0 for row in rows), default=0)
    fresh = [row for row in rows if not latest or row.last != latest]
    least = min((row.times for row in fresh), default=0)
    among = [row for row in fresh if row.times == least]
    return random.SystemRandom().choice(among) if among else None


# What was right -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Feedback:
    """One dimension of a practice turn; places count from the left, 1 to N."""

    name: str
    verdict: str  # right, half, wrong
    outcome: str  # what was answered: picked, no_difference, cannot_judge, or nothing
    chosen_best: int | None
    chosen_worst: int | None
    right_best: int
    right_worst: int
    explanation: str

    @property
    def score(self) -> float:
        return SCORES[self.verdict]


def feedback(assignment: Assignment) -> list[Feedback]:
    """What was chosen in a finished turn and what is right, on every dimension with an answer."""
    asked = dimensions_for(assignment.item.campaign, assignment.set.source.task)
    golds = {
        gold.dimension_id: gold
        for gold in Gold.objects.filter(
            set=assignment.set_id, practice=True, dimension__in=asked
        ).select_related("best", "worst")
    }
    first = {
        judgment.dimension_id: judgment
        for judgment in assignment.judgments.filter(revision=1).select_related("best", "worst")
    }
    places = {index: place for place, index in enumerate(assignment.order, start=1)}
    return [
        _feedback(dimension, golds[dimension.pk], first.get(dimension.pk), places)
        for dimension in asked
        if dimension.pk in golds
        # An answer about candidates that this item does not show tells nothing here.
        and {golds[dimension.pk].best.index, golds[dimension.pk].worst.index} <= set(places)
    ]


def _feedback(
    dimension: Dimension, gold: Gold, judgment: Judgment | None, places: dict[int, int]
) -> Feedback:
    best = judgment.best.index if judgment and judgment.best else None
    worst = judgment.worst.index if judgment and judgment.worst else None
    hits = (best == gold.best.index) + (worst == gold.worst.index)
    return Feedback(
        name=dimension.name,
        verdict=("wrong", "half", "right")[hits],
        outcome=judgment.outcome if judgment else "",
        chosen_best=None if best is None else places.get(best),
        chosen_worst=None if worst is None else places.get(worst),
        right_best=places[gold.best.index],
        right_worst=places[gold.worst.index],
        explanation=gold.explanation,
    )


@dataclass(frozen=True)
class Standing:
    """How a person's practice stands; `share` is of the latest turns that decide, None before."""

    done: int
    wanted: int
    share: float | None
    passed: bool

    @property
    def percent(self) -> int:
        return round(100 * (self.share or 0))


def standing(*, user: User, campaign: Campaign) -> Standing:
    """Count the latest practice turns, and note the pass once they reach the campaign's share."""
    turns = _turns(user, campaign).filter(state=State.SUBMITTED)
    done = turns.count()
    latest = turns.select_related("item__campaign", "set__source__task").order_by(
        "-submitted_at", "-pk"
    )[: campaign.practice_sets]
    scores = [row.score for turn in latest for row in feedback(turn)]
    share = sum(scores) / len(scores) if scores else None
    passed = not needed(user=user, campaign=campaign)
    if (
        not passed
        and done >= campaign.practice_sets
        and share is not None
        and share >= campaign.practice_share - 1e-9
    ):
        Seat.objects.get_or_create(campaign=campaign, user=user)
        Seat.objects.filter(campaign=campaign, user=user, practice_passed_at__isnull=True).update(
            practice_passed_at=timezone.now()
        )
        passed = True
    return Standing(done, campaign.practice_sets, share, passed)
