"""Versions of sampling plans, and weights that are learnt from what labels said; see bandit."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Max

from generation.bandit import PARAMETERS, Evidence, learnt_weights
from generation.models import SamplingPlan, Task

LEAST_SETS = 20  # fewer labelled sets decide nothing


@transaction.atomic
def adapt(task: Task, evidence: Evidence, *, because: str) -> SamplingPlan | None:
    """Make the next version of the task's plan; None where the evidence changes nothing."""
    task = Task.objects.select_for_update().get(pk=task.pk)
    plan = task.plans.filter(current=True).first()
    if plan is None or evidence.sets < LEAST_SETS:
        return None
    weights = learnt_weights({name: getattr(plan, name) for name in PARAMETERS}, evidence)
    if weights in ({}, plan.weights):
        return None
    plan.weights = weights
    return add_version(plan, made_by=because)


@transaction.atomic
def add_version(plan: SamplingPlan, *, made_by: str) -> SamplingPlan:
    """Store the plan as its task's newest version; the earlier ones stay as they are."""
    # Whoever changes the same task's plan at the same time waits here.
    task = Task.objects.select_for_update().get(pk=plan.task_id)
    newest = task.plans.aggregate(newest=Max("version"))["newest"] or 0
    task.plans.filter(current=True).update(current=False)
    plan.pk = None
    plan._state.adding = True
    plan.version = newest + 1
    plan.current = True
    plan.made_by = made_by[: SamplingPlan._meta.get_field("made_by").max_length]
    plan.save()
    return plan
