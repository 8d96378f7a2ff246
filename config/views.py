import sys
from typing import Any, cast

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.views.decorators.http import require_POST
from django.views.defaults import bad_request, page_not_found, permission_denied, server_error
from django.views.i18n import set_language

from config import home as start
from generation import faults, problems
from generation.access import looks_on
from modeling.pages import step_cards


def home(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    context: dict[str, Any] = {"todos": start.todos(user), "numbers": start.numbers(user)}
    if looks_on(user) and (round_ := start.newest_round()) is not None:
        context |= {"round": round_, "cards": step_cards(round_)}
    return render(request, "home.html", context)


@login_not_required
@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """Keep the chosen language in a cookie and go back to the page it was chosen on."""
    return set_language(request)


@login_not_required
def favicon(request: HttpRequest) -> HttpResponse:
    return redirect(static("config/icon.svg"))


def failed(request: HttpRequest) -> HttpResponse:
    """The answer to a request that broke off: 503 where database or store could not be asked, 507
    where they have no room, else 500.

    A database that restarts, or whose connections are all in use, answers again in a moment, and
    programs may send the same request once more.
    """
    program = problems.concerns(request)
    error = sys.exception()
    if faults.is_full(error):
        if program:
            said = "The disk is full: nothing was stored. Send it again once there is room."
            return problems.answer(507, "full", said)
        return HttpResponse(render_to_string("507.html"), status=507)
    if not faults.is_away(error):
        said = "Something broke here. It was written down; try again later."
        return problems.answer(500, "error", said) if program else server_error(request)
    store = isinstance(error, faults.StoreUnavailable)
    if program:
        said = f"The {'store' if store else 'database'} does not answer. Send the same once more."
        response: HttpResponse = problems.answer(503, "unavailable", said)
    else:
        response = HttpResponse(render_to_string("503.html", {"store": store}), status=503)
    response.headers["Retry-After"] = "5"
    return response


def missing(request: HttpRequest, exception: Exception) -> HttpResponse:
    if problems.concerns(request):
        return problems.answer(404, "not_found", "There is no such address in the API.")
    return page_not_found(request, exception)


def refused(request: HttpRequest, exception: Exception) -> HttpResponse:
    if problems.concerns(request):
        return problems.answer(403, "permission_denied", "This is not allowed.")
    return permission_denied(request, exception)


def unreadable(request: HttpRequest, exception: Exception) -> HttpResponse:
    if problems.concerns(request):
        return problems.answer(400, "parse_error", "This request cannot be understood.")
    return bad_request(request, exception)
