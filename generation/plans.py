"""Versions of sampling plans, and weights that are learnt from what labels said.

A bandit per parameter: each value has a Beta posterior of the chance that a candidate drawn with it
takes part in an informative label. Thompson sampling draws a value as often as it is the best one
under the posterior (Thompson 1933; Chapelle & Li 2011); here that share is computed once and stored
as the value's weight, so that a set's draw needs nothing but the plan and its seed. A part of every
weight is equal for all values, so that none is ever given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import Max

from generation.models import SamplingPlan, Task

# A plan's list of values, and the candidate's field that holds the one that was drawn.
PARAMETERS = {
    "steps": "num_inference_steps",
    "strength": "strength",
    "guidance_scale": "guidance_scale",
    "true_cfg_scale": "true_cfg_scale",
    "negative_prompts": "negative_prompt",
}
FLOOR = 0.5  # of what a value has under equal weights
LEAST_SETS = 20  # fewer labelled sets decide nothing
DRAWS = 20_000  # from each posterior


@dataclass
class Evidence:
    """What labels say of the values that candidates were drawn with.

    `seen` holds, by parameter and value, how many candidates took part in an informative label and
    how many did not; a candidate judged on several dimensions counts in parts.
    """

    sets: int = 0
    seen: dict[str, dict[Any, tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, value: Any, informative: float) -> None:
        of_parameter = self.seen.setdefault(name, {})
        yes, no = of_parameter.get(value, (0.0, 0.0))
        of_parameter[value] = (yes + informative, no + 1.0 - informative)


def learnt_weights(
    plan: SamplingPlan, evidence: Evidence, *, floor: float = FLOOR
) -> dict[str, list[float]]:
    """A weight per value of each parameter that has a choice; the same evidence gives the same."""
    weights = {}
    for number, name in enumerate(PARAMETERS):
        values = getattr(plan, name)
        if len(values) < 2:
            continue
        rng = np.random.default_rng(number)
        seen: Mapping[Any, tuple[float, float]] = evidence.seen.get(name, {})
        counts = np.array([seen.get(value, (0.0, 0.0)) for value in values])  # (V, 2)
        chances = rng.beta(1 + counts[:, 0], 1 + counts[:, 1], (DRAWS, len(values)))
        best = np.bincount(chances.argmax(axis=1), minlength=len(values)) / DRAWS
        weights[name] = [
            round(float(floor / len(values) + (1 - floor) * share), 4) for share in best
        ]
    return weights


@transaction.atomic
def adapt(task: Task, evidence: Evidence, *, because: str) -> SamplingPlan | None:
    """Make the next version of the task's plan; None where the evidence changes nothing."""
    task = Task.objects.select_for_update().get(pk=task.pk)
    plan = task.plans.filter(current=True).first()
    if plan is None or evidence.sets < LEAST_SETS:
        return None
    weights = learnt_weights(plan, evidence)
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
