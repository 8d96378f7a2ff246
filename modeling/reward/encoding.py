"""Images to what the language model reads of them, once an image, in whatever order it is shown.

Shapes: N images, T tokens of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling.reward.preprocess import to_patches
from modeling.reward.vision import attention_arguments
from modeling.reward.vlm import RewardVLM


@dataclass
class ImageOutput(BaseModelOutputWithPooling):
    """A vision tower's output in the form that the models of transformers take it back."""

    deepstack_features: Any = None


@dataclass(frozen=True)
class Encoded:
    """The vision tower's tokens of N images."""

    tokens: list[Tensor]  # N of (T, hidden)
    # Qwen3-VL adds more features of each image to its first layers: one list of N for each layer.
    deepstack: list[list[Tensor]]
    grid: Tensor  # grid_thw (N, 3)

    def pick(self, indices: Sequence[int]) -> Encoded:
        """These images in this order; one may come several times."""
        return Encoded(
            tokens=[self.tokens[i] for i in indices],
            deepstack=[[layer[i] for i in indices] for layer in self.deepstack],
            grid=self.grid[list(indices)],
        )

    def output(self) -> ImageOutput:
        tokens: Any = self.tokens
        return ImageOutput(pooler_output=tokens, deepstack_features=self.deepstack or None)


def encode_images(vlm: RewardVLM, images: Tensor) -> Encoded:
    """Run the vision tower on (N, 3, H, W) images in [0, 1]; differentiable in them."""
    pixel_values, grid = to_patches(images.to(vlm.device), vlm.patches)
    output: Any = vlm.core.get_image_features(
        pixel_values.to(vlm.dtype),
        grid,
        return_dict=True,
        **attention_arguments(vlm.core, grid),
    )
    deepstack = getattr(output, "deepstack_features", None) or []
    return Encoded(list(output.pooler_output), [list(layer) for layer in deepstack], grid)
