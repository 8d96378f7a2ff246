"""The fixed held-out batch at which policy and parent are compared during a run."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from modeling.policy import monitors
from modeling.policy.adapters import EMA, POLICY, REFERENCE, Roles
from modeling.policy.best import Best
from modeling.policy.config import PolicyConfig, gradient_steps
from modeling.policy.objective import mean_over_dimensions
from modeling.policy.placement import at_work
from modeling.policy.rollouts import SEED_LIMIT, Sampler, score
from modeling.policy.sources import Batch, Row, Sources
from modeling.reward.vlm import RewardVLM


@dataclass
class Watch:
    batch: Batch
    seeds: list[list[int]]  # of each picture of a source
    parents: Tensor  # (K, B, 3, H, W) the parent's pictures of these seeds
    latents: Tensor  # (B, S, C) on the parent's way to the first of them, at `sigma`
    sigma: Tensor
    parent_velocity: Tensor
    alarm: monitors.Alarm
    held_out: RewardVLM | None = None  # trained on other labels
    offload: bool = False  # reward models to the CPU when they have judged
    best: Best = field(default_factory=Best)

    @torch.no_grad()
    def look(
        self, sampler: Sampler, roles: Roles, vlm: RewardVLM
    ) -> tuple[Tensor, dict[str, float]]:
        """The policy's pictures of the first seeds, and every sign of monitors.py with the mean
        P(Yes) against the parent."""
        with roles.acting(POLICY) as transformer:
            images, *others = [
                sampler.pictures(transformer, self.batch, seeds) for seeds in self.seeds
            ]
            moved = sampler.velocity(transformer, self.latents, self.sigma, self.batch)
        signs = monitors.evidence(
            images=images,
            parents=self.parents[0],
            sources=self.batch.images,
            masks=self.batch.masks,
            period=sampler.models.size_multiple,
            velocity=moved,
            parent_velocity=self.parent_velocity,
        )
        if others:
            spread = monitors.diversity(torch.stack([images, *others]), self.batch.masks).mean()
            before = monitors.diversity(self.parents, self.batch.masks).mean()
            signs["diversity"] = float(spread / before.clamp(min=monitors.SMALL))
        signs["adapter_norm"] = roles.distance()
        signs["reward"] = self._judged(vlm, images)[0]
        if self.held_out is not None:
            signs["held_out_reward"] = self._judged(self.held_out, images)[0]
            signs["reward_gap"] = signs["reward"] - signs["held_out_reward"]
        return images, signs

    @torch.no_grad()
    def judge_ema(self, sampler: Sampler, roles: Roles, vlm: RewardVLM) -> float:
        """The EMA's mean margin over the parent, by the held-out reward model where there is
        one."""
        with roles.acting(EMA) as transformer:
            images = sampler.pictures(transformer, self.batch, self.seeds[0])
        return self._judged(self.held_out or vlm, images)[1]

    def _judged(self, vlm: RewardVLM, images: Tensor) -> tuple[float, float]:
        """Mean P(Yes) and mean margin against the parent, both orders averaged."""
        first = torch.ones(len(self.batch.rows), dtype=torch.bool)
        orders = torch.stack([first, ~first])
        with at_work(vlm, images.device, offload=self.offload):
            scores = score(vlm, images, self.parents[0], self.batch, orders)
        rewards = mean_over_dimensions(scores.margins.sigmoid().mean(0), scores.present)
        margins = mean_over_dimensions(scores.margins.mean(0), scores.present)
        return float(rewards.mean()), float(margins.mean())


def start_watch(
    config: PolicyConfig,
    sampler: Sampler,
    roles: Roles,
    watched: Sources,
    held_out: RewardVLM | None = None,
) -> Watch:
    size = max(set(watched.sizes), key=watched.sizes.count)
    chosen = [index for index, found in enumerate(watched.sizes) if found == size]
    batch = watched.batch(chosen)
    count = config.monitor.seeds if config.monitor.every else 1
    seeds = [
        [seed_of("watch", config.seed, row.id, *([number] if number else [])) for row in batch.rows]
        for number in range(count)
    ]
    steps = gradient_steps(config.num_inference_steps, config.t_range)
    middle = steps[len(steps) // 2]
    with torch.no_grad(), roles.acting(REFERENCE) as transformer:
        seen = sampler.trajectory(transformer, sampler.noise(batch, seeds[0]), batch)
        sigma = sampler.sigmas(seen[0])[middle]
        parents = [sampler.decode(seen[-1], batch)]
        parents += [sampler.pictures(transformer, batch, others) for others in seeds[1:]]
        return Watch(
            batch=batch,
            seeds=seeds,
            parents=torch.stack(parents),
            latents=seen[middle],
            sigma=sigma,
            parent_velocity=sampler.velocity(transformer, seen[middle], sigma, batch),
            alarm=monitors.Alarm(config.monitor),
            held_out=held_out,
            offload=config.offload_reward,
        )


def spread(rows: list[Row], config: PolicyConfig) -> list[Row]:
    """Some rows of every task, the same ones in every run with this seed."""
    rng = np.random.default_rng([config.seed, 1])
    by_task: dict[str, list[Row]] = defaultdict(list)
    for index in rng.permutation(len(rows)):
        by_task[rows[index].task].append(rows[index])
    turns = max(len(group) for group in by_task.values())
    found = [group[i] for i in range(turns) for group in by_task.values() if i < len(group)]
    return found[: config.monitor.sources]


def seed_of(*parts: object) -> int:
    """A seed that depends on the parts alone."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") % SEED_LIMIT
