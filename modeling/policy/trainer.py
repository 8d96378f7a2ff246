"""What a policy training works with: built once from the run's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from generation.diffusion.loading import FillModels, load_models
from modeling.policy.adapters import AdapterRoles, CopiedRoles, Roles
from modeling.policy.config import PolicyConfig
from modeling.policy.objectives import Objective, Parts, build
from modeling.policy.rollouts import Sampler
from modeling.policy.sources import Sources, read_rows
from modeling.policy.watch import Watch, spread, start_watch
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.rundir import RunDirectory, RunError


@dataclasses.dataclass
class Trainer:
    config: PolicyConfig
    accelerator: Accelerator
    run: RunDirectory
    models: FillModels
    vlm: RewardVLM
    roles: Roles
    sampler: Sampler
    objective: Objective[Any]
    optimizer: torch.optim.Optimizer
    watch: Watch


def prepare(run: RunDirectory, config: PolicyConfig, accelerator: Accelerator) -> Trainer:
    torch.manual_seed(config.seed)
    device, dtype = accelerator.device, getattr(torch, config.dtype)
    place = run.path / config.sources  # an absolute path stays as it is
    rows = read_rows(place)
    training = [row for row in rows if row.split == "train"]
    if not training:
        raise RunError(f"'{place}' holds no training source with a question for the reward model.")
    models = load_models(dataclasses.replace(config.policy, adapter=""), device=device, dtype=dtype)
    vlm = load_reward_vlm(
        config.reward.location, adapter=config.reward.adapter, device=device, dtype=dtype
    )
    sampler = Sampler(models, config)
    sources = Sources(training, models, max_pixels=config.max_pixels)
    held_out = [row for row in rows if row.split != "train"] or training
    watched = Sources(spread(held_out, config), models, max_pixels=config.max_pixels)
    # Every prompt is encoded: a T5 of 10 GB has no place beside the training.
    models.text_encoder = models.text_encoder_2 = None
    if config.gradient_checkpointing:
        models.transformer.enable_gradient_checkpointing()
    adapter = config.policy.adapter
    roles: Roles
    if config.full_finetune:
        roles = CopiedRoles(models.transformer, parent_adapter=adapter)
    else:
        roles = AdapterRoles(models.transformer, rank=config.lora_rank, parent_adapter=adapter)

    def process_mean(values: Tensor) -> Tensor:
        mean: Tensor = accelerator.reduce(values.to(device), "mean")
        return mean.to(values.device)

    parts = Parts(
        config=config,
        directory=run.path,
        rank=accelerator.process_index,
        vlm=vlm,
        roles=roles,
        sampler=sampler,
        sources=sources,
        process_mean=process_mean,
    )
    return Trainer(
        config=config,
        accelerator=accelerator,
        run=run,
        models=models,
        vlm=vlm,
        roles=roles,
        sampler=sampler,
        objective=build(parts),
        optimizer=torch.optim.AdamW(
            roles.parameters(), lr=config.lr, weight_decay=config.weight_decay
        ),
        watch=start_watch(config, sampler, roles, watched),
    )
