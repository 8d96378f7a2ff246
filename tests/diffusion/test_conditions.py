import pytest
import torch
from diffusers import FluxFillPipeline

from generation.diffusion.conditions import FillConditions, encode_prompts, encode_sources
from generation.diffusion.loading import FillModels
from tests.diffusion.tiny import PROMPT_TOKENS


def _sources(batch: int, height: int = 32, width: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(batch, 3, height, width, generator=generator)
    masks = torch.zeros(batch, 1, height, width)
    masks[:, :, 5:20, 8:30] = 1
    return images, masks


@torch.no_grad()
def test_it_encodes_prompts_as_the_pipeline_does(
    models: FillModels, pipeline: FluxFillPipeline
) -> None:
    prompts = ["red circle", "remove"]
    embeds, pooled = encode_prompts(models, prompts)
    expected, expected_pooled, _ = pipeline.encode_prompt(
        prompts, prompts, max_sequence_length=PROMPT_TOKENS
    )
    assert torch.equal(embeds, expected)
    assert torch.equal(pooled, expected_pooled)


def test_it_masks_and_packs_the_picture_as_the_pipeline_does(
    models: FillModels, pipeline: FluxFillPipeline
) -> None:
    images, masks = _sources(2)
    conditions = encode_sources(models, images, masks, ["a", "b"])
    masked = (2 * images - 1) * (1 - masks)
    latents = models.vae.encode(masked).latent_dist.mode()
    # Latents given in place of a picture: the pipeline packs them without drawing a sample.
    mask, hidden = pipeline.prepare_mask_latents(
        masks, latents, 2, 4, 1, 32, 40, torch.float32, "cpu", None
    )
    assert torch.allclose(conditions.masked_image, torch.cat([hidden, mask], -1), atol=1e-6)
    assert conditions.masked_image.shape == (2, 20, 16 + 64)
    assert conditions.image_latents.shape == (2, 20, 16)
    assert conditions.grid == (4, 5)


def test_it_takes_a_mask_from_one_half_on(models: FillModels) -> None:
    images, masks = _sources(1)
    soft = masks * 0.5
    hard = encode_sources(models, images, masks, ["a"])
    assert torch.equal(encode_sources(models, images, soft, ["a"]).masked_image, hard.masked_image)


def test_it_selects_and_joins_samples(models: FillModels) -> None:
    images, masks = _sources(3)
    conditions = encode_sources(models, images, masks, ["a", "b", "c"])
    joined = FillConditions.cat([conditions[2], conditions[[0, 1]]])
    assert torch.equal(joined.pooled, conditions.pooled[[2, 0, 1]])
    assert torch.equal(conditions[:2].masked_image, conditions.masked_image[:2])
    assert len(conditions[1]) == 1


def test_it_refuses_to_join_two_sizes(models: FillModels) -> None:
    wide = encode_sources(models, *_sources(1), ["a"])
    square = encode_sources(models, *_sources(1, width=32), ["a"])
    with pytest.raises(ValueError, match="share a size"):
        FillConditions.cat([wide, square])


def test_it_names_the_multiple_a_picture_misses(models: FillModels) -> None:
    images, masks = _sources(1, height=30)
    with pytest.raises(ValueError, match="multiples of 8"):
        encode_sources(models, images, masks, ["a"])


def test_it_refuses_a_mask_of_another_size(models: FillModels) -> None:
    images, masks = _sources(1)
    with pytest.raises(ValueError, match="must agree"):
        encode_sources(models, images, masks[..., :8], ["a"])


def test_it_gives_prompts_gradients_when_asked(models: FillModels) -> None:
    weight = models.text_encoder_2.shared.weight.requires_grad_(True)
    try:
        embeds, _ = encode_prompts(models, ["a"])
        embeds.sum().backward()
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    finally:
        weight.requires_grad_(False)
        weight.grad = None
