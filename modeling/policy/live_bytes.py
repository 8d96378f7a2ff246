"""Peak memory of a piece of code, as the bytes of the tensors that are alive at once.

On a GPU the allocator counts; on a CPU there is no such counter, and the resident memory of a small
model drowns in the libraries' own. `LiveBytes` counts every storage from the operation that makes
it until it is freed, saved activations and gradients included. What a kernel needs inside itself is
not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """`held` are tensors that exist before and count as well: weights, optimiser, EMA."""

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: set[int] = set()
        for tensor in held:
            self._keep(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._keep(value)
        return result

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def peak_bytes(
    work: Callable[[], object], held: Iterable[Tensor] = (), device: torch.device | str = "cpu"
) -> int:
    """Most bytes of tensors alive at once while `work` runs; on a GPU what its allocator says."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    counter = LiveBytes(held)
    with counter:
        work()
    return counter.peak
