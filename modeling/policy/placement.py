"""How models lie in memory and run: stored in 8 or 4 bits, on the CPU between uses, compiled.

FLUX.1-Fill-dev's transformer is 23.8 GB in bf16, 15.2 GB with the blocks' maps in float8 (their
modulations stay, as diffusers leaves norms), about 6.1 GB in NF4; Qwen2.5-VL-7B 16.6 GB in bf16.
All computed from their shapes. The VAE is 0.17 GB and always stays.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from modeling.reward.vlm import RewardVLM

BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")


def quantised_loading(storage: str, dtype: torch.dtype) -> Any:
    """diffusers' configuration that loads the transformer in NF4; None for other storages.

    Raises ValueError without bitsandbytes or a GPU, which diffusers' NF4 needs.
    """
    if storage != "nf4":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "base_storage 'nf4' needs the package bitsandbytes, which is not installed: pip "
            "install bitsandbytes, or use 'float8'."
        )
    if not torch.cuda.is_available():
        raise ValueError("base_storage 'nf4' needs a GPU: use 'float8' or '' on this machine.")
    from diffusers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def store_in_float8(transformer: nn.Module, compute_dtype: torch.dtype) -> None:
    """Keep the linear maps of the frozen base in float8 (e4m3) and cast each to `compute_dtype`
    while it is used: diffusers' layerwise casting.

    Norms, embeddings and LoRAs are left alone, so it comes after the LoRAs: peft makes these in the
    dtype of what they stand beside. A map's cast weight lives as long as the graph through it: with
    gradient checkpointing that is one block.
    """
    from diffusers.hooks.layerwise_casting import apply_layerwise_casting_hook

    for name, module in transformer.named_modules():
        inside = name.startswith(BLOCKS) and "norm" not in name and ".lora_" not in name
        if inside and isinstance(module, nn.Linear):
            apply_layerwise_casting_hook(
                module, torch.float8_e4m3fn, compute_dtype, non_blocking=False
            )


@contextmanager
def at_work(vlm: RewardVLM, device: torch.device, *, offload: bool) -> Iterator[RewardVLM]:
    """The reward model on `device`; with `offload` it goes back to the CPU, once its gradient has
    been taken inside."""
    if not offload:
        yield vlm
        return
    vlm.model.to(device)
    try:
        yield vlm
    finally:
        vlm.model.to("cpu")


def compile_blocks(transformer: Any, vlm: RewardVLM, which: tuple[str, ...]) -> None:
    """Compile the repeated blocks of the "transformer" or the "reward" model's language model.

    Block by block, so that one compilation serves all of them. Raises ValueError where this machine
    has no compiler for it.
    """
    if not which:
        return
    if torch.cuda.is_available():
        if importlib.util.find_spec("triton") is None:
            raise ValueError("compile needs the package triton on a GPU: leave compile empty.")
    elif shutil.which("g++") is None and shutil.which("clang++") is None:
        raise ValueError("compile needs a C++ compiler on a CPU: install g++, or leave it empty.")
    if "transformer" in which:
        transformer.compile_repeated_blocks()
    if "reward" in which:
        for layer in vlm.core.model.language_model.layers:
            layer.compile()
