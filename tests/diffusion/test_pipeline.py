from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline

from generation.diffusion.conditions import encode_prompts, encode_sources
from generation.diffusion.generate import image_tensor, mask_tensor
from generation.diffusion.loading import FillModels
from generation.diffusion.pipeline import FluxFillTrueCFGPipeline
from generation.diffusion.sampling import flow_sample, initial_latents, sigmas_for
from tests.diffusion.tiny import PROMPT_TOKENS, SIZE, box_mask, picture


@pytest.fixture(scope="module")
def true_cfg(tiny_policy: Path) -> FluxFillTrueCFGPipeline:
    pipe = FluxFillTrueCFGPipeline.from_pretrained(tiny_policy)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _arguments(**kwargs: Any) -> dict[str, Any]:
    return {
        "prompt": "red",
        "image": picture(1),
        "mask_image": box_mask(),
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": 4,
        "max_sequence_length": PROMPT_TOKENS,
        "generator": torch.Generator().manual_seed(9),
        **kwargs,
    }


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"strength": 0.6, "num_inference_steps": 6},
        {
            "prompt": ["red", "blue"],
            "image": [picture(1), picture(2)],
            "mask_image": [box_mask()] * 2,
        },
        {"num_images_per_prompt": 2, "guidance_scale": 2.0},
        {"sigmas": [1.0, 0.5, 0.2], "num_inference_steps": 3},
        {"prompt_2": "blue", "output_type": "np"},
    ],
)
def test_it_is_the_fill_pipeline_without_true_cfg(
    true_cfg: FluxFillTrueCFGPipeline, pipeline: FluxFillPipeline, kwargs: dict[str, Any]
) -> None:
    """The same arguments and the same generator: posterior draws and noise included."""
    kwargs = {"output_type": "latent", **kwargs}
    made = true_cfg(**_arguments(**kwargs)).images
    expected = pipeline(**_arguments(**kwargs)).images
    assert np.array_equal(np.asarray(made), np.asarray(expected))


@torch.no_grad()
def test_it_equals_the_function_with_true_cfg(
    true_cfg: FluxFillTrueCFGPipeline, models: FillModels
) -> None:
    conditions = encode_sources(models, image_tensor(picture(1)), mask_tensor(box_mask()), ["red"])
    negative = conditions.with_prompts(*encode_prompts(models, ["blurry"]))
    noise = initial_latents(models, [3], SIZE, SIZE)
    expected = flow_sample(
        models.transformer,
        noise,
        sigmas_for(models, 4, noise.shape[1]),
        conditions,
        guidance_scale=1.0,
        negative=negative,
        true_cfg_scale=4.0,
    )
    made = true_cfg(
        **_arguments(
            image=None,
            mask_image=None,
            latents=noise,
            masked_image_latents=conditions.masked_image,
            guidance_scale=1.0,
            negative_prompt="blurry",
            true_cfg_scale=4.0,
            max_sequence_length=None,
            output_type="latent",
        )
    ).images
    assert torch.equal(made, expected)


def test_it_ignores_the_negative_prompt_unless_true_cfg_is_on(
    true_cfg: FluxFillTrueCFGPipeline,
) -> None:
    def run(**kwargs: Any) -> torch.Tensor:
        return true_cfg(**_arguments(output_type="latent", **kwargs)).images

    plain = run()
    assert torch.equal(run(negative_prompt="blurry", true_cfg_scale=1.0), plain)
    assert torch.equal(run(true_cfg_scale=4.0), plain)
    first = run(negative_prompt="blurry", true_cfg_scale=4.0)
    assert not torch.equal(first, plain)
    assert not torch.equal(run(negative_prompt="dark", true_cfg_scale=4.0), first)
    other = run(negative_prompt="blurry", negative_prompt_2="dark", true_cfg_scale=4.0)
    assert not torch.equal(other, first)


def test_its_callback_sees_and_changes_every_step(true_cfg: FluxFillTrueCFGPipeline) -> None:
    seen: list[float] = []

    def callback(
        pipe: Any, step: int, timestep: torch.Tensor, values: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        seen.append(float(timestep))
        if step == 1:
            pipe._interrupt = True
        return {"latents": torch.zeros_like(values["latents"])}

    made = true_cfg(**_arguments(callback_on_step_end=callback, output_type="latent")).images
    assert len(seen) == 2
    assert seen[0] == 1000.0 > seen[1]
    assert made.abs().max() == 0


def test_it_says_what_is_missing(true_cfg: FluxFillTrueCFGPipeline) -> None:
    with pytest.raises(ValueError, match="Provide `image` and `mask_image`"):
        true_cfg(**_arguments(image=None, mask_image=None))
    with pytest.raises(ValueError, match="prompt"):
        true_cfg(**_arguments(prompt=None))
