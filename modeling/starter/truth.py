"""Programmatic ground truth of the starter world: what an attentive person would say of a picture.

`score` looks only at pixels and at what the scene asked for, never at who made the picture. Every
figure is a ramp over a measured deviation, 1 for what a perfect answer shows and 0.5 where it stops
being usable:

text_alignment   the largest object has the colour asked for, and its outline fits the shape asked
                 for better than any other
text_rendering   every digit reads as the one asked for, cell by cell
consistency      the ground under the mask continues the surroundings, in 4 x 4 pixel blocks, and
                 pixels outside the mask are the source's
structure        the object's outline fits *some* shape (or digit): whole, unbroken, without litter
aesthetics       no noise or blockiness, sharp contours
removal_quality  the worst of: nothing left, the ground continued, no noise
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from modeling.starter import world
from modeling.starter.world import COLOURS, SHAPES, SIZE, Floats, Pixels, Scene

Bools = NDArray[np.bool_]

USABLE = 0.5
# An RGB distance from the expected ground from which a pixel counts as an object's.
OBJECT_DISTANCE = 58.0
WINDOW = 20  # half the side of the window in which outlines are compared


def ramp(value: float, good: float, bad: float) -> float:
    """1 at `good` or better, 0 at `bad` or worse, linear between."""
    return float(np.clip((value - bad) / (good - bad), 0.0, 1.0))


def usable(scores: dict[str, float]) -> bool:
    return all(value >= USABLE for value in scores.values())


# --- what a picture shows under the mask ---


@dataclass(frozen=True)
class Seen:
    picture: Floats  # (64, 64, 3)
    expected: Floats  # the surroundings a perfect answer continues
    inside: Bools  # (64, 64), the mask
    object: Bools  # pixels under the mask that are no ground
    ground: Bools  # pixels under the mask that are, clear of the object's contour
    wanted_ground: Bools  # where a perfect answer shows ground
    strokes: bool  # the object is text


def _grown(mask: Bools) -> Bools:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _eroded(mask: Bools) -> Bools:
    return ~_grown(~mask)


def _smoothed(values: Floats) -> Floats:
    """A 3 x 3 mean over (64, 64, C), edges repeated."""
    wide = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9, np.float32)


def _laplacian(values: Floats) -> Floats:
    """Over (64, 64, C); the border wraps around and is of no use."""
    total = 4 * values
    for axis in (0, 1):
        total = total - np.roll(values, 1, axis) - np.roll(values, -1, axis)
    return total


def _typical_noise(difference: Floats, area: Bools) -> float:
    """The deviation of white noise with this median Laplacian: contours hardly count."""
    core = area.copy()
    core[[0, -1], :] = False
    core[:, [0, -1]] = False
    return float(np.median(np.abs(_laplacian(difference)[core])) / (0.6745 * 20**0.5))


def _see(image: Pixels, scene: Scene) -> Seen:
    picture = image.astype(np.float32)
    expected = world.surroundings(scene)
    inside = world.mask_picture(scene.box) > 0
    difference = picture - expected
    if _typical_noise(difference, inside) > 6:
        # Grain is a matter of aesthetics; it must not pass for objects.
        difference = _smoothed(difference)
    found = (np.linalg.norm(difference, axis=2) > OBJECT_DISTANCE) & inside
    wanted = np.zeros((SIZE, SIZE), np.float32)
    if scene.task != "removal":
        if scene.text:
            wanted = world.text_cover(scene.text, scene.box)
        elif scene.subject is not None:
            wanted = world.shape_cover(scene.subject)
    return Seen(
        picture=picture,
        expected=expected,
        inside=inside,
        object=found,
        ground=inside & ~_grown(_grown(found)),
        wanted_ground=inside & ~_grown(_grown(wanted > 0.1)),
        strokes=bool(scene.text),
    )


# --- measures ---


def _blocks(values: Floats) -> Floats:
    """Sums over 4 x 4 blocks: (64, 64, C) -> (16, 16, C)."""
    side = SIZE // world.GRID
    return np.asarray(
        values.reshape(side, world.GRID, side, world.GRID, -1).sum((1, 3)), np.float32
    )


def _tone_deviation(seen: Seen) -> float:
    """How far the ground's 4 x 4 block means lie from the surroundings' (RGB distance)."""
    weight = seen.ground[..., None].astype(np.float32)
    count = _blocks(weight)[..., 0]
    full = count >= 8
    if not full.any():
        return 255.0
    mean = _blocks((seen.picture - seen.expected) * weight)[full] / count[full][:, None]
    distance = np.linalg.norm(mean, axis=1)
    return float(0.6 * distance.mean() + 0.4 * np.percentile(distance, 90))


def _consistency(seen: Seen) -> float:
    tone = ramp(_tone_deviation(seen), 9, 35)
    wanted = max(int(seen.wanted_ground.sum()), 1)
    kept = ramp(float((seen.ground & seen.wanted_ground).sum()) / wanted, 0.75, 0.35)
    outside = np.abs(seen.picture - seen.expected)[~seen.inside].mean()
    return min(tone, kept, ramp(float(outside), 10, 30))


def _noise(difference: Floats, area: Bools) -> float:
    """Root mean square of the Laplacian of `difference`, in units of white noise's deviation."""
    core = _eroded(area)
    core[[0, -1], :] = False
    core[:, [0, -1]] = False
    if core.sum() < 12:
        return 0.0
    return float(np.sqrt((_laplacian(difference)[core] ** 2).mean() / 20))


def _noise_score(seen: Seen) -> float:
    difference = seen.picture - seen.expected
    worst = max(_noise(difference, seen.ground), _typical_noise(difference, seen.inside))
    # Strokes of text are too thin to tell grain from their form.
    if seen.object.sum() >= 30 and not seen.strokes:
        worst = max(worst, 0.8 * _noise(seen.picture, _eroded(seen.object)))
    return ramp(worst, 5, 15)


def _sharpness(seen: Seen) -> float:
    """Half-way pixels between ground and object, per pixel of the object's contour."""
    core = _eroded(seen.object)
    if core.sum() < 8:
        return 1.0
    colour = np.median(seen.picture[core], axis=0)
    ground = seen.expected
    if seen.ground.any():
        ground = ground + np.median((seen.picture - seen.expected)[seen.ground], axis=0)
    span = colour - ground
    share = ((seen.picture - ground) * span).sum(2) / np.maximum((span**2).sum(2), 1.0)
    contour = seen.object & ~core
    near = _grown(_grown(_grown(contour))) & seen.inside
    between = float((near & (share > 0.2) & (share < 0.8)).sum())
    width = between / max(float(contour.sum()), 1.0)
    return ramp(width, 0.9, 2.1) if seen.strokes else ramp(width, 1.7, 3.3)


def _aesthetics(seen: Seen) -> float:
    return min(_noise_score(seen), _sharpness(seen))


# --- shapes ---


@lru_cache(maxsize=1)
def _outlines() -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """Each shape at radii 3 to 16 around its centroid: areas (R,) and masks (R, 2W, 2W)."""
    bank = {}
    for shape in SHAPES:
        masks = []
        for radius in np.arange(3, 16.01, 0.5):
            rough = world.coverage(world.shape_points(shape, 32, 32, radius)) > 0.5
            yy, xx = np.nonzero(rough)
            points = [
                (x - xx.mean() - 0.5 + 32, y - yy.mean() - 0.5 + 32)
                for x, y in world.shape_points(shape, 32, 32, radius)
            ]
            full = world.coverage(points) > 0.5
            masks.append(full[32 - WINDOW : 32 + WINDOW, 32 - WINDOW : 32 + WINDOW])
        stack = np.stack(masks)
        bank[shape] = (stack.sum((1, 2)).astype(np.float32), stack)
    return bank


def _fits(found: Bools) -> dict[str, float]:
    """Intersection over union of the object with every shape, best over small shifts."""
    area = float(found.sum())
    padded = np.pad(found, WINDOW + 2)
    yy, xx = np.nonzero(padded)
    cy, cx = int(np.rint(yy.mean() + 0.5)), int(np.rint(xx.mean() + 0.5))
    best = dict.fromkeys(SHAPES, 0.0)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            y, x = cy + dy, cx + dx
            seen = padded[y - WINDOW : y + WINDOW, x - WINDOW : x + WINDOW]
            for shape, (areas, masks) in _outlines().items():
                nearest = int(np.abs(areas - area).argmin())
                for index in range(max(nearest - 1, 0), min(nearest + 2, len(areas))):
                    common = float(np.count_nonzero(masks[index] & seen))
                    union = areas[index] + area - common
                    best[shape] = max(best[shape], common / float(union))
    return best


def _colour_distances(seen: Seen) -> dict[str, float]:
    """RGB distance of the object's median colour from every named one."""
    core = _eroded(seen.object)
    core = core if core.sum() >= 8 else seen.object
    colour = np.median(seen.picture[core], axis=0)
    return {
        name: float(np.linalg.norm(colour - np.array(value))) for name, value in COLOURS.items()
    }


def _shape_scores(seen: Seen, scene: Scene) -> tuple[float, float]:
    """(text_alignment, structure) of a picture that should show one coloured shape."""
    assert scene.subject is not None
    wanted_area = float((world.shape_cover(scene.subject) > 0.5).sum())
    area = float(seen.object.sum())
    if area < 0.15 * wanted_area or area < 12:
        # Nothing to be seen: nothing broken either.
        return 0.0, ramp(area / wanted_area, 0.02, 0.1)
    fits = _fits(seen.object)
    own = fits[scene.subject.shape]
    rival = max(value for shape, value in fits.items() if shape != scene.subject.shape)
    distances = _colour_distances(seen)
    hue = ramp(distances[scene.subject.colour], 35, 105)
    if min(distances, key=lambda name: distances[name]) != scene.subject.colour:
        hue = min(hue, 0.3)
    outline = float(np.clip(0.5 + 8 * (own - rival), 0, 1))
    size = min(ramp(area / wanted_area, 0.6, 0.3), ramp(area / wanted_area, 1.7, 2.4))
    structure = ramp(max(own, rival), 0.86, 0.66)
    return min(hue, outline, size, ramp(own, 0.7, 0.4)), structure


# --- text ---


def _ink(seen: Seen) -> Floats:
    span = np.array(world.INK, np.float32) - seen.expected
    share = ((seen.picture - seen.expected) * span).sum(2) / (span**2).sum(2)
    return np.asarray(np.clip(share, 0, 1) * seen.inside, np.float32)


@lru_cache(maxsize=1)
def _digit_bank() -> tuple[Floats, Floats]:
    """Cells (10, 15) and pixels (10, 16, 16) of the ten digits."""
    cells = [[int(c) for row in rows for c in row] for rows in world.DIGIT_CELLS.values()]
    inks = [world.digit_cover(digit) for digit in world.DIGIT_CELLS]
    return np.array(cells, np.float32), np.stack(inks)


def _digit_fits(seen: Seen, scene: Scene) -> list[tuple[float, Floats]]:
    """Per digit, at the shift where its ink overlaps any digit best: that overlap, and the distance
    of its cells from every digit's (10,)."""
    ink = np.pad(_ink(seen), 2)
    cells, inks = _digit_bank()
    found = []
    for index in range(len(scene.text)):
        left = scene.box[0] + world.GRID + index * world.DIGIT_WIDTH + 2
        top = scene.box[1] + world.GRID + 2
        best, best_apart = 0.0, np.full(10, np.inf, np.float32)
        for dy in (-2, -1, 0, 1, 2):
            for dx in (-2, -1, 0, 1, 2):
                y, x = top + dy, left + dx
                patch = ink[y : y + world.DIGIT_HEIGHT, x : x + world.DIGIT_WIDTH]
                common = np.minimum(patch, inks).sum((1, 2))
                fit = float((common / np.maximum(patch, inks).sum((1, 2))).max())
                if fit <= best:
                    continue
                best = fit
                block = patch[:15, 2:14].reshape(5, world.CELL_HEIGHT, 3, world.CELL_WIDTH)
                best_apart = np.abs(block.mean((1, 3)).reshape(15) - cells).sum(1)
        found.append((best, best_apart))
    return found


def _text_scores(seen: Seen, scene: Scene) -> tuple[float, float]:
    """(text_rendering, structure) of a picture that should show the scene's digits."""
    reading, form = [], []
    for digit, (fit, apart) in zip(scene.text, _digit_fits(seen, scene), strict=True):
        form.append(fit)
        own = float(apart[int(digit)])
        rival = float(np.delete(apart, int(digit)).min())
        if np.isfinite(own):
            reading.append(min(float(np.clip(0.5 + 0.8 * (rival - own), 0, 1)), ramp(own, 3, 6)))
        else:
            reading.append(0.0)
    if float(_ink(seen).sum()) < 20:
        return 0.0, 1.0
    return min(reading), ramp(min(form), 0.86, 0.58)


# --- the whole ---


def _litter(seen: Seen) -> float:
    return ramp(float(seen.object.sum()) / float(seen.inside.sum()), 0.004, 0.045)


def _dimensions(seen: Seen, scene: Scene) -> Iterable[tuple[str, float]]:
    if scene.task == "removal":
        yield "removal_quality", min(_litter(seen), _consistency(seen), _noise_score(seen))
        return
    yield "consistency", _consistency(seen)
    yield "aesthetics", _aesthetics(seen)
    if scene.text:
        reading, form = _text_scores(seen, scene)
        yield "text_rendering", reading
        yield "structure", form
    elif scene.subject is not None:
        alignment, form = _shape_scores(seen, scene)
        yield "text_alignment", alignment
        yield "structure", form
    else:
        yield "structure", _litter(seen)


def score(image: Pixels, scene: Scene) -> dict[str, float]:
    """Ground truth in [0, 1] per dimension of the scene's task; `image` is (64, 64, 3) uint8."""
    if image.shape != (SIZE, SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"the starter world judges uint8 pictures of {SIZE} x {SIZE} x 3, "
            f"not {image.dtype} of {' x '.join(str(n) for n in image.shape)}"
        )
    found = dict(_dimensions(_see(image, scene), scene))
    return {name: found[name] for name in world.DIMENSIONS[scene.task]}


def shows(image: Pixels, scene: Scene) -> tuple[int, int, int, int]:
    """What can be made out: indices of colour, shape, first and second digit, -1 where unclear.

    It depends on the scene's task and place, not on what its prompt asks for.
    """
    seen = _see(image, scene)
    if scene.text:
        digits = []
        for _, apart in _digit_fits(seen, scene):
            nearest, second = np.sort(apart)[:2]
            clear = nearest < 4 and second - nearest > 0.6
            digits.append(int(apart.argmin()) if clear else -1)
        return -1, -1, digits[0], digits[1]
    if scene.task not in ("fill", "extend_prompt") or seen.object.sum() < 20:
        return -1, -1, -1, -1
    fits = _fits(seen.object)
    second, nearest = sorted(fits.values())[-2:]
    shape = SHAPES.index(max(fits, key=lambda name: fits[name]))
    distances = _colour_distances(seen)
    colour = min(distances, key=lambda name: distances[name])
    return (
        list(COLOURS).index(colour) if distances[colour] < 75 else -1,
        shape if nearest >= 0.7 and nearest - second >= 0.05 else -1,
        -1,
        -1,
    )
