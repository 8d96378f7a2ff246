"""Policies that this process holds loaded. Importing this costs nothing; calling it loads torch."""

from __future__ import annotations

import gc
import platform
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from generation import locations, shared
from generation.models import Policy

if TYPE_CHECKING:
    from generation.diffusion.generate import Generator

# A policy and the one it is compared with.
KEPT = 2

_generators: OrderedDict[tuple[Any, ...], Generator] = OrderedDict()


def generator(policy: Policy) -> Generator:
    """The policy's generator, loaded at its first use. Raises FileNotFoundError with a reason."""
    spec = policy.spec()
    name = (policy.pk, *spec.values())
    if name not in _generators:
        while len(_generators) >= KEPT:
            _generators.popitem(last=False)
        _generators[name] = _load(spec)
    _generators.move_to_end(name)
    return _generators[name]


def _load(spec: dict[str, Any]) -> Generator:
    try:
        locations.check_all([spec["location"], spec["transformer"], spec["adapter"]])
    except locations.LocationError as error:
        raise FileNotFoundError(str(error)) from None
    import diffusers
    import torch
    import transformers

    from generation.diffusion.generate import Generator
    from generation.diffusion.loading import PolicySpec, load_models

    # A worker's log has no use for moving bars.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    return Generator(
        load_models(
            PolicySpec(**shared.local_spec(spec)),
            device="cuda" if on_gpu else "cpu",
            # bfloat16 is what FLUX was trained in; on a CPU it would be slower and coarser.
            dtype=torch.bfloat16 if on_gpu else torch.float32,
        )
    )


def release() -> None:
    """Forget every loaded policy and give its memory back, for example before training."""
    if not _generators:
        return
    import torch

    _generators.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def circumstances(made_by: Generator) -> tuple[str, dict[str, Any]]:
    """Device and versions, without which the same row need not give the same picture."""
    import diffusers
    import torch
    import transformers

    device = made_by.models.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"[:80], {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "dtype": str(made_by.models.dtype).removeprefix("torch."),
    }


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with this many threads: sums are split among them, so their number shows in bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
