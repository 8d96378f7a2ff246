"""The leaderboard, for members and, by a link that can be taken back, for anybody."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from annotation.quality_tables import download
from generation import audit
from generation.access import may, needs, projects_of, require, user_of
from generation.models import Role, Verb
from modeling import intervals_chart, kept_boards
from modeling.leaderboard import COLUMNS, Board, Scope, as_json, judgments, records
from modeling.leaderboard_forms import ScopeForm
from modeling.models import LeaderboardLink

SECRET_BYTES = 24


@require_GET
@needs(Role.VIEWER)
def leaderboard(request: HttpRequest) -> HttpResponseBase:
    return _page(request, ScopeForm(request.GET, projects_of(user_of(request))))


@require_POST
@needs(Role.MANAGER)
def make_link(request: HttpRequest) -> HttpResponseBase:
    form = ScopeForm(request.POST, projects_of(user_of(request), Role.MANAGER))
    scope = form.scope()
    if scope is None:
        raise Http404(_("There is no such page, or it belongs to a project you are not in."))
    secret = secrets.token_urlsafe(SECRET_BYTES)
    with transaction.atomic():
        made = LeaderboardLink.objects.create(
            project=scope.project,
            task=scope.task,
            dimension=scope.dimension,
            campaign=scope.campaigns[0] if scope.campaigns else None,
            simulated=scope.simulated,
            digest=_digest(secret),
            created_by=user_of(request),
        )
        audit.record(actor=user_of(request), verb=Verb.BOARD_SHARED, thing=made)
    link = request.build_absolute_uri(reverse("modeling:public_leaderboard", args=[secret]))
    return _page(request, form, link=link)


@require_POST
def revoke_link(request: HttpRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(LeaderboardLink, pk=pk)
    require(user_of(request), found.project, Role.MANAGER)
    with transaction.atomic():
        open_ = LeaderboardLink.objects.filter(pk=pk, revoked_at__isnull=True)
        if open_.update(revoked_at=timezone.now()):
            audit.record(actor=user_of(request), verb=Verb.BOARD_HIDDEN, thing=found)
    messages.success(request, _("The link was taken back: nobody can read it any more."))
    return redirect("modeling:leaderboard")


@require_GET
@never_cache
@login_not_required
def public(request: HttpRequest, secret: str) -> HttpResponseBase:
    """Names of policies and figures alone: no picture, no person, nothing that leads further."""
    rows = LeaderboardLink.objects.select_related("project", "task", "dimension", "campaign")
    found = rows.filter(digest=_digest(secret), revoked_at__isnull=True).first()
    if found is None:
        raise Http404(_("This link was taken back, or never was one. Ask who gave it to you."))
    scope = Scope(
        project=found.project,
        task=found.task,
        dimension=found.dimension,
        campaigns=(found.campaign,) if found.campaign else (),
        simulated=found.simulated,
    )
    made, counted_at = kept_boards.board(scope)
    if (answer := _as_data(request, made)) is None:
        context = {**_context(made, scope), "board": made, "counted_at": counted_at, "scope": scope}
        answer = render(request, "modeling/leaderboard_public.html", context)
    # Whoever has the address may read; it should not travel further by itself.
    answer["X-Robots-Tag"] = "noindex"
    answer["Referrer-Policy"] = "no-referrer"
    return answer


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _page(request: HttpRequest, form: ScopeForm, link: str = "") -> HttpResponseBase:
    scope = form.scope()
    if scope is None:
        raise Http404(_("There is no such page, or it belongs to a project you are not in."))
    made, counted_at = kept_boards.board(scope)
    answer = None if link else _as_data(request, made)
    if answer is not None:
        return answer
    user = user_of(request)
    other = replace(scope, simulated=not scope.simulated)
    context = {
        **_context(made, scope),
        "board": made,
        "counted_at": counted_at,
        "form": form,
        "scope": scope,
        "filtered": any([scope.task, scope.dimension, scope.campaigns, scope.simulated]),
        "query": _query(request),
        "link": link,
        "may_share": may(user, scope.project, Role.MANAGER),
        "links": LeaderboardLink.objects.filter(
            project=scope.project, revoked_at__isnull=True
        ).select_related("project", "task", "dimension", "campaign"),
        "elsewhere": not made.rows and judgments(other).exists(),
    }
    return render(request, "modeling/leaderboard.html", context)


def _context(made: Board, scope: Scope) -> dict[str, Any]:
    strengths = [(row.policy.name, row.strength) for row in made.rows if row.strength]
    usable = [(row.policy.name, row.usable) for row in made.rows if row.usable]
    titles = {
        "strength_chart": (_strength_title(made), strengths, 0, 1.0, ""),
        "usable_chart": (_("Usable pictures, with their intervals"), usable, 0, 100.0, " %"),
    }
    return {
        name: intervals_chart.dots(title, rows, decimals=decimals, scale=scale, unit=unit)
        for name, (title, rows, decimals, scale, unit) in titles.items()
    }


def _strength_title(made: Board) -> str:
    """What the board says: who leads, and whether that is more than chance."""
    ranked = [row for row in made.rows if row.rank is not None and row.group == 0]
    if len(ranked) < 2:
        return _("Strength")
    first, second = ranked[:2]
    duel = made.duels.get((first.policy.pk, second.policy.pk))
    if duel is not None and duel.verdict == "better":
        said = _("%(first)s leads; %(second)s is significantly weaker")
    else:
        said = _("%(first)s leads, not significantly before %(second)s")
    return said % {"first": first.policy, "second": second.policy}


def _as_data(request: HttpRequest, made: Board) -> HttpResponseBase | None:
    if request.GET.get("format") == "json":
        return JsonResponse(as_json(made))
    if request.GET.get("format") == "csv":
        rows = ([row[name] for name in COLUMNS] for row in records(made))
        return download([COLUMNS, *rows], "leaderboard")
    return None


def _query(request: HttpRequest) -> str:
    """The filters of the address, for links that keep them."""
    said = request.GET.copy()
    said.pop("format", None)
    return said.urlencode()
