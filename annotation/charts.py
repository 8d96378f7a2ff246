"""Bars, and a line with its band, as plain SVG geometry: no script, readable in greyscale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 380, 160
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 24
INSET = 16


@dataclass(frozen=True)
class Tick:
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Chart:
    """`rows` is the data table under it, its first column naming the point."""

    title: str
    unit: str
    head: list[str]
    rows: list[list[str]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bars: list[Bar] = field(default_factory=list)
    level: float | None = None  # a dashed line across, e.g. what an even hand would give
    line: str = ""  # an SVG polyline's points
    band: str = ""  # an SVG polygon's points
    dots: list[Tick] = field(default_factory=list)
    download: str = ""  # the address of its table as CSV
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right_edge: int = WIDTH - RIGHT
    bottom_edge: int = HEIGHT - BOTTOM


def bar_chart(
    *,
    title: str,
    unit: str,
    head: list[str],
    names: Sequence[str],
    values: Sequence[float],
    shown: Sequence[str],
    rows: list[list[str]],
    level: float | None = None,
    ticks: int = 4,
    percent: bool = False,
    download: str = "",
) -> Chart | None:
    """Bars from zero; `shown` says a bar's value, `names` what it stands for."""
    if not values:
        return None
    top = max(max(values), level or 0.0) * 1.1 or 1.0
    step = (WIDTH - LEFT - RIGHT) / len(values)
    bars = []
    for place, value in enumerate(values):
        height = value / top * (HEIGHT - TOP - BOTTOM)
        bars.append(
            Bar(
                x=round(LEFT + place * step + step * 0.1, 1),
                y=round(HEIGHT - BOTTOM - height, 1),
                width=round(step * 0.8, 1),
                height=round(height, 1),
                title=f"{names[place]}: {shown[place]}",
            )
        )
    every = max(1, -(-len(names) // ticks))
    return Chart(
        title=title,
        unit=unit,
        head=head,
        rows=rows,
        x_ticks=[
            Tick(round(LEFT + (place + 0.5) * step, 1), HEIGHT - 8, name)
            for place, name in enumerate(names)
            if place % every == 0
        ],
        y_ticks=[_y_tick(value, 0.0, top, percent) for value in _round_steps(top)],
        bars=bars,
        level=None if level is None else round(_up(level, 0.0, top), 1),
        download=download,
    )


def band_chart(
    *,
    title: str,
    unit: str,
    head: list[str],
    names: Sequence[str],
    points: Sequence[tuple[float, float, float]],
    rows: list[list[str]],
    ticks: int = 4,
    download: str = "",
) -> Chart | None:
    """Shares with their intervals, (value, low, high), evenly spaced on an axis from 0 to 1."""
    if not points:
        return None
    # Inset, so that the names of the first and the last point have room.
    first, last = LEFT + INSET, WIDTH - RIGHT - INSET
    step = (last - first) / max(1, len(points) - 1)
    xs = [
        first + place * step if len(points) > 1 else (first + last) / 2
        for place in range(len(points))
    ]
    at = [tuple(_up(share, 0.0, 1.0) for share in point) for point in points]
    upper = [f"{x:.1f},{high:.1f}" for x, (_, _, high) in zip(xs, at, strict=True)]
    lower = [f"{x:.1f},{low:.1f}" for x, (_, low, _) in zip(xs, at, strict=True)]
    every = max(1, -(-len(names) // ticks))
    return Chart(
        title=title,
        unit=unit,
        head=head,
        rows=rows,
        x_ticks=[
            Tick(round(x, 1), HEIGHT - 8, name)
            for place, (x, name) in enumerate(zip(xs, names, strict=True))
            if place % every == 0
        ],
        y_ticks=[_y_tick(share, 0.0, 1.0, True) for share in (0.0, 0.5, 1.0)],
        line=" ".join(f"{x:.1f},{value:.1f}" for x, (value, _, _) in zip(xs, at, strict=True)),
        band=" ".join([*upper, *reversed(lower)]),
        dots=[
            Tick(round(x, 1), round(where[0], 1), f"{name}: {100 * point[0]:.0f} %")
            for x, where, name, point in zip(xs, at, names, points, strict=True)
        ],
        download=download,
    )


def _up(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _y_tick(value: float, low: float, high: float, percent: bool) -> Tick:
    label = f"{100 * value:.0f} %" if percent else f"{value:g}"
    return Tick(LEFT - 6, round(_up(value, low, high) + 4, 1), label)


def _round_steps(top: float) -> list[float]:
    """Zero and one to four round values below the top."""
    size = 1e-3
    while True:
        for step in (size, 2 * size, 5 * size):
            if top / step < 5:
                return [step * k for k in range(int(top / step) + 1)]
        size *= 10
