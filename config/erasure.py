"""Taking a person out of an installation, and leaving what they judged.

The account stays as an empty shell with a number for a name: judgments keep their annotator, so
that agreement, accuracy and withdrawals still work, and nobody can tell who that was. The audit log
keeps every act and loses the name, the address and what was written about the person.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as noop

from annotation.models import Assignment, Campaign, Judgment
from generation import audit
from generation.models import AuditEntry, IdempotencyKey, Membership, Token, Verb

GONE = "(erased)"
# Keys of the log's details that say nothing of who somebody is.
TELLING_NOTHING = {"role", "through"}


class ErasureError(Exception):
    """Why somebody cannot be erased, and the remedy."""


def name_of(user: User) -> str:
    return f"erased-{user.pk}"


def is_erased(user: User) -> bool:
    return user.username == name_of(user) and not user.is_active


def plan(user: User) -> dict[str, int]:
    """What erasing them would do, in numbers; nothing is changed."""
    rows = {name: found.count() for name, found in _personal(user).items()}
    return rows | {
        noop("audit entries without name and address"): _entries(user).count(),
        noop("turns that stay"): Assignment.objects.filter(annotator=user).count(),
        noop("judgments that stay"): Judgment.objects.filter(assignment__annotator=user).count(),
    }


@transaction.atomic
def erase(user: User, *, actor: User | None) -> dict[str, int]:
    """Erase for good. Raises ErasureError, and nothing is changed then."""
    user = User.objects.select_for_update().get(pk=user.pk)
    _refuse(user)
    done = plan(user)
    _empty_the_log(user)
    for row in UserSession.objects.filter(user=user):
        row.end()
    for found in _personal(user).values():
        found.delete()
    shown = Q(content_type=ContentType.objects.get_for_model(User), object_id=str(user.pk))
    LogEntry.objects.filter(shown).update(object_repr=name_of(user), change_message="")
    Campaign.members.through._default_manager.filter(user=user).delete()
    user.groups.clear()
    user.user_permissions.clear()
    user.username, user.first_name, user.last_name, user.email = name_of(user), "", "", ""
    user.is_active = user.is_staff = user.is_superuser = False
    user.last_login, user.date_joined = None, timezone.now()
    user.set_unusable_password()  # every session of theirs ends by this, listed or not
    user.save()
    audit.record(actor=actor, verb=Verb.ERASED, thing=user, after=done)
    return done


def _refuse(user: User) -> None:
    if is_erased(user):
        raise ErasureError(_("This person was erased already."))
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    if user.is_superuser and not others.exists():
        raise ErasureError(_("This is the last superuser. Make somebody else one first."))


def _personal(user: User) -> dict[str, QuerySet[Any]]:
    """What goes altogether."""
    return {
        noop("sessions"): UserSession.objects.filter(user=user),
        noop("sign-ins elsewhere"): SocialAccount.objects.filter(user=user),
        noop("e-mail addresses"): EmailAddress.objects.filter(user=user),
        noop("second factors"): Authenticator.objects.filter(user=user),
        noop("tokens"): Token.objects.filter(user=user),
        noop("kept answers"): IdempotencyKey.objects.filter(user=user),
        noop("memberships"): Membership.objects.filter(user=user),
    }


# The audit log ----------------------------------------------------------------------------------


def _entries(user: User) -> QuerySet[AuditEntry]:
    """By the person, about their account, or with a word that can only mean them."""
    found = Q(actor=user) | Q(kind=User._meta.verbose_name, object_id=str(user.pk))
    for word in _words(user):
        found |= Q(name__contains=word) | Q(detail__icontains=word)
    return AuditEntry.objects.filter(found)


def _words(user: User) -> list[str]:
    """E-mail and full name; a username alone, such as “main”, may mean much else."""
    return [word for word in (user.email, user.get_full_name()) if len(word) > 5]


def _empty_the_log(user: User) -> None:
    """The trigger lets these columns change, in this transaction alone."""
    words = _words(user)
    own = {user.username, user.first_name, user.last_name} - {""}
    tokens = str(Token._meta.verbose_name)

    def is_personal(text: str) -> bool:
        return text in own or any(word in text for word in words)

    with audit.erasing():
        for entry in _entries(user).iterator():
            theirs = entry.actor_id == user.pk
            about = entry.kind == User._meta.verbose_name and entry.object_id == str(user.pk)
            if theirs:
                entry.actor_name = name_of(user)
            if theirs or about:
                entry.address = None
            if about:
                entry.name = name_of(user)
            elif (theirs and entry.kind == tokens) or any(word in entry.name for word in words):
                entry.name = GONE
            # What a profile said before is known from nowhere else.
            entry.detail = _without(entry.detail, _anything if about else is_personal)
            entry.save(update_fields=["actor_name", "name", "detail", "address"])


def _anything(text: str) -> bool:
    return True


def _without(value: Any, is_personal: Callable[[str], bool]) -> Any:
    if isinstance(value, dict):
        return {
            key: inner if key in TELLING_NOTHING else _without(inner, is_personal)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_without(inner, is_personal) for inner in value]
    return GONE if isinstance(value, str) and is_personal(value) else value
