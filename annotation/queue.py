"""Handing out work: each item of a campaign goes to as many people as its overlap asks, once each.

A turn (`Assignment`) holds one of the item's slots under a lease. One statement finds the next free
items, passing over those that others are taking at this moment, and stores the turns; the database
gives the slots. What it costs does not grow with the queue: it reads one index of the items that
are not full, from where this person was last. Work that was given back stands in front.

Beside work a person gets sets whose answer is known (gold) and sets they have judged before
(repeats), at the campaign's rates, without being told.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef
from django.dispatch import Signal
from django.utils import timezone

from annotation import prepared
from annotation.campaigns import admits, draw_order
from annotation.counts import midnight
from annotation.models import Assignment, Campaign, Gold, Item, Seat
from annotation.one_commit import again_after_deadlock, part
from generation.access import includes
from generation.models import CandidateSet, Role

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Assignment.State
Kind = Assignment.Kind
REPEAT_AFTER = 20  # turns between the first time and the repeat
BALANCED = 100  # of a person's turns, open ones and the last: their sides are kept in balance
RENEW_AFTER = 0.05  # of a lease


# Claiming ---------------------------------------------------------------------------------------


def claim(*, user: User, campaign: Campaign) -> Assignment | None:
    """The person's oldest unfinished turn, with its lease renewed, or a new one."""
    held = claim_ahead(user=user, campaign=campaign, wanted=1)
    return _turn(held[0]) if held else None


@again_after_deadlock
def claim_ahead(*, user: User, campaign: Campaign, wanted: int, spare: int = 0) -> list[int]:
    """Ids of the person's unfinished turns, oldest first, filled up to `wanted`.

    As long as no more than `spare` are missing none is added: several at once cost less than one by
    one. All hold for at least 95 % of the campaign's lease from now on.
    """
    for patience in ("no wait", "wait"):
        with part():
            place = _lock_place(user, campaign)
            if place is None:
                return []
            held = list(place.held)
            missing = min(wanted - len(held), place.left_today - len(held))
            if held and missing <= spare:
                _renew(place)
                break
            if missing > 0 and patience == "wait":
                expire_leases(campaign)
                held += _revive(place, missing)
                missing = min(wanted, place.left_today) - len(held)
            if missing > 0:
                held += _add_turns(place, missing, wait=patience == "wait")
        if held:
            break
    return held


def _turn(pk: int) -> Assignment:
    return Assignment.objects.select_related("item").get(pk=pk)


@dataclass(frozen=True)
class _Place:
    """A seat as a claim needs it, read in one query."""

    seat: Seat
    campaign: Campaign
    held: list[int]  # open turns, oldest first
    until: datetime | None  # when the first of their leases ends
    today: int  # turns finished today
    ahead: int  # how much oftener pairs were shown straight than turned, of late

    @property
    def left_today(self) -> int:
        limit = self.campaign.daily_limit
        return 10**6 if limit is None else max(0, limit - self.today)


def _lock_place(user: User, campaign: Campaign) -> _Place | None:
    """The person's place if they may take work now; their claims pass here one after another."""
    found = _read_place(user, campaign)
    if found is None:
        if not admits(campaign, user):
            return None
        Seat.objects.bulk_create([Seat(campaign=campaign, user=user)], ignore_conflicts=True)
        found = _read_place(user, campaign)
        assert found is not None
    place, admitted = found
    if not admitted or _shut(place.campaign) or place.seat.paused_at is not None:
        return None
    if must_practise(place.campaign, place.seat):
        return None
    return place


def must_practise(campaign: Campaign, seat: Seat | None) -> bool:
    passed = seat is not None and seat.practice_passed_at is not None
    rated = campaign.purpose == Campaign.Purpose.RATING
    return bool(campaign.practice_sets) and not rated and not passed


# Written out for the same reason as the statement in `turns`. What admits a person is the same as
# in `campaigns.admitting`; a test holds the two against each other.
# As a join, this condition would have PostgreSQL read all items of the campaign now and then.
_HERE = """(
      SELECT i.campaign_id FROM annotation_item i WHERE i.id = a.item_id
    ) = seat.campaign_id"""
_PLACE = """
SELECT {seat}, {campaign},
  held.pks, held.until,
  CASE WHEN c.daily_limit IS NULL THEN 0 ELSE (
    SELECT count(*) FROM annotation_assignment a
    WHERE a.annotator_id = seat.user_id AND a.submitted_at >= %(midnight)s
      AND {here} AND a.kind NOT IN ('practice', 'review')
      AND a.state IN ('submitted', 'skipped', 'late')
  ) END,
  CASE WHEN c.purpose <> 'comparison' THEN 0 ELSE (
    SELECT coalesce(sum(CASE WHEN left_one < right_one THEN 1 ELSE -1 END), 0)
    FROM (
      SELECT a."order"->0 AS left_one, a."order"->1 AS right_one
      FROM annotation_assignment a
      WHERE a.annotator_id = seat.user_id AND a.kind = 'work' AND a.state <> 'expired'
        AND {here}
      ORDER BY a.submitted_at DESC LIMIT {balanced}
    ) recent
  ) END,
  (%(everywhere)s::boolean OR EXISTS (
    SELECT 1 FROM generation_membership m
    WHERE m.user_id = seat.user_id AND m.project_id = c.project_id
      AND m.role = ANY(%(roles)s::text[])
  )) AND (
    EXISTS (SELECT 1 FROM annotation_campaign_members x
            WHERE x.campaign_id = c.id AND x.user_id = seat.user_id)
    OR EXISTS (SELECT 1 FROM annotation_campaign_groups x
               JOIN auth_user_groups g ON g.group_id = x.group_id
               WHERE x.campaign_id = c.id AND g.user_id = seat.user_id)
    OR NOT (EXISTS (SELECT 1 FROM annotation_campaign_members x WHERE x.campaign_id = c.id)
            OR EXISTS (SELECT 1 FROM annotation_campaign_groups x WHERE x.campaign_id = c.id))
  )
FROM annotation_seat seat JOIN annotation_campaign c ON c.id = seat.campaign_id
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(a.id ORDER BY a.id), '{{}}') AS pks, min(a.lease_until) AS until
  FROM annotation_assignment a
  WHERE a.annotator_id = seat.user_id AND a.state = 'open' AND {here}
    AND a.kind NOT IN ('practice', 'review')
) held
WHERE seat.campaign_id = %(campaign)s AND seat.user_id = %(user)s
FOR NO KEY UPDATE OF seat
"""


def _read_place(user: User, campaign: Campaign) -> tuple[_Place, bool] | None:
    query, columns = _place_statement()
    values: dict[str, Any] = {
        "campaign": campaign.pk,
        "user": user.pk,
        "midnight": midnight(),
        "everywhere": user.is_superuser or user.is_staff,
        "roles": [role.value for role in Role if includes(role, Role.ANNOTATOR)],
    }
    with connection.cursor() as cursor:
        prepared.execute(cursor, query, values)
        row = cursor.fetchone()
    if row is None:
        return None
    at, end = len(columns[Seat]), len(columns[Seat]) + len(columns[Campaign])
    seat = Seat.from_db("default", [f.attname for f in columns[Seat]], row[:at])
    found = Campaign.from_db("default", [f.attname for f in columns[Campaign]], row[at:end])
    held, until, today, ahead, admitted = row[end:]
    return _Place(seat, found, list(held), until, today, ahead), admitted


@cache
def _place_statement() -> tuple[str, dict[Any, list[Any]]]:
    columns: dict[Any, list[Any]] = {
        model: list(model._meta.concrete_fields) for model in (Seat, Campaign)
    }
    query = _PLACE.format(
        seat=", ".join(f'seat."{field.column}"' for field in columns[Seat]),
        campaign=", ".join(f'c."{field.column}"' for field in columns[Campaign]),
        balanced=BALANCED,
        here=_HERE,
    )
    return query, columns


def _shut(campaign: Campaign) -> bool:
    over = campaign.deadline is not None and campaign.deadline <= timezone.now()
    return campaign.state != Campaign.State.OPEN or over


def _add_turns(place: _Place, wanted: int, *, wait: bool) -> list[int]:
    campaign, draw = place.campaign, random.SystemRandom()
    added = []
    for _turn_number in range(wanted):
        known = None
        if campaign.gold_rate and draw.random() < campaign.gold_rate:
            known = _gold(place)
        elif campaign.repeat_rate and draw.random() < campaign.repeat_rate:
            known = _repeat(place)
        if known is not None:
            added.append(known)
    return added + _add_work(place, wanted - len(added), wait=wait)


# Items are locked here before turns, elsewhere turns before items: so turns that somebody else is
# changing are not waited for, only not renewed.
# The three stages of looking: what was given back; what comes after the place where this person was
# last; what lies before it. Each looks for what the stages before did not find.
_FREE = """
  SELECT i.id, i.set_id, i.shown, i.position
  FROM annotation_item i
  JOIN generation_candidateset s ON s.id = i.set_id AND s.state = 'ready'
  WHERE i.campaign_id = %(campaign)s AND NOT i."full" AND {where}
    AND NOT EXISTS (
      SELECT 1 FROM annotation_assignment a
      WHERE a.item_id = i.id AND a.annotator_id = %(user)s
    )
    AND NOT EXISTS (SELECT 1 FROM annotation_gold g WHERE g.set_id = i.set_id AND g.practice)
  ORDER BY i.position, i.id LIMIT {limit}
  FOR NO KEY UPDATE OF i {locked}
"""
_CLAIM = """
WITH front AS ({front}), fresh AS ({fresh}), passed AS ({passed}),
picked AS (
  SELECT *, row_number() OVER (ORDER BY stage, position) AS n FROM (
    SELECT 1 AS stage, * FROM front
    UNION ALL SELECT 2, * FROM fresh
    UNION ALL SELECT 3, * FROM passed
  ) found
),
moved AS (
  UPDATE annotation_seat SET position = last.position
  FROM (SELECT position FROM picked WHERE stage > 1 ORDER BY n DESC LIMIT 1) last
  WHERE annotation_seat.id = %(seat)s
),
renewed AS (
  UPDATE annotation_assignment SET lease_until = %(until)s WHERE id IN (
    SELECT id FROM annotation_assignment
    WHERE id = ANY(%(held)s::bigint[]) AND lease_until < %(due)s
    FOR NO KEY UPDATE SKIP LOCKED
  )
)
INSERT INTO annotation_assignment
  (item_id, set_id, annotator_id, kind, "order", state, lease_until, skip_reason, comment,
   created_at)
SELECT p.id, p.set_id, %(user)s::int, 'work', (
    SELECT jsonb_agg(c.index ORDER BY
      CASE WHEN %(sides)s::boolean THEN c.index * (%(flips)s::int[])[p.n] ELSE random() END)
    FROM generation_candidate c
    WHERE c.set_id = p.set_id AND (p.shown = '[]' OR p.shown @> to_jsonb(c.index))
  ), 'open', %(until)s, '', '', %(now)s
FROM picked p ORDER BY p.n
RETURNING id
"""


@cache
def _claim_statement(*, wait: bool) -> str:
    def free(where: str, limit: str) -> str:
        return _FREE.format(where=where, limit=limit, locked="" if wait else "SKIP LOCKED")

    return _CLAIM.format(
        front=free(f"i.position < {Item.START}", "%(wanted)s"),
        fresh=free(
            f"i.position >= {Item.START} AND i.position > %(position)s",
            "(SELECT %(wanted)s - count(*) FROM front)",
        ),
        passed=free(
            f"i.position >= {Item.START} AND i.position <= %(position)s",
            "(SELECT %(wanted)s - (SELECT count(*) FROM front) - (SELECT count(*) FROM fresh))",
        ),
    )


def _add_work(place: _Place, wanted: int, *, wait: bool) -> list[int]:
    if wanted <= 0:
        return []
    now = timezone.now()
    comparison = place.campaign.purpose == Campaign.Purpose.COMPARISON
    values: dict[str, Any] = {
        "campaign": place.campaign.pk,
        "user": place.seat.user_id,
        "seat": place.seat.pk,
        "position": place.seat.position,
        "wanted": wanted,
        "held": prepared.array(place.held),
        "sides": comparison,
        "flips": prepared.array(_sides(place, wanted) if comparison else [1]),
        "now": now,
        "until": _until(place, now),
        "due": _renewed_before(place, now),
    }
    with connection.cursor() as cursor:
        prepared.execute(cursor, _claim_statement(wait=wait), values)
        return [pk for (pk,) in cursor.fetchall()]


def _sides(place: _Place, wanted: int) -> list[int]:
    """For each new pair 1 (first candidate on the left) or -1, in balance for this person."""
    ahead, flips = place.ahead, []
    for _number in range(wanted):
        flip = random.SystemRandom().choice([1, -1]) if ahead == 0 else (-1 if ahead > 0 else 1)
        flips.append(flip)
        ahead += flip
    return flips


def _revive(place: _Place, wanted: int) -> list[int]:
    """This person's turns that ran out and that nobody else took up, when nothing else is left."""
    mine = Assignment.objects.filter(
        annotator=place.seat.user_id, item__campaign=place.campaign, item__full=False
    )
    expired = mine.filter(kind=Kind.WORK, state=State.EXPIRED, submitted_at=None)
    expired = expired.exclude(set__state=CandidateSet.State.WITHDRAWN)
    expired = expired.order_by("pk")[:wanted]
    return [turn.pk for turn in expired if reopen(turn, place.campaign)]


def _renew(place: _Place) -> None:
    now = timezone.now()
    due = _renewed_before(place, now)
    if place.until is not None and place.until < due:
        old = Assignment.objects.filter(pk__in=place.held, lease_until__lt=due)
        old.update(lease_until=_until(place, now))


def _until(place: _Place, now: datetime) -> datetime:
    return now + timedelta(seconds=place.campaign.lease_seconds)


def _renewed_before(place: _Place, now: datetime) -> datetime:
    """Leases that end later than this are as good as new: written anew, two dozen with every
    judgment, they would cost more than the judgment."""
    return now + timedelta(seconds=(1 - RENEW_AFTER) * place.campaign.lease_seconds)


# Gold and repeats -------------------------------------------------------------------------------


def _gold(place: _Place) -> int | None:
    """A turn at a set whose answer is known and which this person has not seen here."""
    known = Gold.objects.filter(set=OuterRef("set"), practice=False)
    mine = Assignment.objects.filter(item=OuterRef("pk"), annotator=place.seat.user_id)
    free = Item.objects.filter(
        Exists(known),
        ~Exists(mine.exclude(state=State.EXPIRED)),
        campaign=place.campaign.pk,
        set__state=CandidateSet.State.READY,
    )
    item = free.order_by("?").first()
    return _store(place, item, Kind.GOLD) if item else None


def _repeat(place: _Place) -> int | None:
    """A turn at a set that this person judged a while ago and has not been asked about again."""
    mine = Assignment.objects.filter(annotator=place.seat.user_id, item__campaign=place.campaign.pk)
    again = mine.filter(item=OuterRef("item"), kind=Kind.REPEAT).exclude(state=State.EXPIRED)
    earlier = list(
        mine.filter(~Exists(again), kind=Kind.WORK, state=State.SUBMITTED)
        .order_by("-submitted_at")
        .values_list("item", flat=True)[REPEAT_AFTER : REPEAT_AFTER + 100]
    )
    if not earlier:
        return None
    item = Item.objects.get(pk=random.SystemRandom().choice(earlier))
    return _store(place, item, Kind.REPEAT)


def _store(place: _Place, item: Item, kind: str) -> int:
    return Assignment.objects.create(
        item=item,
        set_id=item.set_id,
        annotator_id=place.seat.user_id,
        kind=kind,
        slot=0,
        order=draw_order(item),
        lease_until=_until(place, timezone.now()),
    ).pk


# Giving back ------------------------------------------------------------------------------------


leases_expired = Signal()  # with their `count`


def expire_leases(campaign: Campaign | None = None) -> int:
    """End the turns whose lease ran out and put their items in front; returns how many."""
    due = Assignment.objects.filter(state=State.OPEN, lease_until__lte=timezone.now())
    due = due.exclude(kind=Kind.REVIEW)
    if campaign is not None:
        due = due.filter(item__campaign=campaign)
    with transaction.atomic():
        rows = due.select_for_update(skip_locked=True, of=("self",)).values_list("pk", "item")
        found = list(rows.order_by("pk"))
        # In one order, so that two who do this at once cannot block each other.
        items = Item.objects.filter(pk__in=[item for _pk, item in found]).order_by("pk")
        list(items.select_for_update(no_key=True).values_list("pk"))
        Assignment.objects.filter(pk__in=[pk for pk, _item in found]).update(state=State.EXPIRED)
        to_the_front([item for _pk, item in found])
        if found:
            leases_expired.send(sender=Assignment, count=len(found))
    return len(found)


def to_the_front(items: list[int]) -> None:
    """Hand these items out before all others."""
    Item.objects.filter(pk__in=items, position__gt=1 - Item.RETURNED).update(
        position=F("position") - Item.RETURNED
    )


def reopen(turn: Assignment, campaign: Campaign) -> bool:
    """Give a turn back to its person; False when its item has no slot left for it."""
    values: dict[str, Any] = {
        "state": State.OPEN,
        "skip_reason": "",
        "submitted_at": None,
        "lease_until": timezone.now() + timedelta(seconds=campaign.lease_seconds),
    }
    if turn.state not in {State.OPEN, State.SUBMITTED} and turn.kind == Kind.WORK:
        values["slot"] = None  # the database gives one, or leaves the row as it is
    if not Assignment.objects.filter(pk=turn.pk).update(**values):
        return False
    turn.refresh_from_db(fields=["slot", *values])
    return True
