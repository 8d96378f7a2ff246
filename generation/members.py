"""Projects and who is in them. Every change is written to the audit log."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from generation import audit
from generation.models import Membership, Project, Role, Verb


class MemberError(Exception):
    """One readable sentence: why this cannot be done, and the remedy. Nothing was changed."""


@transaction.atomic
def make_project(*, name: str, slug: str, actor: User) -> Project:
    """An empty project whose admin is whoever makes it."""
    try:
        with transaction.atomic():
            project = Project.objects.create(name=name, slug=slug)
    except IntegrityError:
        raise MemberError(
            _("There is already a project at “%(slug)s”: choose another address.") % {"slug": slug}
        ) from None
    audit.record(actor=actor, verb=Verb.PROJECT_MADE, thing=project, after={"slug": slug})
    add(project=project, user=actor, role=Role.ADMIN, actor=actor)
    return project


def find(who: str) -> User:
    """Somebody by username or e-mail."""
    who = who.strip()
    user = User.objects.filter(username=who, is_active=True).first()
    if user is not None:
        return user
    found = list(User.objects.filter(email__iexact=who, is_active=True)[:2]) if "@" in who else []
    if len(found) > 1:
        raise MemberError(
            _("Several people gave the e-mail %(who)s: say the username instead.") % {"who": who}
        )
    if not found:
        raise MemberError(
            _(
                "Nobody here is called “%(who)s”. They need an account first: an invitation to a "
                "campaign makes one, and so does an admin."
            )
            % {"who": who}
        )
    return found[0]


@transaction.atomic
def add(*, project: Project, user: User, role: str, actor: User | None) -> Membership:
    """`actor` is None where a rule of the installation adds somebody."""
    membership, created = Membership.objects.get_or_create(
        project=project, user=user, defaults={"role": Role(role)}
    )
    if not created:
        raise MemberError(
            _("%(name)s is in the project already, as %(role)s. Change the role in the list.")
            % {"name": user, "role": membership.get_role_display().lower()}
        )
    audit.record(
        actor=actor,
        verb=Verb.MEMBER_ADDED,
        thing=user,
        project=project,
        after={"role": membership.role},
    )
    return membership


@transaction.atomic
def change_role(membership: Membership, *, role: str, actor: User) -> None:
    held = _locked(membership)
    before, role = held.role, Role(role)
    if before == role:
        return
    if before == Role.ADMIN:
        _require_another_admin(held)
    held.role = role
    held.save(update_fields=["role"])
    audit.record(
        actor=actor,
        verb=Verb.ROLE_CHANGED,
        thing=held.user,
        project=held.project,
        before={"role": before},
        after={"role": role},
    )


@transaction.atomic
def remove(membership: Membership, *, actor: User) -> None:
    """Take somebody out of the project; what they judged stays."""
    held = _locked(membership)
    if held.role == Role.ADMIN:
        _require_another_admin(held)
    held.delete()
    audit.record(
        actor=actor,
        verb=Verb.MEMBER_REMOVED,
        thing=held.user,
        project=held.project,
        before={"role": held.role},
    )


def _locked(membership: Membership) -> Membership:
    # Two admins who remove each other at the same time wait for each other at the project.
    Project.objects.select_for_update().get(pk=membership.project_id)
    found = Membership.objects.select_related("user", "project").filter(pk=membership.pk).first()
    if found is None:
        raise MemberError(_("This person has left the project meanwhile."))
    return found


def _require_another_admin(membership: Membership) -> None:
    others = Membership.objects.filter(project=membership.project_id, role=Role.ADMIN)
    if not others.filter(user__is_active=True).exclude(pk=membership.pk).exists():
        raise MemberError(
            _(
                "%(name)s is the only admin of “%(project)s”. Make somebody else admin first, or "
                "nobody could name its members."
            )
            % {"name": membership.user, "project": membership.project}
        )
