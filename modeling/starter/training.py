"""A resumable training loop for the starter builders, and pixels as tensors.

Whatever a step draws at random it draws from generators seeded by the step's number. The state is
then weights, optimizer and step alone, and a killed run that goes on from its checkpoint ends with
the very bits of one that was never killed.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Pixels = NDArray[np.uint8]


def as_pictures(pixels: Pixels) -> Tensor:
    """(B, 64, 64, 3) uint8 -> (B, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pixels(pictures: Tensor) -> Pixels:
    """(B, 3, 64, 64) in [-1, 1] -> (B, 64, 64, 3) uint8."""
    scaled = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def save_atomically(value: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(value, temporary)
    temporary.replace(path)


@dataclass
class Loop:
    """Runs `step` over 0 .. total - 1, with a checkpoint every `every` steps in `directory`."""

    directory: Path
    name: str
    every: int = 100
    # Called with the number of finished steps, whenever a checkpoint was written.
    at_checkpoint: Callable[[int], None] | None = None

    @property
    def path(self) -> Path:
        return self.directory / f"{self.name}.pt"

    def run(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        total: int,
        step: Callable[[int], float],
    ) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        done, spent = 0, 0.0
        if self.path.is_file():
            state = torch.load(self.path, weights_only=True)
            if state["total"] != total:
                raise ValueError(
                    f"{self.path} belongs to a run of {state['total']} steps, not {total}: give "
                    "the same --steps, or another directory."
                )
            for name, module in modules.items():
                module.load_state_dict(state["modules"][name])
            optimizer.load_state_dict(state["optimizer"])
            done, spent = state["done"], state["cpu_seconds"]
        started = time.process_time()
        losses: list[float] = []
        for index in range(done, total):
            losses.append(step(index))
            finished = index + 1
            if finished % self.every and finished != total:
                continue
            seconds = spent + time.process_time() - started
            state = {
                "modules": {name: module.state_dict() for name, module in modules.items()},
                "optimizer": optimizer.state_dict(),
                "done": finished,
                "total": total,
                "cpu_seconds": seconds,
            }
            save_atomically(state, self.path)
            line = {
                "stage": self.name,
                "step": finished,
                "loss": round(float(np.mean(losses)), 5),
                "cpu_seconds": round(seconds, 1),
            }
            print(json.dumps(line), flush=True)
            losses.clear()
            if self.at_checkpoint is not None:
                self.at_checkpoint(finished)

    def cpu_seconds(self) -> float:
        if not self.path.is_file():
            return 0.0
        return float(torch.load(self.path, weights_only=True)["cpu_seconds"])
