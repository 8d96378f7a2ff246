"""Campaigns for the people who run them."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import contents, counts, guides, practice, progress, views
from annotation.campaign_forms import CampaignForm, who_may_judge
from annotation.campaign_head import head
from annotation.campaigns import admits, askable, change_state, tasks_of
from annotation.contents_forms import ContentsForm
from annotation.errors import Refused
from annotation.models import Campaign, Item
from generation import audit
from generation.access import (
    may,
    may_anywhere,
    needs,
    projects_of,
    require,
    user_of,
)
from generation.models import CandidateSet, Project, Role, Verb

View = Callable[..., HttpResponseBase]
Purpose = Campaign.Purpose
PURPOSES = {
    "preference": (lazy("Best and worst"), lazy("of each set, per dimension; the loop learns it")),
    "comparison": (lazy("Comparison"), lazy("of two policies or systems: which one is better")),
    "rating": (lazy("Rating"), lazy("of single pictures: usable or not, and 1–5 per dimension")),
}


def get_campaign_for_user(request: HttpRequest, campaign_id: int, role: Role) -> Campaign:
    found = get_object_or_404(Campaign.objects.select_related("project"), pk=campaign_id)
    require(user_of(request), found.project, role)
    return found


def get_campaign_for_manager(request: HttpRequest, campaign_id: int) -> Campaign:
    return get_campaign_for_user(request, campaign_id, Role.MANAGER)


@require_GET
@needs(Role.VIEWER)
def campaigns(request: HttpRequest) -> HttpResponseBase:
    found = Campaign.objects.filter(project__in=projects_of(user_of(request)))
    rows = [
        (campaign, *counts.recent_figures(campaign)) for campaign in found.prefetch_related("tasks")
    ]
    context = {"rows": rows, "may_make": may_anywhere(user_of(request), Role.MANAGER)}
    return render(request, "annotation/campaigns.html", context)


def _managed(request: HttpRequest) -> QuerySet[Project]:
    return projects_of(user_of(request), Role.MANAGER)


@require_http_methods(["GET", "POST"])
@needs(Role.MANAGER)
def new_campaign(request: HttpRequest) -> HttpResponseBase:
    projects = _managed(request)
    data = request.POST or None
    purpose = (data or request.GET).get("purpose", "")
    purpose = purpose if purpose in Purpose.values else Purpose.PREFERENCE.value
    form = CampaignForm(
        data, projects=projects, people=who_may_judge(projects), instance=Campaign(purpose=purpose)
    )
    about = ContentsForm(data, purpose=purpose, projects=projects)
    counted = None
    if data is not None and form.is_valid() & about.is_valid():
        try:
            made, added = contents.create(
                entries=about.entries,
                dry_run="count" in data,
                purpose=purpose,
                created_by=user_of(request),
                state=Campaign.State.DRAFT if "draft" in data else Campaign.State.OPEN,
                **form.settings(),
            )
        except Refused as error:
            form.add_error(None, error.message)
        else:
            if "count" not in data:
                messages.success(request, _made(made, added))
                return redirect("annotation:campaign", made.pk)
            counted = added
    context = {
        "form": form,
        "about": about,
        "purpose": purpose,
        "purposes": [(value, *PURPOSES[value]) for value in Purpose.values],
        "counted": counted,
    }
    status = 422 if form.errors or about.errors else 200
    return render(request, "annotation/new_campaign.html", context, status=status)


def _made(made: Campaign, added: int) -> str:
    said = {"campaign": made, "n": added}
    if made.purpose == Purpose.PREFERENCE:
        text = ngettext(
            "“%(campaign)s” has %(n)s candidate set.",
            "“%(campaign)s” has %(n)s candidate sets.",
            added,
        )
    elif made.purpose == Purpose.COMPARISON:
        text = ngettext("“%(campaign)s” has %(n)s pair.", "“%(campaign)s” has %(n)s pairs.", added)
    else:
        text = ngettext(
            "“%(campaign)s” has %(n)s picture.", "“%(campaign)s” has %(n)s pictures.", added
        )
    return text % said


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_campaign_for_manager(request, campaign_id)
    shown = Campaign.objects.get(pk=campaign_id)
    projects = _managed(request)
    own = projects.filter(campaigns=found)
    people = (who_may_judge(own) | User.objects.filter(pk__in=found.members.all())).distinct()
    form = CampaignForm(request.POST or None, projects=projects, people=people, instance=found)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            form.save()
            after = {"changed": sorted(form.changed_data)}
            audit.record(
                actor=user_of(request), verb=Verb.CAMPAIGN_EDITED, thing=found, after=after
            )
        messages.success(
            request, _("The settings of “%(campaign)s” were saved.") % {"campaign": found}
        )
        return redirect("annotation:campaign", found.pk)
    context = head(request, shown, "edit") | {
        "form": form,
        "judged": contents.has_judgments(shown),
        "queued": [task for task in tasks_of(shown) if task.pk in form.queued],
    }
    status = 422 if form.errors else 200
    return render(request, "annotation/edit_campaign.html", context, status=status)


@require_GET
def campaign(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_campaign_for_user(request, campaign_id, Role.VIEWER)
    done, wanted, coverage, people = progress.recent(found)
    waiting = counts.recent(
        f"waiting-{found.pk}", waiting_sets(found).count, kept_from=counts.SLOW_SECONDS
    )
    context = head(request, found, "overview") | {
        "coverage": coverage,
        "people": people,
        "done": done,
        "wanted": wanted,
        "percent": round(100 * done / wanted) if wanted else 0,
        "waiting": waiting,
        "practice_missing": practice.missing(found),
    }
    return render(request, "annotation/campaign.html", context)


def waiting_sets(found: Campaign) -> QuerySet[CandidateSet]:
    """Ready sets that the campaign could ask about and does not; none for comparisons."""
    if found.purpose == Purpose.COMPARISON:
        return CandidateSet.objects.none()
    return askable(found).exclude(items__campaign=found)


@require_POST
def state(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_campaign_for_manager(request, campaign_id)
    try:
        change_state(found, request.POST.get("state", ""), actor=user_of(request))
    except Refused as error:
        messages.error(request, error.message)
    else:
        messages.success(
            request,
            _("“%(found)s” is %(state)s now.")
            % {"found": found, "state": found.get_state_display().lower()},
        )
    return redirect("annotation:campaign", found.pk)


@require_POST
def clone(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_campaign_for_manager(request, campaign_id)
    made = contents.clone(
        campaign=found, by=user_of(request), with_items="with_items" in request.POST
    )
    messages.success(
        request,
        _("“%(made)s” is a draft with the settings of “%(campaign)s”. Open it when they fit.")
        % {"made": made, "campaign": found},
    )
    return redirect("annotation:edit_campaign", made.pk)


@require_GET
def preview(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    """What annotators see, with nothing stored."""
    found = get_campaign_for_manager(request, campaign_id)
    items = found.items.filter(set__state=CandidateSet.State.READY).order_by("position", "pk")
    if wished := request.GET.get("item"):
        item: Item | None = get_object_or_404(items, pk=wished if wished.isdecimal() else 0)
    else:
        item = items.first()
    if item is None:
        messages.info(
            request, _("There is nothing to preview yet: add candidate sets that are ready.")
        )
        return redirect("annotation:campaign_sets", found.pk)
    return views.preview_page(request, found, item)


@require_GET
def guide(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    """What is asked and how to decide, for those who judge and those who run the campaign."""
    found = get_object_or_404(Campaign.objects.select_related("project"), pk=campaign_id)
    user = user_of(request)
    require(user, found.project, Role.ANNOTATOR)
    if not may(user, found.project, Role.MANAGER) and not admits(found, user):
        raise PermissionDenied(
            _("This campaign has a list of members and you are not on it. Ask whoever runs it.")
        )
    context = head(request, found, "guide") | {
        "parts": guides.by_task(found),
        "guideline": guides.render(found.guideline),
    }
    if request.headers.get("HX-Request"):  # the labelling page opens it beside the pictures
        tasks = [asked for task, asked in context["parts"] if task.slug == request.GET.get("task")]
        context["questions"] = [question for asked in tasks for question in asked]
        return render(request, "annotation/_guide.html", context)
    return render(request, "annotation/guide.html", context)
