"""The loop and the policies. They belong to the installation, not to a project, for now.

Whoever may look at some project may look at them; whoever manages one may run them.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from generation import audit, policies
from generation.access import may_anywhere, needs, projects_of, user_of
from generation.models import Policy, Project, Role, Verb
from modeling import pages, round_decisions, round_views, rounds
from modeling.forms import RoundForm
from modeling.models import Evaluation, RewardModel, Round, RoundStep


@require_GET
@needs(Role.VIEWER)
def loop(request: HttpRequest) -> HttpResponse:
    newest = Round.objects.first()
    if newest is not None and newest.finished_at is None:
        return redirect("modeling:round", number=newest.number)
    return _loop_page(request, newest, RoundForm())


@require_GET
@needs(Role.VIEWER)
def round_page(request: HttpRequest, number: int) -> HttpResponse:
    return _loop_page(request, get_object_or_404(Round, number=number), RoundForm())


def _loop_page(request: HttpRequest, round_: Round | None, form: RoundForm) -> HttpResponse:
    context: dict[str, Any] = {
        "round": round_,
        "form": form,
        "may_run": may_anywhere(user_of(request), Role.MANAGER),
        "rounds": Round.objects.select_related("policy", "reward_model")[:20],
        "any_open": Round.objects.filter(finished_at__isnull=True).exists(),
        "active_policy": Policy.objects.filter(state=Policy.State.ACTIVE).first(),
        "active_reward": RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first(),
    }
    if round_ is not None:
        context["cards"] = pages.step_cards(round_)
        context |= round_views.history(round_)
        run = pages.running_training(round_)
        context["run"] = run
        context["charts"] = pages.curves(run) if run is not None else []
        if round_.campaign is not None:
            context["labelled"] = round_decisions.labelling_progress(round_)
        if round_.reward_model is not None:
            evaluation = round_.reward_model.evaluations.first()
            if evaluation is not None:
                context["matrix"] = pages.accuracy_matrix(evaluation.figures)
                context["reward_figures"] = evaluation.figures
        if round_.policy is not None:
            seen = projects_of(user_of(request))
            context["evaluation"] = _evaluation_context(round_.policy, seen)
    if not request.htmx:  # type: ignore[attr-defined]
        context |= round_views.over_rounds()
    template = "modeling/_round.html" if request.htmx else "modeling/loop.html"  # type: ignore[attr-defined]
    return render(request, template, context)


def _evaluation_context(policy: Policy, seen: QuerySet[Project]) -> dict[str, Any] | None:
    evaluation = (
        Evaluation.objects.filter(policy=policy).select_related("parent_policy", "policy").first()
    )
    if evaluation is None:
        return None
    return {
        "row": evaluation,
        "usable": pages.usable_rows(evaluation),
        "dimensions": pages.dimension_rows(evaluation),
        "strip": pages.filmstrip(policy, projects=seen),
    }


@require_POST
@needs(Role.MANAGER)
def start_round(request: HttpRequest) -> HttpResponse:
    form = RoundForm(request.POST)
    if not form.is_valid():
        return _loop_page(request, Round.objects.first(), form)
    try:
        with transaction.atomic():
            round_ = rounds.create(
                annotators=form.cleaned_data["annotators"],
                seed=form.cleaned_data["seed"] or 0,
                config=form.config(),
                user=request.user,
            )
            _record(request, Verb.ROUND_STARTED, round_)
    except rounds.RoundError as error:
        messages.error(request, str(error))
        return redirect("modeling:loop")
    rounds.ring(round_)
    messages.success(request, _("Round %(number)s started.") % {"number": round_.number})
    return redirect("modeling:round", number=round_.number)


@require_POST
@needs(Role.MANAGER)
def finish_labelling(request: HttpRequest, number: int) -> HttpResponse:
    round_ = get_object_or_404(Round, number=number)
    try:
        with transaction.atomic():
            round_decisions.finish_labelling(round_)
            _record(request, Verb.ROUND_LABELLED, round_)
    except rounds.RoundError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("Labelling closed; the reward model is trained next."))
    return redirect("modeling:round", number=number)


@require_POST
@needs(Role.MANAGER)
def retry_step(request: HttpRequest, pk: int) -> HttpResponse:
    step = get_object_or_404(RoundStep, pk=pk)
    try:
        with transaction.atomic():
            round_decisions.retry(step, actor=request.user)
            _record(request, Verb.STEP_RETRIED, step)
    except rounds.RoundError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("%(name)s runs again.") % {"name": step.get_name_display()})
    return redirect("modeling:round", number=step.round.number)


@require_POST
@needs(Role.MANAGER)
def cancel_round(request: HttpRequest, number: int) -> HttpResponse:
    round_ = get_object_or_404(Round, number=number)
    try:
        with transaction.atomic():
            round_decisions.cancel(round_, actor=request.user)
            _record(request, Verb.ROUND_CANCELLED, round_)
    except rounds.RoundError as error:
        messages.error(request, str(error))
    else:
        messages.success(
            request, _("Round %(number)s was cancelled; its labels are kept.") % {"number": number}
        )
    return redirect("modeling:round", number=number)


@require_GET
@needs(Role.VIEWER)
def policy_list(request: HttpRequest) -> HttpResponse:
    rows = []
    for policy in Policy.objects.select_related("parent").order_by("-pk"):
        evaluation = Evaluation.objects.filter(policy=policy).first()
        usable = pages.usable_rows(evaluation) if evaluation is not None else []
        overall = next((row for row in usable if row.of_all), None)
        rows.append({"policy": policy, "overall": overall})
    reward_models = RewardModel.objects.select_related("parent", "snapshot").order_by("-pk")
    context = {
        "rows": rows,
        "reward_models": reward_models,
        "may_run": may_anywhere(user_of(request), Role.MANAGER),
    }
    return render(request, "modeling/policies.html", context)


@require_POST
@needs(Role.MANAGER)
def activate_policy(request: HttpRequest, pk: int) -> HttpResponse:
    policy = get_object_or_404(Policy, pk=pk)
    try:
        policies.activate(policy, actor=user_of(request))
    except policies.PolicyError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("'%(policy)s' makes the next candidates.") % {"policy": policy})
    return redirect("modeling:policies")


def _record(request: HttpRequest, verb: Verb, thing: Round | RoundStep) -> None:
    audit.record(actor=user_of(request), verb=verb, thing=thing)
