from __future__ import annotations

import pytest
import torch

from modeling.reward.view import reward_context, reward_view, zoom_windows
from modeling.reward.view_config import ViewConfig


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, sources = torch.full((1, 3, 64, 64), 0.8), torch.full((1, 3, 64, 64), 0.2)
    masks = torch.zeros(1, 1, 64, 64)
    masks[:, :, 8:24, 40:56] = 1
    return images, sources, masks


def test_it_shows_the_source_outside_the_mask() -> None:
    images, sources, masks = example()
    view = reward_view(images.requires_grad_(), sources, masks, ViewConfig())
    assert view[0, 0, 10, 45].item() == pytest.approx(0.8)
    assert view[0, 0, 50, 45].item() == pytest.approx(0.2)
    (grad,) = torch.autograd.grad(view.sum(), images)
    torch.testing.assert_close(grad, masks.expand_as(grad))


def test_it_fades_the_surroundings_to_grey() -> None:
    view = reward_view(*example(), ViewConfig(fade_outside=0.5))
    assert view[0, 0, 10, 45].item() == pytest.approx(0.8)
    assert view[0, 0, 50, 45].item() == pytest.approx(0.5 * 0.2 + 0.5 * 0.5)


def test_it_zooms_on_the_mask_and_stays_inside_the_picture() -> None:
    images, sources, masks = example()
    # A box of 16 pixels with its centre at (16, 48): twice as wide, clipped by nothing.
    assert zoom_windows(masks, 2.0) == [(0, 32, 32, 32)]
    assert zoom_windows(masks, 3.0) == [(0, 16, 48, 48)]
    assert zoom_windows(masks, 9.0) == [(0, 0, 64, 64)]
    assert zoom_windows(torch.zeros(1, 1, 48, 64), 2.0) == [(0, 0, 48, 64)]
    view = reward_view(images, sources, masks, ViewConfig(zoom=1.0))
    torch.testing.assert_close(view, torch.full_like(view, 0.8))


def test_it_refuses_settings_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="fade_outside"):
        ViewConfig(fade_outside=1.5)
    with pytest.raises(ValueError, match="zoom"):
        ViewConfig(zoom=0.5)
    images, sources, masks = example()
    with pytest.raises(ValueError, match="must share"):
        reward_view(images, sources[..., :32], masks, ViewConfig())


def test_it_outlines_the_edited_area_of_the_source() -> None:
    _, sources, masks = example()
    assert reward_context(sources, masks, ViewConfig()) is None
    whole = reward_context(sources, masks, ViewConfig(context=100.0))
    assert whole is not None
    # One pixel of red just outside the mask, the source itself inside it and elsewhere.
    assert whole[0, :, 7, 45].tolist() == pytest.approx([1, 0, 0])
    assert whole[0, :, 24, 45].tolist() == pytest.approx([1, 0, 0])
    assert whole[0, :, 8, 45].tolist() == pytest.approx([0.2] * 3)
    assert whole[0, :, 26, 45].tolist() == pytest.approx([0.2] * 3)
    # A window twice the box of 16 pixels, shown at 64: the mask fills 32, from 16 to 48.
    near = reward_context(sources, masks, ViewConfig(context=2.0))
    assert near is not None
    red = (near[0, 1] < 0.1).nonzero()
    assert (red.min(0).values.tolist(), red.max(0).values.tolist()) == ([15, 15], [48, 48])


def test_it_shows_no_source_where_everything_is_edited() -> None:
    """Text to image has no source, and what stands in its place must not leak into the context."""
    _, sources, masks = example()
    areas = torch.cat([masks, torch.ones_like(masks)])
    shown = reward_context(sources.repeat(2, 1, 1, 1), areas, ViewConfig(context=2))
    assert shown is not None
    assert shown[1].unique().tolist() == [0.5]
    assert shown[0].unique().numel() > 1
