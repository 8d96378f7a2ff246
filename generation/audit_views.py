"""The audit log, for admins of a project and superusers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import datetime, time, timedelta

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from generation import audit
from generation.access import needs, user_of
from generation.models import AuditEntry, Role
from generation.people_forms import AuditFilter

PER_PAGE = 100
COLUMNS = ["at", "actor", "verb", "kind", "object_id", "name", "project", "detail", "address"]


@require_safe
@needs(Role.ADMIN)
def audit_log(request: HttpRequest) -> HttpResponse:
    form = AuditFilter(request.GET)
    page = Paginator(_entries(request, form), PER_PAGE).get_page(request.GET.get("page"))
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {"form": form, "page": page, "query": kept.urlencode()}
    return render(request, "people/audit.html", context)


@require_safe
@needs(Role.ADMIN)
def audit_csv(request: HttpRequest) -> StreamingHttpResponse:
    entries = _entries(request, AuditFilter(request.GET))
    response = StreamingHttpResponse(_lines(entries), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="audit.csv"'
    return response


def _entries(request: HttpRequest, form: AuditFilter) -> QuerySet[AuditEntry]:
    rows = audit.visible_to(user_of(request)).select_related("project")
    if not form.is_valid():
        return rows
    asked = form.cleaned_data
    if asked["actor"]:
        rows = rows.filter(actor_name=asked["actor"])
    if asked["verb"]:
        rows = rows.filter(verb=asked["verb"])
    if asked["since"]:
        rows = rows.filter(at__gte=_midnight(asked["since"]))
    if asked["until"]:
        rows = rows.filter(at__lt=_midnight(asked["until"] + timedelta(days=1)))
    return rows


def _midnight(day: datetime) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


class _Echo:
    """What csv writes to: the line itself is what is wanted."""

    def write(self, line: str) -> str:
        return line


def _lines(entries: QuerySet[AuditEntry]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(COLUMNS)
    for entry in entries.iterator(chunk_size=1000):
        yield writer.writerow(
            [
                entry.at.isoformat(),
                _cell(entry.actor_name),
                entry.verb,
                entry.kind,
                entry.object_id,
                _cell(entry.name),
                entry.project.slug if entry.project else "",
                json.dumps(entry.detail, ensure_ascii=False),
                entry.address or "",
            ]
        )


def _cell(text: str) -> str:
    """A spreadsheet would run what looks like a formula."""
    return f"'{text}" if text[:1] in set("=+-@\t\r") else text
