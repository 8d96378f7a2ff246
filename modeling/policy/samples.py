"""Sample grids: source with its mask, the parent's picture, the policy's, a row per source."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.generate import pil_images

MAX_ROWS = 12
SMALLEST_SIDE = 128  # smaller pictures are shown larger, pixel by pixel
GAP = 4


def save_grid(path: Path, sources: Tensor, masks: Tensor, parents: Tensor, images: Tensor) -> None:
    """All (B, 3, H, W) in [0, 1], masks (B, 1, H, W). The edited area is tinted in the source."""
    tint = images.new_tensor([0.9, 0.1, 0.6]).view(1, 3, 1, 1)
    marked = torch.where(masks > 0.5, 0.5 * sources + 0.5 * tint, sources)
    rows = [
        torch.cat([F.pad(part, (GAP, 0, 0, GAP), value=0.5) for part in parts], dim=2)
        for parts in zip(marked, parents, images, strict=True)
    ][:MAX_ROWS]
    grid = torch.cat(rows, dim=1)[None]
    factor = max(1, SMALLEST_SIDE // min(images.shape[-2:]))
    grid = F.interpolate(grid, scale_factor=factor, mode="nearest")
    path.parent.mkdir(exist_ok=True)
    pil_images(grid)[0].save(path)
