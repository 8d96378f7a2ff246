"""The labelling pages. Each is a plain form first; htmx swaps the next set into the same page."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.formats import date_format
from django.utils.safestring import SafeString
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect

from annotation import guides, judgments, outlines, queue
from annotation.campaigns import criteria_for, draw_order, for_annotator
from annotation.errors import Refused
from annotation.forms import (
    SKIP_REASONS,
    read_answers,
    read_seconds,
    read_submission,
    show_answers,
)
from annotation.models import Assignment, Campaign, Criterion, Item, Wording
from generation import images
from generation.models import CandidateSet, Image

State = Assignment.State
STATUS = {"invalid": 422, "stale": 409, "foreign": 403, "closed": 409}


@dataclass(frozen=True)
class Question:
    """A dimension on the page; `best` and `worst` are what its fields hold."""

    slug: str
    name: str
    wording: Wording
    required: bool
    best: str
    worst: str

    @property
    def guide(self) -> SafeString:
        return guides.render(self.wording.guideline)


@require_GET
@never_cache
def label(request: HttpRequest) -> HttpResponseBase:
    found = list(for_annotator(_user(request)))
    if len(found) == 1:
        return redirect("annotation:next", found[0].pk)
    rows = [(campaign, *_progress(_user(request), campaign)) for campaign in found]
    return render(request, "annotation/choose.html", {"rows": rows})


@require_GET
@never_cache
def next_turn(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = get_object_or_404(Campaign, pk=campaign_id)
    claimed = queue.claim(user=_user(request), campaign=campaign)
    if claimed is None:
        return _empty(request, campaign)
    return redirect("annotation:turn", claimed.pk)


@require_http_methods(["GET", "POST"])
@never_cache
def turn(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    mine = _get_turn_for_user(assignment_id)
    if mine.annotator_id != request.user.pk:
        error = Refused(
            "This turn belongs to somebody else. Open the queue to get one of your own.", "foreign"
        )
        return _notice(request, mine.item.campaign, error)
    if request.method == "POST":
        return _submit(request, mine)
    if mine.state in {State.EXPIRED, State.SKIPPED}:
        return _notice(request, mine.item.campaign, _over(mine))
    if mine.item.campaign.state != Campaign.State.OPEN:
        return _empty(request, mine.item.campaign)
    answers = judgments.last_answers(mine)
    return _page(request, mine, show_answers(answers, mine.order))


def _submit(request: HttpRequest, mine: Assignment) -> HttpResponseBase:
    campaign = mine.item.campaign
    try:
        judgments.record(
            assignment=mine,
            user=_user(request),
            answers=read_answers(
                request.POST, criteria_for(campaign, mine.set.source.task), mine.order
            ),
            submission=read_submission(request.POST),
            seconds_spent=read_seconds(request.POST),
        )
    except Refused as error:
        mine.refresh_from_db()
        return _page(request, mine, _posted(request.POST), error=error)
    if mine.kind == Assignment.Kind.PRACTICE:
        # A page of its own, with a style of its own: never swapped into this one.
        shown = reverse("annotation:feedback", args=[mine.pk])
        return HttpResponseClientRedirect(shown) if request.htmx else redirect(shown)  # type: ignore[attr-defined]
    return _go_on(request, campaign)


@require_POST
def skip(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    mine = _get_turn_for_user(assignment_id)
    reason = ": ".join(
        part
        for part in (request.POST.get("reason", ""), request.POST.get("detail", "").strip())
        if part
    )
    try:
        judgments.skip(assignment=mine, user=_user(request), reason=reason)
    except Refused as error:
        return _notice(request, mine.item.campaign, error)
    return _go_on(request, mine.item.campaign)


@require_POST
def undo(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = get_object_or_404(Campaign, pk=campaign_id)
    try:
        reopened = judgments.undo(user=_user(request), campaign=campaign)
    except Refused as error:
        return _notice(request, campaign, error)
    return _show(request, reopened.pk)


@require_GET
@cache_control(private=True, max_age=31536000, immutable=True)
def outline(request: HttpRequest, sha256: str, *, shade: bool = False) -> HttpResponse:
    """The border of a mask, named by the mask's hash, so that browsers keep it."""
    mask = get_object_or_404(Image, sha256=sha256)
    try:
        pixels = np.asarray(images.open_image(mask).convert("L"))
    except images.ImageError as error:
        raise Http404(str(error)) from error
    return HttpResponse(outlines.svg(pixels, shade=shade), content_type="image/svg+xml")


# Parts ------------------------------------------------------------------------------------------


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # LoginRequiredMiddleware
    return request.user


def _get_turn_for_user(assignment_id: int) -> Assignment:
    found = Assignment.objects.select_related(
        "item__campaign", "set__source__task", "set__source__image", "set__source__mask"
    )
    return get_object_or_404(found, pk=assignment_id)


def _over(mine: Assignment) -> Refused:
    if mine.state == State.SKIPPED:
        return Refused("You skipped this set. Undo that, or go on with the next one.", "stale")
    until = date_format(timezone.localtime(mine.lease_until), "H:i")
    return Refused(
        f"Your turn at this set ran out at {until} and it went to somebody else.", "stale"
    )


def _go_on(request: HttpRequest, campaign: Campaign) -> HttpResponseBase:
    if not request.htmx:  # type: ignore[attr-defined]
        return redirect("annotation:next", campaign.pk)
    claimed = queue.claim(user=_user(request), campaign=campaign)
    if claimed is None:
        campaign.refresh_from_db(fields=["state"])
        response = _empty(request, campaign)
        response["HX-Push-Url"] = reverse("annotation:next", args=[campaign.pk])
        return response
    return _show(request, claimed.pk)


def _show(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    if not request.htmx:  # type: ignore[attr-defined]
        return redirect("annotation:turn", assignment_id)
    mine = _get_turn_for_user(assignment_id)
    answers = judgments.last_answers(mine)
    response = _page(request, mine, show_answers(answers, mine.order))
    response["HX-Push-Url"] = reverse("annotation:turn", args=[assignment_id])
    return response


def _page(
    request: HttpRequest,
    mine: Assignment,
    held: Mapping[str, tuple[str, str]],
    *,
    error: Refused | None = None,
    preview: bool = False,
) -> HttpResponse:
    user, campaign, source = _user(request), mine.item.campaign, mine.set.source
    by_index = {c.index: c for c in mine.set.candidates.select_related("image")}
    pictures = [by_index[index].image for index in mine.order]
    today, done, wanted = _progress(user, campaign)
    following = queue.upcoming(user=user, campaign=campaign, after=mine)
    # A repeated form keeps its id, so that sending it twice is noticed; a new one gets a new id.
    submission = read_submission(request.POST) if error and error.code != "stale" else None
    context = {
        "turn": mine,
        "campaign": campaign,
        "guideline": guides.render(campaign.guideline),
        "task": source.task,
        "source": source,
        "prompt": "" if source.task.fixed_prompt else source.prompt,
        "pictures": pictures,
        "places": [str(place) for place in range(1, len(pictures) + 1)],
        "questions": _questions(criteria_for(campaign, source.task), held),
        "submission": submission or uuid.uuid4(),
        "reasons": SKIP_REASONS,
        "error": error,
        "preview": preview,
        "today": today,
        "done": done,
        "wanted": wanted,
        "upcoming": _picture_names(following.set) if following else [],
        "columns": len(pictures) + 1 if len(pictures) < 5 else (len(pictures) + 2) // 2,
        "rows": 1 if len(pictures) < 5 else 2,
    }
    status = STATUS[error.code] if error else 200
    return _render(request, "annotation/label.html", context, status)


def _questions(criteria: list[Criterion], held: Mapping[str, tuple[str, str]]) -> list[Question]:
    return [
        Question(
            criterion.dimension.slug,
            criterion.dimension.name,
            criterion.dimension.wording,
            criterion.required,
            *held.get(criterion.dimension.slug, ("", "")),
        )
        for criterion in criteria
    ]


def _posted(data: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    slugs = {key.partition("-")[2] for key in data if key.startswith(("best-", "worst-"))}
    return {slug: (data.get(f"best-{slug}", ""), data.get(f"worst-{slug}", "")) for slug in slugs}


def _progress(user: User, campaign: Campaign) -> tuple[int, int, int]:
    return (queue.submitted_today(user, campaign), *queue.judged_share(campaign))


def _picture_names(candidate_set: CandidateSet) -> list[str]:
    source = candidate_set.source
    shown = candidate_set.candidates.values_list("image__sha256", flat=True)
    return [source.image.sha256, *(sha256 for sha256 in shown if sha256)]


def _empty(request: HttpRequest, campaign: Campaign) -> HttpResponse:
    user = _user(request)
    today, done, wanted = _progress(user, campaign)
    context = {
        "campaign": campaign,
        "empty": queue.why_empty(user=user, campaign=campaign),
        "today": today,
        "done": done,
        "wanted": wanted,
        "others": for_annotator(user).exclude(pk=campaign.pk)[:8],
    }
    return _render(request, "annotation/empty.html", context, 200)


def _notice(request: HttpRequest, campaign: Campaign, error: Refused) -> HttpResponse:
    context = {"campaign": campaign, "error": error}
    return _render(request, "annotation/notice.html", context, STATUS[error.code])


def _render(
    request: HttpRequest, template: str, context: dict[str, Any], status: int
) -> HttpResponse:
    # Page and fragment share the template: only what it extends differs.
    htmx = request.htmx  # type: ignore[attr-defined]
    fragment = htmx and not htmx.history_restore_request
    context["base"] = "annotation/fragment.html" if fragment else "base.html"
    response = render(request, template, context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    return response


def preview_page(request: HttpRequest, campaign: Campaign, item: Item) -> HttpResponse:
    """The labelling page of an item as an annotator sees it; nothing is stored, now or later."""
    item.campaign = campaign
    turn = Assignment(
        pk=0,  # no turn has this id, so that nothing on the page can be submitted
        item=item,
        set=item.set,
        annotator=_user(request),
        slot=0,
        order=draw_order(item),
        lease_until=timezone.now(),
    )
    return _page(request, turn, {}, preview=True)
