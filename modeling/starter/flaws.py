"""Deliberately flawed answers to the starter world's scenes, in chosen dimensions and degrees."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from modeling.starter.world import (
    COLOURS,
    DIGIT_CELLS,
    DIMENSIONS,
    GRID,
    INK,
    SHAPES,
    SIZE,
    Box,
    Example,
    Floats,
    Pixels,
    Scene,
    Shape,
    coverage,
    paint,
    pick,
    shape_cover,
    shape_points,
    surroundings,
    text_cover,
    to_pixels,
)


def _noisy_points(
    rng: np.random.Generator, shape: Shape, amount: float
) -> list[tuple[float, float]]:
    """The shape's outline pushed in and out along its rays."""
    corners = np.array(shape_points(shape.shape, shape.x, shape.y, shape.radius))
    steps = np.linspace(0, 1, 6, endpoint=False)[:, None]
    points = np.concatenate(
        [a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
    )
    centre = np.array([shape.x, shape.y])
    waves = np.arange(len(points)) / len(points) * 2 * np.pi
    swing = np.zeros(len(points))
    for k in (3, 5, 8):
        swing += rng.uniform(0.5, 1) * np.sin(k * waves + rng.uniform(0, 2 * np.pi))
    return [
        (float(x), float(y)) for x, y in centre + (points - centre) * (1 + amount * swing)[:, None]
    ]


def _broken_shape(rng: np.random.Generator, shape: Shape, severity: float) -> Floats:
    if rng.random() < 0.4:
        return coverage(_noisy_points(rng, shape, 0.1 + 0.25 * severity))
    cover = shape_cover(shape)
    yy, xx = np.mgrid[:SIZE, :SIZE] + 0.5
    kind = int(rng.integers(3))
    angle = rng.uniform(0, 2 * np.pi)
    across = (xx - shape.x) * np.cos(angle) + (yy - shape.y) * np.sin(angle)
    if kind == 0:  # cut into two
        gone = np.abs(across - rng.uniform(-2, 2)) < 0.8 + 0.18 * shape.radius * severity
    elif kind == 1:  # bitten off
        gone = across > shape.radius * (0.55 - 0.5 * severity)
    else:  # riddled with holes
        gone = np.zeros((SIZE, SIZE), bool)
        for _ in range(1 + int(5 * severity)):
            x, y = rng.normal(0, shape.radius * 0.5, 2)
            reach = shape.radius * rng.uniform(0.2, 0.34)
            gone |= (xx - shape.x - x) ** 2 + (yy - shape.y - y) ** 2 < reach**2
    return np.where(gone, 0, cover).astype(np.float32)


def _broken_text(rng: np.random.Generator, cover: Floats, box: Box, severity: float) -> Floats:
    cover = cover.copy()
    x0, y0, x1, y1 = box
    if rng.random() < 0.5:
        for y in range(y0, y1):
            cover[y] = np.roll(cover[y], int(np.rint(rng.normal(0, 0.4 + 3 * severity))))
        return cover
    yy, xx = np.mgrid[:SIZE, :SIZE]
    for _ in range(3 + int(16 * severity)):
        left, top = rng.uniform(x0 + GRID, x1 - GRID), rng.uniform(y0 + GRID, y1 - GRID)
        cover[(xx - left) ** 2 + (yy - top) ** 2 < rng.uniform(2, 5)] = 0
    return cover


def _misread_text(rng: np.random.Generator, scene: Scene, severity: float) -> Floats:
    """Other digits, or below half severity the right ones with others shining through."""
    digits = list(scene.text)
    for place in rng.permutation(len(digits))[: 1 + int(severity > 0.6)]:
        digits[place] = pick(rng, [d for d in DIGIT_CELLS if d != digits[place]])
    share = severity if severity < 0.5 else 1.0
    other = text_cover("".join(digits), scene.box)
    return (1 - share) * text_cover(scene.text, scene.box) + share * other


def _misread(
    rng: np.random.Generator, shape: Shape, severity: float
) -> tuple[Shape | None, Floats]:
    """Another subject than asked for, with its colour; None: nothing is drawn."""
    colour = np.array(COLOURS[shape.colour], np.float32)
    other = pick(rng, [c for c in COLOURS if c != shape.colour])
    if severity < 0.5:
        # A drift of the colour, short of another one.
        return shape, colour + severity * (np.array(COLOURS[other], np.float32) - colour)
    if severity > 0.9 and rng.random() < 0.5:
        return None, colour
    kind = int(rng.integers(3))
    if kind != 1:
        shape = Shape(
            pick(rng, [s for s in SHAPES if s != shape.shape]),
            shape.colour,
            shape.x,
            shape.y,
            shape.radius,
        )
    return shape, colour if kind == 0 else np.array(COLOURS[other], np.float32)


def _tinted(rng: np.random.Generator, ground: Floats, scene: Scene, severity: float) -> Floats:
    """The ground under the mask in tones that do not continue the surroundings."""
    shift = rng.normal(0, 1, 3)
    if rng.random() < 0.5:  # lighter or darker
        shift = np.full(3, pick(rng, (-1.0, 1.0))) + 0.3 * shift
    shift *= (8 + 36 * severity) / np.linalg.norm(shift)
    return (ground + shift.astype(np.float32)).astype(np.float32)


def _littered(rng: np.random.Generator, ground: Floats, scene: Scene, severity: float) -> Floats:
    """Fragments that nobody asked for."""
    x0, y0, x1, y1 = scene.box
    for _ in range(1 + int(2 * severity)):
        radius = rng.uniform(1, 1.5) * (1.5 + 3.5 * severity)
        blot = Shape("circle", "red", rng.uniform(x0, x1), rng.uniform(y0, y1), radius)
        colour = np.array(COLOURS[pick(rng, tuple(COLOURS))], np.float32)
        ground = paint(ground, coverage(_noisy_points(rng, blot, 0.2)), colour)
    return ground


def _spoiled(rng: np.random.Generator, picture: Floats, severity: float, has_edges: bool) -> Floats:
    """Noise, blur or blockiness over the whole picture."""
    kind = int(rng.integers(3 if has_edges else 2))
    if kind == 0:
        return (picture + rng.normal(0, 6 + 16 * severity, picture.shape)).astype(np.float32)
    if kind == 1:
        checks = rng.normal(0, 8 + 24 * severity, (SIZE // 2, SIZE // 2, 3))
        return (picture + np.kron(checks, np.ones((2, 2, 1)))).astype(np.float32)
    blurred = Image.fromarray(to_pixels(picture)).filter(
        ImageFilter.GaussianBlur(0.3 + 2.4 * severity)
    )
    return np.asarray(blurred, np.float32)


def _badly_removed(rng: np.random.Generator, scene: Scene, severity: float) -> Floats:
    ground = surroundings(scene)
    assert scene.subject is not None
    kind = int(rng.integers(5))
    if kind < 2:  # the object still shows
        colour = np.array(COLOURS[scene.subject.colour], np.float32)
        return paint(ground, shape_cover(scene.subject) * (0.05 + 0.8 * severity), colour)
    if kind == 2:
        return _tinted(rng, ground, scene, severity)
    if kind == 3:
        return _littered(rng, ground, scene, severity)
    return _spoiled(rng, ground, severity, has_edges=False)


def sample_flawed(
    rng: np.random.Generator,
    example: Example,
    flaws: Sequence[str],
    *,
    severity: float | None = None,
) -> Pixels:
    """An answer (64, 64, 3) to `example` that is flawed in the named dimensions alone.

    `severity` in (0, 1] grades the flaw: from about 0.5 on the picture is not usable any more,
    near 0 it is hardly seen. Without it a severity between 0.5 and 1 is drawn. Pixels outside the
    mask stay the source's.
    """
    scene = example.scene
    unknown = set(flaws) - set(DIMENSIONS[scene.task])
    if unknown:
        raise ValueError(
            f"{sorted(unknown)} can't be flawed in {scene.task}; "
            f"its dimensions are {', '.join(DIMENSIONS[scene.task])}"
        )
    amount = float(rng.uniform(0.5, 1)) if severity is None else float(severity)
    if "removal_quality" in flaws:
        canvas = _badly_removed(rng, scene, amount)
    else:
        canvas = surroundings(scene)
        if "consistency" in flaws:
            canvas = _tinted(rng, canvas, scene, amount)
        broken = "structure" in flaws
        if scene.text:
            ink = text_cover(scene.text, scene.box)
            if "text_rendering" in flaws:
                ink = _misread_text(rng, scene, amount)
            if broken:
                ink = _broken_text(rng, ink, scene.box, amount)
            canvas = paint(canvas, ink, INK)
        elif scene.subject is not None and scene.task != "removal":
            subject: Shape | None = scene.subject
            colour = np.array(COLOURS[scene.subject.colour], np.float32)
            if "text_alignment" in flaws:
                subject, colour = _misread(rng, scene.subject, amount)
            if subject is not None:
                cover = _broken_shape(rng, subject, amount) if broken else shape_cover(subject)
                canvas = paint(canvas, cover, colour)
        elif broken:
            canvas = _littered(rng, canvas, scene, amount)
        if "aesthetics" in flaws:
            has_edges = bool(scene.text) or scene.subject is not None
            canvas = _spoiled(rng, canvas, amount, has_edges)
    inside = (example.mask > 0)[..., None]
    return np.where(inside, to_pixels(canvas), to_pixels(surroundings(scene)))
