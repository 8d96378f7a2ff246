"""Accounts for people who were invited; nobody else can make one for themselves.

Whoever checks an invitation calls `allow` for a visitor without an account and sends them to the
page “Sign up”, which leads back to the invitation.
"""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from generation import audit
from generation.models import Verb
from generation.people_forms import SignUpForm

KEY = "invited"
OPEN_FOR = timedelta(hours=1)
BACKEND = "django.contrib.auth.backends.ModelBackend"


def allow(request: HttpRequest, *, back_to: str) -> None:
    """Let this browser make one account; `back_to` is the invitation's own path."""
    until = timezone.now() + OPEN_FOR
    request.session[KEY] = {"back_to": back_to, "until": until.timestamp()}


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_up(request: HttpRequest) -> HttpResponse:
    invited = request.session.get(KEY)
    if invited is None or invited["until"] < timezone.now().timestamp():
        raise Http404(_("Accounts are made by invitation. Open the link of yours once more."))
    if request.user.is_authenticated:
        return redirect(invited["back_to"])
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            user = form.save()
            audit.record(actor=user, verb=Verb.SIGN_UP, thing=user)
        del request.session[KEY]
        login(request, user, backend=BACKEND)
        return redirect(invited["back_to"])
    context = {"form": form, "back_to": invited["back_to"]}
    return render(request, "people/sign_up.html", context, status=422 if form.errors else 200)
