"""Batch equal-sized images through a Qwen-VL vision tower's attention.

transformers lays all images' patches in one row and lets each attend to itself alone, in a Python
loop over images for every block. Where every block attends to the whole image and all images have
one size, the same attention is one batched call: bit-equal, and about a quarter less time for many
small images. Towers with window attention (Qwen2.5-VL-7B) keep the library's own loop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "sdpa_equal_images"


def batched_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    equal_images: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over (1, heads, images * N, d), every image to itself; else plain sdpa."""
    if equal_images is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    _, heads, length, width = query.shape

    def split(states: Tensor) -> Tensor:  # (images, heads, N, d)
        return states.reshape(heads, equal_images, length // equal_images, width).transpose(0, 1)

    output, _ = sdpa_attention_forward(
        module, split(query), split(key), split(value), attention_mask, **kwargs
    )
    return output.reshape(1, length, heads, width), None


AttentionInterface.register(NAME, batched_attention)


def batch_equal_images(model: Any) -> None:
    """Let the vision tower use `batched_attention` where that is exact."""
    config: Any = getattr(model.config, "vision_config", None)
    kind = getattr(config, "model_type", "")
    full = kind == "qwen3_vl_vision" or (
        kind == "qwen2_5_vl_vision"
        and set(config.fullatt_block_indexes) >= set(range(config.depth))
    )
    if full and config._attn_implementation == "sdpa":
        model.set_attn_implementation({"vision_config": NAME})


def attention_arguments(model: Any, grid: Tensor) -> dict[str, Any]:
    """Arguments of `get_image_features` for equal-sized images with this grid_thw (N, 3)."""
    config = getattr(model.config, "vision_config", None)
    if getattr(config, "_attn_implementation", None) != NAME:
        return {}
    # One segment, so that the library's loop makes one call; the split happens inside it.
    patches = int(grid.prod(-1).sum())
    whole = torch.tensor([0, patches], dtype=torch.int32, device=grid.device)
    return {"cu_seqlens": whole, "equal_images": len(grid)}
