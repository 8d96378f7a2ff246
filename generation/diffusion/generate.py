"""From requests to pictures: what the generation app calls.

A candidate's bytes depend on the batch it was made in (a matrix product's blocking changes with its
size), so callers log the batch: the same batch on the same machine gives identical bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from generation.diffusion.conditions import FillConditions, encode_images, encode_prompts
from generation.diffusion.loading import FillModels
from generation.diffusion.sampling import (
    decode,
    flow_sample,
    initial_latents,
    sigmas_for,
    start_latents,
)

T = TypeVar("T")

# One FLUX source at 1024 x 1024 has about 7 MB of conditions in bf16.
CACHED_SOURCES = 256
CACHED_PROMPTS = 256


@dataclass(frozen=True)
class Draw:
    """The values drawn for one candidate."""

    seed: int
    num_inference_steps: int
    strength: float
    guidance_scale: float
    true_cfg_scale: float
    negative_prompt: str

    @property
    def needs_true_cfg(self) -> bool:
        return self.true_cfg_scale > 1.0


@dataclass(frozen=True)
class Request:
    """One candidate to make."""

    image: Image.Image  # RGB at working size, both sides multiples of FillModels.size_multiple
    mask: Image.Image  # "L", 255 where the picture is edited, the same size
    prompt: str
    draw: Draw
    key: str  # identifies image, mask and prompt in the cache of conditions


def group_requests(requests: Sequence[Request], max_batch: int) -> list[list[int]]:
    """Indices of requests that can share a batch, in batches of at most max_batch.

    A batch shares size, steps, strength and whether true CFG is needed. Groups stand in the order
    of their first request, so the same requests always form the same batches.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, request in enumerate(requests):
        draw = request.draw
        kind = (
            request.image.size,
            draw.num_inference_steps,
            draw.strength,
            draw.needs_true_cfg,
        )
        groups.setdefault(kind, []).append(index)
    return [
        group[first : first + max_batch]
        for group in groups.values()
        for first in range(0, len(group), max_batch)
    ]


def image_tensor(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    values = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
    return values.permute(2, 0, 1)[None] / 255.0


def mask_tensor(mask: Image.Image) -> Tensor:
    """(1, 1, H, W), 1 where the picture is edited."""
    values = torch.from_numpy(np.array(mask.convert("L"), dtype=np.float32))
    return (values[None, None] >= 128).float()


def pil_images(pictures: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [0, 1] -> 8-bit pictures, values outside clipped."""
    values = (pictures.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(picture) for picture in values.permute(0, 2, 3, 1).cpu().numpy()]


class Generator:
    """Makes candidates in batches and keeps each source's conditions between them."""

    def __init__(self, models: FillModels, max_batch: int = 16) -> None:
        self.models = models
        self.max_batch = max_batch
        self._conditions: OrderedDict[str, FillConditions] = OrderedDict()
        self._prompts: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Image.Image]:
        """Any requests, batched by `group_requests`; pictures in the order of the requests."""
        pictures: dict[int, Image.Image] = {}
        for group in group_requests(requests, self.max_batch):
            made = self.generate_batch([requests[index] for index in group])
            pictures.update(zip(group, made, strict=True))
        return [pictures[index] for index in range(len(requests))]

    @torch.no_grad()
    def generate_batch(self, requests: Sequence[Request]) -> list[Image.Image]:
        """One batch as `group_requests` forms it. Raises ValueError for mixed requests."""
        if len(group_requests(requests, len(requests) or 1)) != 1:
            raise ValueError(
                "The requests of one batch must share size, steps, strength and the need of true "
                "CFG: form batches with group_requests."
            )
        models, draws = self.models, [request.draw for request in requests]
        conditions = FillConditions.cat([self._source(request) for request in requests])
        noise = initial_latents(
            models, [draw.seed for draw in draws], conditions.height, conditions.width
        )
        sigmas = sigmas_for(models, draws[0].num_inference_steps, noise.shape[1], draws[0].strength)
        negative, true_cfg_scale = None, None
        if draws[0].needs_true_cfg:
            encoded = [self._prompt(draw.negative_prompt) for draw in draws]
            negative = conditions.with_prompts(
                torch.cat([embeds for embeds, _ in encoded]),
                torch.cat([pooled for _, pooled in encoded]),
            )
            true_cfg_scale = torch.tensor([draw.true_cfg_scale for draw in draws])
        latents = flow_sample(
            models.transformer,
            start_latents(noise, conditions, sigmas[0]),
            sigmas,
            conditions,
            guidance_scale=torch.tensor([draw.guidance_scale for draw in draws]),
            negative=negative,
            true_cfg_scale=true_cfg_scale,
        )
        return pil_images(decode(models, latents, conditions.height, conditions.width))

    def _source(self, request: Request) -> FillConditions:
        # Each source is encoded alone: encoded in a batch its bits would depend on its neighbours.
        # The prompt is part of the entry's name, since a source can be edited.
        name = f"{request.key}\n{request.prompt}"
        if name not in self._conditions:
            embeds, pooled = self._prompt(request.prompt)
            image, mask = image_tensor(request.image), mask_tensor(request.mask)
            masked_image, image_latents = encode_images(self.models, image, mask)
            _remember(
                self._conditions,
                name,
                FillConditions(
                    prompt_embeds=embeds,
                    pooled=pooled,
                    masked_image=masked_image,
                    image_latents=image_latents,
                    height=image.shape[-2],
                    width=image.shape[-1],
                ),
                CACHED_SOURCES,
            )
        self._conditions.move_to_end(name)
        return self._conditions[name]

    def _prompt(self, prompt: str) -> tuple[Tensor, Tensor]:
        if prompt not in self._prompts:
            _remember(self._prompts, prompt, encode_prompts(self.models, [prompt]), CACHED_PROMPTS)
        self._prompts.move_to_end(prompt)
        return self._prompts[prompt]


def _remember(cache: OrderedDict[str, T], name: str, value: T, limit: int) -> None:
    cache[name] = value
    while len(cache) > limit:
        cache.popitem(last=False)
