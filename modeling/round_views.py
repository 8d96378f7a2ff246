"""What a round went through, and the acts of a manager that change its course."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from generation import audit
from generation.access import needs, user_of
from generation.models import Role, Verb
from modeling import gate_table, intervals_chart, round_decisions, round_report, rounds
from modeling.models import Round, RoundStep
from modeling.round_steps import Name
from modeling.statistics import Interval

LAST = 12  # rounds in the plot of the loop's page


def history(round_: Round) -> dict[str, Any]:
    """What the round's page says about its course."""
    step = rounds.current_step(round_)
    compares = step is not None and step.name == Name.HUMAN_CHECK and step.is_waiting
    return {
        "checks": gate_table.rows(round_),
        "comparison": {"campaign": step.result.get("campaign"), "message": step.message}
        if step is not None and compares
        else None,
        "transitions": round_.transitions.select_related("actor").order_by("-pk"),
        "asks_approval": step is not None
        and step.name == Name.PROMOTE
        and rounds.waits_for_people(step),
        "may_undo": round_.finished_at is not None and round_decisions.is_active(round_),
    }


def over_rounds() -> dict[str, Any]:
    """The usable rate after each of the last rounds, where ground truth is known."""
    rounds_ = list(Round.objects.filter(finished_at__isnull=False).order_by("-number")[:LAST])[::-1]
    rows = [row for row in round_report.usable_over_rounds(rounds_) if row["n"]]
    if len(rows) < 2:
        return {}
    dots = [
        (
            _("round %(number)s") % {"number": row["round"]} if row["round"] else _("start"),
            Interval(row["usable"], row["low"], row["high"], row["n"]),
        )
        for row in rows
    ]
    first, last = (f"{100 * one['usable']:.0f} %" for one in (rows[0], rows[-1]))
    title = _("Usable by ground truth: %(first)s → %(last)s") % {"first": first, "last": last}
    chart = intervals_chart.dots(title, dots, decimals=1, scale=100.0, unit=" %")
    return {"over_rounds": rows, "over_rounds_chart": chart}


@require_GET
@needs(Role.MANAGER)
def step_page(request: HttpRequest, pk: int) -> HttpResponse:
    """Skip a step or roll back to it, with what that means."""
    step = get_object_or_404(RoundStep.objects.select_related("round"), pk=pk)
    now = rounds.current_step(step.round)
    later = step.round.steps.filter(position__gte=step.position, started_at__isnull=False)
    context = {
        "step": step,
        "round": step.round,
        "may_skip": now is not None and now.pk == step.pk,
        "again": list(later),
        "promoted": round_decisions.is_promoted(step.round),
        "is_gate": step.name in (Name.GATE_REWARD, Name.GATE_POLICY, Name.HUMAN_CHECK),
    }
    return render(request, "modeling/step.html", context)


@require_POST
@needs(Role.MANAGER)
def skip(request: HttpRequest, pk: int) -> HttpResponse:
    step = get_object_or_404(RoundStep.objects.select_related("round"), pk=pk)
    reason = request.POST.get("reason", "")
    return _act(
        request,
        lambda: round_decisions.skip(step, reason=reason, actor=request.user),
        step.round,
        (Verb.STEP_SKIPPED, step, reason),
        _("%(name)s was skipped.") % {"name": step.get_name_display()},
    )


@require_POST
@needs(Role.MANAGER)
def roll_back(request: HttpRequest, pk: int) -> HttpResponse:
    step = get_object_or_404(RoundStep.objects.select_related("round"), pk=pk)
    reason = request.POST.get("reason", "")
    return _act(
        request,
        lambda: round_decisions.roll_back(step, reason=reason, actor=request.user),
        step.round,
        (Verb.ROUND_ROLLED_BACK, step, reason),
        _("The round goes on from “%(name)s”.") % {"name": step.get_name_display()},
    )


@require_POST
@needs(Role.MANAGER)
def approve(request: HttpRequest, number: int) -> HttpResponse:
    round_ = get_object_or_404(Round, number=number)
    return _act(
        request,
        lambda: round_decisions.approve(round_, actor=request.user),
        round_,
        (Verb.ROUND_APPROVED, round_, ""),
        _("Approved; its models are promoted next."),
    )


@require_http_methods(["GET", "POST"])
@needs(Role.MANAGER)
def undo(request: HttpRequest, number: int) -> HttpResponse:
    round_ = get_object_or_404(Round, number=number)
    if request.method == "GET":
        context = {"round": round_, "may_undo": history(round_)["may_undo"]}
        return render(request, "modeling/undo.html", context)
    reason = request.POST.get("reason", "")
    return _act(
        request,
        lambda: round_decisions.undo_promotion(round_, reason=reason, actor=request.user),
        round_,
        (Verb.PROMOTION_UNDONE, round_, reason),
        _("The models that round %(number)s started from are active again.") % {"number": number},
    )


def _act(
    request: HttpRequest,
    act: Callable[[], None],
    round_: Round,
    entry: tuple[Verb, Round | RoundStep, str],
    done: str,
) -> HttpResponse:
    """Do it and write it down, or say why not; either way back to the round."""
    verb, thing, reason = entry
    try:
        with transaction.atomic():
            act()
            after = {"reason": reason} if reason else None
            audit.record(actor=user_of(request), verb=verb, thing=thing, after=after)
    except rounds.RoundError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, done)
    return redirect("modeling:round", number=round_.number)
