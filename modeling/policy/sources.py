"""The inputs of a policy training: sources.jsonl, pictures, masks and their conditions.

A row: {"id", "task", "weight", "image": path, "mask": path, "prompt", "split": "train" | "holdout",
"queries": {dimension: rendered query}}. `weight` is the task's sampling weight. Rows without a
query earn no reward and are left out.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from generation.diffusion.conditions import FillConditions
from generation.diffusion.generate import image_tensor, mask_tensor
from modeling.policy.conditions import Encoder, Recent
from modeling.policy.objective import source_chances
from modeling.rundir import RunError, whole_bytes

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


def read_objects(path: Path, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; RunError names the line that is wrong."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values: dict[str, Any] = json.loads(line)
            missing = [key for key in required if key not in values]
        except (json.JSONDecodeError, TypeError) as error:
            raise RunError(f"Line {number} of '{path}' is not a JSON object: {error}") from error
        if missing:
            raise RunError(f"Line {number} of '{path}' lacks {', '.join(missing)}.")
        yield values


def read_rows(path: Path) -> list[Row]:
    """Rows with at least one query. Paths may be relative to the file."""
    if not path.is_file():
        raise RunError(f"The sources file '{path}' does not exist.")
    rows: list[Row] = []
    for values in read_objects(path, REQUIRED):
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


@dataclass(frozen=True)
class Loaded:
    """One source at one size, on the CPU."""

    pixels: Tensor  # (1, 3, H, W) in [0, 1]
    mask: Tensor  # (1, 1, H, W)
    conditions: FillConditions

    @property
    def nbytes(self) -> int:
        found = self.conditions
        tensors = [self.pixels, self.mask, found.masked_image, found.image_latents]
        return sum(tensor.nbytes for tensor in [*tensors, found.prompt_embeds, found.pooled])


class Sources:
    """Rows of one split with their pictures and conditions, of which at most `memory_bytes` are
    kept in memory.

    `stages` are (last step, max_pixels) of a schedule of resolutions, which ends at `max_pixels`;
    `at` says which step it is.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        encoder: Encoder,
        *,
        max_pixels: int,
        stages: Sequence[tuple[int, int]] = (),
        memory_bytes: int = 4 << 30,
    ) -> None:
        self.rows = list(rows)
        self.encoder = encoder
        self.device = encoder.models.device
        self.loading_seconds = 0.0  # for which `batch` has kept its caller waiting
        own_sizes = [_picture_size(row) for row in self.rows]
        multiple = encoder.models.size_multiple
        self._stages = [
            (last, [working_size(size, pixels, multiple) for size in own_sizes])
            for last, pixels in [*stages, (None, max_pixels)]
        ]
        self.at(1)
        self._places = {row.id: index for index, row in enumerate(self.rows)}
        weights = {row.task: row.weight for row in self.rows}
        self._chances = source_chances([row.task for row in self.rows], weights)
        self._loaded = Recent[tuple[int, Size], Loaded](memory_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sources")
        self._ahead: Future[list[Loaded]] | None = None
        encoder.remember(row.prompt for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, step: int) -> None:
        """Take the sizes that the schedule has for this step."""
        self.sizes = self._sizes_at(step)

    def key(self, row: Row) -> str:
        """Names a row at its present size; at its final one that is its id."""
        index = self._places[row.id]
        size, final = self.sizes[index], self._stages[-1][1][index]
        return row.id if size == final else f"{row.id} {size[0]}x{size[1]}"

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """Indices of one batch, which has one size: a size by its share, then sources of it by
        theirs."""
        return self._draw(rng, count, self.sizes)

    def _draw(self, rng: np.random.Generator, count: int, own_sizes: list[Size]) -> list[int]:
        mass = {
            size: sum(c for c, own in zip(self._chances, own_sizes, strict=True) if own == size)
            for size in sorted(set(own_sizes))
        }
        sizes = list(mass)
        size = sizes[int(rng.choice(len(sizes), p=_normalised(list(mass.values()))))]
        members = [index for index, own in enumerate(own_sizes) if own == size]
        chances = _normalised([self._chances[index] for index in members])
        return [members[int(place)] for place in rng.choice(len(members), size=count, p=chances)]

    def preload(self, step: int, rng: np.random.Generator, count: int, mine: slice) -> None:
        """Load in a thread what `draw` will give at `step` from an equal generator."""
        sizes = self._sizes_at(step)
        wanted = [(index, sizes[index]) for index in self._draw(rng, count, sizes)[mine]]
        self._ahead = self._thread.submit(lambda: [self._load(*one) for one in wanted])

    def batch(self, indices: Sequence[int]) -> Batch:
        began = time.perf_counter()
        if self._ahead is not None:
            wait([self._ahead])  # what fails there fails again below
            self._ahead = None
        parts = [self._load(index, self.sizes[index]) for index in indices]
        batch = Batch(
            rows=[self.rows[index] for index in indices],
            images=torch.cat([part.pixels for part in parts]).to(self.device),
            masks=torch.cat([part.mask for part in parts]).to(self.device),
            conditions=FillConditions.cat([part.conditions for part in parts]).to(self.device),
        )
        self.loading_seconds += time.perf_counter() - began
        return batch

    def _sizes_at(self, step: int) -> list[Size]:
        return next(sizes for last, sizes in self._stages if last is None or step <= last)

    def _load(self, index: int, size: Size) -> Loaded:
        return self._loaded.get((index, size), lambda: self._read(self.rows[index], size))

    def _read(self, row: Row, size: Size) -> Loaded:
        image, mask = _picture(row.image, "RGB", row), _picture(row.mask, "L", row)
        if image.size != mask.size:
            raise RunError(
                f"The mask of source {row.id} is {mask.size[0]} x {mask.size[1]}, its picture "
                f"{image.size[0]} x {image.size[1]}: they must have one size."
            )
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
            mask = mask.resize(size, Image.Resampling.NEAREST)
        pixels, edit = image_tensor(image), mask_tensor(mask)
        masked_image, image_latents = self.encoder.picture(pixels, edit)
        prompt_embeds, pooled = self.encoder.prompt(row.prompt)
        conditions = FillConditions(
            prompt_embeds=prompt_embeds,
            pooled=pooled,
            masked_image=masked_image,
            image_latents=image_latents,
            height=size[1],
            width=size[0],
        )
        return Loaded(pixels, edit, conditions)


def _normalised(chances: Sequence[float]) -> np.ndarray:
    values = np.asarray(chances)
    return values / values.sum()


def _picture(path: Path, mode: str, row: Row) -> Image.Image:
    try:
        with Image.open(io.BytesIO(whole_bytes(path))) as file:
            return file.convert(mode)
    except OSError as error:
        raise _unreadable(path, row, error) from error


def _picture_size(row: Row) -> Size:
    try:
        with Image.open(row.image) as file:
            return file.size
    except OSError as error:
        raise _unreadable(row.image, row, error) from error


def _unreadable(path: Path, row: Row, error: OSError) -> RunError:
    return RunError(f"The picture '{path}' of source {row.id} cannot be read: {error}")
