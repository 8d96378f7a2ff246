"""DiffusionNFT (arXiv 2509.16117): reinforcement by rewards that need no gradient.

Chosen over Flow-GRPO because it is the simpler and the exact one: it needs finished samples of any
sampler and no likelihood, so neither an SDE, nor log-probabilities, nor clipped ratios.

One step: the sampling policy, which is the EMA ("old", softly updated as in the paper's equation
for theta_old), makes a group of pictures of each source; named rewards score them. Group-relative
optimality r = 1/2 + 1/2 clip((R - mean of the group) / Z, -1, 1), with Z the running standard
deviation of all groups. The finished latents are noised again, and the policy is pulled towards
the good ones and away from the bad ones by an implicit positive and an implicit negative policy:

    v+ = (1 - b) v_old + b v        v- = (1 + b) v_old - b v
    L  = r |x_0(v+) - x_0|^2 / w+  +  (1 - r) |x_0(v-) - x_0|^2 / w-

with w the mean |x_0(v) - x_0| without gradient (the paper's adaptive weighting). Anchor and tone
hold the velocity field to the parent's, in the place of the paper's KL term.

Shapes: B samples, S tokens, C packed channels, L noise levels a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.sampling import endpoint
from modeling.policy.adapters import BASE, EMA, POLICY, REFERENCE
from modeling.policy.objective import anchor_loss, tone_loss
from modeling.policy.objectives.flow import noise_levels, noised
from modeling.policy.objectives.protocol import Outcome, Parts
from modeling.policy.rewards import build_rewards
from modeling.policy.rollouts import SEED_LIMIT, inside_tokens
from modeling.policy.sources import Batch

MEMORY = 50  # steps over which Z is averaged
SMALLEST = 1e-5  # of the adaptive weight
SMALLEST_SPREAD = 1e-4


@dataclass(frozen=True)
class ScoredSamples:
    batch: Batch
    clean: Tensor  # (B, S, C) finished latents
    optimality: Tensor  # (B,) r
    seeds: np.ndarray  # (B, L) of the noise
    sigma: Tensor  # (B, L)
    figures: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, part: slice) -> ScoredSamples:
        return replace(
            self,
            batch=self.batch[part],
            clean=self.clean[part],
            optimality=self.optimality[part],
            seeds=self.seeds[part],
            sigma=self.sigma[part],
        )


class DiffusionNFT:
    headline = ("score", "score")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.rewards = build_rewards(parts)
        self._steps = 0
        self._variance = 0.0

    def prepare(self, step: int, rng: np.random.Generator) -> ScoredSamples:
        config, sources = self.parts.config, self.parts.sources
        count, size = config.batch_size, config.group_size
        mine = self.parts.processes.part(count, groups_of=size)
        drawn = [index for index in sources.draw(rng, count // size) for _ in range(size)]
        batch = sources.batch(drawn[mine])
        sampling_seeds = [int(seed) for seed in rng.integers(SEED_LIMIT, size=count)]
        clean = self._sample(batch, sampling_seeds[mine])
        scores = self._score(step, clean, batch)
        total = torch.stack([config.rewards[name] * value for name, value in scores.items()]).sum(0)
        seeds = rng.integers(SEED_LIMIT, size=(count, config.noise_levels))
        places = torch.from_numpy(rng.random((count, config.noise_levels)))
        return ScoredSamples(
            batch=batch,
            clean=clean,
            optimality=optimality(total, size, self._spread(total)),
            seeds=seeds[mine],
            sigma=noise_levels(self.parts.sampler, places, clean.shape[1])[mine],
            figures={
                "score": float(total.mean()),
                "score_spread": self._variance**0.5,
                **{f"score_{name}": float(value.mean()) for name, value in scores.items()},
            },
        )

    @torch.no_grad()
    def _sample(self, batch: Batch, seeds: list[int]) -> Tensor:
        sampler, config = self.parts.sampler, self.parts.config
        size = config.micro_batch_size or len(seeds)
        found = []
        with self.parts.roles.acting(EMA) as transformer:
            for begin in range(0, len(seeds), size):
                part = batch[begin : begin + size]
                noise = sampler.noise(part, seeds[begin : begin + size])
                found.append(sampler.trajectory(transformer, noise, part)[-1])
        return torch.cat(found)

    @torch.no_grad()
    def _score(self, step: int, clean: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Of each reward the values (B,) on the CPU."""
        size = self.parts.config.micro_batch_size or len(clean)
        images = torch.cat(
            [
                self.parts.sampler.decode(clean[begin : begin + size], batch[begin : begin + size])
                for begin in range(0, len(clean), size)
            ]
        )
        return {
            name: reward(step, images, batch).float().cpu() for name, reward in self.rewards.items()
        }

    def _spread(self, total: Tensor) -> float:
        """Z: the standard deviation inside groups, averaged over the last steps and processes."""
        groups = total.view(-1, self.parts.config.group_size)
        now = float(self.parts.processes.mean(groups.var(1, unbiased=False).mean()))
        self._steps = min(self._steps + 1, MEMORY)
        self._variance += (now - self._variance) / self._steps
        return float(max(self._variance**0.5, SMALLEST_SPREAD))

    def forward_backward(self, material: ScoredSamples, share: float) -> Outcome:
        levels = material.sigma.shape[1]
        found = [self._at_level(material, level, share / levels) for level in range(levels)]
        loss, anchor = (sum(values) / levels for values in zip(*found, strict=True))
        return Outcome(loss=loss, figures={"anchor": anchor})

    def _at_level(self, material: ScoredSamples, level: int, share: float) -> tuple[float, float]:
        config, sampler, roles = self.parts.config, self.parts.sampler, self.parts.roles
        batch = material.batch
        noise = sampler.noise(batch, [int(seed) for seed in material.seeds[:, level]])
        at = noised(material.clean, noise, material.sigma[:, level])
        with torch.no_grad():
            with roles.acting(EMA) as transformer:
                old = at.velocity(sampler, transformer, batch)
            with roles.acting(BASE if config.anchor == "base" else REFERENCE) as transformer:
                held = at.velocity(sampler, transformer, batch)
        with roles.acting(POLICY) as transformer:
            predicted = at.velocity(sampler, transformer, batch)
            losses = nft_loss(
                predicted,
                old,
                latents=at.latents,
                clean=at.clean,
                sigma=at.sigma,
                optimality=material.optimality.to(predicted.device),
                beta=config.nft_beta,
            )
            anchor = anchor_loss(predicted, held).mean()
            tone = tone_loss(predicted, held, inside_tokens(batch.conditions)).mean()
            loss = losses.mean() + config.anchor_weight * anchor + config.tone_weight * tone
            (share * loss).backward()
        return float(loss.detach()), float(anchor.detach())

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps, "variance": self._variance}

    def load_state(self, state: dict[str, Any]) -> None:
        self._steps, self._variance = int(state["steps"]), float(state["variance"])


def optimality(rewards: Tensor, group_size: int, spread: float) -> Tensor:
    """r (B,) in [0, 1] of rewards (B,) whose groups stand together: 1/2 is the group's mean, and
    `spread` away from it is as good or as bad as can be."""
    groups = rewards.view(-1, group_size)
    away = (groups - groups.mean(1, keepdim=True)) / spread
    return (0.5 + 0.5 * away.clamp(-1, 1)).flatten()


def nft_loss(
    velocity: Tensor,
    old: Tensor,
    *,
    latents: Tensor,
    clean: Tensor,
    sigma: Tensor,
    optimality: Tensor,
    beta: float,
) -> Tensor:
    """Loss (B,) of velocities (B, S, C) at `latents` (B, S, C) and noise levels `sigma` (B,)."""
    velocity, old, clean = velocity.float(), old.float(), clean.float()
    total = torch.zeros_like(optimality)
    for sign, part in ((1.0, optimality), (-1.0, 1 - optimality)):
        implied = (1 - sign * beta) * old + sign * beta * velocity
        away = endpoint(latents, implied, sigma) - clean
        weight = away.detach().abs().mean(dim=(1, 2)).clamp(min=SMALLEST)
        total = total + part * away.square().mean(dim=(1, 2)) / weight
    return total
