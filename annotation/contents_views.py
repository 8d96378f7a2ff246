"""What a campaign asks about: adding in bulk, taking out again, and what comes first."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from annotation import additions, contents
from annotation.campaign_head import head
from annotation.campaign_views import get_campaign_for_manager
from annotation.campaigns import add_sets
from annotation.contents_forms import contents_form
from annotation.errors import Refused
from annotation.models import Campaign
from generation import audit
from generation.access import user_of
from generation.models import GenerationRun, Task, Verb
from generation.ownership import JobState


class PriorityForm(forms.Form):
    task = forms.ModelChoiceField(
        Task.objects.none(), required=False, empty_label=lazy("Every task")
    )
    run = forms.ModelChoiceField(
        GenerationRun.objects.none(),
        required=False,
        label=lazy("Generation"),
        empty_label=lazy("Every generation"),
    )
    priority = forms.IntegerField(
        min_value=-contents.MOST,
        max_value=contents.MOST,
        initial=1,
        help_text=lazy("Higher comes sooner; 0 is usual."),
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        for name, rows in (
            ("task", Task.objects.filter(pk__in=contents.queued_tasks(campaign))),
            ("run", GenerationRun.objects.filter(sets__items__campaign=campaign).distinct()),
        ):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = rows

    def items(self) -> Any:
        items = self.campaign.items.all()
        if self.cleaned_data["task"]:
            items = items.filter(set__source__task=self.cleaned_data["task"])
        if self.cleaned_data["run"]:
            items = items.filter(set__run=self.cleaned_data["run"])
        return items


@require_http_methods(["GET", "POST"])
def contents_page(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_campaign_for_manager(request, campaign_id)
    if request.method == "POST":
        verb = VERBS.get(request.POST.get("do", "add"), _add)
        with transaction.atomic():  # what is done and its entry in the log
            return verb(request, found)
    return _page(request, found)


def _page(request: HttpRequest, found: Campaign, **more: Any) -> HttpResponseBase:
    after = request.GET.get("after", "")
    last = int(after) if after.isdecimal() else 0
    untouched = contents.untouched(found)
    by_task = contents.queued_tasks(found)
    context = head(request, found, "sets") | {
        "about": contents_form(found),
        "adding": additions.latest(found),
        "priority": PriorityForm(campaign=found),
        "queued": found.items.count(),
        "rows": [
            (task, by_task[task.pk], untouched.filter(set__source__task=task).count())
            for task in Task.objects.filter(pk__in=by_task)
        ],
        "untouched": untouched.count(),
        "after": last,
        "added": contents.untouched(found, after=last).count() if last else 0,
    }
    refused = any(getattr(more.get(name), "errors", None) for name in ("about", "priority"))
    status = 422 if refused else 200
    return render(request, "annotation/contents.html", context | more, status=status)


def _add(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    about = contents_form(found, request.POST)
    if not about.is_valid():
        return _page(request, found, about=about)
    going_on = additions.latest(found)
    if going_on is not None and going_on.is_open:  # the page shows how far it is
        return redirect("annotation:campaign_sets", found.pk)
    if additions.takes_a_while(found):
        additions.order(campaign=found, about=request.POST, by=user_of(request))
        return redirect("annotation:campaign_sets", found.pk)
    newest = found.items.order_by("-pk").values_list("pk", flat=True).first() or 0
    try:
        added = add_sets(found, about.entries(found))
    except Refused as error:
        messages.error(request, error.message)
        return redirect("annotation:campaign_sets", found.pk)
    _say_added(request, found, added)
    if not added:
        return redirect("annotation:campaign_sets", found.pk)
    _note(request, Verb.SETS_ADDED, found, sets=added)
    return redirect(_after(found, newest))


def _say_added(request: HttpRequest, found: Campaign, added: int) -> None:
    if not added:
        messages.info(request, _("Nothing was added: all of it is in “%s” already.") % found)
        return
    said = ngettext("%(n)s was added to “%(to)s”.", "%(n)s were added to “%(to)s”.", added)
    messages.success(request, said % {"n": added, "to": found})


def _after(found: Campaign, newest: int) -> str:
    """The page with the offer to take out again what came in after the item `newest`."""
    # 1 stands before all.
    return f"{reverse('annotation:campaign_sets', args=[found.pk])}?after={newest or 1}"


@require_http_methods(["GET"])
def adding(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    """How far adding is: a part of the page, which asks for it again while it goes on."""
    found = get_campaign_for_manager(request, campaign_id)
    row = additions.latest(found)
    if row is not None and not row.is_open:
        # What stands in the queue has changed: the whole page again.
        if row.state == JobState.SUCCEEDED:
            _say_added(request, found, row.added)
        return HttpResponse(headers={"HX-Redirect": _after(found, row.newest)})
    return render(request, "annotation/_adding.html", {"campaign": found, "adding": row})


def _cancel(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    row = additions.latest(found)
    if row is not None and row.cancel():
        _note(request, Verb.SETS_ADDED, found, sets=row.added, cancelled=True)
        messages.success(request, _("Cancelled. What was added stays until you take it out."))
    return redirect("annotation:campaign_sets", found.pk)


def _count(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    about = contents_form(found, request.POST)
    if not about.is_valid():
        return _page(request, found, about=about)
    try:
        counted = contents.would_add(found, about.entries)
    except Refused as error:
        about.add_error(None, error.message)
        return _page(request, found, about=about)
    return _page(request, found, about=about, counted=counted)


def _take_out(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    after, task = request.POST.get("after", ""), request.POST.get("task", "")
    taken = contents.take_out(
        campaign=found,
        after=int(after) if after.isdecimal() else 0,
        task=Task.objects.filter(pk=int(task)).first() if task.isdecimal() else None,
    )
    _note(request, Verb.SETS_TAKEN_OUT, found, sets=taken)
    said = ngettext(
        "%(n)s untouched set was taken out; it can be added again.",
        "%(n)s untouched sets were taken out; they can be added again.",
        taken,
    )
    messages.success(request, said % {"n": taken})
    return redirect("annotation:campaign_sets", found.pk)


def _prioritise(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    form = PriorityForm(request.POST, campaign=found)
    if not form.is_valid():
        return _page(request, found, priority=form)
    items = form.items()
    if "sure" not in request.POST:
        return _page(request, found, priority=form, would_move=items.count())
    moved = contents.set_priority(
        campaign=found, items=items, priority=form.cleaned_data["priority"]
    )
    priority = form.cleaned_data["priority"]
    _note(request, Verb.PRIORITY_SET, found, sets=moved, priority=priority)
    said = ngettext(
        "%(n)s set has the priority %(p)s now.", "%(n)s sets have the priority %(p)s now.", moved
    )
    messages.success(request, said % {"n": moved, "p": form.cleaned_data["priority"]})
    return redirect("annotation:campaign_sets", found.pk)


def _note(request: HttpRequest, verb: Verb, found: Campaign, **after: Any) -> None:
    audit.record(actor=user_of(request), verb=verb, thing=found, after=after)


VERBS = {
    "add": _add,
    "cancel": _cancel,
    "count": _count,
    "take_out": _take_out,
    "priority": _prioritise,
}
