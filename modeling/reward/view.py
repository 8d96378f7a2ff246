"""What the reward VLM sees of an edited picture.

One differentiable function for reward training, evaluation and RL, so that the policy is scored on
exactly what the labels taught. Most pixels of an edit are the untouched background: outside the
mask the source is composited back (the policy gains nothing by repainting it), optionally faded to
grey (a cue for where the edit is), and the view can zoom in on the mask's neighbourhood.

`reward_context` makes a third picture on request: what stood there before, with the edited area
outlined. It shows the source, never a candidate: both candidates' surroundings are in view anyway,
and one picture that stays the same for all candidates of a source can be encoded once and cached.

Shapes: B batch, H, W pixels; images in [0, 1]; masks 1 where the picture was edited.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.reward.view_config import ViewConfig

GREY = 0.5
RED = (1.0, 0.0, 0.0)
LINE = 64  # the outline's width is the longer side divided by this, at least one pixel


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


def reward_context(sources: Tensor, masks: Tensor, config: ViewConfig) -> Tensor | None:
    """The source around the mask, outlined: what `context` of the scoring functions shows.

    Args:
        sources: (B, 3, H, W) in [0, 1].
        masks: (B, 1, H, W), 1 = edited. Where the whole picture is edited (text to image, or a
            pair of two sources) there is nothing to compare with, and the context is plain grey.

    Returns:
        (B, 3, H, W) in [0, 1], or None where the view has no context.
    """
    if not config.context:
        return None
    shown = _zoom(sources, masks, config.context)
    # (B, 1, H, W): the mask in the same window, and the pixels just outside it.
    inside = (_zoom(masks.to(sources.dtype), masks, config.context) > 0.5).to(sources.dtype)
    width = max(1, max(sources.shape[-2:]) // LINE)
    line = F.max_pool2d(inside, 2 * width + 1, stride=1, padding=width) - inside
    red = sources.new_tensor(RED).view(1, 3, 1, 1)
    shown = shown * (1 - line) + red * line
    everything = (masks > 0.5).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(everything, torch.full_like(shown, GREY), shown)


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
