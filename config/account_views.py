"""One's second factor and sessions."""

from __future__ import annotations

import base64
from typing import Any

from allauth.mfa.adapter import get_adapter
from allauth.mfa.base.views import AuthenticateView
from allauth.mfa.totp.internal.auth import clear_totp_secret, get_totp_secret
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from config import second_factor as factor
from config.account_forms import CodeForm, SetUpForm
from generation import audit
from generation.access import user_of
from generation.models import Verb


class LogInCode(AuthenticateView):
    template_name = "people/log_in_code.html"


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def second_factor(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    if factor.of(user) is None:
        return _set_up(request, user)
    form = CodeForm(request.POST or None, user=user)
    verb = request.POST.get("do", "")
    if verb == "off" and factor.must_have(user):
        messages.error(request, _("Your role needs a second factor, so that it stays."))
        return redirect("second_factor")
    if request.method == "POST" and verb in ("codes", "off") and form.is_valid():
        if verb == "codes":
            return _page(request, user, codes=factor.renew_codes(user))
        factor.turn_off(user, actor=user)
        request.session.pop(factor.HAS_ONE, None)
        messages.success(request, _("The second factor is off; the password is enough again."))
        return redirect("second_factor")
    return _page(request, user, form=form, tried=verb)


def _set_up(request: HttpRequest, user: User) -> HttpResponse:
    secret = get_totp_secret()  # kept in the session until the first right code
    form = SetUpForm(request.POST or None, user=user, secret=secret)
    if request.method == "POST" and form.is_valid():
        codes = factor.turn_on(user, secret)
        clear_totp_secret(request)
        request.session[factor.HAS_ONE] = True
        return _page(request, user, codes=codes)
    adapter = get_adapter()
    svg = adapter.build_totp_svg(adapter.build_totp_url(user, secret))
    picture = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    spaced = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
    context = {"form": form, "picture": picture, "secret": spaced, "must": factor.must_have(user)}
    return render(request, "people/second_factor_new.html", context, status=_status(form))


def _page(request: HttpRequest, user: User, **context: Any) -> HttpResponse:
    found = factor.recovery_codes(user)
    context = {
        "since": factor.of(user),
        "left": len(found.get_unused_codes()) if found is not None else 0,
        "must": factor.must_have(user),
        "form": CodeForm(user=user),
    } | context
    return render(request, "people/second_factor.html", context, status=_status(context["form"]))


def _status(form: Any) -> int:
    return 422 if form.is_bound and form.errors else 200


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def sessions(request: HttpRequest) -> HttpResponse:
    """Where somebody is logged in; one of them, or all others, end by a post."""
    user = user_of(request)
    if request.method == "POST":
        return _end(request, user)
    rows = sorted(UserSession.objects.purge_and_list(user), key=lambda row: -row.pk)
    return render(request, "people/sessions.html", {"rows": rows})


def _end(request: HttpRequest, user: User) -> HttpResponse:
    others = UserSession.objects.filter(user=user).exclude(session_key=request.session.session_key)
    asked = request.POST.get("session", "")
    if asked:
        others = others.filter(pk=int(asked) if asked.isdecimal() else 0)
        if not others:
            raise Http404
    ended = len(others)
    for row in others:
        row.end()
    if ended:
        audit.record(actor=user, verb=Verb.SESSIONS_ENDED, thing=user, after={"ended": ended})
    said = ngettext("%(n)d session ended.", "%(n)d sessions ended.", ended) % {"n": ended}
    messages.success(request, said)
    return redirect("sessions")
