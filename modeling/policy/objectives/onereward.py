"""Objectives that descend on the reward's own gradient: OneReward and ReFL.

One step: references x_ref from the frozen parent (Algorithm 1, "frozen") or from the EMA
(Algorithm 2, "dynamic"); policy images from *other* noise, denoised without gradient to a random
step, then one step to the endpoint x_0' with gradient; decode; ask the reward VLM every question of
the source's task in one packed pass; descend on the capped hinge plus an anchor that holds the
velocity field to the parent's.

"refl" is ReFL (ImageReward, arXiv 2304.05977, Algorithm 1) with one scalar score: the mean margin
over the task's dimensions against one fixed reference of the parent's. Its loss is ImageReward's
phi(r) = max(0, c - r) on that scalar with c = logit(cap), where OneReward has a hinge for every
dimension: a dimension that is good enough then pays for one that is not. ReFL's pretraining loss
has its counterpart in the anchor.

Shapes: B samples, S tokens, C packed channels, D dimensions, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.sampling import endpoint
from modeling.policy import monitors
from modeling.policy.adapters import BASE, POLICY, REFERENCE
from modeling.policy.config import gradient_steps
from modeling.policy.objective import (
    anchor_loss,
    reward_loss,
    straight_through,
    tone_loss,
)
from modeling.policy.objectives.protocol import Outcome, Parts, Stateless
from modeling.policy.objectives.reference_images import ReferenceImages
from modeling.policy.rollouts import SEED_LIMIT, Scores, inside_tokens, score
from modeling.policy.sources import Batch


@dataclass(frozen=True)
class Rollouts:
    batch: Batch
    seeds: list[int]
    at: Tensor  # (B,) the step of each sample that carries the gradient
    policy_first: Tensor  # (orders, B)
    references: Tensor  # (B, 3, H, W)
    figures: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, part: slice) -> Rollouts:
        return replace(
            self,
            batch=self.batch[part],
            seeds=self.seeds[part],
            at=self.at[part],
            policy_first=self.policy_first[:, part],
            references=self.references[part],
        )


class OneReward(Stateless):
    """`moving`: the reference is the EMA. `scalar`: one hinge on the mean margin, which is ReFL."""

    headline = ("P(Yes)", "reward")

    def __init__(self, parts: Parts, *, moving: bool, scalar: bool = False) -> None:
        self.parts = parts
        self.scalar = scalar
        self.per_source = 1 if scalar else parts.config.references_per_source
        self.references = ReferenceImages(parts, moving=moving)

    def prepare(self, step: int, rng: np.random.Generator) -> Rollouts:
        config, sources = self.parts.config, self.parts.sources
        count = config.batch_size
        batch = sources.batch(sources.draw(rng, count))
        seeds = [int(seed) for seed in rng.integers(SEED_LIMIT, size=count)]
        at = rng.choice(gradient_steps(config.num_inference_steps, config.t_range), size=count)
        first = _orders(rng, config.order, count)
        numbers = [int(number) for number in rng.integers(self.per_source, size=count)]
        references, made = self.references.get(step, batch, numbers)
        return Rollouts(
            batch=batch,
            seeds=seeds,
            at=torch.from_numpy(at),
            policy_first=torch.from_numpy(first),
            references=references,
            figures={"references_made": made},
        )

    def forward_backward(self, material: Rollouts, share: float) -> Outcome:
        config, roles, sampler = self.parts.config, self.parts.roles, self.parts.sampler
        batch, at = material.batch, material.at
        noise = sampler.noise(batch, material.seeds)
        sigmas = sampler.sigmas(noise)
        stop = None if config.straight_through else int(at.max())
        with roles.acting(POLICY) as transformer:
            seen = sampler.trajectory(transformer, noise, batch, stop)  # (steps + 1, B, S, C)
            latents, sigma = seen[at, torch.arange(len(at))], sigmas[at.to(sigmas.device)]
        anchor_role = BASE if config.anchor == "base" else REFERENCE
        with torch.no_grad(), roles.acting(anchor_role) as frozen:
            held = sampler.velocity(frozen, latents, sigma, batch)
        with roles.acting(POLICY) as transformer:
            predicted = sampler.velocity(transformer, latents, sigma, batch)
            pictures = sampler.decode(endpoint(latents, predicted, sigma), batch)

            shown = pictures
            if config.straight_through:
                shown = straight_through(sampler.decode(seen[-1], batch), pictures)
            # dR/dpixels first: the VLM's activations are gone before VAE and transformer go
            # backward.
            pixels = shown.detach().requires_grad_(True)
            scores = score(
                self.parts.vlm, pixels, material.references, batch, material.policy_first
            )
            loss = reward_loss(
                scores.margins,
                scores.present,
                cap=config.cap,
                form=config.reward_form,
                scalar=self.scalar,
            )
            (gradient,) = torch.autograd.grad(loss, pixels)
            anchor = anchor_loss(predicted, held).mean()
            tone = tone_loss(predicted, held, inside_tokens(batch.conditions)).mean()
            holding = config.anchor_weight * anchor + config.tone_weight * tone
            torch.autograd.backward((pictures, share * holding), (gradient * share, None))
        kept = monitors.outside_psnr(pixels.detach(), batch.images, batch.masks).mean()
        return Outcome(
            loss=float(loss.detach()) + float(holding.detach()),
            figures={"anchor": float(anchor.detach()), "outside_psnr": float(kept)},
            margins=_margins(batch, scores),
        )


def _orders(rng: np.random.Generator, order: str, count: int) -> np.ndarray:
    """Where the policy's image stands first: (orders, count)."""
    drawn = rng.random(count) < 0.5
    if order == "both":
        return np.stack([drawn, ~drawn])
    return drawn[None] if order == "random" else np.ones((1, count), dtype=bool)


def _margins(batch: Batch, scores: Scores) -> list[tuple[str, dict[str, float]]]:
    """The mean of the orders, of each sample by dimension."""
    found = scores.margins.detach().mean(0).tolist()  # (B, D)
    return [
        (row.task, dict(zip(names, values, strict=False)))
        for row, names, values in zip(batch.rows, scores.dimensions, found, strict=True)
    ]
