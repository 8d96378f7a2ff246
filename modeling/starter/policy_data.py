"""Training examples of the starter policy as latents, in blocks that are encoded once.

A block is drawn from a generator seeded by its number and kept as a file, so that a killed build
finds the same examples again. The pool that steps draw from grows by a block every
`STEPS_PER_BLOCK` steps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.conditions import encode_pictures
from generation.diffusion.loading import FillModels
from generation.diffusion.packing import pack_masks
from modeling.starter import world
from modeling.starter.flaws import sample_flawed
from modeling.starter.training import as_pictures, save_atomically

BLOCK = 250
# The first rows of every block also have a flawed answer.
FLAWED = 80
FIRST_BLOCKS = 16
STEPS_PER_BLOCK = 80
NEWEST_BLOCKS = 120
# The tasks with a prompt have more to learn.
TASK_SHARES = {
    "fill": 0.28,
    "extend_prompt": 0.24,
    "extend_noprompt": 0.09,
    "removal": 0.11,
    "text_rendering": 0.28,
}
GUIDANCE_RANGE = (1.0, 50.0)
FLAWED_SHARE = 0.35
UNPROMPTED_SHARE = 0.1


@dataclass(frozen=True)
class Batch:
    answers: Tensor  # (B, S, C) latents
    masked_image: Tensor  # (B, S, C + mask)
    weight: Tensor  # (B, S, 1), the share of every token that is edited
    prompts: list[str]
    guidance_scale: Tensor  # (B,)


@torch.no_grad()
def encode_block(models: FillModels, seed: int, number: int) -> dict[str, object]:
    rng = np.random.default_rng([seed, 11, number])
    tasks = rng.choice(list(TASK_SHARES), BLOCK, p=list(TASK_SHARES.values()))
    examples = [world.sample_example(rng, str(task)) for task in tasks]
    flawed = []
    for example in examples[:FLAWED]:
        dimensions = world.DIMENSIONS[example.task]
        count = 1 + int(rng.random() < 0.25 and len(dimensions) > 1)
        chosen = [str(name) for name in rng.choice(dimensions, count, replace=False)]
        flawed.append(sample_flawed(rng, example, chosen, severity=float(rng.uniform(0.25, 1))))
    masks = torch.from_numpy(np.stack([one.mask for one in examples]))[:, None].float() / 255
    images = as_pictures(np.stack([one.image for one in examples]))
    return {
        "clean": encode_pictures(
            models, as_pictures(np.stack([e.target for e in examples]))
        ).half(),
        "flawed": encode_pictures(models, as_pictures(np.stack(flawed))).half(),
        "masked": encode_pictures(models, images * (1 - masks)).half(),
        "masks": (masks > 0.5),
        "prompts": [one.prompt for one in examples],
    }


class Pool:
    """Blocks by number, encoded on first use and then read from `directory`."""

    def __init__(
        self, models: FillModels, seed: int, directory: Path, first_blocks: int = FIRST_BLOCKS
    ) -> None:
        self.models = models
        self.seed = seed
        self.directory = directory
        self.first_blocks = first_blocks
        self.loaded: dict[int, dict[str, object]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def block(self, number: int) -> dict[str, object]:
        if number not in self.loaded:
            path = self.directory / f"block-{number}.pt"
            if not path.is_file():
                save_atomically(encode_block(self.models, self.seed, number), path)
            self.loaded[number] = torch.load(path, weights_only=True)
        return self.loaded[number]

    def batch(self, step: int, size: int) -> Batch:
        """The examples of one step; the same step draws the same ones."""
        rng = np.random.default_rng([self.seed, 12, step])
        newest = self.first_blocks + step // STEPS_PER_BLOCK
        oldest = max(0, newest - NEWEST_BLOCKS)
        answers, masked, masks, prompts, guidance = [], [], [], [], []
        for _ in range(size):
            block = self.block(int(rng.integers(oldest, newest)))
            scale = float(rng.uniform(*GUIDANCE_RANGE))
            is_flawed = rng.random() < FLAWED_SHARE * (1 - scale / GUIDANCE_RANGE[1])
            row = int(rng.integers(FLAWED if is_flawed else BLOCK))
            answers.append(block["flawed" if is_flawed else "clean"][row])  # type: ignore[index]
            masked.append(block["masked"][row])  # type: ignore[index]
            masks.append(block["masks"][row])  # type: ignore[index]
            prompt = block["prompts"][row]  # type: ignore[index]
            prompts.append("" if rng.random() < UNPROMPTED_SHARE else prompt)
            guidance.append(scale)
        packed = pack_masks(torch.stack(masks).float(), self.models.vae_scale_factor)
        return Batch(
            answers=torch.stack(answers).float(),
            masked_image=torch.cat([torch.stack(masked).float(), packed], dim=-1),
            weight=packed.mean(-1, keepdim=True),
            prompts=prompts,
            guidance_scale=torch.tensor(guidance),
        )
