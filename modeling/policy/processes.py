"""The processes of one training: a global batch in equal parts, sums and gathered figures.

A step's batch is a function of (seed, step) alone and `batch_size` is that of all processes
together. Each takes an equal, contiguous part of it, so that a run on several processes computes
what a run on one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from modeling.rundir import RunError

T = TypeVar("T")
REPLICATED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


class Processes:
    """`divides`: the trained weights are divided among the processes (sharding.py), which
    accelerate's FSDP configuration asks for, too."""

    def __init__(self, accelerator: Accelerator, *, divides: bool = False) -> None:
        kind = accelerator.distributed_type
        if kind not in (*REPLICATED, DistributedType.FSDP):
            raise RunError(
                f"The policy trainer cannot run under {kind.value}: choose MULTI_GPU or FSDP in "
                "the accelerate configuration."
            )
        if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
            raise RunError("The policy trainer divides weights by FSDP2: set fsdp_version to 2.")
        self.accelerator = accelerator
        self.count = accelerator.num_processes
        self.rank = accelerator.process_index
        self.is_main = accelerator.is_main_process
        self.device = accelerator.device
        self.divides = self.count > 1 and (divides or kind == DistributedType.FSDP)

    def mesh(self) -> DeviceMesh | None:
        """The devices that weights are divided among; None where they are not."""
        return init_device_mesh(self.device.type, (self.count,)) if self.divides else None

    def most(self, count: int) -> int:
        """How often each must evaluate a transformer of which one needs `count` evaluations: where
        weights are divided all do it equally often."""
        return max(self.gather([count])) if self.divides else count

    def part(self, count: int, *, groups_of: int = 1) -> slice:
        """This process's part of `count` samples, of which groups stay together."""
        if count % (self.count * groups_of):
            grouped = f" and groups of {groups_of}" if groups_of > 1 else ""
            raise RunError(
                f"A batch of {count} cannot be divided equally among {self.count} processes"
                f"{grouped}: batch_size, which all processes share, must be a multiple of "
                f"{self.count * groups_of}."
            )
        size = count // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def gather(self, values: Sequence[T]) -> list[T]:
        """The values of all processes, in the order of these."""
        return list(values) if self.count == 1 else gather_object(list(values))

    def decide(self, value: T) -> T:
        """The main process's value, so that all do the same."""
        return value if self.count == 1 else broadcast_object_list([value])[0]

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a tensor that every process has."""
        mean: Tensor = self.accelerator.reduce(values.to(self.device), "mean")
        return mean.to(values.device)

    def mean_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Means of figures of equal parts."""
        everyone = self.gather([dict(figures)])
        return {name: sum(found[name] for found in everyone) / self.count for name in figures}

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add up the processes' gradients, in one message for each kind of number."""
        if self.count == 1:
            return
        if self.divides:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.count)  # they come as means
            return
        kinds: dict[Any, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                # Another process may have one: its samples may use what these do not.
                parameter.grad = torch.zeros_like(parameter)
            kinds.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in kinds.values():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            summed: Tensor = self.accelerator.reduce(flat, "sum")
            parts = summed.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
