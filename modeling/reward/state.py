"""What a checkpoint of a training holds, for one process and for sharded weights alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
LOADED = StateDictOptions(full_state_dict=True, strict=False)


@dataclass
class State:
    weights: dict[str, Tensor]  # the trained ones; the others come from the base
    rest: dict[str, Any]


def gather_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    # Data-parallel wrappers prefix the names of parameters, state dictionaries do not.
    names = {name.removeprefix("module.") for name in names}
    weights = get_model_state_dict(model, options=WHOLE)
    kept = {n: w.contiguous() for n, w in weights.items() if n in names and isinstance(w, Tensor)}
    optimizer_state = get_optimizer_state_dict(model, optimizer, options=WHOLE)
    return State(kept, {"optimizer": optimizer_state})


def write_state(folder: Path, state: State) -> None:
    save_file(state.weights, folder / "weights.safetensors")
    torch.save(state.rest, folder / "state.pt")


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights: dict[str, Any] = load_file(folder / "weights.safetensors")
    set_model_state_dict(model, weights, options=LOADED)
    rest = torch.load(folder / "state.pt", weights_only=True)
    set_optimizer_state_dict(model, optimizer, rest["optimizer"], options=LOADED)
