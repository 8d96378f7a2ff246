"""Masks that are not pictures of their own: run lengths, polygons, boxes, an alpha channel.

Numbers are read as COCO means them: runs go down the columns, first of what is not edited; polygons
are [x, y, x, y, …], boxes [x, y, width, height]; several make one area. The rasterised outline is
pycocotools' own, to the pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from generation.decoding.pixels import MAX_PIXELS
from generation.images import ImageError

# pycocotools looks for an outline on a grid so many times finer than the pixels.
FINER = 5
MOST_SHAPES = 2000
MOST_WORK = 4 * 10**9  # pixels that shapes may cover together, each counted as its whole picture
LONGEST_OUTLINE = 20_000_000  # in points of that finer grid
MOST_NUMBERS = 1_000_000
Flags = NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class Area:
    """What is edited, in numbers; it is drawn where its picture's size is known."""

    value: Any

    def draw(self, size: tuple[int, int], *, name: str) -> Pillow.Image:
        """The mask as "L" with 0 and 255, of `size` or of its own. Raises ImageError."""
        try:
            flags = _flags(self.value, size)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ImageError(
                f"{name} is not understood ({error}). Give a picture, COCO run lengths with "
                "counts and size, polygons [x, y, x, y, …] or boxes [x, y, width, height]."
            ) from None
        return Pillow.fromarray(np.where(flags, np.uint8(255), np.uint8(0)))


def _flags(value: Any, size: tuple[int, int]) -> Flags:
    if isinstance(value, dict):
        return _run_lengths(value, size)
    if not isinstance(value, list) or not value:
        raise ValueError("it is empty, or no list")
    if all(isinstance(item, int | float) for item in value):
        return _shape(value, size)
    if all(_is_point(item) for item in value):
        return _shape([side for point in value for side in point], size)
    if len(value) > min(MOST_SHAPES, MOST_WORK // (size[0] * size[1])):
        raise ValueError(f"it has {len(value)} shapes, too many for a picture of this size")
    found = _flags(value[0], size)
    for item in value[1:]:
        found = found | _flags(item, size)
    return found


def _is_point(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and not isinstance(item[0], list)


# Runs -------------------------------------------------------------------------------------------


def _run_lengths(value: dict[str, Any], size: tuple[int, int]) -> Flags:
    height, width = (int(side) for side in value.get("size") or (size[1], size[0]))
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"its size is {width} × {height}")
    if "runs" in value:
        counts = _from_starts(value["runs"], height * width)
    else:
        said = value["counts"]
        said = said.encode() if isinstance(said, str) else said
        counts = _uncompressed(said) if isinstance(said, bytes) else [int(one) for one in said]
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"its runs do not add up to {width} × {height} pixels")
    return _from_counts(counts, height, width)


def _from_counts(counts: Sequence[int] | NDArray[np.int64], height: int, width: int) -> Flags:
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((height, width), order="F")


def _uncompressed(data: bytes) -> list[int]:
    """COCO's compressed counts: six bits a character, from the third on as differences."""
    counts: list[int] = []
    place, value = 0, 0
    for character in data:
        six = character - 48
        if not 0 <= six < 64 or place > 60:
            raise ValueError("its counts are not COCO's")
        value |= (six & 0x1F) << place
        place += 5
        if six & 0x20:
            continue
        if six & 0x10:
            value -= 1 << place
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        place = value = 0
    if place:
        raise ValueError("its counts are cut off")
    return counts


def _from_starts(runs: Sequence[int], total: int) -> list[int]:
    """BrushData's runs: start (from 1) and length of each, here as COCO's counts."""
    if len(runs) % 2:
        raise ValueError("its runs are not pairs of start and length")
    counts, at = [], 0
    for start, length in sorted(zip(runs[::2], runs[1::2], strict=True)):
        counts += [int(start) - 1 - at, int(length)]
        at = int(start) - 1 + int(length)
    return [*counts, total - at]


# Outlines ---------------------------------------------------------------------------------------


def _shape(numbers: Sequence[float], size: tuple[int, int]) -> Flags:
    if len(numbers) == 4:
        x, y, width, height = numbers
        numbers = [x, y, x, y + height, x + width, y + height, x + width, y]
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers are no polygon and no box")
    if len(numbers) > MOST_NUMBERS:
        raise ValueError(f"an outline of {len(numbers)} numbers is too long")
    points = np.asarray(numbers, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(points).all() or np.abs(points).max() > 4 * max(size):
        raise ValueError("it lies far outside of the picture")
    return _filled(points, size)


def _filled(points: NDArray[np.float64], size: tuple[int, int]) -> Flags:
    """A polygon as pycocotools fills it: column by column, between the outline's crossings."""
    width, height = size
    fine = np.trunc(FINER * points + 0.5).astype(np.int64)
    if np.abs(np.diff(fine, axis=0, append=fine[:1])).max(axis=1).sum() > LONGEST_OUTLINE:
        raise ValueError("its outline is too long")
    line = np.concatenate(
        [_edge(start, end) for start, end in zip(fine, np.roll(fine, -1, axis=0), strict=True)]
    )
    x = line[:, 0]
    crossing = np.flatnonzero(x[1:] != x[:-1])
    before, after = line[crossing], line[crossing + 1]
    column = np.where(after[:, 0] < before[:, 0], after[:, 0], after[:, 0] - 1)
    column_at = (column + 0.5) / FINER - 0.5
    row_at = (np.minimum(before[:, 1], after[:, 1]) + 0.5) / FINER - 0.5
    kept = (column_at == np.floor(column_at)) & (column_at >= 0) & (column_at <= width - 1)
    rows = np.ceil(np.clip(row_at[kept], 0, height)).astype(np.int64)
    turns = np.sort(column_at[kept].astype(np.int64) * height + rows)
    counts = np.diff(turns, prepend=0, append=width * height)
    return _from_counts(counts, height, width)


def _edge(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """The grid's points from one corner to the next, both included."""
    (xs, ys), (xe, ye) = start.tolist(), end.tolist()
    dx, dy = abs(xe - xs), abs(ye - ys)
    flat = dx >= dy
    flip = xs > xe if flat else ys > ye
    if flip:
        xs, ys, xe, ye = xe, ye, xs, ys
    steps = np.arange(max(dx, dy) + 1)
    steps = steps[::-1] if flip else steps
    if flat:
        slope = (ye - ys) / dx if dx else 0.0
        across, down = xs + steps, np.trunc(ys + slope * steps + 0.5)
    else:
        across, down = np.trunc(xs + (xe - xs) / dy * steps + 0.5), ys + steps
    return np.stack([across, down], axis=1).astype(np.int64)
