"""Seed the taxonomy: tasks, dimensions with their wording, criteria, a sampling plan per task.

Seeding adds what is missing and changes nothing that exists, so that an admin's edits stay.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps as installed

from modeling.starter.taxonomy import CRITERIA, DIMENSIONS, TASKS

# Ranges for FLUX.1-Fill-dev: its usual guidance is 30, OneReward's demo samples with true CFG.
PLAN = {
    "steps": [20, 28, 40],
    "strength": [1.0],
    "guidance_scale": [1.0, 15.0, 30.0],
    "true_cfg_scale": [1.0, 2.0, 4.0],
    "negative_prompts": ["", "nsfw", "blurry", "low quality"],
}


def seed(apps: Any = installed) -> int:
    """Add the missing rows, return how many; `apps` is a migration's registry or Django's."""
    task_model = apps.get_model("generation", "Task")
    plan_model = apps.get_model("generation", "SamplingPlan")
    dimension_model = apps.get_model("annotation", "Dimension")
    wording_model = apps.get_model("annotation", "Wording")
    criterion_model = apps.get_model("annotation", "Criterion")
    added = 0
    for slug, task_row in TASKS.items():
        task, created = task_model.objects.get_or_create(slug=slug, defaults=task_row)
        added += created
        if not plan_model.objects.filter(task=task).exists():
            plan_model.objects.create(task=task, made_by="seed", **PLAN)
            added += 1
    for slug, dimension_row in DIMENSIONS.items():
        dimension, created = dimension_model.objects.get_or_create(
            slug=slug,
            defaults={key: dimension_row[key] for key in ("name", "uses_prompt", "active")},
        )
        added += created
        if created:
            wording_model.objects.create(
                dimension=dimension,
                **{key: dimension_row[key] for key in ("question", "query", "guideline")},
            )
    for order, (task_slug, dimension_slug, weight) in enumerate(CRITERIA):
        _, created = criterion_model.objects.get_or_create(
            task=task_model.objects.get(slug=task_slug),
            dimension=dimension_model.objects.get(slug=dimension_slug),
            defaults={"weight": weight, "order": order},
        )
        added += created
    return added
