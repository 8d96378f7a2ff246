"""Campaigns for the people who run them."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.db import transaction
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
from generation import audit
from generation.access import may, may_anywhere, needs, projects_of, require, user_of
from generation.models import Role, Verb

VERBS = {"open": "Open", "paused": "Pause", "closed": "Close"}


def _get_campaign_for_user(request: HttpRequest, campaign_id: int, role: Role) -> Campaign:
    found = get_object_or_404(Campaign, pk=campaign_id)
    require(user_of(request), found.project_id, role)
    return found


@require_GET
@needs(Role.VIEWER)
def campaigns(request: HttpRequest) -> HttpResponseBase:
    submitted = Q(items__assignments__state=Assignment.State.SUBMITTED)
    rows = [
        (campaign, *queue.judged_share(campaign))
        for campaign in Campaign.objects.filter(project__in=projects_of(user_of(request)))
        .annotate(
            annotators=Count("items__assignments__annotator", filter=submitted, distinct=True)
        )
        .prefetch_related("tasks")
    ]
    context = {"rows": rows, "may_make": may_anywhere(user_of(request), Role.MANAGER)}
    return render(request, "annotation/campaigns.html", context)


@require_http_methods(["GET", "POST"])
@needs(Role.MANAGER)
def new_campaign(request: HttpRequest) -> HttpResponseBase:
    managed = projects_of(user_of(request), Role.MANAGER)
    form = CampaignForm(request.POST or None, projects=managed)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        assert isinstance(request.user, User)
        try:
            made = open_campaign(
                name=said["name"],
                sets=ready_sets(said["tasks"], run=said["run"], project=said["project"]),
                tasks=said["tasks"],
                overlap=said["overlap"],
                guideline=said["guideline"],
                created_by=request.user,
                project=said["project"],
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
def campaign(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = _get_campaign_for_user(request, campaign_id, Role.VIEWER)
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
        "may_manage": may(user_of(request), found.project_id, Role.MANAGER),
        "may_label": may(user_of(request), found.project_id, Role.ANNOTATOR),
    }
    return render(request, "annotation/campaign.html", context)


@require_POST
def state(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = _get_campaign_for_user(request, campaign_id, Role.MANAGER)
    try:
        change_state(found, request.POST.get("state", ""), actor=user_of(request))
    except Refused as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"“{found}” is {found.get_state_display().lower()} now.")
    return redirect("annotation:campaign", found.pk)


@require_POST
def add_sets(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = _get_campaign_for_user(request, campaign_id, Role.MANAGER)
    try:
        with transaction.atomic():
            added = put_in_queue(found, _waiting_sets(found))
            audit.record(
                actor=user_of(request), verb=Verb.SETS_ADDED, thing=found, after={"sets": added}
            )
    except Refused as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{added} candidate sets were added to “{found}”.")
    return redirect("annotation:campaign", found.pk)


def _waiting_sets(found: Campaign) -> Any:
    sets = ready_sets(tasks_of(found), project=found.project_id)
    return sets.exclude(items__campaign=found)
