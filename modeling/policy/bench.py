"""Memory of a policy step, computed differently: as ratios within one run.

    python -m modeling.policy.bench RUN_DIRECTORY

`two_half_memory`: the gradient through one graph of transformer, VAE and reward model ("joint"), in
two halves that meet at the pixels ("two_halves", as trained by default), and in two halves of which
the second is computed again ("recompute", `recompute_endpoint`). All give the same gradient of the
policy's weights; only the last one needs less memory, since the second half's graph is not there
while the reward model's is.

`role_memory`: a whole step with the roles as adapters of one transformer and with the roles as
whole transformers, weights, averages and optimiser included.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from generation.diffusion.sampling import endpoint
from modeling.policy.adapters import BASE, POLICY, REFERENCE, CopiedRoles
from modeling.policy.config import PolicyConfig
from modeling.policy.live_bytes import peak_bytes
from modeling.policy.objective import anchor_loss, reward_loss, tone_loss
from modeling.policy.objectives.onereward import OneReward, Rollouts
from modeling.policy.objectives.protocol import step_rng
from modeling.policy.rollouts import inside_tokens, score
from modeling.policy.train import train_step
from modeling.policy.trainer import Trainer, prepare
from modeling.rundir import RunDirectory


def two_half_memory(run: RunDirectory) -> dict[str, float]:
    """Peak bytes of one forward and backward beside the weights, and the ratios to "joint"."""
    trainer = _prepared(run, recompute_endpoint=False)
    objective: Any = trainer.objective
    material = objective.prepare(1, step_rng(trainer.config, 1))
    found = {
        "joint": _peak(trainer, lambda: joint_backward(objective, material)),
        "two_halves": _peak(trainer, lambda: objective.forward_backward(material, 1.0)),
    }
    again = _with(objective, recompute_endpoint=True)
    found["recompute"] = _peak(trainer, lambda: again.forward_backward(material, 1.0))
    return {f"{name}_bytes": float(peak) for name, peak in found.items()} | {
        "two_half_memory_ratio": found["two_halves"] / found["joint"],
        "recompute_memory_ratio": found["recompute"] / found["joint"],
    }


def role_memory(run: RunDirectory) -> dict[str, float]:
    """Peak bytes of a step whose references are there, and adapters over copies."""
    found = {}
    for name, full in (("adapters", False), ("copies", True)):
        trainer = _prepared(run, full_finetune=full, anchor="parent")
        train_step(trainer, 1)  # makes the references and the optimiser's averages
        held = [*_weights(trainer), *_moments(trainer.optimizer)]
        device = trainer.accelerator.device
        found[name] = peak_bytes(lambda one=trainer: train_step(one, 1), held, device)  # type: ignore[misc]
    return {f"{name}_bytes": float(peak) for name, peak in found.items()} | {
        "role_memory_ratio": found["adapters"] / found["copies"]
    }


def joint_backward(objective: OneReward, material: Rollouts) -> None:
    """The same gradients as `OneReward.forward_backward`, from one backward through one graph."""
    config, roles, sampler = objective.parts.config, objective.parts.roles, objective.parts.sampler
    batch, at = material.batch, material.at[0]
    noise = sampler.noise(batch, material.seeds)
    sigmas = sampler.sigmas(noise)
    with roles.acting(POLICY) as transformer:
        seen = sampler.trajectory(transformer, noise, batch, int(at.max()))
        latents, sigma = seen[at, torch.arange(len(at))], sigmas[at.to(sigmas.device)]
    with torch.no_grad(), roles.acting(BASE if config.anchor == "base" else REFERENCE) as frozen:
        held = sampler.velocity(frozen, latents, sigma, batch)
    with roles.acting(POLICY) as transformer:
        predicted = sampler.velocity(transformer, latents, sigma, batch)
        pictures = sampler.decode(endpoint(latents, predicted, sigma), batch)
        scores = score(
            objective.parts.vlm, pictures, material.references, batch, material.policy_first[0]
        )
        loss = reward_loss(scores.margins, scores.present, cap=config.cap, form=config.reward_form)
        anchor = anchor_loss(predicted, held).mean()
        tone = tone_loss(predicted, held, inside_tokens(batch.conditions)).mean()
        (loss + config.anchor_weight * anchor + config.tone_weight * tone).backward()


def _with(objective: OneReward, **changes: Any) -> OneReward:
    """The same objective under another configuration."""
    config = dataclasses.replace(objective.parts.config, **changes)
    parts = dataclasses.replace(objective.parts, config=config)
    return OneReward(parts, moving=objective.references.moving)


def _prepared(run: RunDirectory, **changes: Any) -> Trainer:
    config = dataclasses.replace(run.config(PolicyConfig), preload=False, **changes)
    return prepare(run, config, Accelerator(cpu=not torch.cuda.is_available()))


def _peak(trainer: Trainer, work: Callable[[], object]) -> int:
    """Peak bytes beside the weights; the first run warms up."""
    device = trainer.accelerator.device
    work()
    trainer.optimizer.zero_grad(set_to_none=True)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    peak = peak_bytes(work, (), device) - before
    trainer.optimizer.zero_grad(set_to_none=True)
    return peak


def _weights(trainer: Trainer) -> list[Tensor]:
    modules = [trainer.models.transformer, trainer.models.vae, trainer.vlm.model]
    if isinstance(trainer.roles, CopiedRoles):
        modules += trainer.roles.models.values()
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def _moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in states if isinstance(value, Tensor)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory with config.json and sources.jsonl")
    run = RunDirectory(parser.parse_args().run)
    found = two_half_memory(run) | role_memory(run)
    print(json.dumps({key: round(value, 3) for key, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
