"""The fixed held-out batch at which policy and parent are compared during a run."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modeling.policy import monitors
from modeling.policy.adapters import POLICY, REFERENCE, Roles
from modeling.policy.config import PolicyConfig, gradient_steps
from modeling.policy.objective import mean_over_dimensions
from modeling.policy.rollouts import SEED_LIMIT, Sampler, score
from modeling.policy.sources import Batch, Row, Sources
from modeling.reward.vlm import RewardVLM


@dataclass
class Watch:
    batch: Batch
    seeds: list[int]
    parents: Tensor  # (B, 3, H, W) the parent's pictures of these seeds
    latents: Tensor  # (B, S, C) on the parent's way to them, at `sigma`
    sigma: Tensor
    parent_velocity: Tensor
    alarm: monitors.Alarm

    @torch.no_grad()
    def look(
        self, sampler: Sampler, roles: Roles, vlm: RewardVLM
    ) -> tuple[Tensor, dict[str, float]]:
        """The policy's pictures of the same seeds, and the signs of monitors.evidence with the mean
        P(Yes) against the parent, both orders averaged."""
        with roles.acting(POLICY) as transformer:
            images = sampler.pictures(transformer, self.batch, self.seeds)
            moved = sampler.velocity(transformer, self.latents, self.sigma, self.batch)
        signs = monitors.evidence(
            images=images,
            parents=self.parents,
            sources=self.batch.images,
            masks=self.batch.masks,
            period=sampler.models.size_multiple,
            velocity=moved,
            parent_velocity=self.parent_velocity,
        )
        first = torch.ones(len(self.batch.rows), dtype=torch.bool)
        scores = score(vlm, images, self.parents, self.batch, torch.stack([first, ~first]))
        rewards = mean_over_dimensions(scores.margins.sigmoid().mean(0), scores.present)
        return images, {**signs, "reward": float(rewards.mean())}


def start_watch(config: PolicyConfig, sampler: Sampler, roles: Roles, watched: Sources) -> Watch:
    size = max(set(watched.sizes), key=watched.sizes.count)
    chosen = [index for index, found in enumerate(watched.sizes) if found == size]
    batch = watched.batch(chosen)
    seeds = [seed_of("watch", config.seed, row.id) for row in batch.rows]
    steps = gradient_steps(config.num_inference_steps, config.t_range)
    middle = steps[len(steps) // 2]
    with torch.no_grad(), roles.acting(REFERENCE) as transformer:
        seen = sampler.trajectory(transformer, sampler.noise(batch, seeds), batch)
        sigma = sampler.sigmas(seen[0])[middle]
        return Watch(
            batch=batch,
            seeds=seeds,
            parents=sampler.decode(seen[-1], batch),
            latents=seen[middle],
            sigma=sigma,
            parent_velocity=sampler.velocity(transformer, seen[middle], sigma, batch),
            alarm=monitors.Alarm(config.monitor),
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
