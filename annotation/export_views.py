"""The labels out: ordering a dataset, watching it being made, taking it away."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import exporting
from annotation.errors import Refused
from annotation.export_forms import ExportForm, chosen_words
from annotation.models import Export
from generation import delivery
from generation.access import needs, projects_of, require, user_of
from generation.models import Role

PER_PAGE = 30


@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.MANAGER)
def exports(request: HttpRequest) -> HttpResponse:
    projects = projects_of(user_of(request), Role.MANAGER)
    if request.method != "POST":
        asked = {"campaigns": request.GET.getlist("campaign")}  # as a campaign's page links it
        return _list(request, ExportForm(projects=projects, initial=asked))
    form = ExportForm(request.POST, projects=projects)
    if form.is_valid():
        data = form.cleaned_data
        try:
            return redirect(
                exporting.order(
                    project=data["project"],
                    by=user_of(request),
                    selection=form.selection(),
                    format=data["format"],
                    pictures=data["pictures"],
                    max_side=data["max_side"],
                )
            )
        except Refused as error:
            form.add_error(None, error.message)
    return _list(request, form)


def _list(request: HttpRequest, form: ExportForm) -> HttpResponse:
    rows = Export.objects.filter(project__in=projects_of(user_of(request), Role.MANAGER))
    rows = rows.select_related("project", "requested_by").order_by("-pk")
    page = Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))
    status = 422 if form.is_bound and form.errors else 200
    return render(request, "annotation/exports.html", {"form": form, "page": page}, status=status)


def _get_export_for_manager(request: HttpRequest, pk: int) -> Export:
    rows = Export.objects.select_related("project", "previous", "requested_by")
    found = get_object_or_404(rows, pk=pk)
    require(user_of(request), found.project, Role.MANAGER)
    return found


@require_GET
@never_cache
def export(request: HttpRequest, pk: int) -> HttpResponse:
    found = _get_export_for_manager(request, pk)
    context = {
        "export": found,
        "versions": exporting.versions(found)[:PER_PAGE],
        "chosen": chosen_words(found.selection),
        "holds": sorted((name, count) for name, count in found.counts.items() if count),
    }
    part = request.htmx  # type: ignore[attr-defined]
    template = "annotation/_export.html" if part else "annotation/export.html"
    return render(request, template, context)


@require_GET
def export_file(request: HttpRequest, pk: int) -> HttpResponseBase:
    return download(request, _get_export_for_manager(request, pk))


def download(request: HttpRequest, found: Export) -> HttpResponseBase:
    """The archive; Http404 says why there is none."""
    if not found.archive:
        raise Http404(_("This export has no file: it is not finished, or its file was deleted."))
    name = f"oneloop-export-{found.pk}.zip"
    try:
        return delivery.attachment(
            request, found.archive, filename=name, content_type="application/zip"
        )
    except FileNotFoundError:
        raise Http404(
            _("The file of this export is gone from the store. Order it again.")
        ) from None


@require_POST
def export_change(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel it, order it again, or delete its file."""
    found = _get_export_for_manager(request, pk)
    verb = request.POST.get("do", "")
    if verb == "cancel" and exporting.cancel(found):
        messages.success(request, _("Cancelled. Nothing of it is kept."))
    elif verb == "delete" and exporting.forget_archive(found, by=user_of(request)):
        messages.success(request, _("The file was deleted; the figures below stay."))
    elif verb == "again" and not found.is_open:
        try:
            return redirect(exporting.again(found, by=user_of(request)))
        except Refused as error:
            messages.error(request, error.message)
    return redirect(found)
