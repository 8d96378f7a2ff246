"""The labelling pages. Each is a plain form first; the script on top keeps sets ready and sends
what was said in the background, so that nobody waits for the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import (
    counts,
    judgments,
    outlines,
    practice,
    progress,
    quality,
    queue,
    ratings,
    set_page,
    turns,
)
from annotation.answers import (
    read_answers,
    read_scores,
    read_seconds,
    read_submission,
)
from annotation.campaigns import draw_order, for_annotator
from annotation.empty import why_empty
from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Item
from annotation.one_commit import one_commit
from annotation.turns import Turn
from annotation.words import words
from generation import images, pictures
from generation.access import may_anywhere, require, user_of
from generation.models import Role

State = Assignment.State
STATUS = {"invalid": 422, "stale": 409, "foreign": 403, "closed": 409}
# Sets that a browser keeps ready, so that it can work through a lost connection, and the part of
# them that may be missing before new ones are sent.
AHEAD, SPARED = 30, 15
PER_PAGE = 50


def says_no(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A refusal becomes a page, or the JSON that the script asked for."""

    @wraps(view)
    def wrapped(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
        try:
            return view(request, assignment_id)
        except Refused as error:
            campaign = Campaign.objects.get(items__assignments=assignment_id)
            require(user_of(request), campaign.project_id, Role.ANNOTATOR)
            if _wants_json(request):
                body = {"error": error.message, "code": error.code}
                return JsonResponse(body, status=STATUS[error.code])
            return _notice(request, campaign, error)

    return wrapped


@require_GET
@never_cache
def label(request: HttpRequest) -> HttpResponseBase:
    found = list(for_annotator(user_of(request)))
    if len(found) == 1:
        return redirect("annotation:next", found[0].pk)
    rows = [(campaign, *_progress(user_of(request), campaign)) for campaign in found]
    context = {"rows": rows, "may_open": may_anywhere(user_of(request), Role.MANAGER)}
    return render(request, "annotation/choose.html", context)


@require_GET
@never_cache
def next_turn(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = _get_campaign_for_user(request, campaign_id)
    claimed = queue.claim(user=user_of(request), campaign=campaign)
    if claimed is None and practice.needed(user=user_of(request), campaign=campaign):
        return redirect("annotation:practice", campaign.pk)
    if claimed is None:
        return HttpResponse(_empty(request, campaign, "base.html"))
    return redirect("annotation:turn", claimed.pk)


@require_http_methods(["GET", "POST"])
@never_cache
@says_no
def turn(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    if request.method == "POST":
        return _submit(request, assignment_id)
    mine = _get_turn_for_user(request, assignment_id)
    row, campaign = mine.assignment, mine.campaign
    if row.state == State.SKIPPED or (
        row.state == State.EXPIRED
        and (row.submitted_at is not None or not queue.reopen(row, campaign))
    ):
        return _notice(request, campaign, _over(row))
    if campaign.state != Campaign.State.OPEN:
        return HttpResponse(_empty(request, campaign, "base.html"))
    return HttpResponse(set_page.page(request, mine))


def _submit(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    try:
        done, held = _record_and_claim(request, assignment_id)
    except Assignment.DoesNotExist as error:
        raise Http404(_("There is no such turn.")) from error
    except Refused as error:
        if _wants_json(request) or error.code == "foreign":
            raise
        page = set_page.page(request, turns.load(assignment_id), error=error)
        return HttpResponse(page, status=STATUS[error.code])
    if done.kind == Assignment.Kind.PRACTICE:
        return redirect("annotation:feedback", done.pk)
    return _go_on(request, done.item.campaign, held)


def _record_and_claim(
    request: HttpRequest, assignment_id: int
) -> tuple[Assignment, list[int] | None]:
    """The turn with its judgment stored, and what the person holds now, if that was claimed."""
    if not _wants_json(request):
        return _record(request, assignment_id), None
    try:
        with one_commit():
            done = _record(request, assignment_id)
            practised = done.kind == Assignment.Kind.PRACTICE
            return done, None if practised else _claim(request, done.item.campaign)
    except DatabaseError:
        # The claim met another one, say. What was judged does not wait for it.
        return _record(request, assignment_id), None


def _record(request: HttpRequest, assignment_id: int) -> Assignment:
    """Store what the form says; which of the two forms it was, its fields tell."""
    said: dict[str, Any] = {
        "assignment": assignment_id,
        "user": user_of(request),
        "submission": read_submission(request.POST),
        "seconds_spent": read_seconds(request.POST),
        "correction": "correction" in request.POST,
    }
    made: list[Any]
    if request.POST.get("form") == "rating":
        made = ratings.rate(scores=read_scores(request.POST), **said)
    else:
        made = judgments.record(answers=read_answers(request.POST), by_place=True, **said)
    done: Assignment = made[0].assignment
    return done


@require_POST
@says_no
def skip(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    mine = _get_turn_for_user(request, assignment_id)
    parts = [request.POST.get("reason", ""), request.POST.get("detail", "").strip()]
    reason = ": ".join(part for part in parts if part)
    judgments.skip(assignment=assignment_id, user=user_of(request), reason=reason)
    return _go_on(request, mine.campaign)


@require_POST
@says_no
def flag(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    _get_turn_for_user(request, assignment_id)
    reason = request.POST.get("reason", "")
    judgments.flag(assignment=assignment_id, user=user_of(request), reason=reason)
    if _wants_json(request):
        return JsonResponse({"stored": assignment_id})
    return redirect("annotation:turn", assignment_id)


@require_POST
def undo(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = _get_campaign_for_user(request, campaign_id)
    try:
        reopened = judgments.undo(user=user_of(request), campaign=campaign)
    except Refused as error:
        if _wants_json(request):
            return JsonResponse({"error": error.message, "code": error.code}, status=409)
        return _notice(request, campaign, error)
    if not _wants_json(request):
        return redirect("annotation:turn", reopened.pk)
    page = set_page.page(request, turns.load(reopened.pk), base=set_page.FRAGMENT)
    return JsonResponse({"sets": [{"turn": reopened.pk, "html": page}], "empty": None})


@require_POST
@never_cache
def ahead(request: HttpRequest, campaign_id: int) -> JsonResponse:
    """The sets that this person is to judge next, those in `have` left out."""
    return _more(request, _get_campaign_for_user(request, campaign_id))


@require_GET
@never_cache
def history(request: HttpRequest) -> HttpResponse:
    """What this person judged, newest first, to look at again and to correct."""
    user = user_of(request)
    mine = (
        Assignment.objects.filter(annotator=user, state__in=counts.DONE)
        .exclude(kind=Assignment.Kind.REVIEW)
        .select_related("item__campaign", "set__source__task", "set__source__image")
        .order_by("-submitted_at", "-pk")
    )
    page = Paginator(mine, PER_PAGE).get_page(request.GET.get("page"))
    context = {"page": page, "mine": progress.own(user), "shares": quality.own_gold(user)}
    return render(request, "annotation/history.html", context)


@require_GET
@cache_control(private=True, max_age=31536000, immutable=True)
def outline(request: HttpRequest, sha256: str, *, shade: bool = False) -> HttpResponse:
    """The border of a mask, named by the mask's hash, so that browsers keep it."""
    mask = pictures.get_for_user(user_of(request), sha256)
    try:
        pixels = np.asarray(images.open_image(mask).convert("L"))
    except images.ImageError as error:
        raise Http404(str(error)) from error
    return HttpResponse(outlines.svg(pixels, shade=shade), content_type="image/svg+xml")


# Parts ------------------------------------------------------------------------------------------


def _wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "") == "application/json"


def _get_campaign_for_user(request: HttpRequest, campaign_id: int) -> Campaign:
    found = get_object_or_404(Campaign, pk=campaign_id)
    require(user_of(request), found.project_id, Role.ANNOTATOR)
    return found


def _get_turn_for_user(request: HttpRequest, assignment_id: int) -> Turn:
    try:
        found = turns.load(assignment_id)
    except Assignment.DoesNotExist as error:
        raise Http404(_("There is no such turn.")) from error
    require(user_of(request), found.campaign.project_id, Role.ANNOTATOR)
    judgments.require_own(found, user_of(request))
    return found


def _over(mine: Assignment) -> Refused:
    if mine.state == State.SKIPPED:
        return Refused(_("You skipped this set. Undo that, or go on with the next one."), "stale")
    return Refused(_("Your turn at this set ran out and it went to somebody else."), "stale")


def _go_on(
    request: HttpRequest, campaign: Campaign, held: list[int] | None = None
) -> HttpResponseBase:
    if _wants_json(request):
        return _more(request, campaign, held)
    return redirect("annotation:next", campaign.pk)


def _claim(request: HttpRequest, campaign: Campaign) -> list[int]:
    wanted = _wanted(request, campaign)
    spare = wanted // SPARED
    return queue.claim_ahead(user=user_of(request), campaign=campaign, wanted=wanted, spare=spare)


def _more(request: HttpRequest, campaign: Campaign, held: list[int] | None = None) -> JsonResponse:
    have = {int(pk) for pk in request.POST.getlist("have") if pk.isdecimal()}
    held = _claim(request, campaign) if held is None else held
    missing = [pk for pk in held if pk not in have]
    sets = [
        {"turn": one.assignment.pk, "html": set_page.page(request, one, base=set_page.FRAGMENT)}
        for one in turns.load_all(missing)
    ]
    empty = None
    if not held:
        campaign.refresh_from_db()
        empty = _empty(request, campaign, "annotation/fragment.html")
    return JsonResponse({"sets": sets, "gone": sorted(have - set(held)), "empty": empty})


def _wanted(request: HttpRequest, campaign: Campaign) -> int:
    """How many sets to keep ready: fewer near a campaign's end, so that nobody hoards the rest."""
    asked = request.POST.get("ahead", "")
    share = counts.recent_share(campaign)
    fair = max(2, (share.wanted - share.done) // (2 * max(1, share.people)))
    return min(AHEAD, fair, int(asked) if asked.isdecimal() else AHEAD)


def _progress(user: User, campaign: Campaign) -> tuple[int, int, int]:
    share = counts.recent_share(campaign)
    return counts.submitted_today(user, campaign), share.done, share.wanted


def _empty(request: HttpRequest, campaign: Campaign, base: str) -> str:
    user = user_of(request)
    today, done, wanted = _progress(user, campaign)
    context = {
        "base": base,
        "campaign": campaign,
        "empty": why_empty(user=user, campaign=campaign),
        "today": today,
        "done": done,
        "wanted": wanted,
        "words": words() if base == "base.html" else None,
        "modules": set_page.MODULES,
        "others": for_annotator(user).exclude(pk=campaign.pk)[:8],
    }
    return render_to_string("annotation/empty.html", context, request)


def _notice(request: HttpRequest, campaign: Campaign, error: Refused) -> HttpResponse:
    context = {"base": "base.html", "campaign": campaign, "error": error}
    return render(request, "annotation/notice.html", context, status=STATUS[error.code])


def preview_page(request: HttpRequest, campaign: Campaign, item: Item) -> HttpResponse:
    """The labelling page of an item as an annotator sees it; nothing is stored, now or later."""
    return HttpResponse(
        set_page.page(request, turns.preview(campaign, item, draw_order(item)), preview=True)
    )
