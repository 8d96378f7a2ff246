"""Governance: what needs attention, the audit by tag, wordings over time, reports of rounds."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from annotation.errors import Refused
from annotation.models import Dimension
from annotation.quality_tables import download
from generation.access import may_anywhere, needs, projects_of, user_of
from generation.models import Role, Withdrawal
from modeling import (
    governance_report,
    governance_review,
    governance_tags,
    governance_wordings,
    intervals_chart,
    lineage,
)
from modeling.governance_forms import SubjectForm
from modeling.governance_tags import COLUMNS, NAMES, USABLE
from modeling.models import RewardModel, Round
from modeling.statistics import Interval


@require_GET
@needs(Role.VIEWER)
def overview(request: HttpRequest) -> HttpResponse:
    graph = lineage.whole()
    tainted = [(graph.nodes[key], said) for key, said in lineage.taints(graph).items()]
    subject = SubjectForm({}).subject()
    context = {
        "alerts": governance_tags.alerts(subject, projects_of(user_of(request))),
        "review": governance_review.status(),
        "may_review": may_anywhere(user_of(request), Role.MANAGER),
        "tainted": tainted,
        "withdrawals": Withdrawal.objects.standing().count(),
        "reward": RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first(),
        "dimensions": Dimension.objects.annotate(
            count=Count("wordings"), since=Max("wordings__created_at")
        ).order_by("pk"),
        "rounds": Round.objects.select_related("policy", "reward_model")[:20],
    }
    return render(request, "modeling/governance.html", context)


@require_POST
@needs(Role.MANAGER)
def reviewed(request: HttpRequest) -> HttpResponse:
    try:
        governance_review.record(user=user_of(request), note=request.POST.get("note", ""))
    except Refused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("The review is written down."))
    return redirect("modeling:governance")


@require_GET
@needs(Role.VIEWER)
def wordings(request: HttpRequest, slug: str) -> HttpResponse:
    dimension = get_object_or_404(Dimension, slug=slug)
    simulated = request.GET.get("annotators") == "simulated"
    seen = projects_of(user_of(request))
    found = governance_wordings.versions(dimension, seen, simulated=simulated)
    dots = [
        (
            _("version %(n)s") % {"n": one.wording.version},
            Interval(one.pairwise.value, one.pairwise.low, one.pairwise.high, one.pairwise.n),
        )
        for one in found
        if one.pairwise.known
    ]
    title = _("Pairwise agreement, %")
    context = {
        "dimension": dimension,
        "versions": found[::-1],
        "simulated": simulated,
        "chart": intervals_chart.dots(title, dots, scale=100, unit=" %") if dots[1:] else None,
    }
    return render(request, "modeling/wordings.html", context)


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
