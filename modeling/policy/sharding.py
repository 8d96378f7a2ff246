"""Weights divided among the processes, for full fine-tuning (FSDP2, torch's `fully_shard`).

Policy, EMA and reference are whole transformers; each process holds 1/N of them, of the gradients
and of the moments, and gathers one block at a time. Everything else (VAE, reward model) is whole on
every process. Gathering is a collective act: all processes must evaluate a divided transformer
equally often, which `Processes.most` and `References(together=True)` see to.

A checkpoint holds whole tensors in the same layout as that of one process, so that any number of
processes goes on from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from generation.diffusion.loading import FillModels


def divide(transformer: Any, mesh: DeviceMesh, *, master: bool) -> Any:
    """The transformer (on the CPU) with its weights divided among the mesh's devices, block by
    block, so that no device ever holds all of them. `master`: in float32, gathered in its dtype."""
    precision = MixedPrecisionPolicy(
        param_dtype=transformer.dtype if master else None,
        reduce_dtype=torch.float32,
        # Autocast is in charge of activations, and positions must not be rounded.
        cast_forward_inputs=False,
    )
    # Nothing changes velocities in place, which this would warn of at every kind of module.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")

    def divided(module: Any) -> Any:
        # The root, too, gives its weights back: the next to act may be another role.
        held = module.float() if master else module
        return fully_shard(held, mesh=mesh, mp_policy=precision, reshard_after_forward=True)

    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        divided(block)
    return divided(transformer)


def place_others(models: FillModels, device: torch.device) -> None:
    """Move what stays whole; the transformer goes when it is divided."""
    for module in (models.vae, models.text_encoder, models.text_encoder_2):
        module.to(device)
    models.device = device


def whole(value: Any, *, keep: bool = True) -> Any:
    """A nested state with whole tensors on the CPU where it had divided ones; without `keep` these
    are left out. Every process must call it."""
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: whole(one, keep=keep) for key, one in value.items()}
    if isinstance(value, list):
        return [whole(one, keep=keep) for one in value]
    return value


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, divided as `like` is."""
    if not isinstance(like, DTensor):
        return value
    placed = value.to(device=like.device, dtype=like.dtype)
    # Every process has the whole: nothing is sent.
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    divided = {
        number: {
            name: part_of(value, parameters[number])
            if isinstance(value, Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": divided})


def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> float:
    """The gradients' norm before it was brought to `max_norm` at most."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return float(norm)


def add_squares(differences: Iterable[Tensor]) -> Tensor:
    """The sum of squares of tensors that are all divided or all whole."""
    sums, divided = [], False
    for one in differences:
        divided = isinstance(one, DTensor)
        local = one.to_local() if isinstance(one, DTensor) else one
        sums.append(local.square().sum())
    total = torch.stack(sums).sum()
    if divided:
        dist.all_reduce(total)
    return total
