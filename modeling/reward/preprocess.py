"""Pixels to the patches of a Qwen-VL vision tower, in one differentiable torch function.

Training and RL share it: with the official processor in training and a torch resize in RL the
policy would be scored on pictures that the reward model was not trained on. Where the size needs no
change the result equals Qwen2VLImageProcessor's; elsewhere the resize is bicubic and antialiased,
as PIL's.

Shapes: B images, C = 3 channels, H, W pixels, t temporal patch, p patch, m merge (m x m patches
become one token), gh = H / p and gw = W / p the patch grid, N = gh * gw patches an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize


@dataclass(frozen=True)
class VisionLayout:
    """The facts of a checkpoint's preprocessor_config.json."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_processor(cls, processor: Any) -> VisionLayout:
        """Read a Qwen2VLImageProcessor (or one with the same attributes)."""
        return cls(
            patch_size=int(processor.patch_size),
            temporal_patch_size=int(processor.temporal_patch_size),
            merge_size=int(processor.merge_size),
            min_pixels=int(processor.size["shortest_edge"]),
            max_pixels=int(processor.size["longest_edge"]),
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        )

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) at which the processor shows a picture of this size to the model."""
        h, w = smart_resize(
            height,
            width,
            factor=self.patch_size * self.merge_size,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )
        return int(h), int(w)


def to_patches(images: Tensor, layout: VisionLayout) -> tuple[Tensor, Tensor]:
    """Resize where needed, normalise and cut into patches; differentiable in `images`.

    Args:
        images: (B, 3, H, W) in [0, 1].

    Returns:
        pixel_values (B * N, C * t * p * p) and grid_thw (B, 3), as the official processor's.
    """
    batch, channels, height, width = images.shape
    size = layout.working_size(height, width)
    if size != (height, width):
        images = F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    mean = images.new_tensor(layout.mean)[:, None, None]
    std = images.new_tensor(layout.std)[:, None, None]
    images = (images - mean) / std
    p, m, t = layout.patch_size, layout.merge_size, layout.temporal_patch_size
    gh, gw = size[0] // p, size[1] // p
    blocks = images.reshape(batch, channels, gh // m, m, p, gw // m, m, p)
    patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, gh/m, gw/m, m, m, C, p, p)
    # A still picture fills all frames of the temporal patch.
    patches = patches.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, t, -1, -1)
    pixel_values = patches.reshape(batch * gh * gw, channels * t * p * p)
    grid = torch.tensor([[1, gh, gw]], device=images.device).expand(batch, 3).contiguous()
    return pixel_values, grid
