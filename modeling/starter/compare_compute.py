"""What a step of each objective costs, counted in floating-point operations.

PyTorch's own FlopCounterMode counts every matrix product, convolution and attention of a step,
forward and backward, of transformer, VAE and reward VLM alike. What an objective computes once and
keeps (references of a frozen parent, latents of labelled pictures) is counted apart, as the
difference between a step and the same step again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from modeling.policy.config import PolicyConfig
from modeling.policy.train import train_step
from modeling.policy.trainer import prepare
from modeling.rundir import RunDirectory

STEPS = 2


@dataclass(frozen=True)
class Kept:
    """What an objective makes once: references of a frozen parent, latents of labelled pictures."""

    per_step: int = 0  # new ones that a step asks for at most
    total: int = 0  # that there are


@dataclass(frozen=True)
class Cost:
    step: float  # FLOPs of a step that finds everything cached
    item: float  # of one kept item
    kept: Kept

    def of(self, steps: int) -> float:
        """Upper bound for a whole training: as if no step asked for an item twice early on."""
        return self.step * steps + self.item * min(self.kept.total, self.kept.per_step * steps)

    def steps_within(self, budget: float) -> int:
        steps = int(budget / self.step)
        while steps > 1 and self.of(steps) > budget:
            steps -= 1
        return max(1, steps)


def measure(run: Path, kept: Kept) -> dict[str, float]:
    """`step` and `item` of a Cost: the means over a few steps of the run in `run`, which is thrown
    away afterwards."""
    directory = RunDirectory(run)
    config = directory.config(PolicyConfig)
    trainer = prepare(directory, config, Accelerator())
    first = again = 0.0
    for step in range(1, STEPS + 1):
        first += flops_of(lambda step=step: train_step(trainer, step))
        again += flops_of(lambda step=step: train_step(trainer, step))
    shutil.rmtree(run)
    item = max(0.0, first - again) / (STEPS * kept.per_step) if kept.per_step else 0.0
    return {"step": again / STEPS, "item": item}


def flops_of(work: Any) -> float:
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        work()
    return float(counter.get_total_flops())


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


# PyTorch counts the attention kernels of GPUs only.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
