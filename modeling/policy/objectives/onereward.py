"""Objectives that descend on the reward's own gradient: OneReward and ReFL.

One step: references x_ref from the frozen parent (Algorithm 1, "frozen") or from the EMA
(Algorithm 2, "dynamic"); policy images from *other* noise, denoised without gradient to a random
step, then one step to the endpoint x_0' with gradient; decode; ask the reward VLM every question of
the source's task in one packed pass; descend on the capped hinge plus an anchor that holds the
velocity field to the parent's.

The steps before the endpoint are most of the time. With `gradients_per_rollout` = R they serve R
endpoints, whose steps are spread evenly from a random first one: each is as likely as any other for
each of them, so that the gradient's expectation is that of R rollouts with one endpoint each.

"refl" is ReFL (ImageReward, arXiv 2304.05977, Algorithm 1) with one scalar score: the mean margin
over the task's dimensions against one fixed reference of the parent's. Its loss is ImageReward's
phi(r) = max(0, c - r) on that scalar with c = logit(cap), where OneReward has a hinge for every
dimension: a dimension that is good enough then pays for one that is not. ReFL's pretraining loss
has its counterpart in the anchor.

Shapes: B rollouts, R endpoints of each, S tokens, C packed channels, D dimensions, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.sampling import endpoint
from modeling.policy import monitors
from modeling.policy.adapters import BASE, POLICY, REFERENCE
from modeling.policy.config import gradient_steps
from modeling.policy.conflict import combine, dimension_gradients
from modeling.policy.objective import (
    anchor_loss,
    capped_hinge,
    reward_loss,
    straight_through,
    tone_loss,
)
from modeling.policy.objectives.protocol import Outcome, Parts, Stateless, step_rng
from modeling.policy.objectives.reference_images import ReferenceImages
from modeling.policy.placement import at_work
from modeling.policy.rollouts import SEED_LIMIT, Scores, inside_tokens, score, score_after
from modeling.policy.sources import Batch
from modeling.reward.prefix import PrefixStore


@dataclass(frozen=True)
class Rollouts:
    batch: Batch
    seeds: list[int]
    at: Tensor  # (R, B) the steps of each rollout that carry a gradient
    policy_first: Tensor  # (R, orders, B)
    references: Tensor  # (B, 3, H, W)
    names: list[tuple[str, int, int]]  # of the references
    compare: bool  # measure the conflicts between dimensions
    figures: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, part: slice) -> Rollouts:
        return replace(
            self,
            batch=self.batch[part],
            seeds=self.seeds[part],
            at=self.at[:, part],
            policy_first=self.policy_first[..., part],
            references=self.references[part],
            names=self.names[part],
        )


@dataclass(frozen=True)
class Pull:
    gradient: Tensor  # (B, 3, H, W) of the mean loss
    loss: float
    scores: Scores
    figures: dict[str, float]


class OneReward(Stateless):
    """`moving`: the reference is the EMA. `scalar`: one hinge on the mean margin, which is ReFL."""

    headline = ("P(Yes)", "reward")

    def __init__(self, parts: Parts, *, moving: bool, scalar: bool = False) -> None:
        self.parts = parts
        self.scalar = scalar
        self.per_source = 1 if scalar else parts.config.references_per_source
        self.references = ReferenceImages(parts, moving=moving)
        self.prefixes = PrefixStore(parts.config.prefix_cache_mb << 20)

    def prepare(self, step: int, rng: np.random.Generator) -> Rollouts:
        config, sources = self.parts.config, self.parts.sources
        count, mine = config.batch_size, self.parts.processes.part(config.batch_size)
        batch = sources.batch(sources.draw(rng, count)[mine])
        seeds = [int(seed) for seed in rng.integers(SEED_LIMIT, size=count)]
        at = _spread(
            rng,
            gradient_steps(self.parts.sampler.steps, config.t_range),
            config.gradients_per_rollout,
            count,
        )
        first = _orders(rng, config.order, at.shape)
        numbers = [int(number) for number in rng.integers(self.per_source, size=count)]
        served = self.references.get(step, batch, numbers[mine])
        if config.preload and step < config.steps:
            sources.preload(step + 1, step_rng(config, step + 1), count, mine)
        return Rollouts(
            batch=batch,
            seeds=seeds[mine],
            at=torch.from_numpy(at[:, mine]),
            policy_first=torch.from_numpy(first[..., mine]),
            references=served.images,
            names=served.names,
            compare=bool(config.monitor.every) and step % config.monitor.every == 0,
            figures=self.references.figures(served),
        )

    def forward_backward(self, material: Rollouts, share: float) -> Outcome:
        config, sampler, batch = self.parts.config, self.parts.sampler, material.batch
        noise = sampler.noise(batch, material.seeds)
        sigmas = sampler.sigmas(noise)
        last = self.parts.processes.most(int(material.at.max()))
        stop = None if config.straight_through else last
        with self.parts.roles.acting(POLICY) as transformer:
            seen = sampler.trajectory(transformer, noise, batch, stop)  # (steps + 1, B, S, C)
        rows = torch.arange(len(material))
        return _mean(
            [
                self._endpoint(
                    material,
                    seen[at, rows],
                    sigmas[at.to(sigmas.device)],
                    finished=seen[-1] if config.straight_through else None,
                    policy_first=first,
                    share=share / len(material.at),
                )
                for at, first in zip(material.at, material.policy_first, strict=True)
            ]
        )

    def _endpoint(
        self,
        material: Rollouts,
        latents: Tensor,
        sigma: Tensor,
        *,
        finished: Tensor | None,
        policy_first: Tensor,
        share: float,
    ) -> Outcome:
        """Add the gradient of one endpoint of each rollout: from latents (B, S, C) at sigma (B,);
        policy_first (orders, B); `finished` are the rollouts' own ends, where these are scored."""
        config, roles, sampler = self.parts.config, self.parts.roles, self.parts.sampler
        batch = material.batch
        anchor_role = BASE if config.anchor == "base" else REFERENCE
        with torch.no_grad(), roles.acting(anchor_role) as frozen:
            held = sampler.velocity(frozen, latents, sigma, batch)
        with roles.acting(POLICY) as transformer:

            def sample() -> tuple[Tensor, Tensor]:
                predicted = sampler.velocity(transformer, latents, sigma, batch)
                return predicted, sampler.decode(endpoint(latents, predicted, sigma), batch)

            with torch.set_grad_enabled(not config.recompute_endpoint):
                predicted, pictures = sample()
            shown = pictures
            if finished is not None:
                shown = straight_through(sampler.decode(finished, batch), pictures)
            # dR/dpixels first: the VLM's activations are gone before VAE and transformer go
            # backward, whose own ones are not there yet where the endpoint is computed again.
            with at_work(self.parts.vlm, latents.device, offload=config.offload_reward):
                pull = self._pull(shown.detach().requires_grad_(True), material, policy_first)
            if config.recompute_endpoint:
                predicted, pictures = sample()
            anchor = anchor_loss(predicted, held).mean()
            tone = tone_loss(predicted, held, inside_tokens(batch.conditions)).mean()
            holding = config.anchor_weight * anchor + config.tone_weight * tone
            torch.autograd.backward((pictures, share * holding), (pull.gradient * share, None))
        kept = monitors.outside_psnr(shown.detach(), batch.images, batch.masks).mean()
        return Outcome(
            loss=pull.loss + float(holding.detach()),
            figures={
                "anchor": float(anchor.detach()),
                "outside_psnr": float(kept),
                **pull.figures,
            },
            margins=_margins(batch, pull.scores),
        )

    def _pull(self, pixels: Tensor, material: Rollouts, policy_first: Tensor) -> Pull:
        """The reward model's whole part: its gradient at the policy's pixels (B, 3, H, W)."""
        config, vlm, batch = self.parts.config, self.parts.vlm, material.batch
        others = material.references
        if config.order == "reference_first":
            scores = score_after(vlm, pixels, others, batch, self.prefixes, material.names)
        else:
            scores = score(vlm, pixels, others, batch, policy_first)
        losses = capped_hinge(scores.margins, config.cap, config.reward_form).mean(0)  # (B, D)
        loss = reward_loss(
            scores.margins,
            scores.present,
            cap=config.cap,
            form=config.reward_form,
            scalar=self.scalar,
        )
        plain = config.gradient_combination == "mean"
        compare = not self.scalar and (material.compare or not plain)
        figures = {}
        if plain:
            (gradient,) = torch.autograd.grad(loss, pixels, retain_graph=compare)
        if compare:
            apart = dimension_gradients(losses, pixels)
            combined, (pairs, conflicts) = combine(
                apart, scores.present, config.gradient_combination, material.seeds
            )
            figures["conflict_rate"] = float(conflicts / pairs.clamp(min=1))
            gradient = gradient if plain else combined / len(batch.rows)
        return Pull(gradient, float(loss.detach()), scores, figures)


def _spread(
    rng: np.random.Generator, steps: Sequence[int], endpoints: int, count: int
) -> np.ndarray:
    """Steps that carry a gradient (endpoints, count): those of a rollout differ, and each of them
    is evenly distributed over `steps`."""
    first = rng.integers(len(steps), size=count)
    apart = np.arange(endpoints) * len(steps) // endpoints
    return np.asarray(steps)[(first + apart[:, None]) % len(steps)]


def _orders(rng: np.random.Generator, order: str, shape: tuple[int, ...]) -> np.ndarray:
    """Where the policy's image stands first: (R, orders, B) for a shape of (R, B)."""
    drawn = rng.random(shape) < 0.5
    if order == "both":
        return np.stack([drawn, ~drawn], 1)
    if order == "random":
        return drawn[:, None]
    return np.full_like(drawn, order == "policy_first")[:, None]


def _mean(found: Sequence[Outcome]) -> Outcome:
    """Of outcomes of equal weight."""
    count = len(found)
    return Outcome(
        loss=sum(one.loss for one in found) / count,
        figures={
            name: sum(one.figures[name] for one in found) / count for name in found[0].figures
        },
        margins=[row for one in found for row in one.margins],
    )


def _margins(batch: Batch, scores: Scores) -> list[tuple[str, dict[str, float]]]:
    """The mean of the orders, of each sample by dimension."""
    found = scores.margins.detach().mean(0).tolist()  # (B, D)
    return [
        (row.task, dict(zip(names, values, strict=False)))
        for row, names, values in zip(batch.rows, scores.dimensions, found, strict=True)
    ]
