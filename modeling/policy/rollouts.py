"""Sampling and scoring: the two forward halves of a policy step.

Shapes: B samples, S tokens, C packed channels, K steps, D dimensions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from generation.diffusion.conditions import FillConditions, encode_prompts
from generation.diffusion.loading import FillModels
from generation.diffusion.sampling import (
    decode,
    flow_sample,
    initial_latents,
    sigmas_for,
    velocity,
)
from modeling.policy.config import PolicyConfig, rollout_steps
from modeling.policy.objective import mean_over_dimensions, toward_policy
from modeling.policy.sources import Batch
from modeling.reward.prefix import PrefixStore, ReferencePrefix, encode_reference, margins_after
from modeling.reward.scoring import margins
from modeling.reward.view import reward_context, reward_view
from modeling.reward.vlm import RewardVLM

SEED_LIMIT = 2**62


@dataclass(frozen=True)
class Scores:
    """Margins that the policy's image is the better one."""

    margins: Tensor  # (orders, B, D), 0 where a row has fewer dimensions
    present: Tensor  # (B, D)
    dimensions: list[list[str]]  # of each row


class Sampler:
    """The flow loop with one configuration's guidance: as the policy will be sampled, or `training`
    by the configured short cuts, `rollout_steps` and `cfg_free`."""

    def __init__(self, models: FillModels, config: PolicyConfig, *, training: bool = False) -> None:
        self.models = models
        self.steps = rollout_steps(config) if training else config.num_inference_steps
        self.second_order = training and config.rollout_steps > 0
        self.guidance_scale = config.guidance_scale
        plain = training and config.cfg_free
        self.true_cfg_scale = 1.0 if plain else config.true_cfg_scale
        self._negative: tuple[Tensor, Tensor] | None = None
        if self.true_cfg_scale > 1:
            with torch.no_grad():
                self._negative = encode_prompts(models, [config.negative_prompt])

    def noise(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        height, width = batch.conditions.height, batch.conditions.width
        return initial_latents(self.models, seeds, height, width)

    def sigmas(self, latents: Tensor) -> Tensor:
        """(K + 1,) on the latents' device."""
        return sigmas_for(self.models, self.steps, latents.shape[1]).to(latents.device)

    @torch.no_grad()
    def trajectory(
        self, transformer: Any, noise: Tensor, batch: Batch, stop: int | None = None
    ) -> Tensor:
        """Latents at every noise level from the first to `stop`: (stop + 1, B, S, C)."""
        seen = [noise]
        flow_sample(
            transformer,
            noise,
            self.sigmas(noise),
            batch.conditions,
            stop=stop,
            callback=lambda _, latents: seen.append(latents),
            second_order=self.second_order,
            **self._guidance(batch.conditions),
        )
        return torch.stack(seen)

    def velocity(self, transformer: Any, latents: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        return velocity(
            transformer, latents, sigma, batch.conditions, **self._guidance(batch.conditions)
        )

    def decode(self, latents: Tensor, batch: Batch) -> Tensor:
        """(B, 3, H, W) in [0, 1]; the gradient ends where a pixel leaves the range."""
        conditions = batch.conditions
        pictures = decode(self.models, latents, conditions.height, conditions.width)
        return pictures.float().clamp(0, 1)

    @torch.no_grad()
    def pictures(self, transformer: Any, batch: Batch, seeds: Sequence[int]) -> Tensor:
        """Finished pictures (B, 3, H, W) in [0, 1]."""
        return self.decode(self.trajectory(transformer, self.noise(batch, seeds), batch)[-1], batch)

    def _guidance(self, conditions: FillConditions) -> dict[str, Any]:
        values: dict[str, Any] = {"guidance_scale": self.guidance_scale}
        if self._negative is not None:
            values["negative"] = conditions.with_prompts(*self._negative)
            values["true_cfg_scale"] = self.true_cfg_scale
        return values


def score(
    vlm: RewardVLM, images: Tensor, references: Tensor, batch: Batch, policy_first: Tensor
) -> Scores:
    """Margins of the policy's images (B, 3, H, W) over the references, all questions of each row.

    policy_first (orders, B) says which image stands first; each order is one pass of the VLM, which
    sees both images only through its view: source pixels outside the mask.
    """
    view = reward_view(images, batch.images, batch.masks, vlm.view)
    other = reward_view(references.to(images.device), batch.images, batch.masks, vlm.view)
    context = reward_context(batch.images, batch.masks, vlm.view)
    queries = [list(row.queries.values()) for row in batch.rows]
    found = []
    for first in policy_first:
        place = first.to(images.device).view(-1, 1, 1, 1)
        asked = margins(
            vlm, torch.where(place, view, other), torch.where(place, other, view), queries, context
        )
        found.append(toward_policy(asked, first.to(asked.device)))
    return Scores(
        margins=torch.stack(found),
        present=_present(queries, found[0]),
        dimensions=[list(row.queries) for row in batch.rows],
    )


def score_after(
    vlm: RewardVLM,
    images: Tensor,
    references: Tensor,
    batch: Batch,
    store: PrefixStore,
    names: Sequence[Hashable],
) -> Scores:
    """`score` with every reference first, whose part of the VLM's work is kept under its name."""
    view = reward_view(images, batch.images, batch.masks, vlm.view)
    other = reward_view(references.to(images.device), batch.images, batch.masks, vlm.view)
    context = reward_context(batch.images, batch.masks, vlm.view)

    def encoded(index: int) -> ReferencePrefix:
        around = None if context is None else context[index]
        return encode_reference(vlm, other[index], around)

    prefixes = [store.get(name, partial(encoded, i)) for i, name in enumerate(names)]
    queries = [list(row.queries.values()) for row in batch.rows]
    found = -margins_after(vlm, prefixes, view, queries)
    return Scores(
        margins=found[None],
        present=_present(queries, found),
        dimensions=[list(row.queries) for row in batch.rows],
    )


def _present(queries: list[list[str]], margins: Tensor) -> Tensor:
    """(B, D), which entries of (B, D) margins were asked."""
    lengths = torch.tensor([len(row) for row in queries], device=margins.device)
    return torch.arange(margins.shape[1], device=margins.device) < lengths[:, None]


def inside_tokens(conditions: FillConditions) -> Tensor:
    """Tokens with any pixel under the mask, 0 or 1: (B, S). The packed mask stands last."""
    channels = conditions.image_latents.shape[-1]
    return (conditions.masked_image[..., channels:].float().amax(-1) > 0.5).float()


@torch.no_grad()
def favourites(vlm: RewardVLM, drawn: list[Tensor], batch: Batch) -> Tensor:
    """Of several pictures (B, 3, H, W) of each row the one that the reward model likes best: its
    mean margin over the first one, both orders averaged."""
    totals = [torch.zeros(len(batch.rows), device=drawn[0].device)]
    first = torch.ones(len(batch.rows), dtype=torch.bool)
    for pictures in drawn[1:]:
        scores = score(vlm, pictures, drawn[0], batch, torch.stack([first, ~first]))
        totals.append(mean_over_dimensions(scores.margins.mean(0), scores.present).to(totals[0]))
    best = torch.stack(totals).argmax(0)
    return torch.stack(drawn)[best, torch.arange(len(best), device=best.device)]
