"""Governance: the printable report of a round."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from generation.access import needs
from generation.models import Role
from modeling import governance_report
from modeling.models import Round


@require_GET
@needs(Role.VIEWER)
def round_report(request: HttpRequest, number: int) -> HttpResponse:
    rows = Round.objects.select_related(
        "policy", "parent_policy", "reward_model__snapshot", "parent_reward", "campaign", "rule"
    )
    round_ = get_object_or_404(rows, number=number)
    return render(request, "modeling/report.html", governance_report.context(round_))
