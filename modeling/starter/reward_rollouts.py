"""Groups whose answers are a policy's own samples: what the reward base will be asked about in RL.

Half-trained weights, few steps and low guidance give the weaker answers, the finished policy the
better ones. Ground truth judges them as it judges drawn ones.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from generation.diffusion.loading import PolicySpec, load_models
from modeling.starter import truth, world
from modeling.starter.policy_eval import answers
from modeling.starter.reward_data import (
    DIMENSIONS,
    TASK_SHARE,
    VARIANTS,
    Groups,
    concat,
    second_scene,
)
from modeling.starter.world import Example, Pixels, Scene

# (num_inference_steps, guidance_scale, shown to the second prompt) of the eight answers; the second
# prompt has the places that it has among drawn answers.
PLAN = (
    (6, 30.0, False),
    (6, 30.0, True),
    (6, 30.0, False),
    (6, 10.0, False),
    (4, 30.0, False),
    (4, 10.0, True),
    (8, 50.0, False),
    (3, 20.0, False),
)


def policy_groups(policy: Path, seed: Sequence[int], count: int, batch_size: int = 32) -> Groups:
    """`count` groups of the policy's samples; the same seed and weights give the same groups."""
    models = load_models(PolicySpec(location=str(policy)))
    rng = np.random.default_rng(list(seed))
    tasks = [str(t) for t in rng.choice(list(TASK_SHARE), count, p=list(TASK_SHARE.values()))]
    scenes = [world.sample_scene(rng, task) for task in tasks]
    others = [second_scene(rng, scene) for scene in scenes]
    noise = [int(n) for n in rng.integers(0, 2**31, count * VARIANTS)]
    images = np.zeros((count, VARIANTS, world.SIZE, world.SIZE, 3), np.uint8)
    for variant, (steps, guidance, second) in enumerate(PLAN):
        asked = [(o or s) if second else s for s, o in zip(scenes, others, strict=True)]
        examples = [world.example_of(scene) for scene in asked]
        for start in range(0, count, batch_size):
            part = examples[start : start + batch_size]
            seeds = [noise[(start + k) * VARIANTS + variant] for k in range(len(part))]
            found = answers(models, part, seeds, num_inference_steps=steps, guidance_scale=guidance)
            images[start : start + len(part), variant] = [
                _composited(picture, example) for picture, example in zip(found, part, strict=True)
            ]
    return concat(
        [
            _group(scene, other, images[k])
            for k, (scene, other) in enumerate(zip(scenes, others, strict=True))
        ]
    )


def _composited(picture: Pixels, example: Example) -> Pixels:
    return np.where(example.mask[..., None] > 0, picture, example.image)


def _group(scene: Scene, other: Scene | None, images: Pixels) -> Groups:
    def scores(asked: Scene | None) -> np.ndarray:
        rows = [truth.score(image, asked) if asked else {} for image in images]
        return np.array(
            [[[row.get(name, np.nan) for name in DIMENSIONS] for row in rows]], np.float32
        )

    return Groups(
        tasks=[scene.task],
        prompts=[scene.prompt],
        others=[other.prompt if other else ""],
        sources=world.source_picture(scene)[None],
        masks=world.mask_picture(scene.box)[None],
        images=images[None],
        scores=scores(scene),
        other_scores=scores(other),
        drawn=np.full((1, VARIANTS, 4), -1, np.int64),
    )
