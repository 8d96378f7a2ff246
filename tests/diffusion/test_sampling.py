import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxFillPipeline
from torch import Tensor

from generation.diffusion.conditions import FillConditions, encode_prompts, encode_sources
from generation.diffusion.generate import image_tensor, mask_tensor
from generation.diffusion.loading import FillModels
from generation.diffusion.sampling import (
    decode,
    endpoint,
    flow_sample,
    initial_latents,
    sigmas_for,
    start_latents,
    velocity,
)
from tests.diffusion.tiny import PROMPT_TOKENS, SIZE, box_mask, picture

PROMPTS = ["red circle", "blue star"]


class ExplicitFillPipeline(FluxFillPipeline):
    """diffusers refuses a picture beside masked_image_latents, and fails without one."""

    def check_inputs(self, *args: Any, **kwargs: Any) -> None:
        return None


@pytest.fixture(scope="module")
def conditions(models: FillModels) -> FillConditions:
    images = torch.cat([image_tensor(picture(1)), image_tensor(picture(2))])
    masks = torch.cat([mask_tensor(box_mask())] * 2)
    with torch.no_grad():
        return encode_sources(models, images, masks, PROMPTS)


@pytest.fixture(scope="module")
def negative(models: FillModels, conditions: FillConditions) -> FillConditions:
    with torch.no_grad():
        return conditions.with_prompts(*encode_prompts(models, ["blurry"]))


def _reference(
    pipeline: FluxFillPipeline, conditions: FillConditions, latents: Tensor | None, **kwargs: Any
) -> Tensor:
    pipe = ExplicitFillPipeline(**pipeline.components)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=PROMPTS,
        image=[picture(1), picture(2)],
        masked_image_latents=conditions.masked_image,
        latents=latents,
        height=SIZE,
        width=SIZE,
        guidance_scale=30.0,
        max_sequence_length=PROMPT_TOKENS,
        output_type="latent",
        **kwargs,
    ).images


@torch.no_grad()
def test_it_reproduces_the_fill_pipeline(
    models: FillModels, pipeline: FluxFillPipeline, conditions: FillConditions
) -> None:
    noise = initial_latents(models, [5, 6], SIZE, SIZE)
    sigmas = sigmas_for(models, 7, noise.shape[1])
    made = flow_sample(models.transformer, noise, sigmas, conditions, guidance_scale=30.0)
    assert torch.equal(made, _reference(pipeline, conditions, noise, num_inference_steps=7))


@torch.no_grad()
@pytest.mark.parametrize("strength", [0.3, 0.55, 0.9])
def test_it_starts_from_the_source_below_full_strength(
    models: FillModels, pipeline: FluxFillPipeline, conditions: FillConditions, strength: float
) -> None:
    noise = initial_latents(models, [5, 6], SIZE, SIZE)
    sigmas = sigmas_for(models, 6, noise.shape[1], strength)
    start = start_latents(noise, conditions, sigmas[0])
    made = flow_sample(models.transformer, start, sigmas, conditions, guidance_scale=30.0)
    expected = _reference(pipeline, conditions, start, num_inference_steps=6, strength=strength)
    assert torch.equal(made, expected)


@torch.no_grad()
def test_it_combines_both_prompts_in_one_doubled_batch(
    models: FillModels, conditions: FillConditions, negative: FillConditions
) -> None:
    latents = initial_latents(models, [5, 6], SIZE, SIZE)
    sigma = torch.tensor(0.7)
    with_prompt = velocity(models.transformer, latents, sigma, conditions, guidance_scale=1.0)
    without = velocity(models.transformer, latents, sigma, negative, guidance_scale=1.0)
    combined = velocity(
        models.transformer,
        latents,
        sigma,
        conditions,
        guidance_scale=1.0,
        negative=negative,
        true_cfg_scale=4.0,
    )
    assert (with_prompt - without).abs().max() > 1e-3
    assert torch.allclose(combined, without + 4.0 * (with_prompt - without), atol=1e-5)


@torch.no_grad()
def test_it_scales_each_sample_by_its_own_values(
    models: FillModels, conditions: FillConditions, negative: FillConditions
) -> None:
    latents = initial_latents(models, [5, 6], SIZE, SIZE)
    both = velocity(
        models.transformer,
        latents,
        torch.tensor([0.9, 0.4]),
        conditions,
        guidance_scale=torch.tensor([1.0, 30.0]),
        negative=negative,
        true_cfg_scale=torch.tensor([2.0, 5.0]),
    )
    for index, (sigma, guidance, scale) in enumerate([(0.9, 1.0, 2.0), (0.4, 30.0, 5.0)]):
        alone = velocity(
            models.transformer,
            latents[index : index + 1],
            torch.tensor(sigma),
            conditions[index],
            guidance_scale=guidance,
            negative=negative[index],
            true_cfg_scale=scale,
        )
        assert torch.allclose(both[index], alone[0], atol=1e-5)


@torch.no_grad()
def test_it_stops_and_goes_on_at_any_step(models: FillModels, conditions: FillConditions) -> None:
    noise = initial_latents(models, [5, 6], SIZE, SIZE)
    sigmas = sigmas_for(models, 5, noise.shape[1])
    seen: list[int] = []
    whole = flow_sample(
        models.transformer,
        noise,
        sigmas,
        conditions,
        guidance_scale=3.0,
        callback=lambda step, _: seen.append(step),
    )
    half = flow_sample(models.transformer, noise, sigmas, conditions, guidance_scale=3.0, stop=2)
    rest = flow_sample(models.transformer, half, sigmas, conditions, guidance_scale=3.0, start=2)
    assert seen == [0, 1, 2, 3, 4]
    assert torch.equal(rest, whole)


def test_it_carries_gradients_to_transformer_and_pixels(
    models: FillModels, conditions: FillConditions
) -> None:
    noise = initial_latents(models, [5, 6], SIZE, SIZE)
    sigmas = sigmas_for(models, 4, noise.shape[1])
    weight = models.transformer.proj_out.weight.requires_grad_(True)
    try:
        latents = flow_sample(
            models.transformer, noise, sigmas, conditions, guidance_scale=3.0, start=3
        )
        decode(models, latents, SIZE, SIZE).mean().backward()
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0
    finally:
        weight.requires_grad_(False)
        weight.grad = None


@torch.no_grad()
def test_its_last_step_is_the_endpoint(models: FillModels, conditions: FillConditions) -> None:
    noise = initial_latents(models, [5, 6], SIZE, SIZE)
    sigmas = sigmas_for(models, 3, noise.shape[1])
    before = flow_sample(models.transformer, noise, sigmas, conditions, guidance_scale=3.0, stop=2)
    predicted = velocity(models.transformer, before, sigmas[2], conditions, guidance_scale=3.0)
    last = flow_sample(models.transformer, before, sigmas, conditions, guidance_scale=3.0, start=2)
    assert torch.allclose(endpoint(before, predicted, sigmas[2]), last, atol=1e-6)


def test_its_endpoint_inverts_the_noising() -> None:
    """x = (1 - s) x0 + s n and v = n - x0 give x - s v = x0; with s = 1/4, x0 = 2, n = 6:
    x = 3, v = 4, x0' = 3 - 1 = 2."""
    found = endpoint(torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 4.0), torch.tensor(0.25))
    assert found.item() == 2.0


def test_its_noise_depends_on_the_seed_alone(models: FillModels) -> None:
    batch = initial_latents(models, [5, 6], SIZE, SIZE)
    assert torch.equal(batch[1:], initial_latents(models, [6], SIZE, SIZE))
    assert not torch.equal(batch[0], batch[1])


def test_its_sigmas_follow_the_scheduler(models: FillModels) -> None:
    """Shift at 256 tokens is exp(0.5): sigma 1/2 becomes e^.5 / (e^.5 + 1) = 0.6225."""
    sigmas = sigmas_for(models, 2, 256)
    assert sigmas.tolist() == pytest.approx([1.0, 0.62246, 0.0], abs=1e-5)
    assert sigmas_for(models, 2, 256, strength=0.5).tolist() == pytest.approx(
        [0.62246, 0.0], abs=1e-5
    )


def test_it_refuses_a_strength_that_leaves_no_step(models: FillModels) -> None:
    with pytest.raises(ValueError, match="leaves no step of 4"):
        sigmas_for(models, 4, 256, strength=0.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        sigmas_for(models, 4, 256, strength=1.5)


class Decay(torch.nn.Module):
    """dx / dsigma = x, whose end is x / e."""

    config = SimpleNamespace(in_channels=16, guidance_embeds=False)

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        return (hidden_states,)


def test_second_order_steps_converge_faster(conditions: FillConditions) -> None:
    """Half the step, half the error of Euler's and a quarter of Adams and Bashforth's."""
    start: Any = torch.ones(2, 4, 16, dtype=torch.float64)
    field: Any = Decay()

    def error(steps: int, second_order: bool) -> float:
        even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        sigmas = 2 * even / (1 + even)  # a schedule's shift of 2
        end = flow_sample(
            field, start, sigmas, conditions, guidance_scale=30.0, second_order=second_order
        )
        return float((end - math.exp(-1)).abs().max())

    # x_1 = x_0 (1 + h_0), x_2 = x_1 + h_1 ((1 + r / 2) x_1 - r / 2 x_0), r = h_1 / h_0.
    first, second = -1 / 3, -2 / 3
    bend = second / first / 2
    by_hand = (1 + first) + second * ((1 + bend) * (1 + first) - bend)
    assert error(2, True) == pytest.approx(abs(by_hand - math.exp(-1)), rel=1e-5)
    assert error(2, False) == pytest.approx(math.exp(-1) - (1 + first) * (1 + second), rel=1e-5)
    assert 1.9 < error(32, False) / error(64, False) < 2.1
    assert 3.6 < error(32, True) / error(64, True) < 4.4
    assert error(32, True) < error(32, False) / 10
