"""The labelled pairs that Diffusion-DPO and SFT learn from: pairs.jsonl of the run directory.

A row: {"source": id of a row of sources.jsonl, "task", "dimension", "chosen": path, "rejected":
path, "weight", "relation": "direct" | "implied", "split"}. Best and worst of a set are a direct
pair; a picture between them gives two implied ones, whose chosen picture need not be good.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from generation.diffusion.conditions import encode_pictures
from generation.diffusion.generate import image_tensor
from generation.diffusion.loading import FillModels
from modeling.policy.sources import Batch, Row, read_objects
from modeling.rundir import RunError, whole_bytes

REQUIRED = ("source", "chosen", "rejected")
DIRECT, IMPLIED = "direct", "implied"


@dataclass(frozen=True)
class Pair:
    dimension: str
    chosen: Path
    rejected: Path
    weight: float
    relation: str


def read_pairs(path: Path) -> dict[str, list[Pair]]:
    """The training pairs of each source, by its id. Paths may be relative to the file."""
    if not path.is_file():
        raise RunError(
            f"The pairs file '{path}' does not exist: this algorithm learns from labelled pairs. "
            "Start it from a snapshot of judgments, or write the file."
        )
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for values in read_objects(path, REQUIRED):
        weight = float(values.get("weight", 1.0))
        if values.get("split", "train") != "train" or weight <= 0:
            continue
        pairs[str(values["source"])].append(
            Pair(
                dimension=values.get("dimension", ""),
                chosen=path.parent / values["chosen"],
                rejected=path.parent / values["rejected"],
                weight=weight,
                relation=values.get("relation", DIRECT),
            )
        )
    return dict(pairs)


def only_direct(pairs: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """Pairs whose chosen picture was the best of its set."""
    found = {
        source: [pair for pair in group if pair.relation == DIRECT]
        for source, group in pairs.items()
    }
    return {source: group for source, group in found.items() if group}


def draw_pairs(
    pairs: dict[str, list[Pair]], rows: Sequence[Row], rng: np.random.Generator
) -> list[Pair]:
    """One pair for each row, by weight."""
    drawn = []
    for row in rows:
        group = pairs[row.id]
        weights = np.asarray([pair.weight for pair in group])
        drawn.append(group[int(rng.choice(len(group), p=weights / weights.sum()))])
    return drawn


class Pictures:
    """Latents of labelled pictures, each encoded once, at the working size of its source."""

    def __init__(self, models: FillModels) -> None:
        self.models = models
        self._latents: dict[tuple[Path, int, int], Tensor] = {}

    def latents(self, paths: Sequence[Path], batch: Batch) -> Tensor:
        """(B, S, C), one picture for each row of the batch."""
        size = batch.conditions.width, batch.conditions.height
        found = [self._load(path, size) for path in paths]
        return torch.cat(found).to(self.models.device)

    def _load(self, path: Path, size: tuple[int, int]) -> Tensor:
        key = (path, *size)
        if key not in self._latents:
            try:
                with Image.open(io.BytesIO(whole_bytes(path))) as file:
                    picture = file.convert("RGB")
            except OSError as error:
                raise RunError(
                    f"The picture '{path}' of a labelled pair cannot be read: {error}"
                ) from error
            if picture.size != size:
                picture = picture.resize(size, Image.Resampling.LANCZOS)
            # One at a time: encoded in a batch, a picture's bits would depend on the others.
            self._latents[key] = encode_pictures(self.models, 2 * image_tensor(picture) - 1).cpu()
        return self._latents[key]
