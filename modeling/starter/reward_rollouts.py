"""Groups whose answers are a policy's own samples: what the reward base will be asked about in RL.

They are drawn as candidates are: steps, strength, guidance, true CFG and negative prompt of every
answer from the starter project's sampling plan. Ground truth judges them as it judges drawn ones,
and reads off what they show.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generation.diffusion.generate import Draw, Generator, Request
from generation.diffusion.loading import PolicySpec, load_models
from modeling.starter import truth, world
from modeling.starter.reward_data import (
    DIMENSIONS,
    TASK_SHARE,
    VARIANTS,
    Groups,
    Rng,
    second_scene,
)
from modeling.starter.taxonomy import SAMPLING_PLAN
from modeling.starter.world import Scene

# Answers to the second prompt stand where they stand among drawn ones; the others are what a set of
# candidates holds.
SECOND = (1, 5)
OWN = tuple(k for k in range(VARIANTS) if k not in SECOND)

# Groups at a time: the generator remembers the conditions of as many sources.
BLOCK = 100


def draw(rng: Rng) -> Draw:
    """A candidate's values from the starter project's sampling plan."""

    def one(name: str) -> Any:
        values = SAMPLING_PLAN[name]
        return values[int(rng.integers(len(values)))]

    return Draw(
        seed=int(rng.integers(2**31)),
        num_inference_steps=one("steps"),
        strength=one("strength"),
        guidance_scale=one("guidance_scale"),
        true_cfg_scale=one("true_cfg_scale"),
        negative_prompt=one("negative_prompts"),
    )


def policy_groups(policy: Path, seed: Sequence[int], count: int, batch_size: int = 32) -> Groups:
    """`count` groups of the policy's samples; the same seed and weights give the same groups."""
    generator = Generator(load_models(PolicySpec(location=str(policy))), batch_size)
    rng = np.random.default_rng(list(seed))
    tasks = [str(t) for t in rng.choice(list(TASK_SHARE), count, p=list(TASK_SHARE.values()))]
    scenes = [world.sample_scene(rng, task) for task in tasks]
    others = [second_scene(rng, scene) for scene in scenes]
    requests = []
    for number, (scene, other) in enumerate(zip(scenes, others, strict=True)):
        for variant in range(VARIANTS):
            second = other if other and variant in SECOND else None
            example = world.example_of(second or scene)
            requests.append(
                Request(
                    Image.fromarray(example.image),
                    Image.fromarray(example.mask),
                    example.prompt,
                    draw(rng),
                    key=f"{number}:{second is not None}",
                )
            )
    found = []
    for start in range(0, len(requests), BLOCK * VARIANTS):
        found += generator.generate(requests[start : start + BLOCK * VARIANTS])
    pictures = np.stack([np.asarray(picture) for picture in found])
    pictures = pictures.reshape(count, VARIANTS, world.SIZE, world.SIZE, 3)
    sources = np.stack([world.source_picture(scene) for scene in scenes])
    masks = np.stack([world.mask_picture(scene.box) for scene in scenes])
    images = np.where(masks[:, None, ..., None] > 0, pictures, sources[:, None])
    return Groups(
        tasks=tasks,
        prompts=[scene.prompt for scene in scenes],
        others=[other.prompt if other else "" for other in others],
        sources=sources,
        masks=masks,
        images=images,
        scores=np.stack([_scores(*one) for one in zip(images, scenes, strict=True)]),
        other_scores=np.stack([_scores(*one) for one in zip(images, others, strict=True)]),
        drawn=np.stack(
            [
                [truth.shows(image, scene) for image in row]
                for row, scene in zip(images, scenes, strict=True)
            ]
        ).astype(np.int64),
    )


def _scores(images: np.ndarray, asked: Scene | None) -> np.ndarray:
    """(V, dimensions), NaN where not asked."""
    rows = [truth.score(image, asked) if asked else {} for image in images]
    return np.array([[row.get(name, np.nan) for name in DIMENSIONS] for row in rows], np.float32)
