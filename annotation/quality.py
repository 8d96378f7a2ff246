"""Acting on quality: pausing people who answer known sets wrongly, and redoing their recent work.

Nothing here deletes: withdrawn judgments and expired turns stay, and a requeue can be undone for as
long as nobody else has taken the places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Count, F, Min, QuerySet
from django.utils import timezone

from annotation import queue
from annotation.annotators import Share
from annotation.models import Assignment, Campaign, Gold, Item, Judgment, Seat

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Assignment.State
Kind = Assignment.Kind
BATCH = 2000


# Pausing ----------------------------------------------------------------------------------------


def gold_share(campaign: Campaign, user_id: int, since: datetime | None = None) -> Share:
    """A person's points on known answers, half for the best and half for the worst.

    An answer is one dimension of one gold turn; "no difference" and "can't judge" are wrong.
    """
    said = Judgment.objects.current().filter(
        assignment__item__campaign=campaign,
        assignment__annotator=user_id,
        assignment__kind=Kind.GOLD,
        assignment__state=State.SUBMITTED,
    )
    if since is not None:
        said = said.filter(assignment__submitted_at__gt=since)
    answers = list(
        said.values_list(
            "set", "dimension", "best", "worst", "best__index", "worst__index", "assignment__order"
        )
    )
    golds = Gold.objects.filter(set__in={row[0] for row in answers}, practice=False)
    known = {
        (gold.set_id, gold.dimension_id): gold for gold in golds.select_related("best", "worst")
    }
    points, n = 0.0, 0
    for set_id, dimension, best, worst, _best, _worst, order in answers:
        gold = known.get((set_id, dimension))
        # A known answer about a candidate that was not shown cannot be given.
        if gold is None or not {gold.best.index, gold.worst.index} <= set(order):
            continue
        points += 0.5 * (best == gold.best_id) + 0.5 * (worst == gold.worst_id)
        n += 1
    return Share(points, n)


def after_gold(*, assignment: Assignment) -> bool:
    """Pause the person if this answer brings them below the threshold; whether it did."""
    campaign = assignment.item.campaign
    if campaign.pause_below is None:
        return False
    return _pause_if_unreliable(campaign, assignment.annotator_id)


def own_gold(user: User) -> list[tuple[Campaign, Share]]:
    """A person's share on the known answers, of the campaigns that show it to people."""
    shown = Campaign.objects.filter(
        show_gold=True, items__assignments__annotator=user, items__assignments__kind=Kind.GOLD
    )
    found = [(campaign, gold_share(campaign, user.pk)) for campaign in shown.distinct()]
    return [(campaign, share) for campaign, share in found if share.known]


def pause_unreliable(campaign: Campaign) -> list[Seat]:
    """Pause everyone who is below the campaign's threshold; the seats that were paused now."""
    if campaign.pause_below is None:
        return []
    people = (
        Assignment.objects.filter(item__campaign=campaign, kind=Kind.GOLD, state=State.SUBMITTED)
        .order_by("annotator")
        .values_list("annotator", flat=True)
        .distinct()
    )
    paused = [user for user in people if _pause_if_unreliable(campaign, user)]
    return list(Seat.objects.filter(campaign=campaign, user__in=paused).select_related("user"))


def _pause_if_unreliable(campaign: Campaign, user_id: int) -> bool:
    assert campaign.pause_below is not None
    seat = Seat.objects.filter(campaign=campaign, user=user_id).first()
    if seat is not None and seat.paused_at is not None:
        return False
    share = gold_share(campaign, user_id, seat.resumed_at if seat else None)
    if share.n < max(1, campaign.pause_after) or share.value >= campaign.pause_below:
        return False
    # Stored, and read by others than whose request this is: not in that person's language.
    reason = (
        f"{100 * share.value:.0f} % right on {share.n} known answers; "
        f"this campaign asks for {100 * campaign.pause_below:.0f} %."
    )
    return pause(campaign=campaign, user_id=user_id, reason=reason)


def pause(*, campaign: Campaign, user_id: int, reason: str) -> bool:
    """Stop handing out work to a person; False when they were paused already."""
    with transaction.atomic():
        seat, _made = Seat.objects.get_or_create(campaign=campaign, user_id=user_id)
        paused = Seat.objects.filter(pk=seat.pk, paused_at__isnull=True).update(
            paused_at=timezone.now(), paused_reason=reason[:300]
        )
        if paused:
            _give_back(campaign, user_id)
    return paused == 1


def _give_back(campaign: Campaign, user_id: int) -> None:
    """Put the sets that the person holds in front of the queue."""
    held = Assignment.objects.filter(
        annotator=user_id, item__campaign=campaign, state=State.OPEN
    ).exclude(kind__in=[Kind.PRACTICE, Kind.REVIEW])
    items = list(held.values_list("item", flat=True))
    held.update(state=State.EXPIRED)
    queue.to_the_front(items)


def resume(*, campaign: Campaign, user_id: int) -> bool:
    """Let a person go on; what they answered before will not pause them again."""
    resumed = Seat.objects.filter(campaign=campaign, user=user_id, paused_at__isnull=False).update(
        paused_at=None, paused_reason="", resumed_at=timezone.now()
    )
    return resumed == 1


# Requeueing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Requeue:
    """What a requeue does, or did when `at` is set; `at` names it for an undo."""

    turns: int
    judgments: int
    at: datetime | None = None


def requeue_recent(
    *, campaign: Campaign, user: User, since: datetime, dry_run: bool = False
) -> Requeue:
    """Withdraw a person's work since then and put its items in front of the queue.

    Judgments become withdrawn, turns expire, and so their slots are free for somebody else.
    """
    with transaction.atomic():
        turns = Assignment.objects.filter(
            item__campaign=campaign,
            annotator=user,
            kind=Kind.WORK,
            state=State.SUBMITTED,
            submitted_at__gte=since,
        )
        if dry_run:
            standing = Judgment.objects.current().filter(assignment__in=turns)
            return Requeue(turns.count(), standing.count())
        chosen = list(turns.select_for_update(of=("self",)).order_by("pk"))
        now = timezone.now()
        keys = [turn.pk for turn in chosen]
        judgments = 0
        for batch in _batches(keys):
            judgments += (
                Judgment.objects.current()
                .filter(assignment__in=batch)
                .update(current=False, withdrawn_at=now)
            )
            # Only of items that are not in front already, so that doing it twice is the same.
            Item.objects.filter(assignments__in=batch, position__gt=1 - Item.RETURNED).update(
                position=F("position") - Item.RETURNED
            )
            Assignment.objects.filter(pk__in=batch).update(state=State.EXPIRED)
    return Requeue(len(keys), judgments, now)


@dataclass(frozen=True)
class Requeued:
    """An earlier requeue of one person's work."""

    at: datetime
    turns: int
    since: datetime


def requeues(campaign: Campaign, user: User) -> list[Requeued]:
    """The person's requeues, newest first, as far as they were not undone."""
    withdrawn = _withdrawn(campaign, user).values("withdrawn_at")
    rows = withdrawn.annotate(
        turns=Count("assignment", distinct=True), since=Min("assignment__submitted_at")
    ).order_by("-withdrawn_at")
    return [Requeued(row["withdrawn_at"], row["turns"], row["since"]) for row in rows]


def undo_requeue(*, campaign: Campaign, user: User, at: datetime) -> tuple[int, int]:
    """Give turns back to their person where a slot is still free: (given back, taken meanwhile)."""
    with transaction.atomic():
        judgments = _withdrawn(campaign, user).filter(withdrawn_at=at)
        keys = list(judgments.values_list("assignment", flat=True).distinct())
        turns = list(Assignment.objects.filter(pk__in=keys).order_by("pk"))
        # Items before turns, as the queue locks them.
        items = {turn.item_id for turn in turns}
        list(Item.objects.select_for_update(no_key=True).filter(pk__in=items).order_by("pk"))
        live = Assignment.objects.filter(item__in=items, kind=Kind.WORK)
        others: dict[int, list[Assignment]] = {}
        for other in live.exclude(state=State.EXPIRED):
            others.setdefault(other.item_id, []).append(other)
        free = [turn for turn in turns if _is_free(turn, others.get(turn.item_id, []), campaign)]
        Assignment.objects.bulk_update(free, ["slot", "state"], batch_size=BATCH)
        back = [turn.pk for turn in free]
        for batch in _batches(back):
            Judgment.objects.filter(assignment__in=batch, withdrawn_at=at).update(
                current=True, withdrawn_at=None
            )
            Item.objects.filter(assignments__in=batch, position__lte=1 - Item.RETURNED).update(
                position=F("position") + Item.RETURNED
            )
    return len(back), len(keys) - len(back)


def _withdrawn(campaign: Campaign, user: User) -> QuerySet[Judgment]:
    # A turn that merely ran out was never submitted, and one that was undone is open again.
    return Judgment.objects.filter(
        current=False,
        withdrawn_at__isnull=False,
        assignment__item__campaign=campaign,
        assignment__annotator=user,
        assignment__kind=Kind.WORK,
        assignment__state=State.EXPIRED,
        assignment__submitted_at__isnull=False,
    )


def _is_free(turn: Assignment, others: Sequence[Assignment], campaign: Campaign) -> bool:
    """Whether the turn can stand again among the others of its item; puts it into a free slot."""
    if any(other.annotator_id == turn.annotator_id for other in others):
        return False
    taken = {other.slot for other in others if other.state != State.SKIPPED}
    slots = [turn.slot, *range(campaign.overlap)]
    slot = next((s for s in slots if s not in taken and s < campaign.overlap), None)
    if slot is None:
        return False
    turn.slot, turn.state = slot, State.SUBMITTED
    return True


def _batches(keys: Sequence[int]) -> list[Sequence[int]]:
    return [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
