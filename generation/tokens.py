"""Personal keys to the API: made, shown once, looked up by digest, revoked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from generation import audit
from generation.models import Scope, Token, Verb
from generation.people import LONGEST

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MARK = "olp_"  # what scanners for leaked secrets can look for
SHOWN = len(MARK) + 6
USUAL_DAYS = 90
MOST_DAYS = LONGEST.days
USED_EVERY = timedelta(minutes=1)


class TokenError(Exception):
    """One readable sentence: why this token cannot be made or used, and the remedy."""


@transaction.atomic
def make(
    *, user: User, name: str, scopes: Sequence[str], days: int = USUAL_DAYS
) -> tuple[Token, str]:
    """The row, and the secret that is shown this once."""
    if not 1 <= days <= MOST_DAYS:
        raise TokenError(
            _("A token lasts 1 to %(most)d days, not %(days)d.") % {"most": MOST_DAYS, "days": days}
        )
    unknown = sorted(set(scopes) - set(Scope.values))
    if unknown or not scopes:
        raise TokenError(
            _("Choose what the token may do among %(known)s.") % {"known": ", ".join(Scope.values)}
        )
    secret = MARK + secrets.token_urlsafe(32)  # 256 bits
    now = timezone.now()
    token = Token.objects.create(
        user=user,
        name=name,
        digest=_digest(secret),
        prefix=secret[:SHOWN],
        scopes=[scope for scope in Scope.values if scope in scopes],
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    after = {"scopes": token.scopes, "expires": token.expires_at, "begins with": token.prefix}
    audit.record(actor=user, verb=Verb.TOKEN_MADE, thing=token, after=after)
    return token, secret


@transaction.atomic
def revoke(token: Token, *, actor: User) -> bool:
    """Whether it was still to be revoked; what it did before stays."""
    now = timezone.now()
    if Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now) != 1:
        return False
    token.revoked_at = now
    audit.record(actor=actor, verb=Verb.TOKEN_REVOKED, thing=token)
    return True


def usable(secret: str) -> Token:
    """The token with this secret, marked as used; TokenError says why it is refused."""
    digest = _digest(secret)
    token = Token.objects.select_related("user").filter(digest=digest).first()
    # The look-up goes by digest, so its time tells nothing about a secret; the comparison of what
    # was found takes the same time for every answer, too.
    if token is None or not token.is_digest(digest):
        raise TokenError(_("This token is not known. Make one on the page “Account”."))
    if token.revoked_at is not None:
        raise TokenError(_("This token was revoked. Make a new one on the page “Account”."))
    if token.state == "expired":
        raise TokenError(
            _("This token ran out on %(day)s. Make a new one on the page “Account”.")
            % {"day": date_format(token.expires_at, "Y-m-d")}
        )
    if not token.user.is_active:
        raise TokenError(_("The account of this token is closed. Ask an admin."))
    _mark_used(token)
    return token


def _mark_used(token: Token) -> None:
    now = timezone.now()
    if token.last_used_at is None or token.last_used_at <= now - USED_EVERY:
        stale = Q(last_used_at=None) | Q(last_used_at__lte=now - USED_EVERY)
        Token.objects.filter(stale, pk=token.pk).update(last_used_at=now)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
