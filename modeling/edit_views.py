"""The Edit page: a picture, an area painted on it, a task, and what the policy makes of it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.campaigns import add_sets
from annotation.errors import Refused
from generation import audit
from generation.access import may, needs, projects_of, require, user_of
from generation.models import Policy, Role, Source, Verb
from modeling import edits
from modeling.edit_forms import EditForm, LabelForm
from modeling.models import Edit

SHOWN = 12  # of one's earlier edits


@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.ANNOTATOR)
def edit_new(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    mine = projects_of(user, Role.ANNOTATOR)
    if request.method != "POST":
        source = _source(request)
        known = {"source": source, "task": source.task, "prompt": source.prompt} if source else {}
        return _form_page(request, EditForm(projects=mine, initial=known), source)
    form = EditForm(request.POST, request.FILES, projects=mine)
    if form.is_valid():
        try:
            return redirect(form.order(user))
        except edits.REFUSALS as error:
            form.add_error(None, str(error))
    return _form_page(request, form, form.cleaned_data.get("source"))


def _source(request: HttpRequest) -> Source | None:
    """The source that the page's address names, where the person may edit it."""
    number = request.GET.get("source", "")
    rows = Source.objects.filter(project__in=projects_of(user_of(request), Role.ANNOTATOR))
    rows = rows.select_related("task", "image", "mask")
    return get_object_or_404(rows, pk=number) if number.isdecimal() else None


def _form_page(request: HttpRequest, form: EditForm, source: Source | None) -> HttpResponse:
    earlier = edits.with_all().filter(requested_by=user_of(request))[:SHOWN]
    context = {
        "form": form,
        "source": source,
        "policy": Policy.objects.filter(state=Policy.State.ACTIVE).first(),
        "earlier": earlier,
    }
    status = 422 if form.is_bound and form.errors else 200
    return render(request, "modeling/edit_new.html", context, status=status)


def _get_edit_for_user(request: HttpRequest, pk: int, role: Role) -> Edit:
    edit = get_object_or_404(edits.with_all(), pk=pk)
    require(user_of(request), edit.source.project, role)
    return edit


@require_GET
def edit_page(request: HttpRequest, pk: int) -> HttpResponse:
    edit = _get_edit_for_user(request, pk, Role.VIEWER)
    context: dict[str, Any] = {
        "edit": edit,
        "source": edit.source,
        "pictures": edits.pictures(edit, everything=True),
    }
    user = user_of(request)
    if not edit.is_open and may(user, edit.source.project, Role.MANAGER):
        context["form"] = LabelForm(edit=edit, user=user)
        context["campaigns"] = edit.set.campaigns.all()
    template = "modeling/_edit.html" if request.htmx else "modeling/edit.html"  # type: ignore[attr-defined]
    return render(request, template, context)


@require_POST
def edit_label(request: HttpRequest, pk: int) -> HttpResponse:
    """Have the edit's pictures judged by people."""
    edit = _get_edit_for_user(request, pk, Role.MANAGER)
    form = LabelForm(request.POST, edit=edit, user=user_of(request))
    if not form.is_valid():
        messages.error(request, _("Choose a campaign of the project that is not closed."))
        return redirect(edit)
    campaign = form.cleaned_data["campaign"]
    try:
        with transaction.atomic():
            added = add_sets(campaign, [edit.set])
            if added:
                audit.record(
                    actor=user_of(request),
                    verb=Verb.SETS_ADDED,
                    thing=campaign,
                    after={"sets": added, "edit": edit.pk},
                )
    except Refused as error:
        messages.error(request, error.message)
        return redirect(edit)
    said = ngettext(
        "%(added)d set was added to “%(campaign)s”.",
        "%(added)d sets were added to “%(campaign)s”.",
        added,
    )
    messages.success(request, said % {"added": added, "campaign": campaign})
    return redirect(edit)
