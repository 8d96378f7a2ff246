"""One flow-matching loop for everything: candidates, the pipeline class, references and RL.

Rectified flow: x_sigma = (1 - sigma) * x_0 + sigma * noise, velocity v = noise - x_0, Euler steps
x <- x + (sigma_next - sigma) * v. FLUX Fill's guidance is an embedding; true classifier-free
guidance (``true_cfg_scale`` s with a negative prompt) is v = v_neg + s * (v_pos - v_neg), both
halves in one doubled batch. diffusers' ``FluxFillPipeline`` has neither negative prompt nor true
CFG; with s = 1 this loop reproduces its latents.

Shapes: B batch, S image tokens, C packed channels, K steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux_fill import calculate_shift
from torch import Tensor

from generation.diffusion.conditions import FillConditions
from generation.diffusion.loading import FillModels
from generation.diffusion.packing import image_ids, pack_latents, unpack_latents


def initial_latents(models: FillModels, seeds: Sequence[int], height: int, width: int) -> Tensor:
    """Packed noise (B, S, C). Each sample has its own CPU generator, so that its noise depends on
    its seed alone: not on the batch, the device or the dtype."""
    rows, columns = height // models.vae_scale_factor, width // models.vae_scale_factor
    shape = (models.vae.config.latent_channels, rows, columns)
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    )
    return pack_latents(noise).to(device=models.device, dtype=models.dtype)


def start_latents(noise: Tensor, conditions: FillConditions, sigma: Tensor) -> Tensor:
    """The latents at the first sigma (B, S, C): pure noise at strength 1, mixed with the source's
    own latents below."""
    sigma = sigma.to(device=noise.device, dtype=noise.dtype)
    return sigma * noise + (1.0 - sigma) * conditions.image_latents


def sigmas_for(
    models: FillModels | FlowMatchEulerDiscreteScheduler,
    num_inference_steps: int,
    image_seq_len: int,
    strength: float = 1.0,
    sigmas: Sequence[float] | None = None,
) -> Tensor:
    """Noise levels (K + 1,) on the CPU, from the scheduler's own shift rules, ending in 0.

    A strength below 1 drops the first steps, as ``FluxFillPipeline`` does. Raises ValueError when
    no step is left.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must lie between 0 and 1, got {strength}.")
    original = models.scheduler if isinstance(models, FillModels) else models
    # A copy: set_timesteps changes the scheduler, which other threads and pipelines share.
    scheduler = type(original).from_config(original.config)
    config = scheduler.config
    mu = calculate_shift(
        image_seq_len,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    if sigmas is None:
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps).tolist()
    scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    steps = len(scheduler.timesteps)
    first = int(max(steps - min(steps * strength, steps), 0))
    if first >= steps:
        raise ValueError(
            f"A strength of {strength} leaves no step of {steps}: raise the strength or the number "
            "of inference steps."
        )
    return scheduler.sigmas[first:]


def velocity(
    transformer: FluxTransformer2DModel,
    latents: Tensor,
    sigma: Tensor,
    conditions: FillConditions,
    *,
    guidance_scale: Tensor | float,
    negative: FillConditions | None = None,
    true_cfg_scale: Tensor | float | None = None,
    joint_attention_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """The velocity (B, S, C) at noise level sigma, () or (B,).

    guidance_scale and true_cfg_scale may differ by sample (B,). With `negative` the doubled batch
    is evaluated and combined as negative + true_cfg_scale * (positive - negative).
    """
    batch = len(latents)
    # FLUX.1-dev's transformer reads the noisy latents alone, Fill's the masked picture beside them.
    fills = transformer.config.in_channels != latents.shape[2]
    hidden = torch.cat([latents, conditions.masked_image], dim=2) if fills else latents
    embeds, pooled = conditions.prompt_embeds, conditions.pooled
    sigma = sigma.to(latents.device).expand(batch)
    guidance = None
    if transformer.config.guidance_embeds:
        guidance = torch.as_tensor(guidance_scale, dtype=torch.float32, device=latents.device)
        guidance = guidance.expand(batch)
    if negative is not None:
        without = torch.cat([latents, negative.masked_image], dim=2) if fills else latents
        hidden = torch.cat([without, hidden])
        embeds = torch.cat([negative.prompt_embeds, embeds])
        pooled = torch.cat([negative.pooled, pooled])
        sigma = sigma.repeat(2)
        guidance = None if guidance is None else guidance.repeat(2)
    # Rounded to the latents' dtype as a timestep in thousands, where diffusers rounds it.
    timestep = (sigma * 1000.0).to(latents.dtype) / 1000
    rows, columns = conditions.grid
    predicted = transformer(
        hidden_states=hidden,
        timestep=timestep,
        guidance=guidance,
        pooled_projections=pooled,
        encoder_hidden_states=embeds,
        txt_ids=torch.zeros(embeds.shape[1], 3, device=latents.device),
        img_ids=image_ids(2 * rows, 2 * columns, latents.device),
        joint_attention_kwargs=joint_attention_kwargs,
        return_dict=False,
    )[0]
    if negative is None:
        return predicted
    if true_cfg_scale is None:
        raise ValueError("A negative prompt needs a true_cfg_scale.")
    scale = torch.as_tensor(true_cfg_scale, dtype=torch.float32, device=latents.device)
    away, toward = predicted.float().chunk(2)
    combined = away + scale.expand(batch)[:, None, None] * (toward - away)
    return combined.to(predicted.dtype)


def flow_sample(
    transformer: FluxTransformer2DModel,
    latents: Tensor,
    sigmas: Tensor,
    conditions: FillConditions,
    *,
    guidance_scale: Tensor | float,
    negative: FillConditions | None = None,
    true_cfg_scale: Tensor | float | None = None,
    joint_attention_kwargs: dict[str, Any] | None = None,
    start: int = 0,
    stop: int | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    second_order: bool = False,
) -> Tensor:
    """Euler steps from sigmas[start] to sigmas[stop] (to the end by default): latents (B, S, C).

    Follows the caller's grad mode. `callback` sees each step's index and new latents. With
    `second_order` the steps after the first are those of Adams and Bashforth, from the last two
    velocities: no more evaluations, an error that falls with the square of the step.
    """
    stop = len(sigmas) - 1 if stop is None else stop
    sigmas = sigmas.to(latents.device)
    before: Tensor | None = None
    for step in range(start, stop):
        predicted = velocity(
            transformer,
            latents,
            sigmas[step],
            conditions,
            guidance_scale=guidance_scale,
            negative=negative,
            true_cfg_scale=true_cfg_scale,
            joint_attention_kwargs=joint_attention_kwargs,
        )
        length, direction = sigmas[step + 1] - sigmas[step], predicted
        if before is not None:
            bend = 0.5 * length / (sigmas[step] - sigmas[step - 1])
            direction = predicted.float() + bend * (predicted.float() - before.float())
        if second_order:
            before = predicted
        # The sum in fp32, the result in the model's dtype: the scheduler's own rule.
        latents = latents.float() + length * direction
        latents = latents.to(predicted.dtype)
        if callback is not None:
            callback(step, latents)
    return latents


def endpoint(latents: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The finished latents as seen from sigma, () or (B,): x_0' = x - sigma * v."""
    sigma = torch.as_tensor(sigma, dtype=torch.float32, device=latents.device)
    return latents.float() - sigma.expand(len(latents))[:, None, None] * velocity.float()


def decode(
    models: FillModels | AutoencoderKL,
    latents: Tensor,
    height: int,
    width: int,
    *,
    clamp: bool = False,
) -> Tensor:
    """Packed latents (B, S, C) -> pictures (B, 3, H, W) in [0, 1], which the VAE may overshoot a
    little unless clamped. Differentiable."""
    vae = models.vae if isinstance(models, FillModels) else models
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    hidden = unpack_latents(latents, height // factor, width // factor)
    hidden = hidden.to(device=vae.device, dtype=vae.dtype)
    hidden = hidden / vae.config.scaling_factor + vae.config.shift_factor
    pictures = vae.decode(hidden, return_dict=False)[0] / 2 + 0.5
    return pictures.clamp(0, 1) if clamp else pictures
