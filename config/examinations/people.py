"""The people of an installation, as far as they may do it harm."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from config.doctor import Finding, examines, ok, warning


@examines(name=_("Second factors"), needs="database")
def second_factors() -> Finding:
    """Of those who may enter the admin; a deployment should not leave them to a password."""
    codes = Authenticator.objects.filter(user=OuterRef("pk"), type=Authenticator.Type.TOTP)
    staff = User.objects.filter(Q(is_staff=True) | Q(is_superuser=True), is_active=True)
    everyone, without = staff.count(), staff.filter(~Exists(codes)).count()
    said = format_lazy(_("{without} of {all} staff have none."), without=without, all=everyone)
    if not without or not settings.PRODUCTION or settings.REQUIRE_SECOND_FACTOR:
        # Where it is demanded, they set it up before anything else.
        return ok(said)
    return warning(
        said,
        _("Set REQUIRE_SECOND_FACTOR=staff: they are asked to set one up at their next page."),
    )
