"""A small project around tiny models: everything of the loop is real, only the sizes are not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from annotation.campaigns import open_campaign
from annotation.models import Campaign, Judgment
from generation import candidates, images, policies
from generation.models import CandidateSet, Policy, Source, Split, Task
from generation.sources import add_source
from modeling import snapshots
from modeling.models import RewardModel, Round, Snapshot
from modeling.simulation import simulate
from modeling.starter import world
from modeling.taxonomy import seed
from tests.factories import make_plan, make_set

TASKS = ("fill", "removal")
# Short trainings of tiny models, with checkpoints in between.
CONFIG: dict[str, Any] = {
    "sets_per_task": 4,
    "holdout_sets_per_task": 3,
    "evaluation_sources_per_task": 3,
    "sampling": {"num_inference_steps": 2},
    "min_judgments": 4,
    "reward": {"steps": 3, "batch_size": 4, "min_pairs": 2, "lora_rank": 2, "checkpoint_every": 1},
    "policy": {
        "steps": 3,
        "batch_size": 2,
        "lora_rank": 2,
        "num_inference_steps": 2,
        "t_range": [0.5, 1.0],
        "checkpoint_every": 1,
        "monitor": {"every": 0, "sources": 2},
        "sample_every": 0,
    },
}


@dataclass
class Project:
    policy: Policy
    reward: RewardModel
    tasks: list[Task]


def make_project(policy_dir: Path, reward_dir: Path, *, per_split: int = 4) -> Project:
    seed()
    Task.objects.exclude(slug__in=TASKS).update(active=False)
    tasks = list(Task.objects.filter(slug__in=TASKS))
    for task in tasks:
        make_plan(task)
        _add_sources(task, per_split)
    policy = policies.register(name="tiny base", location=str(policy_dir), max_pixels=64 * 64)
    policies.activate(policy)
    reward = RewardModel.objects.create(
        name="tiny reward", location=str(reward_dir), state=RewardModel.State.ACTIVE
    )
    return Project(policy=policy, reward=reward, tasks=tasks)


def _add_sources(task: Task, per_split: int) -> None:
    wanted = dict.fromkeys(Split.values, per_split)
    number = 0
    while any(wanted.values()):
        example = world.sample_example(np.random.default_rng(number), task.slug)
        number += 1
        picture = Pillow.fromarray(example.image)
        source, created = add_source(
            task=task,
            image=picture,
            mask=Pillow.fromarray(example.mask),
            prompt="" if task.fixed_prompt else example.prompt,
            scene=example.scene.to_dict(),
        )
        if created and wanted[source.split] == 0:
            source.delete()
        elif created:
            wanted[source.split] -= 1


def make_judged_campaign(project: Project, *, sets: int = 4, name: str = "labelled") -> Campaign:
    """`sets` sets per task and split, of answers from bad to good, labelled without slips."""
    made: list[CandidateSet] = []
    for task in project.tasks:
        for split in Split.values:
            for source in candidates.pick_sources(task, sets, split, 0):
                made.append(make_set(source, policy=project.policy, pictures=_answers(source)))
    campaign = open_campaign(name=name, sets=made, tasks=project.tasks, simulated=True, seed=0)
    simulate(campaign=campaign, noise=0.0)
    return campaign


def _answers(source: Source) -> list[Pillow.Image]:
    """Four answers from bad to good: more and more of the perfect one."""
    scene = world.Scene.from_dict(source.scene or {})
    target = world.target_picture(scene).astype(np.float32)
    noise = np.random.default_rng(source.pk).uniform(0, 255, target.shape)
    mask = (np.asarray(images.open_image(source.mask)) > 0)[..., None]
    blend = [target * (1 - share) + noise * share for share in (0.9, 0.5, 0.2, 0.0)]
    return [
        Pillow.fromarray(np.where(mask, one, target).clip(0, 255).astype(np.uint8)) for one in blend
    ]


def make_snapshot(project: Project, **options: Any) -> Snapshot:
    campaign = make_judged_campaign(project, **options)
    return snapshots.take(Judgment.objects.filter(assignment__item__campaign=campaign))


def only_round() -> Round:
    return Round.objects.get()
