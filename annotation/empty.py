"""Why there is nothing to hand out to a person, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.campaigns import admits
from annotation.counts import done_today, to_judge
from annotation.models import Assignment, Campaign, Seat
from annotation.queue import must_practise
from generation.models import CandidateSet

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Assignment.State
Kind = Assignment.Kind


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
            _("“%(campaign)s” has a list of members and you are not on it.")
            % {"campaign": campaign},
            _("Ask the person who runs it to add you."),
        )
    if campaign.deadline is not None and campaign.deadline <= timezone.now():
        return Empty(
            "deadline",
            _("“%(campaign)s” ended on %(day)s.")
            % {"campaign": campaign, "day": date_format(timezone.localtime(campaign.deadline))},
            _("What you submitted is kept. Take another campaign."),
        )
    seat = Seat.objects.filter(campaign=campaign, user=user).first()
    if seat is not None and seat.paused_at is not None:
        return Empty(
            "seat",
            _("Your work on “%(campaign)s” is paused. What you submitted is kept.")
            % {"campaign": campaign},
            seat.paused_reason or _("Ask the person who runs it."),
        )
    if must_practise(campaign, seat):
        return Empty(
            "practice",
            _("“%(campaign)s” starts with practice.") % {"campaign": campaign},
            _("Judge a few sets whose answers are known, and see at once how you did."),
        )
    if campaign.daily_limit is not None and done_today(user, campaign) >= campaign.daily_limit:
        return Empty(
            "today",
            _("You have judged your %(n)s sets for today.") % {"n": campaign.daily_limit},
            _("Come back tomorrow, or take another campaign."),
        )
    return _nothing_free(user, campaign)


def _nothing_free(user: User, campaign: Campaign) -> Empty:
    if not campaign.items.exists():
        return Empty(
            "no_items",
            _("“%(campaign)s” has no candidate sets yet.") % {"campaign": campaign},
            _("Come back when some are made."),
        )
    turns = Assignment.objects.filter(item__campaign=campaign, kind=Kind.WORK)
    held = turns.filter(state=State.OPEN).exclude(annotator=user)
    mine = turns.filter(annotator=user).exclude(state=State.EXPIRED)
    for_me = held.exclude(item__in=mine.values("item")).order_by("lease_until").first()
    if for_me is not None:
        until = date_format(timezone.localtime(for_me.lease_until), "H:i")
        return Empty(
            "held",
            _("Other people hold what is left; the first turn runs out at %(time)s.")
            % {"time": until},
            _("Try again after %(time)s, or take another campaign.") % {"time": until},
        )
    ready = to_judge(campaign).filter(set__state=CandidateSet.State.READY)
    left = ready.filter(full=False).count() + held.values("item").distinct().count()
    if left:
        return Empty(
            "limit",
            ngettext(
                "You have had every set. %(n)s set still needs somebody else’s eyes.",
                "You have had every set. %(n)s sets still need somebody else’s eyes.",
                left,
            )
            % {"n": left},
            _("Nothing is left for you here; take another campaign."),
        )
    # What is not made yet was handed out to nobody: only the few that are not full are looked at.
    pending = campaign.items.filter(full=False, set__state=CandidateSet.State.DRAWN).count()
    if pending:
        return Empty(
            "pending",
            ngettext("%(n)s set is still being made.", "%(n)s sets are still being made.", pending)
            % {"n": pending},
            _("Reload this page in a minute. If nothing comes, the generation worker may be down."),
        )
    return Empty(
        "done", _("Every set has all its judgments."), _("The work here is done. Thank you!")
    )


def _not_open(campaign: Campaign) -> Empty:
    named = {"campaign": campaign}
    if campaign.state == Campaign.State.PAUSED:
        return Empty(
            "paused",
            _("“%(campaign)s” is paused. What you submitted is kept.") % named,
            _("Wait until it is opened again, or take another campaign."),
        )
    if campaign.state == Campaign.State.CLOSED:
        return Empty("closed", _("“%(campaign)s” is closed.") % named, _("Take another campaign."))
    return Empty(
        "draft", _("“%(campaign)s” has not been opened yet.") % named, _("Take another campaign.")
    )
