from __future__ import annotations

import pytest
import torch

from modeling.reward.view import ViewConfig, reward_view, zoom_windows


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
