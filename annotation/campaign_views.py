"""Campaigns for the people who run them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import progress, queue
from annotation.campaigns import MOVES, change_state, open_campaign, ready_sets, tasks_of
from annotation.campaigns import add_sets as put_in_queue
from annotation.errors import Refused
from annotation.forms import CampaignForm
from annotation.models import Assignment, Campaign

View = Callable[..., HttpResponseBase]
VERBS = {"open": "Open", "paused": "Pause", "closed": "Close"}


def managers_only(view: View) -> View:
    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_staff:
            raise PermissionDenied("Campaigns are run by managers. Ask one to make you a manager.")
        return view(request, *args, **kwargs)

    return wrapped


@require_GET
@managers_only
def campaigns(request: HttpRequest) -> HttpResponseBase:
    submitted = Q(items__assignments__state=Assignment.State.SUBMITTED)
    rows = [
        (campaign, *queue.judged_share(campaign))
        for campaign in Campaign.objects.annotate(
            annotators=Count("items__assignments__annotator", filter=submitted, distinct=True)
        ).prefetch_related("tasks")
    ]
    return render(request, "annotation/campaigns.html", {"rows": rows})


@require_http_methods(["GET", "POST"])
@managers_only
def new_campaign(request: HttpRequest) -> HttpResponseBase:
    form = CampaignForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        assert isinstance(request.user, User)
        try:
            made = open_campaign(
                name=said["name"],
                sets=ready_sets(said["tasks"], run=said["run"]),
                tasks=said["tasks"],
                overlap=said["overlap"],
                guideline=said["guideline"],
                created_by=request.user,
                state=Campaign.State.DRAFT if "draft" in request.POST else Campaign.State.OPEN,
            )
        except Refused as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, f"“{made}” has {made.items.count()} candidate sets.")
            return redirect("annotation:campaign", made.pk)
    status = 422 if form.errors else 200
    return render(request, "annotation/new_campaign.html", {"form": form}, status=status)


@require_GET
@managers_only
def campaign(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_object_or_404(Campaign, pk=campaign_id)
    done, wanted = queue.judged_share(found)
    context = {
        "campaign": found,
        "tasks": tasks_of(found),
        "coverage": progress.coverage(found),
        "people": progress.people(found),
        "done": done,
        "wanted": wanted,
        "percent": round(100 * done / wanted) if wanted else 0,
        "moves": [(state, VERBS[state]) for state in MOVES[found.state]],
        "waiting": _waiting_sets(found).count(),
    }
    return render(request, "annotation/campaign.html", context)


@require_POST
@managers_only
def state(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_object_or_404(Campaign, pk=campaign_id)
    try:
        change_state(found, request.POST.get("state", ""))
    except Refused as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"“{found}” is {found.get_state_display().lower()} now.")
    return redirect("annotation:campaign", found.pk)


@require_POST
@managers_only
def add_sets(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_object_or_404(Campaign, pk=campaign_id)
    try:
        added = put_in_queue(found, _waiting_sets(found))
    except Refused as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{added} candidate sets were added to “{found}”.")
    return redirect("annotation:campaign", found.pk)


def _waiting_sets(found: Campaign) -> Any:
    return ready_sets(tasks_of(found)).exclude(items__campaign=found)
