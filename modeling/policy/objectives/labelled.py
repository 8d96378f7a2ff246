"""Objectives that learn from labelled pairs directly, without reward model and without sampling.

"sft": flow matching on the chosen pictures, each a best of its set; tasks are drawn by their
weights. "diffusion_dpo": Diffusion-DPO (arXiv 2311.12908, equation 14) for flow matching
(arXiv 2501.13918, Flow-DPO with constant beta): for a pair at the same noise and noise level

    L = -log sigmoid(-beta / 2 * [(e(chosen) - e_ref(chosen)) - (e(rejected) - e_ref(rejected))])

where e is the mean squared error of the predicted velocity, and ref the parent policy.

Shapes: B samples, S tokens, C packed channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.policy.adapters import POLICY, REFERENCE
from modeling.policy.objectives.flow import noise_levels, noised, squared_error
from modeling.policy.objectives.protocol import Outcome, Parts, Stateless
from modeling.policy.pairs import Pair, Pictures, draw_pairs
from modeling.policy.rollouts import SEED_LIMIT
from modeling.policy.sources import Batch


@dataclass(frozen=True)
class LabelledPairs:
    batch: Batch
    pairs: list[Pair]
    seeds: list[int]  # of the noise
    sigma: Tensor  # (B,)
    figures: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, part: slice) -> LabelledPairs:
        return replace(
            self,
            batch=self.batch[part],
            pairs=self.pairs[part],
            seeds=self.seeds[part],
            sigma=self.sigma[part],
        )


def prepare_pairs(parts: Parts, rng: np.random.Generator) -> LabelledPairs:
    sources, count = parts.sources, parts.config.batch_size
    drawn, mine = sources.draw(rng, count), parts.processes.part(count)
    batch = sources.batch(drawn[mine])
    pairs = draw_pairs(parts.pairs, [sources.rows[index] for index in drawn], rng)
    seeds = [int(seed) for seed in rng.integers(SEED_LIMIT, size=count)]
    places = torch.from_numpy(rng.random(count))
    tokens = batch.conditions.masked_image.shape[1]
    sigma = noise_levels(parts.sampler, places, tokens)
    return LabelledPairs(batch, pairs[mine], seeds[mine], sigma[mine])


class SFT(Stateless):
    headline = ("loss", "loss")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.pictures = Pictures(parts.sampler.models)

    def prepare(self, step: int, rng: np.random.Generator) -> LabelledPairs:
        return prepare_pairs(self.parts, rng)

    def forward_backward(self, material: LabelledPairs, share: float) -> Outcome:
        sampler, batch = self.parts.sampler, material.batch
        clean = self.pictures.latents([pair.chosen for pair in material.pairs], batch)
        at = noised(clean, sampler.noise(batch, material.seeds), material.sigma)
        with self.parts.roles.acting(POLICY) as transformer:
            predicted = at.velocity(sampler, transformer, batch)
            loss = squared_error(predicted, at.target).mean()
            (share * loss).backward()
        return Outcome(loss=float(loss.detach()), figures={})


class DiffusionDPO(Stateless):
    headline = ("pairs in order", "accuracy")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.pictures = Pictures(parts.sampler.models)

    def prepare(self, step: int, rng: np.random.Generator) -> LabelledPairs:
        return prepare_pairs(self.parts, rng)

    def forward_backward(self, material: LabelledPairs, share: float) -> Outcome:
        sampler, roles, count = self.parts.sampler, self.parts.roles, len(material)
        both = material.batch.pick([*range(count), *range(count)])
        paths = [pair.chosen for pair in material.pairs]
        paths += [pair.rejected for pair in material.pairs]
        clean = self.pictures.latents(paths, both)  # (2 B, S, C)
        noise = sampler.noise(both, [*material.seeds, *material.seeds])
        at = noised(clean, noise, material.sigma.repeat(2))
        with torch.no_grad(), roles.acting(REFERENCE) as transformer:
            held = squared_error(at.velocity(sampler, transformer, both), at.target)
        with roles.acting(POLICY) as transformer:
            errors = squared_error(at.velocity(sampler, transformer, both), at.target)
            loss, margins = dpo_loss(errors, held, self.parts.config.dpo_beta)
            (share * loss.mean()).backward()
        return Outcome(
            loss=float(loss.detach().mean()),
            figures={
                "accuracy": float(
                    (margins > 0).float().mean() + 0.5 * (margins == 0).float().mean()
                ),
                "margin": float(margins.mean()),
            },
        )


def dpo_loss(errors: Tensor, reference_errors: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Loss (B,) and implicit reward margin (B,) of B pairs.

    errors, reference_errors (2 B,): mean squared errors of policy and reference, those of the
    chosen pictures first.
    """
    chosen, rejected = (errors - reference_errors).chunk(2)
    margins = -0.5 * beta * (chosen - rejected)
    return -F.logsigmoid(margins), margins.detach()
