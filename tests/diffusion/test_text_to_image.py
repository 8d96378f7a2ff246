"""FLUX.1-dev's layout, whose transformer reads noise and prompt alone: one loop for it and Fill."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL import Image

from generation.diffusion.conditions import encode_sources
from generation.diffusion.generate import Draw, Generator, Request
from generation.diffusion.loading import FillModels, PolicySpec, load_models
from generation.diffusion.sampling import flow_sample, initial_latents, sigmas_for
from tests.diffusion.tiny import PROMPT_TOKENS, SIZE, tiny_pipeline


def save_tiny_flux_dev(directory: Path, seed: int = 0) -> Path:
    """FLUX.1-dev's pipeline class with tiny parts."""
    fill = tiny_pipeline(seed)
    torch.manual_seed(seed)
    config = dict(fill.transformer.config) | {"in_channels": 16, "out_channels": None}
    parts = {name: part for name, part in fill.components.items() if name != "transformer"}
    transformer = FluxTransformer2DModel.from_config(config)
    FluxPipeline(transformer=transformer, **parts).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def flux_dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_flux_dev(tmp_path_factory.mktemp("dev"))


@pytest.fixture(scope="module")
def models(flux_dev: Path) -> FillModels:
    return load_models(PolicySpec(location=str(flux_dev)))


def test_it_samples_what_diffusers_own_pipeline_samples(flux_dev: Path, models: FillModels) -> None:
    prompts = ["a red lantern", "two dogs"]
    noise = initial_latents(models, [1, 2], SIZE, SIZE)
    pipe = FluxPipeline.from_pretrained(flux_dev)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        prompts,
        height=SIZE,
        width=SIZE,
        num_inference_steps=4,
        guidance_scale=3.5,
        latents=noise,
        max_sequence_length=PROMPT_TOKENS,
        output_type="latent",
    ).images
    blank, everything = torch.ones(2, 3, SIZE, SIZE), torch.ones(2, 1, SIZE, SIZE)
    with torch.no_grad():
        found = flow_sample(
            models.transformer,
            noise,
            sigmas_for(models, 4, noise.shape[1]),
            encode_sources(models, blank, everything, prompts),
            guidance_scale=3.5,
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_negative_prompt_works_and_the_blank_picture_plays_no_part(models: FillModels) -> None:
    def made(colour: str, negative: str, true_cfg_scale: float) -> bytes:
        request = Request(
            image=Image.new("RGB", (SIZE, SIZE), colour),
            mask=Image.new("L", (SIZE, SIZE), 255),
            prompt="a cat",
            draw=Draw(5, 3, 1.0, 3.5, true_cfg_scale, negative),
            key=colour,
        )
        return Generator(models).generate([request])[0].tobytes()

    assert made("white", "dark", 3.0) == made("black", "dark", 3.0)
    assert made("white", "dark", 3.0) != made("white", "dark", 1.0)
    assert made("white", "dark", 3.0) != made("white", "b w", 3.0)
