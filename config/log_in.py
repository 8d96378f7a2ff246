"""Logging in with a password: how often it may be tried, and what follows.

Three windows are counted for a name and an address:

- One name from one address: a guesser is stopped early, and nobody else with them.
- One address: whoever tries many names from one place.
- One name from addresses that its owner never logged in from: many places that guess together. The
  owner still gets in from a place they were at before.

A successful login is counted nowhere.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from typing import Any

from allauth.account.utils import perform_login
from allauth.usersessions.models import UserSession
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.auth.views import LoginView
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from generation import audit, throttle
from generation.models import AuditEntry, Verb
from generation.throttle import Limit, Spent

PAIR = Limit(most=10, seconds=15 * 60)
PLACE = Limit(most=100, seconds=15 * 60)
NAME = Limit(most=100, seconds=60 * 60)
REMEMBERED = 50  # latest logins


class LogIn(LoginView):
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        name, place = _name(request), _place(request)
        spent = _count(name, place)
        if spent is not None:
            return self._wait(spent)
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponseBase:  # type: ignore[override]
        name, place = _name(self.request), _place(self.request)
        throttle.forget("log in", name, place)
        throttle.give_back("log in from", place)
        throttle.give_back("log in as", name)
        return perform_login(self.request, form.get_user(), redirect_url=self.get_success_url())

    def _wait(self, spent: Spent) -> HttpResponse:
        context = self.get_context_data(form=AuthenticationForm(self.request), wait=spent.said)
        response = self.render_to_response(context, status=429)
        response["Retry-After"] = str(spent.wait_seconds)
        return response


def _count(name: str, place: str) -> Spent | None:
    """Count one try; the window that is used up, if any. Those after it are not counted then."""
    user = User.objects.filter(username=name).first()
    windows: list[tuple[Limit, tuple[str, ...]]] = [
        (PLACE, ("log in from", place)),
        (PAIR, ("log in", name, place)),
    ]
    if user is None or not _has_been_at(user, place):
        windows.append((NAME, ("log in as", name)))
    for limit, what in windows:
        spent = throttle.take(limit, *what)
        if spent.tries == limit.most + 1:
            # Once a window: whoever goes on trying does not fill the log.
            audit.record(actor=None, verb=Verb.LOGIN_THROTTLED, thing=user)
        if spent.is_too_much:
            return spent
    return None


def _has_been_at(user: User, place: str) -> bool:
    logins = AuditEntry.objects.filter(actor=user, verb=Verb.LOGIN).exclude(address=None)
    addresses = logins.values_list("address", flat=True)[:REMEMBERED]
    return bool(place) and place in {_network(str(address)) for address in addresses}


def _name(request: HttpRequest) -> str:
    return unicodedata.normalize("NFKC", request.POST.get("username", ""))


def _place(request: HttpRequest) -> str:
    return _network(audit.address_of(request) or "")


def _network(address: str) -> str:
    """The address; of IPv6 the network that one customer gets, whose addresses they may choose."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network(f"{address}/64", strict=False))


@receiver(user_logged_in)
def _list_session(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    """However somebody logged in, the session stands on their page of sessions."""
    if request.session.session_key is None:
        return
    longest = UserSession._meta.get_field("user_agent").max_length
    UserSession.objects.update_or_create(
        session_key=request.session.session_key,
        defaults={
            "user": user,
            "ip": audit.address_of(request) or "0.0.0.0",
            "user_agent": request.META.get("HTTP_USER_AGENT", "")[:longest],
        },
    )
