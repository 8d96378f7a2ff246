"""Where reviewers decide what annotators disagree about, and deal with what they flagged."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import gold, judgments, quality_page, quality_tables, review
from annotation.answers import posted_answers, read_answers, read_submission, show_answers
from annotation.campaign_head import head
from annotation.campaign_views import get_campaign_for_user
from annotation.campaigns import criteria_for, shown_indexes
from annotation.errors import Refused
from annotation.models import (
    Assignment,
    Campaign,
    Consensus,
    Criterion,
    Dimension,
    Flag,
    Gold,
    Item,
    Judgment,
)
from annotation.quality_forms import FilterForm
from generation.access import may, user_of
from generation.models import Role

PER_PAGE = 20


@require_GET
def queue(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = _campaign(request, campaign_id)
    form = FilterForm(request.GET, campaign)
    filters = form.filters()
    decided = request.GET.get("decided") == "1"
    found = review.disputed(
        campaign, task=filters.task, dimension=filters.dimension, decided=decided
    )
    if request.GET.get("format") == "csv":
        rows = ([d.item, d.people, d.dimensions, d.disagreement] for d in found)
        columns = ["item", "people", "dimensions_in_dispute", "disagreement"]
        return quality_tables.download([columns, *rows], f"review-{campaign.pk}")
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    items = _with_pictures().in_bulk([disputed.item for disputed in page])
    flags = review.open_flags(campaign).select_related("assignment")
    names = quality_page.names_for(
        user_of(request), campaign, {flag.assignment.annotator_id for flag in flags}
    )
    context = {
        **head(request, campaign, "review"),
        "is_manager": may(user_of(request), campaign.project, Role.MANAGER),
        "form": form,
        "page": page,
        "rows": [(disputed, items[disputed.item]) for disputed in page],
        "decided": decided,
        "flags": [(flag, names(flag.assignment.annotator_id)) for flag in flags[:PER_PAGE]],
        "more_flags": max(0, flags.count() - PER_PAGE),
        "query": "".join(
            f"&{key}={request.GET[key]}"
            for key in ("task", "dimension", "decided")
            if request.GET.get(key, "").isdecimal()
        ),
    }
    return render(request, "annotation/review.html", context)


@require_http_methods(["GET", "POST"])
def item(request: HttpRequest, campaign_id: int, item_id: int) -> HttpResponseBase:
    campaign = _campaign(request, campaign_id)
    found = get_object_or_404(_with_pictures(), pk=item_id, campaign=campaign)
    criteria = criteria_for(campaign, found.set.source.task)
    order = shown_indexes(found)
    if request.method == "GET":
        standing = review.standing(found)
        held = show_answers(judgments.last_answers(standing), order) if standing else {}
        return _page(request, found, criteria, held, standing)
    try:
        review.decide(
            item=found,
            user=user_of(request),
            answers=read_answers(request.POST),
            by_place=True,
            comment=request.POST.get("comment", ""),
            submission=read_submission(request.POST),
        )
    except Refused as error:
        return _page(request, found, criteria, posted_answers(request.POST), None, error)
    messages.success(request, _("The decision on set %d is stored.") % found.set_id)
    rest = [d.item for d in review.disputed(campaign) if d.item != found.pk]
    if rest:
        return redirect("annotation:review_item", campaign.pk, rest[0])
    return redirect("annotation:review", campaign.pk)


@require_POST
def withdraw(request: HttpRequest, campaign_id: int, item_id: int) -> HttpResponseBase:
    campaign = _campaign(request, campaign_id)
    found = get_object_or_404(Item, pk=item_id, campaign=campaign)
    if review.withdraw(item=found):
        messages.success(request, _("The decision was withdrawn; the annotators’ answers stand."))
    else:
        messages.error(request, _("There was no decision to withdraw."))
    return redirect("annotation:review_item", campaign.pk, found.pk)


@require_POST
def make_gold(request: HttpRequest, campaign_id: int, item_id: int) -> HttpResponseBase:
    campaign = _campaign(request, campaign_id)
    found = get_object_or_404(Item, pk=item_id, campaign=campaign)
    decision = review.standing(found)
    try:
        if decision is None:
            raise Refused(_("There is no decision on this set yet. Decide first."))
        made = gold.from_decision(decision, practice="practice" in request.POST)
    except Refused as error:
        messages.error(request, error.message)
    else:
        said = ngettext("%d answer is known now.", "%d answers are known now.", len(made))
        messages.success(request, said % len(made))
    return redirect("annotation:review_item", campaign.pk, found.pk)


@require_POST
def flag(request: HttpRequest, campaign_id: int, flag_id: int) -> HttpResponseBase:
    campaign = _campaign(request, campaign_id)
    found = get_object_or_404(Flag, pk=flag_id, assignment__item__campaign=campaign)
    note = request.POST.get("note", "")
    if review.resolve(flag=found, user=user_of(request), note=note):
        messages.success(request, _("The flag is resolved."))
    else:
        messages.error(request, _("Somebody resolved this flag before; their note was kept."))
    if request.POST.get("back") == "item":
        return redirect("annotation:review_item", campaign.pk, found.assignment.item_id)
    return redirect("annotation:review", campaign.pk)


# Parts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What one person said on one dimension, in places from 1."""

    name: str
    outcome: str
    best: int | None
    worst: int | None


@dataclass(frozen=True)
class Question:
    dimension: Dimension
    said: list[Said]
    same_best: str  # how many of them picked the same best, in words
    consensus: tuple[int | None, Consensus] | None
    gold: Gold | None
    best: str  # what the form holds
    worst: str


def _campaign(request: HttpRequest, campaign_id: int) -> Campaign:
    return get_campaign_for_user(request, campaign_id, Role.REVIEWER)


def _with_pictures() -> Any:
    return Item.objects.select_related(
        "campaign", "set__source__task", "set__source__image", "set__source__mask"
    ).prefetch_related("set__candidates__image")


def _page(
    request: HttpRequest,
    found: Item,
    criteria: list[Criterion],
    held: Mapping[str, tuple[str, str]],
    standing: Assignment | None,
    error: Refused | None = None,
) -> HttpResponseBase:
    order = shown_indexes(found)
    places = {index: place for place, index in enumerate(order, start=1)}
    pictures = {candidate.index: candidate.image for candidate in found.set.candidates.all()}
    flags = Flag.objects.filter(assignment__item=found).select_related("assignment", "resolved_by")
    context = {
        **head(request, found.campaign, "review"),
        "is_manager": may(user_of(request), found.campaign.project, Role.MANAGER),
        "item": found,
        "source": found.set.source,
        "pictures": [(place, pictures[index]) for index, place in places.items()],
        "questions": _questions(request, found, criteria, held, places),
        "comment": request.POST.get("comment", standing.comment if standing else ""),
        "submission": uuid.uuid4(),
        "standing": standing or review.standing(found),
        "history": _history(request, found, places),
        "flags": flags.order_by("resolved_at", "pk"),
        "error": error,
    }
    return render(request, "annotation/review_item.html", context, status=422 if error else 200)


def _questions(
    request: HttpRequest,
    found: Item,
    criteria: list[Criterion],
    held: Mapping[str, tuple[str, str]],
    places: Mapping[int, int],
) -> list[Question]:
    rows = list(
        Judgment.objects.current()
        .filter(
            assignment__item=found,
            assignment__kind=Assignment.Kind.WORK,
            assignment__state=Assignment.State.SUBMITTED,
        )
        .select_related("assignment", "best", "worst")
        .order_by("assignment__submitted_at", "pk")
    )
    names = quality_page.names_for(
        user_of(request), found.campaign, {row.assignment.annotator_id for row in rows}
    )
    agreed = {
        row.dimension_id: row
        for row in Consensus.objects.filter(item=found).select_related("best", "majority")
    }
    golds = {
        row.dimension_id: row
        for row in Gold.objects.filter(set=found.set_id).select_related("best", "worst")
    }
    made = []
    for criterion in criteria:
        dimension = criterion.dimension
        mine = [row for row in rows if row.dimension_id == dimension.pk]
        said = [_said(row, names, places) for row in mine]
        weighted = agreed.get(dimension.pk)
        made.append(
            Question(
                dimension,
                said,
                _agreement(said),
                (_place(weighted.best, places), weighted) if weighted else None,
                golds.get(dimension.pk),
                *held.get(dimension.slug, ("", "")),
            )
        )
    return made


def _place(candidate: Any, places: Mapping[int, int]) -> int | None:
    return places.get(candidate.index) if candidate is not None else None


def _said(row: Judgment, names: quality_page.Names, places: Mapping[int, int]) -> Said:
    name = names(row.assignment.annotator_id)
    return Said(name, row.outcome, _place(row.best, places), _place(row.worst, places))


def _agreement(said: list[Said]) -> str:
    voices = [(s.outcome, s.best, s.worst) for s in said if s.outcome != "cannot_judge"]
    if len(voices) < 2:
        return ""
    if len(set(voices)) == 1:
        return _("all agree")
    most = max(voices.count(voice) for voice in voices)
    if most == 1:
        return _("all differ")
    return _("%(most)d of %(all)d say the same") % {"most": most, "all": len(voices)}


def _history(request: HttpRequest, found: Item, places: Mapping[int, int]) -> list[dict[str, Any]]:
    turns = list(review.decisions(found))
    # Deciders stand by their names; it is annotators who are pseudonymous to reviewers.
    me = user_of(request).pk
    return [
        {
            "name": _("You") if turn.annotator_id == me else turn.annotator.username,
            "at": turn.submitted_at,
            "stands": turn.state == Assignment.State.SUBMITTED,
            "comment": turn.comment,
            "said": [
                (row.dimension, _said(row, lambda _user: "", places))
                for row in sorted(turn.judgments.all(), key=lambda row: row.dimension_id)
            ],
        }
        for turn in turns
    ]
