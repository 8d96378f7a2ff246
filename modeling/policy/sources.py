"""The inputs of a policy training: sources.jsonl, pictures, masks and their conditions.

A row: {"id", "task", "weight", "image": path, "mask": path, "prompt", "split": "train" | "holdout",
"queries": {dimension: rendered query}}. `weight` is the task's sampling weight. Rows without a
query earn no reward and are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from generation.diffusion.conditions import FillConditions, encode_images, encode_prompts
from generation.diffusion.generate import image_tensor, mask_tensor
from generation.diffusion.loading import FillModels
from modeling.policy.objective import source_chances
from modeling.rundir import RunError

REQUIRED = ("id", "task", "image", "mask", "prompt", "queries")
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Row:
    id: str
    task: str
    weight: float
    image: Path
    mask: Path
    prompt: str
    split: str
    queries: dict[str, str]  # dimension -> rendered query


@dataclass(frozen=True)
class Batch:
    rows: list[Row]
    images: Tensor  # (B, 3, H, W) in [0, 1]
    masks: Tensor  # (B, 1, H, W), 1 = edit
    conditions: FillConditions

    def __getitem__(self, part: slice) -> Batch:
        return Batch(
            rows=self.rows[part],
            images=self.images[part],
            masks=self.masks[part],
            conditions=self.conditions[part],
        )

    def pick(self, indices: Sequence[int]) -> Batch:
        """Some rows, by their places."""
        places = list(indices)
        return Batch(
            rows=[self.rows[place] for place in places],
            images=self.images[places],
            masks=self.masks[places],
            conditions=self.conditions[places],
        )


def read_rows(path: Path) -> list[Row]:
    """Rows with at least one query. Paths may be relative to the file."""
    if not path.is_file():
        raise RunError(f"The sources file '{path}' does not exist.")
    rows: list[Row] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values: dict[str, Any] = json.loads(line)
            missing = [key for key in REQUIRED if key not in values]
        except (json.JSONDecodeError, TypeError) as error:
            raise RunError(f"Line {number} of '{path}' is not a JSON object: {error}") from error
        if missing:
            raise RunError(f"Line {number} of '{path}' lacks {', '.join(missing)}.")
        if not values["queries"]:
            continue
        rows.append(
            Row(
                id=str(values["id"]),
                task=values["task"],
                weight=float(values.get("weight", 1.0)),
                image=path.parent / values["image"],
                mask=path.parent / values["mask"],
                prompt=values["prompt"],
                split=values.get("split", "train"),
                queries=dict(values["queries"]),
            )
        )
    return rows


def working_size(size: Size, max_pixels: int, multiple: int) -> Size:
    """The size a picture is trained at: at most max_pixels, both sides multiples of `multiple`."""
    width, height = size
    scale = min(1.0, (max_pixels / (width * height)) ** 0.5)
    sides = [max(multiple, int(side * scale + 1e-6) // multiple * multiple) for side in size]
    return sides[0], sides[1]


class Sources:
    """Rows of one split with their pictures; conditions are computed once per source."""

    def __init__(self, rows: Sequence[Row], models: FillModels, *, max_pixels: int) -> None:
        self.rows = list(rows)
        self.models = models
        self.sizes = [
            working_size(_picture_size(row), max_pixels, models.size_multiple) for row in self.rows
        ]
        weights = {row.task: row.weight for row in self.rows}
        self._chances = source_chances([row.task for row in self.rows], weights)
        self._encoded: dict[int, tuple[Tensor, Tensor, FillConditions]] = {}
        # One prompt at a time: encoded in a batch, a prompt's bits would depend on the others.
        self._prompts: dict[str, tuple[Tensor, Tensor]] = {}
        with torch.no_grad():
            for prompt in dict.fromkeys(row.prompt for row in self.rows):
                embeds, pooled = encode_prompts(models, [prompt])
                self._prompts[prompt] = (embeds.cpu(), pooled.cpu())

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """Indices of one batch, which has one size: a size by its share, then sources of it by
        theirs."""
        mass = {
            size: sum(c for c, own in zip(self._chances, self.sizes, strict=True) if own == size)
            for size in sorted(set(self.sizes))
        }
        sizes = list(mass)
        size = sizes[int(rng.choice(len(sizes), p=_normalised(list(mass.values()))))]
        members = [index for index, own in enumerate(self.sizes) if own == size]
        chances = _normalised([self._chances[index] for index in members])
        return [members[int(place)] for place in rng.choice(len(members), size=count, p=chances)]

    def batch(self, indices: Sequence[int]) -> Batch:
        parts = [self._load(index) for index in indices]
        return Batch(
            rows=[self.rows[index] for index in indices],
            images=torch.cat([image for image, _, _ in parts]).to(self.models.device),
            masks=torch.cat([mask for _, mask, _ in parts]).to(self.models.device),
            conditions=FillConditions.cat([conditions for _, _, conditions in parts]).to(
                self.models.device
            ),
        )

    def _load(self, index: int) -> tuple[Tensor, Tensor, FillConditions]:
        if index not in self._encoded:
            row, size = self.rows[index], self.sizes[index]
            with Image.open(row.image) as file:
                image = file.convert("RGB")
            with Image.open(row.mask) as file:
                mask = file.convert("L")
            if image.size != mask.size:
                raise RunError(
                    f"The mask of source {row.id} is {mask.size[0]} x {mask.size[1]}, its picture "
                    f"{image.size[0]} x {image.size[1]}: they must have one size."
                )
            if image.size != size:
                image = image.resize(size, Image.Resampling.LANCZOS)
                mask = mask.resize(size, Image.Resampling.NEAREST)
            pixels, edit = image_tensor(image), mask_tensor(mask)
            masked_image, image_latents = encode_images(self.models, pixels, edit)
            prompt_embeds, pooled = self._prompts[row.prompt]
            conditions = FillConditions(
                prompt_embeds=prompt_embeds,
                pooled=pooled,
                masked_image=masked_image.cpu(),
                image_latents=image_latents.cpu(),
                height=size[1],
                width=size[0],
            )
            self._encoded[index] = (pixels, edit, conditions)
        return self._encoded[index]


def _normalised(chances: Sequence[float]) -> np.ndarray:
    values = np.asarray(chances)
    return values / values.sum()


def _picture_size(row: Row) -> Size:
    try:
        with Image.open(row.image) as file:
            return file.size
    except OSError as error:
        raise RunError(
            f"The picture '{row.image}' of source {row.id} cannot be read: {error}"
        ) from (error)
