"""Flow matching on given pictures: what SFT, Diffusion-DPO and DiffusionNFT have in common.

A clean sample x_0 is noised to x_t = (1 - sigma) x_0 + sigma * noise; the velocity to predict is
noise - x_0. Noise levels are drawn evenly over the sampler's own (shifted) schedule, so that they
are as dense as the steps of a sampling.

Shapes: B samples, S tokens, C packed channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from generation.diffusion.sampling import sigmas_for
from modeling.policy.rollouts import Sampler
from modeling.policy.sources import Batch

LEVELS = 1000


def noise_levels(sampler: Sampler, places: Tensor, tokens: int) -> Tensor:
    """Sigmas (B,) at `places` (B,) in [0, 1) of the schedule, where 0 is pure noise."""
    schedule = sigmas_for(sampler.models, LEVELS, tokens)
    return schedule[(places * LEVELS).long()].float()


@dataclass(frozen=True)
class Noised:
    """Clean samples on their way to noise."""

    clean: Tensor  # (B, S, C)
    latents: Tensor  # (B, S, C) at sigma
    sigma: Tensor  # (B,)
    target: Tensor  # (B, S, C) noise - clean

    def velocity(self, sampler: Sampler, transformer: Any, batch: Batch) -> Tensor:
        return sampler.velocity(transformer, self.latents, self.sigma, batch)


def noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Noised:
    sigma = sigma.to(clean.device)
    at = sigma[:, None, None]
    mixed = (1 - at) * clean.float() + at * noise.float()
    return Noised(clean, mixed.to(clean.dtype), sigma, noise.float() - clean.float())


def squared_error(velocity: Tensor, target: Tensor) -> Tensor:
    """Mean squared error (B,) of velocities (B, S, C)."""
    return (velocity.float() - target.float()).square().mean(dim=(1, 2))
