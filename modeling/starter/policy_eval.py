"""Ground-truth figures of a policy on fresh scenes of the starter world."""

from typing import Any

import numpy as np
import torch

from generation.diffusion.conditions import encode_sources
from generation.diffusion.loading import FillModels
from generation.diffusion.sampling import (
    decode,
    flow_sample,
    initial_latents,
    sigmas_for,
    start_latents,
)
from modeling.starter import truth, world
from modeling.starter.training import Pixels


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate."""
    if count == 0:
        return 0.0, 1.0
    rate = successes / count
    centre = rate + z * z / (2 * count)
    reach = z * (rate * (1 - rate) / count + z * z / (4 * count * count)) ** 0.5
    scale = 1 + z * z / count
    return (centre - reach) / scale, (centre + reach) / scale


@torch.no_grad()
def answers(
    models: FillModels,
    examples: list[world.Example],
    seeds: list[int],
    *,
    num_inference_steps: int = 6,
    guidance_scale: float = 30.0,
    true_cfg_scale: float = 1.0,
    negative_prompt: str = "",
    strength: float = 1.0,
) -> Pixels:
    """The policy's pictures (B, 64, 64, 3), as they leave the decoder."""
    images = torch.from_numpy(np.stack([one.image for one in examples])).permute(0, 3, 1, 2) / 255
    masks = torch.from_numpy(np.stack([one.mask for one in examples]))[:, None] / 255
    conditions = encode_sources(models, images, masks, [one.prompt for one in examples])
    negative = None
    if true_cfg_scale > 1:
        negative = encode_sources(models, images, masks, [negative_prompt] * len(examples))
    noise = initial_latents(models, seeds, world.SIZE, world.SIZE)
    sigmas = sigmas_for(models, num_inference_steps, noise.shape[1], strength)
    latents = flow_sample(
        models.transformer,
        start_latents(noise, conditions, sigmas[0]) if strength < 1 else noise,
        sigmas,
        conditions,
        guidance_scale=guidance_scale,
        negative=negative,
        true_cfg_scale=true_cfg_scale,
    )
    pictures = decode(models, latents, world.SIZE, world.SIZE, clamp=True)
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def evaluate(
    models: FillModels, count: int, seed: int, batch_size: int = 40, **sampling: Any
) -> dict[str, dict[str, Any]]:
    """Per task and for "all": usable rate with its interval, mean score of every dimension."""
    figures: dict[str, dict[str, Any]] = {}
    total = 0
    for place, task in enumerate(world.TASKS):
        rng = np.random.default_rng([seed, 77, place])
        examples = [world.sample_example(rng, task) for _ in range(count)]
        scores = []
        for start in range(0, count, batch_size):
            part = examples[start : start + batch_size]
            seeds = [seed * 100_003 + place * 10_007 + start + k for k in range(len(part))]
            pictures = answers(models, part, seeds, **sampling)
            scores += [
                truth.score(picture, one.scene) for picture, one in zip(pictures, part, strict=True)
            ]
        good = sum(truth.usable(one) for one in scores)
        total += good
        figures[task] = summary(good, count) | {
            name: round(float(np.mean([one[name] for one in scores])), 3)
            for name in world.DIMENSIONS[task]
        }
    figures["all"] = summary(total, count * len(world.TASKS))
    return figures


def summary(good: int, count: int) -> dict[str, Any]:
    low, high = wilson(good, count)
    return {
        "usable": round(good / count, 3),
        "n": count,
        "low": round(low, 3),
        "high": round(high, 3),
    }
