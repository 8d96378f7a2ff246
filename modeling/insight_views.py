"""Pages of one policy and of one reward model: what it is like, and where it went wrong."""

from __future__ import annotations

import json

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from annotation.errors import Refused
from generation.access import may_anywhere, needs, projects_of, require, user_of
from generation.models import CandidateSet, Policy, Role
from modeling import pages, policy_pages, reward_pages
from modeling.models import Evaluation, RewardModel

PER_PAGE = 12


@require_GET
@needs(Role.VIEWER)
def policy_page(request: HttpRequest, pk: int) -> HttpResponse:
    policy = get_object_or_404(Policy.objects.select_related("parent"), pk=pk)
    seen = projects_of(user_of(request))
    chosen = {name: _number(request, name) for name in ("against", "task")}
    found = policy_pages.across(policy, seen, against=chosen["against"], task=chosen["task"])
    points = policy_pages.course(policy, seen)
    evaluation = Evaluation.objects.filter(policy=policy).select_related("parent_policy").first()
    context = {
        "policy": policy,
        "lineage": pages.lineage(policy),
        "evaluation": evaluation,
        "usable": pages.usable_rows(evaluation) if evaluation else [],
        "dimensions": pages.dimension_rows(evaluation) if evaluation else [],
        "across": found,
        "page": Paginator(found.rows, PER_PAGE).get_page(request.GET.get("page")),
        "task": chosen["task"],
        "points": points,
        "charts": policy_pages.course_charts(points),
        "downloadable": policy_pages.lora_file(policy) is not None,
        "may_download": may_anywhere(user_of(request), Role.MANAGER),
        "card": json.dumps(policy.card, indent=1),
    }
    return render(request, "modeling/policy.html", context)


def _number(request: HttpRequest, name: str) -> int | None:
    said = request.GET.get(name, "")
    return int(said) if said.isdecimal() and len(said) < 10 else None


@require_GET
@needs(Role.MANAGER)
def download_policy(request: HttpRequest, pk: int) -> HttpResponseBase:
    """The LoRA in diffusers' layout, as it was trained."""
    policy = get_object_or_404(Policy, pk=pk)
    file = policy_pages.lora_file(policy)
    if file is None:
        said = _("“%(policy)s” has no LoRA on this machine: write it with manage.py export_policy.")
        messages.error(request, said % {"policy": policy})
        return redirect("modeling:policy", pk=pk)
    name = f"{slugify(policy.name) or f'policy-{policy.pk}'}.safetensors"
    return FileResponse(file.open("rb"), as_attachment=True, filename=name)


@require_GET
@needs(Role.VIEWER)
def reward_page(request: HttpRequest, pk: int) -> HttpResponse:
    model = get_object_or_404(RewardModel.objects.select_related("parent", "snapshot"), pk=pk)
    evaluation = model.evaluations.first()
    figures = evaluation.figures if evaluation is not None else {}
    found = reward_pages.questions(model)
    bins = reward_pages.reliability(found)
    context = {
        "model": model,
        "matrix": pages.accuracy_matrix(figures),
        "reward_figures": figures,
        "heat": reward_pages.history(model),
        "bins": bins,
        "reliability": reward_pages.reliability_chart(bins),
        "orders": reward_pages.order_bias(found),
        "disputes": reward_pages.disputes(found, projects_of(user_of(request))),
        "may_run": may_anywhere(user_of(request), Role.MANAGER),
        "card": json.dumps(model.card, indent=1),
    }
    return render(request, "modeling/reward.html", context)


@require_POST
def judge_again(request: HttpRequest, pk: int, set_id: int) -> HttpResponse:
    model = get_object_or_404(RewardModel, pk=pk)
    one = get_object_or_404(CandidateSet.objects.select_related("source__project"), pk=set_id)
    require(user_of(request), one.source.project, Role.MANAGER)
    try:
        campaign, new = reward_pages.judge_again(model, one, user=user_of(request))
    except Refused as error:
        messages.error(request, error.message)
    else:
        said = _("The set waits in “%(campaign)s” to be judged again.")
        there = _("The set is in “%(campaign)s” already.")
        messages.success(request, (said if new else there) % {"campaign": campaign})
    return redirect("modeling:reward_model", pk=pk)
