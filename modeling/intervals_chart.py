"""Dots with their intervals, and bars of shares, as plain SVG geometry; a table stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from modeling.charts import Tick
from modeling.statistics import Interval

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 640, 190, 16, 26, 8, 22
LONGEST = 28  # characters of a name beside a row
PERCENT = " %"
NARROWEST = 26  # a segment that has room for its number


@dataclass(frozen=True)
class Dot:
    name: str
    full: str
    x: float
    y: float
    low: float
    high: float
    said: str


@dataclass(frozen=True)
class Segment:
    x: float
    width: float
    kind: str  # good, same or bad
    label: str
    middle: float


@dataclass(frozen=True)
class Bar:
    name: str
    full: str
    y: float
    segments: list[Segment]
    said: str


@dataclass(frozen=True)
class IntervalChart:
    title: str
    ticks: list[Tick]
    dots: list[Dot]
    bars: list[Bar]
    height: int
    level: float | None = None  # a line down, e.g. at even odds
    width: int = WIDTH
    left: int = LEFT
    right_edge: int = WIDTH - RIGHT
    bottom_edge: int = 0
    bar_height: int = ROW - 8


def dots(
    title: str,
    rows: Sequence[tuple[str, Interval]],
    *,
    decimals: int = 0,
    scale: float = 1.0,
    unit: str = "",
) -> IntervalChart | None:
    """One row per estimate; values are shown times `scale`."""
    rows = [(name, one) for name, one in rows if not isnan(one.value)]
    if not rows:
        return None
    ends = [end for _, one in rows for end in (one.value, one.low, one.high) if not isnan(end)]
    low, high = min(ends) * scale, max(ends) * scale
    pad = max((high - low) * 0.06, 1e-6)
    low, high = low - pad, high + pad
    if unit == PERCENT:
        low, high = max(low, 0.0), min(high, 100.0)

    def at(value: float) -> float:
        share = (value * scale - low) / (high - low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    height = TOP + ROW * len(rows) + BOTTOM
    made = []
    for place, (name, one) in enumerate(rows):
        bounds = (
            ""
            if isnan(one.low)
            else f" ({one.low * scale:.{decimals}f} … {one.high * scale:.{decimals}f})"
        )
        made.append(
            Dot(
                name=_short(name),
                full=name,
                x=at(one.value),
                y=TOP + ROW * place + ROW / 2,
                low=at(one.value if isnan(one.low) else one.low),
                high=at(one.value if isnan(one.high) else one.high),
                said=f"{name}: {one.value * scale:.{decimals}f}{unit}{bounds}",
            )
        )
    ticks = [
        Tick(
            round(LEFT + part * (WIDTH - LEFT - RIGHT), 1),
            height - 6,
            f"{value:.{decimals}f}{unit}",
        )
        for part in (0.0, 1 / 3, 2 / 3, 1.0)
        for value in [low + part * (high - low)]
    ]
    return IntervalChart(title, ticks, made, [], height, bottom_edge=height - BOTTOM)


def shares(title: str, rows: Sequence[tuple[str, float, float, float]]) -> IntervalChart | None:
    """Good, same and bad of each row, left to right, filling it."""
    if not rows:
        return None
    height = TOP + ROW * len(rows) + BOTTOM
    across = WIDTH - LEFT - RIGHT
    bars = []
    for place, (name, *parts) in enumerate(rows):
        x, segments = float(LEFT), []
        total = sum(parts) or 1.0
        for kind, part in zip(("good", "same", "bad"), parts, strict=True):
            width = part / total * across
            label = f"{100 * part:.0f}" if width >= NARROWEST else ""
            segments.append(
                Segment(round(x, 1), round(width, 1), kind, label, round(x + width / 2, 1))
            )
            x += width
        said = f"{name}: " + " / ".join(f"{100 * part:.1f} %" for part in parts)
        bars.append(Bar(_short(name), name, TOP + ROW * place + 4, segments, said))
    ticks = [
        Tick(round(LEFT + part * across, 1), height - 6, f"{100 * part:.0f} %")
        for part in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return IntervalChart(
        title, ticks, [], bars, height, level=LEFT + across / 2, bottom_edge=height - BOTTOM
    )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
