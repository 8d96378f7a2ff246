"""What the reward VLM sees of an edited picture.

One differentiable function for reward training, evaluation and RL, so that the policy is scored on
exactly what the labels taught. Most pixels of an edit are the untouched background: outside the
mask the source is composited back (the policy gains nothing by repainting it), optionally faded to
grey (a cue for where the edit is), and the view can zoom in on the mask's neighbourhood.

Shapes: B batch, H, W pixels; images in [0, 1]; masks 1 where the picture was edited.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 0.5


@dataclass(frozen=True)
class ViewConfig:
    """How a picture is shown to the reward VLM."""

    # Outside the mask show the source's own pixels instead of the picture's.
    composite: bool = True
    # Share of grey outside the mask: 0 leaves the surroundings as they are, 1 hides them.
    fade_outside: float = 0.0
    # 0 shows the whole picture; z >= 1 a window z times the mask's bounding box, at full size.
    zoom: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.composite, bool):
            raise ValueError(f"view.composite must be true or false, got {self.composite!r}")
        if not 0.0 <= self.fade_outside <= 1.0:
            raise ValueError(f"view.fade_outside must lie in [0, 1], got {self.fade_outside}")
        if self.zoom != 0.0 and self.zoom < 1.0:
            raise ValueError(f"view.zoom must be 0 (off) or at least 1, got {self.zoom}")


def reward_view(images: Tensor, sources: Tensor, masks: Tensor, config: ViewConfig) -> Tensor:
    """Composite, fade and zoom; differentiable in `images`.

    Args:
        images: (B, 3, H, W) edited pictures in [0, 1].
        sources: (B, 3, H, W) source pictures in [0, 1].
        masks: (B, 1, H, W), 1 = edited.

    Returns:
        (B, 3, H, W) in [0, 1] where the inputs are.
    """
    if images.shape != sources.shape or masks.shape != (images.shape[0], 1, *images.shape[2:]):
        raise ValueError(
            f"Pictures {tuple(images.shape)}, sources {tuple(sources.shape)} and masks "
            f"{tuple(masks.shape)} must share batch, height and width."
        )
    inside = masks.to(images.dtype)  # (B, 1, H, W)
    view = images
    if config.composite:
        view = images * inside + sources.to(images.dtype) * (1 - inside)
    if config.fade_outside:
        keep = 1 - config.fade_outside * (1 - inside)
        view = view * keep + GREY * (1 - keep)
    if config.zoom:
        view = _zoom(view, masks, config.zoom)
    return view


def _zoom(images: Tensor, masks: Tensor, zoom: float) -> Tensor:
    height, width = images.shape[-2:]
    windows = []
    for image, (top, left, h, w) in zip(images, zoom_windows(masks, zoom), strict=True):
        crop = image[None, :, top : top + h, left : left + w]
        if (h, w) != (height, width):
            crop = F.interpolate(crop, size=(height, width), mode="bilinear", antialias=True)
        windows.append(crop)
    return torch.cat(windows)


def zoom_windows(masks: Tensor, zoom: float) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the zoomed window of each mask (B, 1, H, W).

    The window keeps the picture's aspect ratio, lies inside the picture and has `zoom` times the
    larger relative side of the mask's bounding box. An empty mask shows the whole picture.
    """
    height, width = masks.shape[-2:]
    windows = []
    for mask in masks[:, 0].detach().cpu() > 0.5:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        if not len(rows):
            windows.append((0, 0, height, width))
            continue
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1
        share = min(1.0, zoom * max((bottom - top) / height, (right - left) / width))
        h, w = max(1, round(share * height)), max(1, round(share * width))
        y = min(max(0, (top + bottom - h) // 2), height - h)
        x = min(max(0, (left + right - w) // 2), width - w)
        windows.append((y, x, h, w))
    return windows
