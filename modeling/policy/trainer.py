"""What a policy training works with: built once from the run's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from accelerate import Accelerator

from generation.diffusion.loading import FillModels, load_models
from modeling.policy.adapters import AdapterRoles, CopiedRoles, Roles
from modeling.policy.conditions import ConditionCache, Encoder
from modeling.policy.config import LABELLED, PolicyConfig, RewardSpec, stages
from modeling.policy.objectives.build import build
from modeling.policy.objectives.protocol import Objective, Parts
from modeling.policy.pairs import Pair, only_direct, read_pairs
from modeling.policy.placement import compile_blocks, quantised_loading, store_in_float8
from modeling.policy.processes import Processes
from modeling.policy.rollouts import Sampler
from modeling.policy.sharding import place_others
from modeling.policy.sources import Sources, read_rows
from modeling.policy.watch import Watch, spread, start_watch
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.rundir import RunDirectory, RunError


@dataclasses.dataclass
class Trainer:
    config: PolicyConfig
    accelerator: Accelerator
    processes: Processes
    run: RunDirectory
    models: FillModels
    vlm: RewardVLM
    roles: Roles
    sampler: Sampler  # of the training
    watch_sampler: Sampler  # of the pictures that are watched, which may have true CFG
    sources: Sources
    objective: Objective[Any]
    optimizer: torch.optim.Optimizer
    watch: Watch


def prepare(run: RunDirectory, config: PolicyConfig, accelerator: Accelerator) -> Trainer:
    torch.manual_seed(config.seed)
    device, dtype = accelerator.device, getattr(torch, config.dtype)
    processes = _processes(config, accelerator)
    place = run.path / config.sources  # an absolute path stays as it is
    rows = read_rows(place)
    training = [row for row in rows if row.split == "train"]
    if not training:
        raise RunError(f"'{place}' holds no training source with a question for the reward model.")
    pairs = _pairs(run, config)
    if pairs is not None:
        training = [row for row in training if row.id in pairs]
        if not training:
            raise RunError(
                f"'{config.pairs}' holds no labelled pair of a training source: label sets of "
                "training pictures first."
            )
    models = load_models(
        dataclasses.replace(config.policy, adapter=""),
        # What is to be divided goes to the devices in parts.
        device="cpu" if processes.divides else device,
        dtype=dtype,
        quantization_config=quantised_loading(config.base_storage, dtype),
    )
    if processes.divides:
        place_others(models, device)
    vlm = _reward_model(config.reward, config, device)
    held_out_vlm = None
    if config.held_out.location:
        held_out_vlm = _reward_model(config.held_out, config, device)
    sampler = Sampler(models, config, training=True)
    watch_sampler = Sampler(models, config)
    encoder = Encoder(models, _condition_cache(run, config))
    sources = Sources(
        training,
        encoder,
        max_pixels=config.max_pixels,
        stages=stages(config),
        memory_bytes=config.source_memory_mb << 20,
    )
    held_out = [row for row in rows if row.split != "train"] or training
    watched = Sources(spread(held_out, config), encoder, max_pixels=config.max_pixels)
    # Every prompt is encoded: a T5 of 10 GB has no place beside the training.
    models.text_encoder = models.text_encoder_2 = None
    if config.gradient_checkpointing:
        models.transformer.enable_gradient_checkpointing()
        models.vae.enable_gradient_checkpointing()
    adapter = config.policy.adapter
    roles: Roles
    if config.full_finetune:
        mesh = processes.mesh()
        roles = CopiedRoles(models.transformer, parent_adapter=adapter, mesh=mesh)
    else:
        roles = AdapterRoles(models.transformer, rank=config.lora_rank, parent_adapter=adapter)

    if config.base_storage == "float8":
        store_in_float8(models.transformer, dtype)
    compile_blocks(models.transformer, vlm, config.compile)
    parts = Parts(
        config=config,
        directory=run.path,
        processes=processes,
        vlm=vlm,
        roles=roles,
        sampler=sampler,
        sources=sources,
        pairs=pairs or {},
    )
    return Trainer(
        config=config,
        accelerator=accelerator,
        processes=processes,
        run=run,
        models=models,
        vlm=vlm,
        roles=roles,
        sampler=sampler,
        watch_sampler=watch_sampler,
        sources=sources,
        objective=build(parts),
        optimizer=torch.optim.AdamW(
            roles.parameters(), lr=config.lr, weight_decay=config.weight_decay
        ),
        watch=start_watch(config, watch_sampler, roles, watched, held_out_vlm),
    )


def _processes(config: PolicyConfig, accelerator: Accelerator) -> Processes:
    processes = Processes(accelerator, divides=config.divide_weights)
    if processes.divides and not config.full_finetune:
        raise RunError(
            "Weights are divided among processes in full fine-tuning alone: set full_finetune, or "
            "train the LoRA under MULTI_GPU, where every process keeps the base."
        )
    if processes.divides and "transformer" in config.compile:
        raise RunError("compile 'transformer' needs whole weights: leave it out where FSDP2 runs.")
    return processes


def _pairs(run: RunDirectory, config: PolicyConfig) -> dict[str, list[Pair]] | None:
    """Labelled pairs by source for an algorithm that learns from them."""
    if config.algorithm not in LABELLED:
        return None
    pairs = read_pairs(run.path / config.pairs)
    return only_direct(pairs) if config.algorithm == "sft" else pairs


def _reward_model(spec: RewardSpec, config: PolicyConfig, device: torch.device) -> RewardVLM:
    return load_reward_vlm(
        spec.location,
        adapter=spec.adapter,
        quantisation=spec.quantisation,
        device="cpu" if config.offload_reward else device,
        dtype=getattr(torch, config.dtype),
    )


def _condition_cache(run: RunDirectory, config: PolicyConfig) -> ConditionCache | None:
    if not config.condition_cache:
        return None
    max_bytes = int(config.condition_cache_gb * (1 << 30))
    return ConditionCache(run.path / config.condition_cache, max_bytes=max_bytes)
