"""The border of a mask as SVG paths, drawn over pictures at any zoom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Point = tuple[int, int]


def outline(mask: npt.NDArray[np.uint8]) -> str:
    """An SVG path around what is white; its unit is the mask's pixel. Fill it by `evenodd`."""
    return "".join(_loop(points) for points in _loops(mask >= 128))


def svg(mask: npt.NDArray[np.uint8], *, shade: bool) -> str:
    """The outline, light and dark so that it shows on any picture; or a shade over all else."""
    height, width = mask.shape
    path = outline(mask)
    if shade:
        around = f"M0 0H{width}V{height}H0Z"
        body = f'<path d="{around}{path}" fill="#000" fill-opacity=".72" fill-rule="evenodd"/>'
    else:
        stroke = 'fill="none" vector-effect="non-scaling-stroke"'
        body = (
            f'<path d="{path}" {stroke} stroke="#fff" stroke-width="1.5"/>'
            f'<path d="{path}" {stroke} stroke="#111" stroke-width="1.5" stroke-dasharray="4 4"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none">{body}</svg>'
    )


def _loops(inside: npt.NDArray[np.bool_]) -> Iterator[list[Point]]:
    """Closed paths along pixel edges, the inside on the right; only corners are listed."""
    onward = _edges(inside)
    while onward:
        start = next(iter(onward))
        at, heading = start, (0, 0)
        corners: list[Point] = []
        while True:
            following = onward[at].pop()
            if not onward[at]:
                del onward[at]
            direction = (following[0] - at[0], following[1] - at[1])
            if direction != heading:
                corners.append(at)
                heading = direction
            at = following
            if at == start or at not in onward:
                break
        yield corners


def _edges(inside: npt.NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """For each corner of a pixel the corners that the border goes on to, (x, y)."""
    padded = np.pad(inside, 1)
    onward: dict[Point, list[Point]] = defaultdict(list)
    # An edge lies where a pixel differs from the one above it (or left of it).
    for y, x in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]).tolist():
        below = bool(padded[y + 1, x + 1])
        here, there = (x, y), (x + 1, y)
        onward[here if below else there].append(there if below else here)
    for y, x in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]).tolist():
        right = bool(padded[y + 1, x + 1])
        here, there = (x, y), (x, y + 1)
        onward[there if right else here].append(here if right else there)
    return onward


def _loop(corners: list[Point]) -> str:
    (x, y), *rest = corners
    steps = [f"M{x} {y}"]
    for next_x, next_y in rest:
        steps.append(f"H{next_x}" if next_y == y else f"V{next_y}")
        x, y = next_x, next_y
    return "".join(steps) + "Z"
