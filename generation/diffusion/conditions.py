"""What a FLUX Fill transformer is conditioned on, computed once per source.

The posterior's mode encodes a picture, where ``FluxFillPipeline`` draws a sample of it: a source
then has one encoding, which can be cached and gives the same candidate every time.

Shapes: B batch, T text tokens, D text width, P pooled width, S image tokens, C packed channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generation.diffusion.packing import pack_latents, pack_masks

if TYPE_CHECKING:
    from generation.diffusion.loading import FillModels


@dataclass(frozen=True)
class FillConditions:
    """Conditions of a batch, the batch first in every tensor."""

    prompt_embeds: Tensor  # (B, T, D)
    pooled: Tensor  # (B, P)
    masked_image: Tensor  # (B, S, C + f * f * 4) latents of the masked picture, then the mask
    image_latents: Tensor  # (B, S, C) latents of the whole picture, the start when strength < 1
    height: int  # pixels
    width: int  # pixels

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens, which are square in pixels."""
        side = isqrt(self.height * self.width // self.masked_image.shape[1])
        return self.height // side, self.width // side

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> FillConditions:
        """Some samples of the batch; a single index keeps the batch dimension."""
        chosen: slice | Tensor
        if isinstance(index, int):
            index = [index]
        if isinstance(index, slice):
            chosen = index
        else:
            chosen = torch.as_tensor(index, device=self.prompt_embeds.device)
        return replace(
            self,
            prompt_embeds=self.prompt_embeds[chosen],
            pooled=self.pooled[chosen],
            masked_image=self.masked_image[chosen],
            image_latents=self.image_latents[chosen],
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> FillConditions:
        return replace(
            self,
            prompt_embeds=self.prompt_embeds.to(device=device, dtype=dtype),
            pooled=self.pooled.to(device=device, dtype=dtype),
            masked_image=self.masked_image.to(device=device, dtype=dtype),
            image_latents=self.image_latents.to(device=device, dtype=dtype),
        )

    def with_prompts(self, prompt_embeds: Tensor, pooled: Tensor) -> FillConditions:
        """The same pictures under other prompts, such as the negative ones."""
        if len(prompt_embeds) == 1:
            prompt_embeds = prompt_embeds.expand(len(self), -1, -1)
            pooled = pooled.expand(len(self), -1)
        return replace(self, prompt_embeds=prompt_embeds, pooled=pooled)

    @staticmethod
    def cat(parts: Sequence[FillConditions]) -> FillConditions:
        """One batch of several; all must be of one size."""
        sizes = {(part.height, part.width) for part in parts}
        if len(sizes) != 1:
            raise ValueError(f"Conditions of one batch must share a size, found {sorted(sizes)}.")
        return replace(
            parts[0],
            prompt_embeds=torch.cat([part.prompt_embeds for part in parts]),
            pooled=torch.cat([part.pooled for part in parts]),
            masked_image=torch.cat([part.masked_image for part in parts]),
            image_latents=torch.cat([part.image_latents for part in parts]),
        )


def encode_prompts(models: FillModels, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """T5 states (B, T, D) and CLIP's pooled state (B, P), as ``FluxFillPipeline`` computes them.

    Padding is attended, so T is always ``models.max_sequence_length``. Gradients follow the
    caller's grad mode.
    """
    tokens = models.tokenizer_2(
        list(prompts),
        padding="max_length",
        max_length=models.max_sequence_length,
        truncation=True,
        return_tensors="pt",
    )
    prompt_embeds = models.text_encoder_2(
        tokens.input_ids.to(models.text_encoder_2.device), output_hidden_states=False
    )[0]
    tokens = models.tokenizer(
        list(prompts),
        padding="max_length",
        max_length=models.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    pooled = models.text_encoder(
        tokens.input_ids.to(models.text_encoder.device), output_hidden_states=False
    ).pooler_output
    return (
        prompt_embeds.to(device=models.device, dtype=models.dtype),
        pooled.to(device=models.device, dtype=models.dtype),
    )


@torch.no_grad()
def encode_pictures(models: FillModels, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] -> normalised packed latents (B, S, C)."""
    vae = models.vae
    latents = vae.encode(pictures.to(device=vae.device, dtype=vae.dtype)).latent_dist.mode()
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return pack_latents(latents).to(device=models.device, dtype=models.dtype)


@torch.no_grad()
def encode_images(models: FillModels, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """``masked_image`` (B, S, C + f * f * 4) and ``image_latents`` (B, S, C) of sources.

    images (B, 3, H, W) in [0, 1]; masks (B, 1, H, W), 1 where the picture is edited. A mask is
    binary: values from 0.5 on count as 1.
    """
    if images.shape[-2:] != masks.shape[-2:] or len(images) != len(masks):
        raise ValueError(
            f"Images {tuple(images.shape)} and masks {tuple(masks.shape)} must agree in number, "
            "height and width."
        )
    height, width = images.shape[-2:]
    multiple = models.size_multiple
    if height % multiple or width % multiple:
        raise ValueError(
            f"A picture of {width} x {height} cannot be encoded: resize it so that both sides are "
            f"multiples of {multiple}."
        )
    masks = (masks >= 0.5).to(images.dtype)
    pictures = 2.0 * images - 1.0
    hidden = encode_pictures(models, pictures * (1.0 - masks))
    packed = pack_masks(masks, models.vae_scale_factor).to(hidden.device, hidden.dtype)
    return torch.cat([hidden, packed], dim=-1), encode_pictures(models, pictures)


def encode_sources(
    models: FillModels, images: Tensor, masks: Tensor, prompts: Sequence[str]
) -> FillConditions:
    """Everything a batch of sources is conditioned on; shapes as in ``encode_images``."""
    prompt_embeds, pooled = encode_prompts(models, prompts)
    masked_image, image_latents = encode_images(models, images, masks)
    return FillConditions(
        prompt_embeds=prompt_embeds,
        pooled=pooled,
        masked_image=masked_image,
        image_latents=image_latents,
        height=images.shape[-2],
        width=images.shape[-1],
    )
