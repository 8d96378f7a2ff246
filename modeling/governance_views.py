"""Governance: the printable report of a round, and the audit by tag."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from annotation.quality_tables import download
from generation.access import needs, projects_of, user_of
from generation.models import Role
from modeling import governance_report, governance_tags, intervals_chart
from modeling.governance_forms import SubjectForm
from modeling.governance_tags import COLUMNS, NAMES, USABLE
from modeling.models import Round


@require_GET
@needs(Role.VIEWER)
def round_report(request: HttpRequest, number: int) -> HttpResponse:
    rows = Round.objects.select_related(
        "policy", "parent_policy", "reward_model__snapshot", "parent_reward", "campaign", "rule"
    )
    round_ = get_object_or_404(rows, number=number)
    return render(request, "modeling/report.html", governance_report.context(round_))


@require_GET
@needs(Role.VIEWER)
def tags(request: HttpRequest) -> HttpResponseBase:
    form = SubjectForm(request.GET)
    subject = form.subject()
    key = request.GET.get("key", "")
    made = governance_tags.audit(subject, projects_of(user_of(request)), key)
    if request.GET.get("format") == "csv":
        return download([COLUMNS, *governance_tags.records(made)], "audit-by-tag")
    form.offer(made.keys, made.key)
    dots = [
        (one.name, one.figures[USABLE].interval) for one in made.groups if USABLE in one.figures
    ]
    query = request.GET.copy()
    query["key"] = made.key
    context = {
        "form": form,
        "audit": made,
        "subject": subject,
        "names": NAMES.values(),
        "bases": [(NAMES[name], basis) for name, basis in made.bases.items()],
        "chart": intervals_chart.dots(_("Usable, %, by group"), dots, scale=100, unit=" %"),
        "query": query.urlencode(),
    }
    return render(request, "modeling/tags.html", context)
