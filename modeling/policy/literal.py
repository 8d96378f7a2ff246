"""One step of OneReward's Algorithm 1 (arXiv 2508.21066) as the paper writes it, to compare with.

It is what a straight implementation on diffusers and transformers does: policy, EMA and reference
are three whole transformers; a reference is sampled anew for every image of every step; the reward
model reads both images once for every dimension, the policy's image always first; one graph holds
transformer, VAE and all of these readings until one backward. `objectives/onereward.py` computes
the same loss and gradient from the same draws (a test shows it) without sampling a frozen
reference twice, in one reading, and in two halves.

Read here: the loss is descended on, where the paper's pseudo-code ascends; P(Yes) is normalised
over the two answers.

Shapes: B samples, S tokens, C packed channels, D dimensions, H, W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.loading import FillModels
from generation.diffusion.sampling import (
    decode,
    endpoint,
    flow_sample,
    initial_latents,
    sigmas_for,
    velocity,
)
from modeling.policy.sources import Batch
from modeling.reward.preprocess import to_patches
from modeling.reward.vlm import RewardVLM


@dataclass(frozen=True)
class LiteralConfig:
    num_inference_steps: int = 28
    guidance_scale: float = 30.0
    cap: float = 0.95  # lambda
    ema_decay: float = 0.995  # tau
    lr: float = 1e-5
    max_grad_norm: float = 1.0
    micro_batch_size: int = 0  # samples whose activations coexist, 0 = the whole batch


class LiteralStep:
    """The three transformers and the optimiser; `models.transformer` becomes the policy."""

    def __init__(self, models: FillModels, vlm: RewardVLM, config: LiteralConfig) -> None:
        self.models, self.vlm, self.config = models, vlm, config
        self.reference: Any = copy.deepcopy(models.transformer).requires_grad_(False)
        self.ema: Any = copy.deepcopy(models.transformer).requires_grad_(False)
        self.policy: Any = models.transformer.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=config.lr, weight_decay=0.0)

    def take(
        self, batch: Batch, seeds: Sequence[int], reference_seeds: Sequence[int], at: Tensor
    ) -> float:
        """One whole step; at (B,) is the step of each sample that carries the gradient."""
        references = self.sample_references(batch, reference_seeds)
        self.optimizer.zero_grad(set_to_none=True)
        size = self.config.micro_batch_size or len(at)
        total = 0.0
        for begin in range(0, len(at), size):
            part = slice(begin, begin + size)
            loss = self.loss(batch[part], seeds[part], references[part], at[part])
            share = len(at[part]) / len(at)
            (share * loss).backward()
            total += share * float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.policy.parameters(), strict=True):
                average.lerp_(value, 1.0 - self.config.ema_decay)
        return total

    @torch.no_grad()
    def sample_references(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        """x_ref (B, 3, H, W) from noise of its own, as pictures of 8 bits a channel."""
        noise, sigmas = self._start(batch, seeds)
        latents = flow_sample(
            self.reference,
            noise,
            sigmas,
            batch.conditions,
            guidance_scale=self.config.guidance_scale,
        )
        return (self._decode(latents, batch) * 255).round() / 255

    def loss(self, batch: Batch, seeds: Sequence[int], references: Tensor, at: Tensor) -> Tensor:
        """J = max(0, lambda - P(Yes | x_theta, x_ref, q)), the mean over dimensions and samples."""
        guidance = self.config.guidance_scale
        noise, sigmas = self._start(batch, seeds)
        seen = [noise]
        with torch.no_grad():
            flow_sample(
                self.policy,
                noise,
                sigmas,
                batch.conditions,
                guidance_scale=guidance,
                stop=int(at.max()),
                callback=lambda _, latents: seen.append(latents),
            )
        latents = torch.stack(seen)[at, torch.arange(len(at))]  # (B, S, C)
        sigma = sigmas[at.to(sigmas.device)]
        predicted = velocity(self.policy, latents, sigma, batch.conditions, guidance_scale=guidance)
        pictures = self._decode(endpoint(latents, predicted, sigma), batch)
        asked = [list(row.queries.values()) for row in batch.rows]
        total = pictures.new_zeros(len(asked))
        for dimension in range(max(len(row) for row in asked)):
            rows = [b for b, row in enumerate(asked) if dimension < len(row)]
            queries = [asked[b][dimension] for b in rows]
            yes = probability_of_yes(self.vlm, pictures[rows], references[rows], queries)
            share = yes.new_tensor([1 / len(asked[b]) for b in rows])
            total = total.index_add(
                0, torch.tensor(rows, device=total.device), share * F.relu(self.config.cap - yes)
            )
        return total.mean()

    def _start(self, batch: Batch, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        conditions = batch.conditions
        noise = initial_latents(self.models, seeds, conditions.height, conditions.width)
        sigmas = sigmas_for(self.models, self.config.num_inference_steps, noise.shape[1])
        return noise, sigmas.to(noise.device)

    def _decode(self, latents: Tensor, batch: Batch) -> Tensor:
        height, width = batch.conditions.height, batch.conditions.width
        return decode(self.models, latents, height, width, clamp=True).float()


def probability_of_yes(
    vlm: RewardVLM, first: Tensor, second: Tensor, queries: Sequence[str]
) -> Tensor:
    """P(Yes) (B,) of one question a pair, by one whole forward of the model.

    first, second (B, 3, H, W) in [0, 1], of one size. Nothing is shared between questions.
    """
    images = torch.stack([first, second], 1).flatten(0, 1).to(vlm.device)
    pixel_values, grid = to_patches(images, vlm.patches)
    counts = (grid.prod(-1) // vlm.patches.merge_size**2).tolist()
    image_token = vlm.core.config.image_token_id
    rows = []
    for index, query in enumerate(queries):
        content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": query}]
        text = vlm.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        left = iter(counts[2 * index : 2 * index + 2])
        rows.append(
            [
                one
                for token in vlm.tokenizer.encode(text, add_special_tokens=False)
                for one in ([token] * next(left) if token == image_token else [token])
            ]
        )
    longest = max(len(row) for row in rows)
    # On the left, so that the answer's place is the last one of every row.
    padding = [longest - len(row) for row in rows]
    tokens = torch.tensor(
        [[row[-1]] * gap + row for row, gap in zip(rows, padding, strict=True)], device=vlm.device
    )
    mask = torch.tensor(
        [[0] * gap + [1] * len(row) for row, gap in zip(rows, padding, strict=True)],
        device=vlm.device,
    )
    logits = vlm.model(
        input_ids=tokens,
        attention_mask=mask,
        pixel_values=pixel_values.to(vlm.dtype),
        image_grid_thw=grid,
        mm_token_type_ids=(tokens == image_token).int(),
        use_cache=False,
        logits_to_keep=1,
    ).logits[:, -1]
    margin = (logits[:, vlm.yes_id] - logits[:, vlm.no_id]).float() / vlm.temperature
    return margin.sigmoid()
