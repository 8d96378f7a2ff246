"""Reference images: what the policy's image is compared with.

OneReward samples a reference for every image of every step, which is about half of all compute.
Algorithm 1's reference never changes, so K references per source are made once, when they are first
needed, and kept. Algorithm 2's reference is the EMA: an image may be used again while it is at most
`staleness` steps old.

Each step's new images are one file of each process, written under a temporary name and renamed. All
processes read all files, so that a run on several uses the images that a run on one would. A run
that is killed and started again finds exactly the images that an uninterrupted run would have at
that step, from the same batches (a sample's last bits depend on its batch).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Key = tuple[str, int]  # source id, number of its reference


@dataclass(frozen=True)
class Place:
    step: int  # when it was made
    path: Path
    row: int


@dataclass(frozen=True)
class Served:
    images: Tensor  # (B, 3, H, W) in [0, 1], of this process
    names: list[tuple[str, int, int]]  # of these: source, number, the step that made it
    made: int  # by all processes
    ages: list[int]  # in steps, of all images of all processes


class References:
    """`staleness`: steps for which an image may be used again, None for ever. `keep_steps`: further
    steps that a stale image's file is kept for, since a resumed run repeats some. `process`: which
    of how many this is; `wait` returns when all have called it. `together`: when one makes images
    all do, though some throw theirs away."""

    def __init__(
        self,
        directory: Path,
        *,
        staleness: int | None,
        keep_steps: int = 0,
        process: tuple[int, int] = (0, 1),
        wait: Callable[[], object] = lambda: None,
        together: bool = False,
    ) -> None:
        self.directory = directory
        self.staleness = staleness
        self.keep_steps = keep_steps
        self.process = process
        self.wait = wait
        self.together = together
        self._places: dict[Key, list[Place]] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(directory.glob("step-*.safetensors")):
            with suppress(SafetensorError):  # a damaged file's images are made again
                self._register(path)

    def get(
        self,
        step: int,
        keys: Sequence[Key],
        make: Callable[[list[int]], Tensor],
        mine: slice = slice(None),
    ) -> Served:
        """Images for `keys[mine]`, where `keys` are those of all processes.

        `make` samples the images of some of the keys, given by their indices. Images are kept as 8
        bits per channel, which is what people and the reward model were shown.
        """
        own = range(len(keys))[mine]
        shared = self.staleness != 0
        first = {keys[i]: i for i in reversed(range(len(keys)) if shared else own)}
        missing = sorted(i for key, i in first.items() if self._find(key, step) is None)
        ours = [index for index in missing if index in own]
        fresh: dict[Key, Tensor] = {}
        if ours:
            made = (make(ours).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
            fresh = {keys[index]: image for index, image in zip(ours, made, strict=True)}
            if shared:
                self._write(step, fresh)
        elif missing and self.together:
            make([own[0]])
        if missing and shared and self.process[1] > 1:
            self.wait()
            for path in sorted(self.directory.glob(f"step-{step:08d}-*.safetensors")):
                self._register(path)
        if missing and shared and self.staleness is not None:
            # Behind `wait`: no process reads for an earlier step any more.
            self._drop(before=step - self.staleness - self.keep_steps)
        images = [self._image(keys[index], fresh, step) for index in own]
        ages = [self._age(key, step) for key in keys]
        names = [(*keys[index], step - ages[index]) for index in own]
        count = len(missing) if shared else len(set(keys))
        return Served(torch.stack(images).float() / 255.0, names, count, ages)

    def _image(self, key: Key, fresh: Mapping[Key, Tensor], step: int) -> Tensor:
        return fresh[key] if key in fresh else self._read(key, step)

    def _age(self, key: Key, step: int) -> int:
        place = self._find(key, step)
        return 0 if place is None else step - place.step

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
        rank, count = self.process
        path = self.directory / f"step-{step:08d}-rank-{rank}-of-{count}.safetensors"
        temporary = path.with_suffix(f".{os.getpid()}")
        names = {str(row): f"{number} {source}" for row, (source, number) in enumerate(images)}
        save_file({"images": torch.stack(list(images.values()))}, temporary, metadata=names)
        temporary.replace(path)
        self._register(path)

    def _register(self, path: Path) -> None:
        step = _step_of(path)
        with safe_open(path, framework="pt") as file:
            for row, name in file.metadata().items():
                number, source = name.split(" ", 1)
                places = self._places.setdefault((source, int(number)), [])
                places[:] = [place for place in places if place.path != path]
                places.append(Place(step, path, int(row)))
                places.sort(key=lambda place: place.step)

    def _drop(self, before: int) -> None:
        for path in self.directory.glob("step-*.safetensors"):
            if _step_of(path) < before:
                path.unlink(missing_ok=True)  # another process may be faster
        for key, places in self._places.items():
            self._places[key] = [place for place in places if place.step >= before]


def _step_of(path: Path) -> int:
    return int(path.name.split("-")[1])
