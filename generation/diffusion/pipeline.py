"""``FluxFillPipeline`` with a negative prompt and true classifier-free guidance.

    pipe = FluxFillTrueCFGPipeline.from_pretrained("black-forest-labs/FLUX.1-Fill-dev")
    pipe(prompt="a red lantern", image=image, mask_image=mask, negative_prompt="nsfw",
         true_cfg_scale=4.0, guidance_scale=1.0).images[0]

The loop is ``sampling.flow_sample``, the one that makes candidates and trains policies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxFillPipeline
from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from generation.diffusion.conditions import FillConditions
from generation.diffusion.loading import LONGEST_PROMPT_TOKENS
from generation.diffusion.packing import pack_latents
from generation.diffusion.sampling import decode, flow_sample, sigmas_for, start_latents

Prompt = str | list[str] | None


class FluxFillTrueCFGPipeline(FluxFillPipeline):
    """All arguments of ``FluxFillPipeline`` and ``negative_prompt``, ``negative_prompt_2`` and
    ``true_cfg_scale``. As in diffusers' other FLUX pipelines, true CFG runs when a negative prompt
    is given (it may be empty) and ``true_cfg_scale`` exceeds 1."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt = None,
        prompt_2: Prompt = None,
        image: Any = None,
        mask_image: Any = None,
        masked_image_latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        strength: float = 1.0,
        num_inference_steps: int = 50,
        sigmas: list[float] | None = None,
        guidance_scale: float = 30.0,
        num_images_per_prompt: int | None = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        joint_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] | list[str] = ("latents",),
        max_sequence_length: int | None = None,
        negative_prompt: Prompt = None,
        negative_prompt_2: Prompt = None,
        true_cfg_scale: float = 1.0,
    ) -> Any:
        """As ``FluxFillPipeline.__call__``, with these differences.

        Args:
            negative_prompt: what the picture should not show; one text for all or one per prompt.
            negative_prompt_2: the same for the T5 encoder; ``negative_prompt`` when None.
            true_cfg_scale: s in negative + s * (positive - negative); 1 switches it off and halves
                the work. With true CFG, FLUX Fill is commonly run at ``guidance_scale`` 1.
            max_sequence_length: T5 tokens, None for as many as the tokenizer was saved with, 512
                at most (FLUX: 512). Padding is attended: other lengths give other pictures.
            masked_image_latents: packed latents *and* packed mask (B, S, C + f * f * 4); `image`
                is then needed only when `latents` are not given.
        """
        multiple = 2 * self.vae_scale_factor
        height = height or self.default_sample_size * self.vae_scale_factor
        width = width or self.default_sample_size * self.vae_scale_factor
        if max_sequence_length is None:
            max_sequence_length = min(self.tokenizer_2.model_max_length, LONGEST_PROMPT_TOKENS)
        self.check_inputs(
            prompt,
            prompt_2,
            strength,
            height,
            width,
            prompt_embeds=prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            max_sequence_length=max_sequence_length,
            # Both may be given: the picture starts the latents when strength < 1.
            image=None if masked_image_latents is not None else image,
            mask_image=mask_image,
            masked_image_latents=masked_image_latents,
        )
        if masked_image_latents is None and image is None:
            raise ValueError("Provide `image` and `mask_image`, or `masked_image_latents`.")
        height, width = height // multiple * multiple, width // multiple * multiple
        self._guidance_scale = guidance_scale
        self._joint_attention_kwargs = joint_attention_kwargs
        self._interrupt = False
        copies = num_images_per_prompt or 1
        scale = (joint_attention_kwargs or {}).get("scale")

        embeds, pooled, _ = self.encode_prompt(
            prompt=prompt,
            prompt_2=prompt_2,
            prompt_embeds=prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            device=self._execution_device,
            num_images_per_prompt=copies,
            max_sequence_length=max_sequence_length,
            lora_scale=scale,
        )
        batch = len(embeds) if prompt is not None else len(embeds) * copies
        embeds, pooled = _repeat(embeds, batch), _repeat(pooled, batch)
        levels = sigmas_for(
            self.scheduler,
            num_inference_steps,
            (height // multiple) * (width // multiple),
            strength,
            sigmas,
        )
        conditions, latents = self._conditions_and_latents(
            image=image,
            mask_image=mask_image,
            masked_image_latents=masked_image_latents,
            latents=latents,
            first_sigma=levels[0],
            height=height,
            width=width,
            generator=generator,
            prompt_embeds=embeds,
            pooled=pooled,
        )
        negative = None
        if negative_prompt is not None and true_cfg_scale > 1:
            negative_embeds, negative_pooled, _ = self.encode_prompt(
                prompt=negative_prompt,
                prompt_2=negative_prompt_2,
                device=self._execution_device,
                num_images_per_prompt=copies,
                max_sequence_length=embeds.shape[1],
                lora_scale=scale,
            )
            negative = conditions.with_prompts(
                _repeat(negative_embeds, batch), _repeat(negative_pooled, batch)
            )
        latents = self._denoise(
            latents,
            levels,
            conditions,
            negative,
            true_cfg_scale,
            callback_on_step_end,
            list(callback_on_step_end_tensor_inputs),
        )
        result: Any = latents
        if output_type != "latent":
            pictures = decode(self.vae, latents, height, width) * 2 - 1
            result = self.image_processor.postprocess(pictures, output_type=output_type)
        self.maybe_free_model_hooks()
        return FluxPipelineOutput(images=result) if return_dict else (result,)

    def _conditions_and_latents(
        self,
        *,
        image: Any,
        mask_image: Any,
        masked_image_latents: Tensor | None,
        latents: Tensor | None,
        first_sigma: Tensor,
        height: int,
        width: int,
        generator: torch.Generator | list[torch.Generator] | None,
        prompt_embeds: Tensor,
        pooled: Tensor,
    ) -> tuple[FillConditions, Tensor]:
        """The random draws come in ``FluxFillPipeline``'s order: picture, noise, masked picture."""
        device, dtype, batch = self._execution_device, prompt_embeds.dtype, len(prompt_embeds)
        channels, factor = self.latent_channels, self.vae_scale_factor
        picture = None
        if image is not None:
            picture = self.image_processor.preprocess(image, height=height, width=width).float()
        if latents is None:
            if picture is None:
                raise ValueError("Provide `latents` or `image` beside `masked_image_latents`.")
            encoded = self._encode_vae_image(picture.to(device, dtype), generator)
            image_latents = pack_latents(_repeat(encoded, batch))
            shape = (batch, channels, height // factor, width // factor)
            drawn = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
            noise = pack_latents(drawn)
        else:
            noise = image_latents = latents.to(device, dtype)
        if masked_image_latents is None:
            mask = self.mask_processor.preprocess(mask_image, height=height, width=width)
            masked = (picture * (1 - mask)).to(device, dtype)
            packed_mask, hidden = self.prepare_mask_latents(
                _repeat(mask, batch),
                masked,
                batch,
                channels,
                1,
                height,
                width,
                dtype,
                device,
                generator,
            )
            masked_image_latents = torch.cat((hidden, packed_mask), dim=-1)
        conditions = FillConditions(
            prompt_embeds=prompt_embeds,
            pooled=pooled,
            masked_image=masked_image_latents.to(device, dtype),
            image_latents=image_latents,
            height=height,
            width=width,
        )
        if latents is not None:
            return conditions, noise
        return conditions, start_latents(noise, conditions, first_sigma)

    def _denoise(
        self,
        latents: Tensor,
        sigmas: Tensor,
        conditions: FillConditions,
        negative: FillConditions | None,
        true_cfg_scale: float,
        callback: Callable[..., dict[str, Tensor]] | None,
        callback_inputs: list[str],
    ) -> Tensor:
        steps = len(sigmas) - 1
        self._num_timesteps = steps
        with self.progress_bar(total=steps) as progress:
            for step in range(steps):
                if self.interrupt:
                    continue
                latents = flow_sample(
                    self.transformer,
                    latents,
                    sigmas,
                    conditions,
                    guidance_scale=self.guidance_scale,
                    negative=negative,
                    true_cfg_scale=true_cfg_scale,
                    joint_attention_kwargs=self.joint_attention_kwargs,
                    start=step,
                    stop=step + 1,
                )
                if callback is not None:
                    named = {"latents": latents, "prompt_embeds": conditions.prompt_embeds}
                    chosen = {name: named[name] for name in callback_inputs}
                    changed = callback(self, step, sigmas[step] * 1000.0, chosen)
                    latents = changed.pop("latents", latents)
                    conditions = conditions.with_prompts(
                        changed.pop("prompt_embeds", conditions.prompt_embeds), conditions.pooled
                    )
                progress.update()
        return latents


def _repeat(values: Tensor, batch: int) -> Tensor:
    """Values of one sample, or of a divisor of the batch, for the whole batch."""
    if batch % len(values):
        raise ValueError(f"{len(values)} inputs cannot be spread over a batch of {batch}.")
    return values.repeat(batch // len(values), *[1] * (values.dim() - 1))
