import pytest
import torch
from diffusers import FluxFillPipeline

from generation.diffusion.packing import image_ids, pack_latents, pack_masks, unpack_latents


def test_it_packs_two_by_two_blocks_channel_first() -> None:
    latents = torch.arange(16.0).view(1, 1, 4, 4)
    # Rows 0-1 of columns 0-1 are 0, 1, 4, 5: the first token.
    assert pack_latents(latents)[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_it_packs_as_diffusers_does_and_unpacks_again() -> None:
    latents = torch.randn(2, 3, 6, 8)
    packed = pack_latents(latents)
    assert torch.equal(packed, FluxFillPipeline._pack_latents(latents, 2, 3, 6, 8))
    assert torch.equal(unpack_latents(packed, 6, 8), latents)


def test_it_numbers_the_tokens_as_diffusers_does() -> None:
    expected = FluxFillPipeline._prepare_latent_image_ids(1, 3, 4, "cpu", torch.float32)
    assert torch.equal(image_ids(6, 8), expected)


def test_it_keeps_every_pixel_of_the_mask() -> None:
    masks = torch.zeros(1, 1, 16, 16)
    masks[0, 0, 3, 9] = 1
    packed = pack_masks(masks, scale_factor=4)  # 4 x 4 latents, 2 x 2 tokens of 64 pixels
    assert packed.shape == (1, 4, 64)
    assert packed.sum() == 1
    assert packed[0, 1].sum() == 1  # rows 0-7, columns 8-15


def test_it_refuses_an_odd_number_of_latents() -> None:
    with pytest.raises(ValueError, match="both must be even"):
        pack_latents(torch.zeros(1, 1, 3, 4))
