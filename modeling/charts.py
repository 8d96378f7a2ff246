"""Line charts as plain SVG geometry: no script, readable in the dark and in greyscale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 24


@dataclass(frozen=True)
class Line:
    name: str
    points: str  # an SVG polyline's points
    last: float
    style: int  # picks a dash pattern and a colour


@dataclass(frozen=True)
class Tick:
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    rows: list[tuple[float, list[float | None]]]
    n: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right_edge: int = WIDTH - RIGHT
    bottom_edge: int = HEIGHT - BOTTOM


def line_chart(
    *, title: str, unit: str, series: dict[str, Sequence[tuple[float, float]]], most: int = 160
) -> Chart | None:
    """A chart of the named (x, y) series, each thinned to `most` means; None without two points."""
    thinned = {name: _thin(points, most) for name, points in series.items() if len(points) > 1}
    if not thinned:
        return None
    xs = [x for points in thinned.values() for x, _ in points]
    ys = [y for points in thinned.values() for _, y in points]
    low, high = min(ys), max(ys)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    pad = (high - low) * 0.06
    low, high = low - pad, high + pad
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first)
        up = (y - low) / (high - low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    lines = []
    for style, (name, points) in enumerate(thinned.items()):
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(x, y) for x, y in points))
        lines.append(Line(name, path, points[-1][1], style % 6))
    y_ticks = [Tick(LEFT - 6, at(first, y)[1] + 4, f"{y:.3g}") for y in _spread(low, high, 3)]
    x_ticks = [Tick(at(x, low)[0], HEIGHT - 8, f"{x:.0f}") for x in _spread(first, last, 4)]
    names = list(thinned)
    table = {
        x: [dict(thinned[name]).get(x) for name in names]
        for x in sorted({x for points in thinned.values() for x, _ in points})
    }
    count = max(len(points) for points in series.values())
    return Chart(title, unit, lines, x_ticks, y_ticks, list(table.items()), count)


def _thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Means of equal runs of points, so that a noisy curve of any length stays legible."""
    run = max(1, -(-len(points) // most))
    thinned = []
    for start in range(0, len(points), run):
        block = points[start : start + run]
        thinned.append((block[-1][0], sum(y for _, y in block) / len(block)))
    return thinned


def _spread(low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * i / (count - 1) for i in range(count)]
