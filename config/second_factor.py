"""A second factor beside the password: codes of an authenticator app, and recovery codes.

allauth keeps the rows and asks at the login; this module adds what it leaves out: limits and single
use across processes, encryption at rest, who must have one, and the audit log.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, validate_totp_code
from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _

from generation import audit, problems, throttle
from generation.access import may_anywhere
from generation.models import Role, Verb
from generation.throttle import Limit, Spent

TRIES = Limit(most=10, seconds=15 * 60)
# A code of an app is right for its half minute and those beside it.
ONCE = Limit(most=1, seconds=120)
HAS_ONE = "second_factor"  # in the session


class TooOften(Exception):
    def __init__(self, spent: Spent) -> None:
        super().__init__(spent)
        self.spent = spent


class Adapter(DefaultMFAAdapter):
    """Secrets lie encrypted in the database, by a key that comes from SECRET_KEY."""

    def encrypt(self, text: str) -> str:
        return _cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _cipher().decrypt(encrypted_text.encode()).decode()

    def get_totp_issuer(self) -> str:
        return "OneLoop"

    def get_totp_label(self, user: User) -> str:
        return user.get_username()


def _cipher() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    digests = [hashlib.sha256(b"second factor" + key.encode()).digest() for key in keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])


def of(user: User) -> Authenticator | None:
    return Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).first()


def recovery_codes(user: User) -> RecoveryCodes | None:
    kind = Authenticator.Type.RECOVERY_CODES
    found = Authenticator.objects.filter(user=user, type=kind).first()
    return RecoveryCodes(found) if found is not None else None


def check(user: User, code: str) -> Authenticator | None:
    """What the code belongs to, if it is right; each works once. Raises TooOften."""
    spent = throttle.take(TRIES, "code", user.pk)
    if spent.is_too_much:
        if spent.tries == spent.limit.most + 1:
            audit.record(actor=None, verb=Verb.LOGIN_THROTTLED, thing=user)
        raise TooOften(spent)
    code = "".join(code.split())
    kinds = [Authenticator.Type.TOTP, Authenticator.Type.RECOVERY_CODES]
    for found in Authenticator.objects.filter(user=user, type__in=kinds):
        if not found.wrap().validate_code(code):
            continue
        if throttle.take(ONCE, "code", user.pk, code).is_too_much:
            break
        throttle.forget("code", user.pk)
        if found.type == Authenticator.Type.RECOVERY_CODES:
            audit.record(actor=user, verb=Verb.RECOVERY_CODE_USED, thing=user)
        return found
    audit.record(actor=None, verb=Verb.CODE_FAILED, thing=user)
    return None


def is_right(secret: str, user: User, code: str) -> bool:
    """Whether an app that was just given the secret shows this code. Raises TooOften."""
    spent = throttle.take(TRIES, "code", user.pk)
    if spent.is_too_much:
        raise TooOften(spent)
    return validate_totp_code(secret, "".join(code.split()))


@transaction.atomic
def turn_on(user: User, secret: str) -> list[str]:
    """The recovery codes, to be shown this once."""
    User.objects.select_for_update().get(pk=user.pk)
    Authenticator.objects.filter(user=user).delete()
    TOTP.activate(user, secret)
    codes = RecoveryCodes.activate(user).generate_codes()
    audit.record(actor=user, verb=Verb.SECOND_FACTOR_ON, thing=user)
    return codes


@transaction.atomic
def renew_codes(user: User) -> list[str]:
    User.objects.select_for_update().get(pk=user.pk)
    kind = Authenticator.Type.RECOVERY_CODES
    Authenticator.objects.filter(user=user, type=kind).delete()
    codes = RecoveryCodes.activate(user).generate_codes()
    audit.record(actor=user, verb=Verb.RECOVERY_CODES_MADE, thing=user)
    return codes


@transaction.atomic
def turn_off(user: User, *, actor: User | None) -> None:
    Authenticator.objects.filter(user=user).delete()
    audit.record(actor=actor, verb=Verb.SECOND_FACTOR_OFF, thing=user)


# Who must have one ------------------------------------------------------------------------------


def must_have(user: User) -> bool:
    wanted = settings.REQUIRE_SECOND_FACTOR
    if wanted == "everyone":
        return True
    if wanted in ("staff", "managers") and (user.is_staff or user.is_superuser):
        return True
    return wanted == "managers" and may_anywhere(user, Role.MANAGER)


def require(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Whoever must have a second factor sets it up before anything else. Tokens are not asked."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if not settings.REQUIRE_SECOND_FACTOR or not _lacks_one(request):
            return get_response(request)
        said = _("Your role needs a second factor. Set it up, then go on.")
        if problems.concerns(request):
            return problems.answer(403, "second_factor", said)
        messages.warning(request, said)
        return redirect("second_factor")

    return middleware


def _lacks_one(request: HttpRequest) -> bool:
    user = request.user
    if not isinstance(user, User) or request.session.get(HAS_ONE) or _is_open(request.path):
        return False
    if not must_have(user):
        return False
    if of(user) is not None:
        request.session[HAS_ONE] = True
        return False
    return True


def _is_open(path: str) -> bool:
    ways = [reverse(name) for name in ("second_factor", "logout", "language", "healthz", "readyz")]
    return path in ways
