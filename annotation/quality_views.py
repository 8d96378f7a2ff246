"""How well a campaign's labels can be trusted, for the people who run and review it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import F, Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from kombu.exceptions import OperationalError

from annotation import aggregation, figures, gold, progress, quality_page, quality_tables
from annotation import quality as acts
from annotation.campaign_head import head
from annotation.campaign_views import get_campaign_for_user
from annotation.judged import Judged, load
from annotation.models import Aggregation, Campaign, Consensus, Gold, Item, Seat
from annotation.quality_forms import (
    ConsensusGoldForm,
    FilterForm,
    LabelFilterForm,
    RequeueForm,
)
from annotation.review import disputed, open_flags
from generation import audit
from generation.access import may, user_of
from generation.models import Role, Verb

HARDEST_SHOWN = 6
SAME_AS_MAJORITY = Q(best=F("majority")) | Q(best__isnull=True, majority__isnull=True)
PER_PAGE = 50
COLUMNS = [
    ("name", gettext_lazy("Annotator")),
    ("signs", gettext_lazy("Look at")),
    ("turns", gettext_lazy("Sets")),
    ("gold", gettext_lazy("Known answers")),
    ("attention", gettext_lazy("Checks failed")),
    ("repeats", gettext_lazy("Agrees with self")),
    ("others", gettext_lazy("Agrees with others")),
    ("reliability", gettext_lazy("Reliability")),
    ("bias", gettext_lazy("Place bias")),
    ("seconds", gettext_lazy("Seconds")),
    ("same", gettext_lazy("No difference")),
    ("cannot", gettext_lazy("Can’t judge")),
]


@require_GET
def quality(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = get_campaign_for_user(request, campaign_id, Role.REVIEWER)
    form = FilterForm(request.GET, campaign)
    filters = form.filters()
    judged = load(campaign, filters)
    names = quality_page.names_for(user_of(request), campaign, judged.person.tolist())
    if request.GET.get("format") == "csv":
        return _download(request, campaign, judged, names)
    sort, by = request.GET.get("sort", "signs"), request.GET.get("by", "disagreement")
    context = {
        **head(request, campaign, "quality"),
        "form": form,
        "filtered": filters.any,
        "query": _query(request, without=("sort", "by", "format", "table")),
        "is_manager": may(user_of(request), campaign.project, Role.MANAGER),
        "judgments": len(judged.row),
        "coverage": _coverage(campaign),
        "agreement": quality_page.agreement_lines(judged),
        "rated": quality_page.rated_lines(campaign, filters),
        "charts": _charts(request, judged),
        "columns": _columns(request, sort),
        "lines": quality_page.lines(campaign, judged, names, sort=sort),
        "hardest": _hardest(judged, by),
        "hardest_by": _choices(request, by),
        "disputed": len(disputed(campaign)),
        "flags": open_flags(campaign).count(),
        "golds": Gold.objects.filter(set__items__campaign=campaign).count(),
        "aggregation": _aggregation(campaign),
    }
    return render(request, "annotation/quality.html", context)


@require_POST
def consensus(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = get_campaign_for_user(request, campaign_id, Role.MANAGER)
    try:
        aggregation.request(campaign)
    except OperationalError:
        messages.error(
            request,
            _("The job queue cannot be reached, so nothing was ordered. Start it and try again."),
        )
    else:
        messages.success(request, _("The consensus is being worked out. Reload in a moment."))
    return redirect("annotation:quality", campaign.pk)


@require_POST
def pause_all(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = get_campaign_for_user(request, campaign_id, Role.MANAGER)
    paused = acts.pause_unreliable(campaign)
    if campaign.pause_below is None:
        messages.error(request, _("This campaign has no threshold. Set one in its settings first."))
    elif paused:
        people = ", ".join(seat.user.get_username() for seat in paused)
        messages.success(request, _("Paused: %s.") % people)
    else:
        messages.success(request, _("Nobody is below the threshold, so nobody was paused."))
    return redirect("annotation:quality", campaign.pk)


@require_http_methods(["GET", "POST"])
def person(request: HttpRequest, campaign_id: int, user_id: int) -> HttpResponseBase:
    campaign = get_campaign_for_user(request, campaign_id, Role.MANAGER)
    user = get_object_or_404(User, pk=user_id)
    if request.method == "POST":
        with transaction.atomic():  # what is done and its entry in the log
            return _act_on_person(request, campaign, user)
    judged = load(campaign)
    names = quality_page.names_for(user_of(request), campaign, [user.pk])
    found = [
        line for line in quality_page.lines(campaign, judged, names) if line.person.user == user.pk
    ]
    asked = "since" in request.GET
    form = RequeueForm(request.GET if asked else None)
    preview = None
    if asked and form.is_valid():
        preview = acts.requeue_recent(
            campaign=campaign, user=user, since=form.cleaned_data["since"], dry_run=True
        )
    context = {
        **head(request, campaign, "quality"),
        "is_manager": True,
        "person": user,
        "line": found[0] if found else None,
        "chart": quality_page.bias_chart(found[0].person.bias) if found else None,
        "seat": Seat.objects.filter(campaign=campaign, user=user).first(),
        "form": form,
        "preview": preview,
        "requeues": acts.requeues(campaign, user),
    }
    status = 422 if asked and form.errors else 200
    return render(request, "annotation/quality_person.html", context, status=status)


@require_http_methods(["GET", "POST"])
def known_answers(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    """The known answers there are, and more of them from what people agree on."""
    campaign = get_campaign_for_user(request, campaign_id, Role.MANAGER)
    data = request.POST if request.method == "POST" else request.GET
    form = ConsensusGoldForm(data if "min_annotators" in data else None)
    found = None
    if form.is_bound and form.is_valid():
        found = gold.unanimous(
            campaign,
            min_annotators=form.cleaned_data["min_annotators"],
            limit=form.cleaned_data["limit"],
        )
    if found is not None and request.method == "POST":
        made = gold.keep(
            found, origin=Gold.Origin.CONSENSUS, practice=form.cleaned_data["practice"]
        )
        messages.success(
            request,
            ngettext("%d known answer was made.", "%d known answers were made.", made) % made,
        )
        return redirect("annotation:known_answers", campaign.pk)
    golds = (
        Gold.objects.filter(set__items__campaign=campaign)
        .select_related("dimension", "set__source__image", "best__image", "worst__image")
        .order_by("-pk")
    )
    context = {
        **head(request, campaign, "gold"),
        "is_manager": True,
        "form": form,
        "preview": found,
        "preview_sets": len({known.set for known in found or []}),
        "golds": Paginator(golds, PER_PAGE).get_page(request.GET.get("page")),
    }
    status = 422 if form.errors else 200
    return render(request, "annotation/quality_gold.html", context, status=status)


@require_GET
def labels(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    campaign = get_campaign_for_user(request, campaign_id, Role.REVIEWER)
    form = LabelFilterForm(request.GET, campaign)
    filters = replace(form.filters(), person=_allowed_person(request, campaign, form))
    rows = quality_tables.labelled(
        campaign,
        filters,
        form.cleaned_data.get("outcome") or "",
        form.cleaned_data.get("kind") or "",
    )
    people = rows.order_by().values_list("assignment__annotator", flat=True).distinct()
    names = quality_page.names_for(user_of(request), campaign, people)
    if request.GET.get("format") == "csv":
        return quality_tables.download(quality_tables.labels(rows, names), f"labels-{campaign.pk}")
    shown = rows.select_related(
        "assignment", "dimension", "best__image", "worst__image", "set__source__image"
    ).select_related("set__source__task")
    page = Paginator(shown, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        **head(request, campaign, "labels"),
        "is_manager": may(user_of(request), campaign.project, Role.MANAGER),
        "form": form,
        "page": page,
        "rows": [(row, names(row.assignment.annotator_id)) for row in page],
        "query": _query(request, without=("page", "format")),
    }
    return render(request, "annotation/quality_labels.html", context)


# Parts ------------------------------------------------------------------------------------------


def _allowed_person(request: HttpRequest, campaign: Campaign, form: LabelFilterForm) -> int | None:
    # Somebody who sees pseudonyms must not try out which number belongs to whom.
    chosen: int | None = form.cleaned_data.get("person")
    return chosen if may(user_of(request), campaign.project, Role.MANAGER) else None


def _query(request: HttpRequest, *, without: tuple[str, ...]) -> str:
    kept = [(key, value) for key, value in request.GET.items() if value and key not in without]
    return urlencode(kept)


def _download(
    request: HttpRequest, campaign: Campaign, judged: Judged, names: quality_page.Names
) -> HttpResponseBase:
    name = request.GET.get("table", "annotators")
    by = request.GET.get("by", "disagreement")
    tables = {
        "annotators": lambda: quality_tables.annotators(campaign, judged, names),
        "agreement": lambda: quality_tables.agreement(judged),
        "hours": lambda: quality_tables.hours(judged),
        "time": lambda: quality_tables.over_time(judged),
        "places": lambda: quality_tables.places(campaign, judged, names),
        "hardest": lambda: quality_tables.hardest(judged, by),
        "consensus": lambda: quality_tables.consensus(campaign),
    }
    if name not in tables:
        raise Http404(_("There is no table “%s”.") % name)
    return quality_tables.download(tables[name](), f"{name}-{campaign.pk}")


def _charts(request: HttpRequest, judged: Judged) -> list[Any]:
    kept = _query(request, without=("format", "table"))

    def link(table: str) -> str:
        return f"?{kept}&table={table}&format=csv".replace("?&", "?")

    bias = quality_page.campaign_bias(judged)
    found = [
        quality_page.hourly_chart(judged, link("hours")),
        quality_page.agreement_chart(judged, link("time")),
        quality_page.bias_chart(bias, link("places")),
    ]
    return [chart for chart in found if chart is not None]


def _columns(request: HttpRequest, sort: str) -> list[dict[str, str]]:
    kept = _query(request, without=("sort", "format", "table"))
    found = []
    for key, label in COLUMNS:
        turned = f"-{key}" if sort == key else key
        state = {key: "ascending", f"-{key}": "descending"}.get(sort, "")
        address = f"?{kept}&sort={turned}#annotators".replace("?&", "?")
        found.append({"key": key, "label": str(label), "address": address, "state": state})
    return found


def _choices(request: HttpRequest, by: str) -> list[dict[str, Any]]:
    kept = _query(request, without=("by", "format", "table"))
    labels = [
        ("disagreement", _("most disagreement")),
        ("same", _("most “no difference”")),
        ("slow", _("slowest")),
    ]
    return [
        {
            "label": label,
            "address": f"?{kept}&by={key}#hardest".replace("?&", "?"),
            "current": key == by,
        }
        for key, label in labels
    ]


def _coverage(campaign: Campaign) -> dict[str, Any]:
    found = progress.coverage(campaign)
    rows = [(row, list(zip(found.dimensions, row.cells, strict=True))) for row in found.rows]
    return {"dimensions": found.dimensions, "rows": rows}


def _hardest(judged: Judged, by: str) -> list[tuple[figures.Hard, Item]]:
    hard = figures.hardest(judged, by, HARDEST_SHOWN)
    items = (
        Item.objects.select_related("set__source__image", "set__source__task")
        .prefetch_related("set__candidates__image")
        .in_bulk([one.item for one in hard])
    )
    return [(one, items[one.item]) for one in hard]


def _aggregation(campaign: Campaign) -> dict[str, Any]:
    found = Aggregation.objects.filter(campaign=campaign).first()
    if found is None:
        return {}
    waiting = found.requested_at is not None and (
        found.made_at is None or found.made_at < found.requested_at
    )
    rows = Consensus.objects.filter(item__campaign=campaign)
    return {
        "row": found,
        "waiting": waiting,
        "newer": aggregation.newer(found) if found.made_at else 0,
        "answers": rows.count(),
        "changed": rows.exclude(SAME_AS_MAJORITY).count(),
    }


def _act_on_person(request: HttpRequest, campaign: Campaign, user: User) -> HttpResponse:
    verb = request.POST.get("verb", "")
    if verb == "pause":
        reason = request.POST.get("reason", "").strip() or "Paused by the campaign’s manager."
        acts.pause(campaign=campaign, user_id=user.pk, reason=reason)
        _note(request, Verb.PERSON_PAUSED, campaign, user, reason=reason)
        messages.success(request, _("%s gets no more work here.") % user.get_username())
    elif verb == "resume":
        acts.resume(campaign=campaign, user_id=user.pk)
        _note(request, Verb.PERSON_RESUMED, campaign, user)
        messages.success(request, _("%s may go on.") % user.get_username())
    elif verb == "requeue":
        form = RequeueForm(request.POST)
        if not form.is_valid():
            raise Http404(_("That is no moment in time."))
        done = acts.requeue_recent(campaign=campaign, user=user, since=form.cleaned_data["since"])
        _note(request, Verb.WORK_REQUEUED, campaign, user, judgments=done.judgments)
        messages.success(
            request,
            _(
                "%(judgments)d judgments of %(turns)d sets were withdrawn; the sets are first in "
                "the queue. This can be undone until others take them."
            )
            % {"judgments": done.judgments, "turns": done.turns},
        )
    elif verb == "undo":
        _undo_requeue(request, campaign, user)
    else:
        raise Http404(_("There is no such action."))
    return redirect("annotation:quality_person", campaign.pk, user.pk)


def _note(request: HttpRequest, verb: Verb, campaign: Campaign, user: User, **after: Any) -> None:
    about = {"person": user.get_username()} | after
    audit.record(actor=user_of(request), verb=verb, thing=campaign, after=about)


def _undo_requeue(request: HttpRequest, campaign: Campaign, user: User) -> None:
    at: datetime | None
    try:
        at = parse_datetime(request.POST.get("at", ""))
    except ValueError:
        at = None
    if at is None:
        raise Http404(_("That is no moment in time."))
    back, taken = acts.undo_requeue(campaign=campaign, user=user, at=at)
    _note(request, Verb.REQUEUE_UNDONE, campaign, user, sets=back)
    said = ngettext("%d set was given back.", "%d sets were given back.", back) % back
    if taken:
        said += (
            " "
            + ngettext(
                "%d has gone to somebody else since and stays withdrawn.",
                "%d have gone to somebody else since and stay withdrawn.",
                taken,
            )
            % taken
        )
    messages.success(request, said)
