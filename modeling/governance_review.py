"""When a governance review is due, and writing one down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import Refused
from generation import audit
from generation.models import Verb
from modeling.models import Review, ReviewPlan, Round


@dataclass(frozen=True)
class Status:
    last: Review | None
    every_days: int  # 0: nobody is reminded
    due_at: datetime | None  # None: never, or there is nothing to look at yet

    @property
    def is_due(self) -> bool:
        return self.due_at is not None and self.due_at <= timezone.now()


def status() -> Status:
    """Due so many days after the last review, or after the first round began."""
    plan = ReviewPlan.objects.first() or ReviewPlan()
    last = Review.objects.select_related("by").first()
    first = Round.objects.order_by("created_at").first()
    since = last.at if last else first.created_at if first else None
    due_at = since + timedelta(days=plan.every_days) if since and plan.every_days else None
    return Status(last, plan.every_days, due_at)


def record(*, user: User, note: str) -> Review:
    note = note.strip()
    if not note:
        raise Refused(_("Say in a sentence what you looked at and what follows from it."))
    with transaction.atomic():
        made = Review.objects.create(by=user, note=note[:500])
        audit.record(actor=user, verb=Verb.REVIEWED, thing=made, after={"note": made.note})
    return made
