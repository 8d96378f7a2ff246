"""Reference images: what the policy's image is compared with.

OneReward samples a reference for every image of every step, which is about half of all compute.
Algorithm 1's reference never changes, so K references per source are made once, when they are first
needed, and kept. Algorithm 2's reference is the EMA: an image may be used again while it is at most
`staleness` steps old.

Each step's new images are one file, written under a temporary name and renamed. A run that is
killed and started again finds exactly the images that an uninterrupted run would have at that step,
from the same batches (a sample's last bits depend on its batch).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Key = tuple[str, int]  # source id, number of its reference


@dataclass(frozen=True)
class Place:
    step: int  # when it was made
    path: Path
    row: int


class References:
    """`staleness`: steps for which an image may be used again, None for ever. `keep_steps`: further
    steps that a stale image's file is kept for, since a resumed run repeats some."""

    def __init__(
        self, directory: Path, *, staleness: int | None, keep_steps: int = 0, rank: int = 0
    ) -> None:
        self.directory = directory
        self.staleness = staleness
        self.keep_steps = keep_steps
        self.rank = rank
        self._places: dict[Key, list[Place]] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(directory.glob(f"rank-{rank}-step-*.safetensors")):
            self._register(path)

    def get(
        self, step: int, keys: Sequence[Key], make: Callable[[list[int]], Tensor]
    ) -> tuple[Tensor, int]:
        """Images (B, 3, H, W) in [0, 1] for `keys`, and how many were made for them.

        `make` samples the images of some of the keys, given by their indices. Images are kept as 8
        bits per channel, which is what people and the reward model were shown.
        """
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        missing = [index for key, index in first.items() if self._find(key, step) is None]
        missing.sort()
        fresh: dict[Key, Tensor] = {}
        if missing:
            made = (make(missing).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
            fresh = {keys[index]: image for index, image in zip(missing, made, strict=True)}
            if self.staleness != 0:
                self._write(step, fresh)
        images = [fresh[key] if key in fresh else self._read(key, step) for key in keys]
        return torch.stack(images).float() / 255.0, len(missing)

    def _find(self, key: Key, step: int) -> Place | None:
        # Places are in the order of their steps. An image of a later step is one that an earlier
        # attempt at this run has made.
        for place in reversed(self._places.get(key, [])):
            if place.step <= step:
                fresh = self.staleness is None or step - place.step <= self.staleness
                return place if fresh else None
        return None

    def _read(self, key: Key, step: int) -> Tensor:
        place = self._find(key, step)
        assert place is not None
        with safe_open(place.path, framework="pt") as file:
            return file.get_slice("images")[place.row]

    def _write(self, step: int, images: dict[Key, Tensor]) -> None:
        path = self.directory / f"rank-{self.rank}-step-{step:08d}.safetensors"
        temporary = path.with_suffix(f".{os.getpid()}")
        names = {str(row): f"{number} {source}" for row, (source, number) in enumerate(images)}
        save_file({"images": torch.stack(list(images.values()))}, temporary, metadata=names)
        temporary.replace(path)
        self._register(path)
        if self.staleness is not None:
            self._drop(before=step - self.staleness - self.keep_steps)

    def _register(self, path: Path) -> None:
        step = _step_of(path)
        with safe_open(path, framework="pt") as file:
            for row, name in file.metadata().items():
                number, source = name.split(" ", 1)
                places = self._places.setdefault((source, int(number)), [])
                places[:] = [place for place in places if place.step != step]
                places.append(Place(step, path, int(row)))
                places.sort(key=lambda place: place.step)

    def _drop(self, before: int) -> None:
        for path in self.directory.glob(f"rank-{self.rank}-step-*.safetensors"):
            if _step_of(path) < before:
                path.unlink()
        for key, places in self._places.items():
            self._places[key] = [place for place in places if place.step >= before]


def _step_of(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])
