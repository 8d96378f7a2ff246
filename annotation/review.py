"""Deciding what annotators disagree about.

A decision is a turn of kind review with its judgments: what, who, when and why stand together. A
later decision on the same item supersedes it; the earlier turn expires, its judgments are withdrawn
and stay to be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation import judgments
from annotation.campaigns import shown_indexes
from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Assignment, Campaign, Flag, Item, Judgment

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Assignment.State
Kind = Assignment.Kind

# Per item × dimension the share of pairs of people whose best or worst differ ("can't judge" says
# nothing about it); per item the mean over its dimensions. Counted in the database: of a hundred
# thousand judgments a page shows fifty items.
DISPUTED = """
WITH answer AS (
  SELECT a.item_id, j.dimension_id, j.best_id, j.worst_id, count(*) AS n
  FROM annotation_judgment j
  JOIN annotation_assignment a ON a.id = j.assignment_id
  JOIN annotation_item i ON i.id = a.item_id
  JOIN generation_candidateset s ON s.id = i.set_id
  JOIN generation_source o ON o.id = s.source_id
  WHERE i.campaign_id = %(campaign)s AND j.current AND j.outcome <> 'cannot_judge'
    AND a.kind = 'work' AND a.state = 'submitted'
    AND (%(task)s::bigint IS NULL OR o.task_id = %(task)s)
    AND (%(dimension)s::bigint IS NULL OR j.dimension_id = %(dimension)s)
  GROUP BY a.item_id, j.dimension_id, j.best_id, j.worst_id
), question AS (
  SELECT item_id, dimension_id, sum(n) AS people,
    1 - sum(n * (n - 1)) / (sum(n) * (sum(n) - 1)) AS disagreement
  FROM answer GROUP BY item_id, dimension_id HAVING sum(n) > 1
), disputed AS (
  SELECT item_id, max(people) AS people, count(*) FILTER (WHERE disagreement > 0) AS dimensions,
    avg(disagreement) AS disagreement
  FROM question q GROUP BY item_id HAVING max(disagreement) > 0
)
SELECT item_id, people, dimensions, disagreement FROM disputed d
WHERE %(decided)s = EXISTS (
  SELECT 1 FROM annotation_assignment r
  WHERE r.item_id = d.item_id AND r.kind = 'review' AND r.state = 'submitted'
)
ORDER BY disagreement DESC, item_id
"""


@dataclass(frozen=True)
class Disputed:
    item: int
    people: int
    dimensions: int  # on which they differ
    disagreement: float  # share of pairs of people who differ, mean over dimensions


def disputed(
    campaign: Campaign,
    *,
    task: int | None = None,
    dimension: int | None = None,
    decided: bool = False,
) -> list[Disputed]:
    """The items people disagree about, worst first; those that were decided apart."""
    values = {
        "campaign": campaign.pk,
        "task": task,
        "dimension": dimension,
        "decided": decided,
    }
    with connection.cursor() as cursor:
        cursor.execute(DISPUTED, values)
        return [
            Disputed(item, int(people), dimensions, float(share))
            for item, people, dimensions, share in cursor.fetchall()
        ]


def open_flags(campaign: Campaign) -> QuerySet[Flag]:
    """Problems that nobody has dealt with, oldest first."""
    return Flag.objects.filter(
        assignment__item__campaign=campaign, resolved_at__isnull=True
    ).order_by("created_at", "pk")


def decisions(item: Item) -> QuerySet[Assignment]:
    """Every decision about the item, newest first; the one that stands is submitted."""
    return (
        Assignment.objects.filter(item=item, kind=Kind.REVIEW, submitted_at__isnull=False)
        .select_related("annotator")
        .prefetch_related("judgments__dimension", "judgments__best", "judgments__worst")
        .order_by("-submitted_at", "-pk")
    )


def standing(item: Item) -> Assignment | None:
    return decisions(item).filter(state=State.SUBMITTED).first()


def decide(
    *,
    item: Item,
    user: User,
    answers: Mapping[str, Answer],
    comment: str = "",
    submission: UUID | None = None,
    by_place: bool = False,
) -> Assignment:
    """Store a decision on some of the item's dimensions, in place of an earlier one.

    With `by_place`, answers count from the left, as the review page shows the candidates.
    The caller has made sure that the person may review. A dimension that is left out stays as the
    annotators said it.
    """
    with transaction.atomic():
        locked = Item.objects.select_for_update(no_key=True).get(pk=item.pk)
        if (found := _sent_before(locked, user, submission)) is not None:
            return found
        if not answers:
            raise Refused(
                _("No dimension was decided, so nothing was stored. Decide one, or go back.")
            )
        _supersede(locked)
        turn = Assignment.objects.create(
            item=locked,
            set_id=locked.set_id,
            annotator=user,
            kind=Kind.REVIEW,
            slot=0,
            order=shown_indexes(locked),
            lease_until=timezone.now(),
            comment=comment.strip(),
        )
        judgments.record(
            assignment=turn,
            user=user,
            answers=answers,
            submission=submission,
            by_place=by_place,
            comment=turn.comment,
        )
        turn.refresh_from_db()
    return turn


def _sent_before(item: Item, user: User, submission: UUID | None) -> Assignment | None:
    if submission is None:
        return None
    found = Assignment.objects.filter(submission=submission).first()
    if found is None:
        return None
    if (found.item_id, found.annotator_id, found.kind) != (item.pk, user.pk, Kind.REVIEW):
        raise Refused(
            _("This form was sent for another set before; nothing was stored. Send it once more.")
        )
    return found


def withdraw(*, item: Item) -> int:
    """Take the decision back: the annotators' judgments stand again. Returns how many went."""
    with transaction.atomic():
        locked = Item.objects.select_for_update(no_key=True).get(pk=item.pk)
        return _supersede(locked)


def _supersede(item: Item) -> int:
    earlier = Assignment.objects.filter(item=item, kind=Kind.REVIEW).exclude(state=State.EXPIRED)
    gone = (
        Judgment.objects.current()
        .filter(assignment__in=earlier)
        .update(current=False, withdrawn_at=timezone.now())
    )
    earlier.update(state=State.EXPIRED)
    return gone


def resolve(*, flag: Flag, user: User, note: str) -> bool:
    """Close a flag with what was done about it; False when somebody closed it before."""
    with transaction.atomic():
        now = timezone.now()
        closed = Flag.objects.filter(pk=flag.pk, resolved_at__isnull=True).update(
            resolved_at=now, resolved_by=user, note=note.strip()[:300]
        )
    return closed == 1
