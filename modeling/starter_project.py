"""The starter project's rows: scenes as sources, the shipped models, a campaign, demo users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from django.contrib.auth.models import User
from django.db import transaction
from PIL import Image as PILImage

from annotation.campaigns import open_campaign
from annotation.models import Campaign
from generation import candidates, images, policies
from generation.models import (
    GenerationRun,
    Membership,
    Policy,
    Role,
    SamplingPlan,
    Source,
    Split,
    Task,
    default_project,
)
from generation.sources import split_of
from modeling.models import RewardModel
from modeling.starter import world
from modeling.starter.taxonomy import SAMPLING_PLAN
from modeling.taxonomy import seed

WEIGHTS = Path(__file__).parent / "starter" / "weights"
POLICY_NAME = "starter base"
REWARD_NAME = "starter reward"
CAMPAIGN_NAME = "Starter campaign"
PASSWORD = "oneloop"
HOLDOUT_PER_TASK = 60
TRAIN_PER_TASK = 200
MAX_PIXELS = 64 * 64
BLOCK = 50  # scenes that are stored together


@dataclass(frozen=True)
class Loaded:
    sources: int
    new_sources: int
    policy: Policy
    reward_model: RewardModel
    campaign: Campaign
    run: GenerationRun | None


def load(
    *, sets_per_task: int = 8, per_task: int | None = None, progress: Callable[[str], None] = print
) -> Loaded:
    """Add what is missing of the starter project; running it again changes nothing."""
    seed()
    for slug in world.TASKS:
        plan_for(Task.objects.get(slug=slug))
    new = 0
    for slug in world.TASKS:
        new += _add_sources(Task.objects.get(slug=slug), per_task)
        progress(f"{slug}: {Source.objects.filter(task__slug=slug).count()} sources")
    policy = Policy.objects.filter(name=POLICY_NAME).first()
    if policy is None:
        policy = policies.register(
            name=POLICY_NAME, location=str(WEIGHTS / "policy"), max_pixels=MAX_PIXELS
        )
    if not Policy.objects.filter(state=Policy.State.ACTIVE).exists():
        policies.activate(policy)
    reward_model, created = RewardModel.objects.get_or_create(
        name=REWARD_NAME, defaults={"location": str(WEIGHTS / "reward")}
    )
    if created and not RewardModel.objects.filter(state=RewardModel.State.ACTIVE).exists():
        reward_model.state = RewardModel.State.ACTIVE
        reward_model.save(update_fields=["state"])
    _add_people()
    campaign, run = _add_campaign(policy, sets_per_task)
    return Loaded(
        sources=Source.objects.filter(scene__isnull=False).count(),
        new_sources=new,
        policy=policy,
        reward_model=reward_model,
        campaign=campaign,
        run=run,
    )


@transaction.atomic
def plan_for(task: Task) -> None:
    if task.plans.filter(made_by="starter project").exists():
        return
    newest = task.plans.order_by("-version").first()
    task.plans.filter(current=True).update(current=False)
    SamplingPlan.objects.create(
        task=task,
        version=newest.version + 1 if newest else 1,
        made_by="starter project",
        **SAMPLING_PLAN,
    )


def _add_sources(task: Task, per_task: int | None) -> int:
    """Scenes in the order of their number until both splits are full."""
    wanted = {Split.TRAIN: TRAIN_PER_TASK, Split.HOLDOUT: HOLDOUT_PER_TASK}
    if per_task is not None:
        wanted = {Split.TRAIN: per_task, Split.HOLDOUT: per_task}
    mine = Source.objects.filter(task=task, external_id__startswith="starter/")
    first, number = mine.count(), mine.count()
    while any(mine.filter(split=split).count() < count for split, count in wanted.items()):
        add_block(task, range(number, number + BLOCK))
        number += BLOCK
    return mine.count() - first


def add_block(task: Task, numbers: range) -> None:
    """Sources of the scenes with these numbers, written together."""
    examples = [
        world.sample_example(np.random.default_rng([world.TASKS.index(task.slug), n]), task.slug)
        for n in numbers
    ]
    pictures = images.store_all([PILImage.fromarray(one.image) for one in examples])
    masks = images.store_all([PILImage.fromarray(one.mask) for one in examples])
    project = default_project()
    Source.objects.bulk_create(
        [
            Source(
                project_id=project,
                task=task,
                image=picture,
                mask=mask,
                prompt="" if task.fixed_prompt else example.prompt,
                split=split_of(picture.sha256),
                tags={"background": example.scene.background.kind},
                external_id=f"starter/{task.slug}/{n}",
                licence="CC0-1.0",
                scene=example.scene.to_dict(),
            )
            for n, example, picture, mask in zip(numbers, examples, pictures, masks, strict=True)
        ],
        ignore_conflicts=True,
    )


PEOPLE = {
    "admin": Role.ADMIN,
    "max": Role.MANAGER,
    "rita": Role.REVIEWER,
    "anna": Role.ANNOTATOR,
    "ben": Role.ANNOTATOR,
    "vera": Role.VIEWER,
}


def _add_people() -> None:
    for name, role in PEOPLE.items():
        user, created = User.objects.get_or_create(username=name)
        if created:
            user.set_password(PASSWORD)
            user.is_staff = user.is_superuser = name == "admin"
            user.save()
            Membership.objects.create(project_id=default_project(), user=user, role=role)


def _add_campaign(policy: Policy, sets_per_task: int) -> tuple[Campaign, GenerationRun | None]:
    found = Campaign.objects.filter(name=CAMPAIGN_NAME).first()
    if found is not None:
        return found, None
    chosen = [
        source
        for slug in world.TASKS
        for source in candidates.pick_sources(
            Task.objects.get(slug=slug), sets_per_task, Split.TRAIN, 0
        )
    ]
    run = candidates.order_sets(policy=policy, sources=chosen, seed=0)
    campaign = open_campaign(
        name=CAMPAIGN_NAME,
        sets=list(run.sets.all()),
        tasks=list(Task.objects.filter(slug__in=world.TASKS)),
    )
    return campaign, run
