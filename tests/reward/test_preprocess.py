from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from modeling.reward.preprocess import VisionLayout, to_patches
from modeling.reward.view import reward_view
from modeling.reward.view_config import ViewConfig
from tests.reward.tiny import tiny_processor


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def both(processor: Qwen2VLImageProcessorPil, array: np.ndarray) -> tuple[torch.Tensor, ...]:
    official = processor(images=[Image.fromarray(array)], return_tensors="pt")
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255
    pixel_values, grid = to_patches(tensor, VisionLayout.from_processor(processor))
    assert grid.tolist() == official["image_grid_thw"].tolist()
    return pixel_values, official["pixel_values"]


@pytest.mark.parametrize(
    ("processor", "size"),
    [(tiny_processor(), (64, 48)), (Qwen2VLImageProcessorPil(), (112, 84))],
)
def test_it_equals_the_official_processor_where_no_resize_is_needed(
    processor: Qwen2VLImageProcessorPil, size: tuple[int, int]
) -> None:
    ours, official = both(processor, picture(*size))
    torch.testing.assert_close(ours, official, atol=5e-7, rtol=0)


@pytest.mark.parametrize("size", [(300, 200), (40, 24), (70, 50)])
def test_it_resizes_to_the_official_size_within_a_rounding_step(size: tuple[int, int]) -> None:
    processor = tiny_processor()
    ours, official = both(processor, picture(*size))
    # PIL rounds to 8 bits between its two passes and after; std is about 0.26.
    assert (ours - official).abs().max() < 2.1 / 255 / 0.26


def test_it_passes_gradients_through_a_resize() -> None:
    images = torch.rand(1, 3, 100, 60, requires_grad=True)
    pixel_values, _ = to_patches(images, VisionLayout.from_processor(tiny_processor()))
    (grad,) = torch.autograd.grad(pixel_values.square().sum(), images)
    assert (grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("size", [(32, 32), (44, 28), (20, 20)])
@pytest.mark.parametrize(
    "view", [ViewConfig(), ViewConfig(fade_outside=0.5, zoom=1.5), ViewConfig(composite=False)]
)
def test_its_gradient_is_that_of_finite_differences(
    size: tuple[int, int], view: ViewConfig
) -> None:
    """The whole way from the picture to the patches, in float64: composite, fade and zoom, then
    no resize, a smaller and a larger one. Values stay off 0 and 1, where the clamp has a kink."""
    layout = VisionLayout.from_processor(
        Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 32 * 32}
        )
    )
    generator = torch.Generator().manual_seed(0)
    image, source = (0.3 + 0.4 * torch.rand(2, 1, 3, *size, generator=generator).double()).unbind()
    mask = torch.zeros(1, 1, *size, dtype=torch.float64)
    mask[..., 4:14, 6:16] = 1
    directions = torch.randn(8, 1, 3, *size, generator=generator).double()

    def patches(shown: torch.Tensor) -> torch.Tensor:
        return to_patches(reward_view(shown, source, mask, view), layout)[0]

    pixels = image.requires_grad_()
    out = patches(pixels)
    weights = torch.randn(out.shape, generator=generator).double()
    (grad,) = torch.autograd.grad((out * weights).sum(), pixels)
    h = 1e-4
    for direction in directions:
        with torch.no_grad():
            rise = patches(image + h * direction) - patches(image - h * direction)
        slope = (rise * weights).sum() / (2 * h)
        torch.testing.assert_close((grad * direction).sum(), slope, atol=1e-8, rtol=1e-7)
    assert grad.abs().max() > 0.1
