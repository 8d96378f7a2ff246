"""Who judges in a campaign: people, groups, and invitation links."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.campaigns import admits
from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Invitation
from generation.access import includes, role_in
from generation.models import Membership, Project, Role

if TYPE_CHECKING:
    from django.contrib.auth.models import Group, User

SECRET_BYTES = 24
MOST_DAYS = 365


@dataclass(frozen=True)
class Person:
    """Somebody who may judge here or did; `listed`: by name, not through a group."""

    user: User
    listed: bool
    admitted: bool
    submitted: int
    skipped: int
    paused: bool


def people(campaign: Campaign) -> list[Person]:
    """Everybody on the list, in one of the groups, or with turns in the campaign."""
    from django.contrib.auth.models import User

    turns = Assignment.objects.filter(item__campaign=campaign)
    counts = {
        row["annotator"]: row
        for row in turns.values("annotator")
        .order_by()
        .annotate(
            submitted=Count("pk", filter=Q(state=Assignment.State.SUBMITTED)),
            skipped=Count("pk", filter=Q(state=Assignment.State.SKIPPED)),
        )
    }
    listed = set(campaign.members.values_list("pk", flat=True))
    grouped = set(User.objects.filter(groups__campaign=campaign).values_list("pk", flat=True))
    paused = set(campaign.seats.exclude(paused_at=None).values_list("user", flat=True))
    inside = set(_judges(campaign.project).values_list("pk", flat=True))
    is_open = not listed and not campaign.groups.exists()
    shown = User.objects.filter(pk__in=listed | grouped | set(counts)).order_by("username")
    return [
        Person(
            user=user,
            listed=user.pk in listed,
            admitted=user.pk in inside and (is_open or user.pk in listed | grouped),
            submitted=counts.get(user.pk, {}).get("submitted", 0),
            skipped=counts.get(user.pk, {}).get("skipped", 0),
            paused=user.pk in paused,
        )
        for user in shown
    ]


def _judges(project: Project) -> QuerySet[User]:
    """Everybody who may judge in the project."""
    from django.contrib.auth.models import User

    roles = [role for role in Role if includes(role, Role.ANNOTATOR)]
    member = Q(memberships__project=project, memberships__role__in=roles)
    return User.objects.filter(
        member | Q(is_staff=True) | Q(is_superuser=True), is_active=True
    ).distinct()


def could_join(campaign: Campaign) -> QuerySet[User]:
    """People of the project who are not on the list yet."""
    return _judges(campaign.project).exclude(pk__in=campaign.members.all()).order_by("username")


def add(*, campaign: Campaign, users: Iterable[User] = (), groups: Iterable[Group] = ()) -> None:
    with transaction.atomic():
        campaign.members.add(*users)
        campaign.groups.add(*groups)


def remove(*, campaign: Campaign, user: User | None = None, group: Group | None = None) -> None:
    """Take a person or a group off the list; what they submitted stays."""
    with transaction.atomic():
        if user is not None:
            campaign.members.remove(user)
        if group is not None:
            campaign.groups.remove(group)


# Invitations ---------------------------------------------------------------------------------
# A revoked link is one that expired the moment it was made: no other can, and its row stays.


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def invite(
    *, campaign: Campaign, by: User, uses: int = 1, days: int = 7, note: str = ""
) -> tuple[Invitation, str]:
    """A new invitation and its secret, which is stored nowhere."""
    if uses < 1:
        raise Refused(_("A link that nobody can use makes no sense: allow at least one use."))
    if not 1 <= days <= MOST_DAYS:
        raise Refused(
            _("A link can last 1 to %(most)s days, not %(days)s.")
            % {"most": MOST_DAYS, "days": days}
        )
    secret = secrets.token_urlsafe(SECRET_BYTES)
    made = Invitation.objects.create(
        campaign=campaign,
        digest=_digest(secret),
        note=note,
        uses_left=uses,
        expires_at=timezone.now() + timedelta(days=days),
        created_by=by,
    )
    return made, secret


def find(secret: str) -> Invitation | None:
    rows = Invitation.objects.select_related("campaign__project", "created_by")
    return rows.filter(digest=_digest(secret)).first()


def revoke(invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(expires_at=F("created_at"))
    invitation.refresh_from_db(fields=["expires_at"])


def state_of(invitation: Invitation) -> str:
    """open, revoked, expired or used up."""
    if invitation.expires_at <= invitation.created_at:
        return "revoked"
    if invitation.expires_at <= timezone.now():
        return "expired"
    return "open" if invitation.uses_left else "used"


def why_closed(invitation: Invitation) -> str | None:
    """Why nobody can join by this link any more; None while it is open."""
    who = invitation.created_by.get_username() if invitation.created_by else _("a manager")
    asks = _("Ask %(who)s for a new one.") % {"who": who}
    said = {
        "revoked": _("This invitation was taken back."),
        "expired": _("This invitation has expired."),
        "used": _("This invitation has been used as often as it may be."),
    }.get(state_of(invitation))
    return f"{said} {asks}" if said else None


def join(*, invitation: Invitation, user: User) -> Campaign:
    """Make the person a member of the campaign and its project; one use is spent.

    Somebody who is in already spends none. A role in the project is never lowered.
    """
    campaign = invitation.campaign
    with transaction.atomic():
        if admits(campaign, user):
            return campaign
        left = Invitation.objects.filter(
            pk=invitation.pk, uses_left__gt=0, expires_at__gt=timezone.now()
        )
        if left.update(uses_left=F("uses_left") - 1) != 1:
            invitation.refresh_from_db()
            raise Refused(why_closed(invitation) or _("This invitation is closed."), "closed")
        if not includes(role_in(user, campaign.project), Role.ANNOTATOR):
            Membership.objects.update_or_create(
                project=campaign.project, user=user, defaults={"role": Role.ANNOTATOR}
            )
        # Without a list the campaign is open to the whole project, and a list of one would shut
        # everybody else out.
        if campaign.members.exists() or campaign.groups.exists():
            campaign.members.add(user)
    return campaign
