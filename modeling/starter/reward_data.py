"""Pictures to compare: answers of every quality to the starter world's edits, with ground truth.

A group is one source with `VARIANTS` answers to it: to its own prompt, to a second prompt about the
same place, perfect, flawed by degrees, and degenerate textures that no policy should be paid for.
`truth.score` alone decides which of two answers is better.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from modeling.starter import flaws as world_flaws
from modeling.starter import truth, world
from modeling.starter.world import COLOURS, SHAPES, SIZE, Floats, Pixels, Scene, Shape

VARIANTS = 8
TIE = 0.05
DIMENSIONS = (
    "text_alignment",
    "text_rendering",
    "consistency",
    "structure",
    "aesthetics",
    "removal_quality",
)
PROMPTED = ("text_alignment", "text_rendering")
COLOUR_NAMES = tuple(COLOURS)
# The share of groups per task: the ones with a prompt need the most pictures.
TASK_SHARE = {
    "fill": 0.27,
    "extend_prompt": 0.22,
    "extend_noprompt": 0.12,
    "removal": 0.12,
    "text_rendering": 0.27,
}

Rng = np.random.Generator
Flaw = Callable[[Rng, float, Floats, "Canvas"], Floats]


@dataclass(frozen=True)
class Canvas:
    scene: Scene
    ground: Floats  # the background under everything, (64, 64, 3)
    inside: NDArray[np.bool_]  # (64, 64)


@dataclass
class Groups:
    """`n` sources with `VARIANTS` answers each; scores are NaN where a dimension isn't asked."""

    tasks: list[str]
    prompts: list[str]
    others: list[str]  # the second prompt; "" where the task has a fixed one
    sources: NDArray[np.uint8]  # (n, 64, 64, 3)
    masks: NDArray[np.uint8]  # (n, 64, 64), 255 = edit
    images: NDArray[np.uint8]  # (n, V, 64, 64, 3)
    scores: NDArray[np.float32]  # (n, V, 6), by DIMENSIONS, for `prompts`
    other_scores: NDArray[np.float32]  # (n, V, 6), for `others`
    drawn: NDArray[np.int64]  # (n, V, 4): colour, shape, first and second digit; -1 = unclear

    def __len__(self) -> int:
        return len(self.tasks)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        texts = {name: np.array(getattr(self, name)) for name in ("tasks", "prompts", "others")}
        return texts | {
            name: getattr(self, name)
            for name in ("sources", "masks", "images", "scores", "other_scores", "drawn")
        }

    @classmethod
    def of(cls, arrays: dict[str, NDArray[np.generic]]) -> "Groups":
        texts = {name: [str(t) for t in arrays[name]] for name in ("tasks", "prompts", "others")}
        rest = {name: value for name, value in arrays.items() if name not in texts}
        return cls(**texts, **rest)  # type: ignore[arg-type]


def concat(parts: Sequence[Groups]) -> Groups:
    columns = [part.arrays() for part in parts]
    return Groups.of({name: np.concatenate([c[name] for c in columns]) for name in columns[0]})


# --- flaws: each takes a picture and returns it worse by `by` in (0, 1] ---


def _smooth(rng: Rng, cells: int, channels: int) -> Floats:
    """Smooth noise (64, 64, channels) of about unit size."""
    coarse = rng.normal(size=(cells, cells, channels)).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(coarse[..., c]).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for c in range(channels)
    ]
    return np.stack(planes, -1)


def _blurred(picture: Floats, radius: float) -> Floats:
    image = Image.fromarray(world.to_pixels(picture))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _centre(canvas: Canvas) -> tuple[float, float, float]:
    x0, y0, x1, y1 = canvas.scene.box
    subject = canvas.scene.subject
    if subject is not None:
        return subject.x, subject.y, subject.radius
    return (x0 + x1) / 2, (y0 + y1) / 2, min(x1 - x0, y1 - y0) / 2


def blur(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    return _blurred(picture, 0.4 + 3 * by)


def coarse(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """What a weak autoencoder leaves: lost resolution and a little colour drift."""
    side = int(round(SIZE / (1.5 + 5 * by)))
    small = Image.fromarray(world.to_pixels(picture)).resize((side, side), Image.Resampling.BOX)
    back = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)
    return back + _smooth(rng, 4, 3) * 10 * by


def noise(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    return picture + rng.normal(size=picture.shape).astype(np.float32) * (4 + 50 * by)


def speckles(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    hit = rng.random((SIZE, SIZE, 1)) < 0.01 + 0.15 * by
    return np.where(hit, rng.uniform(0, 255, picture.shape), picture).astype(np.float32)


def blotches(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    return picture + _smooth(rng, int(rng.integers(4, 12)), 3) * (6 + 50 * by)


def stray(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """Small marks of any colour where nothing belongs."""
    x0, y0, x1, y1 = canvas.scene.box
    for _ in range(1 + int(4 * by)):
        mark = Shape(
            SHAPES[int(rng.integers(4))],
            COLOUR_NAMES[int(rng.integers(6))],
            float(rng.uniform(x0, x1)),
            float(rng.uniform(y0, y1)),
            float(rng.uniform(1.5, 3 + 3 * by)),
        )
        cover = world.shape_cover(mark) * float(rng.uniform(0.3 + 0.3 * by, 1))
        picture = world.paint(picture, cover, COLOURS[mark.colour])
    return picture


def tint(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    return picture + (direction * (6 + 70 * by)).astype(np.float32)


def flat(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """The ground loses its gradient or stripes."""
    mean = canvas.ground[canvas.inside].mean(0)
    return picture + (mean - canvas.ground) * np.float32(min(1.0, 0.2 + by))


def drift(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """The ground goes on elsewhere: stripes out of phase, a gradient that runs off."""
    ground = canvas.scene.background
    if ground.kind == "stripes":
        step = max(1, round(by * ground.period / 2))
        moved = world.background_picture(replace(ground, phase=ground.phase + step))
        return picture + (moved - canvas.ground)
    line = np.linspace(-1, 1, SIZE, dtype=np.float32)
    ramp = np.outer(line, np.full(SIZE, rng.normal())) + np.outer(np.full(SIZE, rng.normal()), line)
    return picture + ramp[..., None].astype(np.float32) * (
        (8 + 60 * by) * rng.uniform(0.3, 1, 3).astype(np.float32)
    )


def seam(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """A frame of another brightness just inside the mask's edge."""
    x0, y0, x1, y1 = canvas.scene.box
    width = 1 + int(3 * by)
    frame = canvas.inside.copy()
    frame[y0 + width : y1 - width, x0 + width : x1 - width] = False
    shift = float(rng.choice([-1, 1])) * (10 + 70 * by)
    return np.where(frame[..., None], picture + shift, picture).astype(np.float32)


def cut(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """Part of what was drawn is missing: the ground shows."""
    x, y, radius = _centre(canvas)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    distance = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    gone = distance > radius * (0.9 - 1.3 * by)
    return np.where(gone[..., None], canvas.ground, picture).astype(np.float32)


def holes(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    x, y, radius = _centre(canvas)
    for _ in range(1 + int(3 * by)):
        a, b = x + rng.uniform(-0.8, 0.8) * radius, y + rng.uniform(-0.8, 0.8) * radius
        hole = Shape("circle", "red", float(a), float(b), float(radius * (0.15 + 0.35 * by)))
        cover = world.shape_cover(hole)[..., None]
        picture = picture + cover * (canvas.ground - picture)
    return picture


def warp(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """A smooth displacement of every pixel under the mask."""
    field = _smooth(rng, int(rng.integers(4, 11)), 2) * (1 + 4 * by)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    y = np.clip(np.rint(rows + field[..., 0]), 0, SIZE - 1).astype(int)
    x = np.clip(np.rint(columns + field[..., 1]), 0, SIZE - 1).astype(int)
    return picture[y, x]


def ghost(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """The drawing again, displaced and half transparent."""
    dy, dx = (int(v) for v in np.rint(rng.normal(size=2) * (2 + 4 * by)))
    moved = np.roll(picture - canvas.ground, (dy, dx), (0, 1))
    return picture + (canvas.ground + moved - picture) * np.float32(0.2 + 0.3 * by)


def faded(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """The drawing shines through the ground, or hardly shows."""
    return picture + (canvas.ground - picture) * np.float32(0.15 + 0.8 * by)


def smear(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """A blob of the drawing's colours instead of the drawing."""
    soft = _blurred(picture, 2 + 5 * by)
    return picture + (soft - picture) * np.float32(min(1.0, 0.4 + by))


FLAWS: tuple[Flaw, ...] = (
    blur,
    coarse,
    noise,
    speckles,
    blotches,
    stray,
    tint,
    flat,
    drift,
    seam,
    cut,
    holes,
    warp,
    ghost,
    faded,
    smear,
)


# --- degenerate textures: what an unanchored policy drifts to ---


def texture(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    """A patch grid, a checkerboard, stripes, tiles or saturated noise over the answer."""
    kind = int(rng.integers(6))
    step = int(rng.choice([2, 4, 8, 16]))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    loud = rng.uniform(0, 255, 3) if rng.random() < 0.5 else rng.choice([0.0, 255.0], 3)
    if kind == 0:
        pattern = ((rows // step + columns // step) % 2)[..., None] * (loud - 128)
    elif kind == 1:
        edge = (rows % step == 0) | (columns % step == 0)
        pattern = edge[..., None] * (loud - 128)
    elif kind == 2:
        side = SIZE // step
        pattern = np.kron(rng.uniform(-128, 128, (side, side, 3)), np.ones((step, step, 1)))
    elif kind == 3:
        tile = rng.uniform(-128, 128, (step, step, 3))
        pattern = np.tile(tile, (SIZE // step, SIZE // step, 1))
    elif kind == 4:
        wave = np.sin((rows * rng.normal() + columns * rng.normal()) * 2 * np.pi / step)
        pattern = wave[..., None] * (loud - 128)
    else:
        pattern = rng.choice([-128.0, 128.0], (SIZE, SIZE, 3))
    amount = np.float32(0.08 + 0.9 * by)
    if rng.random() < 0.4:
        return (picture + (128 + pattern - picture) * amount).astype(np.float32)
    return (picture + pattern * amount).astype(np.float32)


def saturated(rng: Rng, by: float, picture: Floats, canvas: Canvas) -> Floats:
    mean = picture[canvas.inside].mean()
    return mean + (picture - mean) * np.float32(1 + 3 * by)


# --- answers ---


def second_scene(rng: Rng, scene: Scene) -> Scene | None:
    """The same place with another prompt; most differ in one attribute only."""
    if scene.task == "text_rendering":
        digits = [int(c) for c in scene.text]
        which = rng.choice(["first", "second", "both"], p=[0.3, 0.45, 0.25])
        for index, name in enumerate(("first", "second")):
            if which in (name, "both"):
                digits[index] = (digits[index] + int(rng.integers(1, 10))) % 10
        return replace(scene, text="".join(str(d) for d in digits))
    if scene.task in ("fill", "extend_prompt") and scene.subject is not None:
        subject = scene.subject
        which = rng.choice(["shape", "colour", "both"], p=[0.5, 0.25, 0.25])
        if which in ("shape", "both"):
            rest = [s for s in SHAPES if s != subject.shape]
            subject = replace(subject, shape=rest[int(rng.integers(len(rest)))])
        if which in ("colour", "both"):
            left = [c for c in COLOUR_NAMES if c != subject.colour]
            subject = replace(subject, colour=left[int(rng.integers(len(left)))])
        return replace(scene, subject=subject)
    return None


def _moved(rng: Rng, scene: Scene, by: float) -> Scene:
    """The subject a little elsewhere and of another size."""
    if scene.subject is None:
        return scene
    subject = scene.subject
    shift = rng.normal(size=2) * 2 * by
    size = subject.radius * float(np.exp(rng.normal() * 0.25 * by))
    return replace(
        scene,
        subject=replace(
            subject, x=subject.x + float(shift[0]), y=subject.y + float(shift[1]), radius=size
        ),
    )


def _content(rng: Rng, scene: Scene, ground: Floats) -> tuple[Floats, bool]:
    """What the answer draws on its ground, and whether it draws anything."""
    if scene.task == "removal":
        if rng.random() < 0.3:
            return world.paint_subject(ground, scene), True
        if rng.random() < 0.2 and scene.subject is not None:
            colour = COLOUR_NAMES[int(rng.integers(6))]
            shape = SHAPES[int(rng.integers(4))]
            other = replace(scene.subject, colour=colour, shape=shape)
            return world.paint_subject(ground, replace(scene, subject=other)), True
        return ground, False
    if scene.task == "extend_noprompt" or rng.random() < 0.04:
        return ground, False
    return world.paint_subject(ground, scene), True


def _attributes(scene: Scene) -> tuple[int, int, int, int]:
    if scene.text:
        return -1, -1, int(scene.text[0]), int(scene.text[1])
    if scene.subject is None:
        return -1, -1, -1, -1
    return COLOUR_NAMES.index(scene.subject.colour), SHAPES.index(scene.subject.shape), -1, -1


def _world_answer(rng: Rng, scene: Scene, flaws: int) -> tuple[Pixels, tuple[int, int, int, int]]:
    """An answer flawed as the starter policy's training targets are, graded."""
    names = rng.permutation(world.DIMENSIONS[scene.task])[:flaws]
    severity = float(rng.beta(1.1, 1.3))
    picture = world_flaws.sample_flawed(
        rng, world.example_of(scene), [str(n) for n in names], severity=severity
    )
    clear = not set(names) & set(PROMPTED) and severity < 0.5 and scene.task != "removal"
    return picture, _attributes(scene) if clear else (-1, -1, -1, -1)


def draw_answer(rng: Rng, scene: Scene, flaws: int) -> tuple[Pixels, tuple[int, int, int, int]]:
    """An answer (64, 64, 3) with that many flaws, and what it shows (-1 where unclear)."""
    if flaws and rng.random() < 0.4:
        return _world_answer(rng, scene, flaws)
    ground = world.surroundings(scene)
    mask = world.mask_picture(scene.box) > 0
    canvas = Canvas(scene, ground, mask)
    strengths = [float(rng.beta(1.1, 1.6)) for _ in range(flaws)]
    placed = _moved(rng, scene, 0.5 if flaws == 0 else 1.0) if rng.random() < 0.4 else scene
    picture, shown = (
        (ground, False) if flaws == 0 and scene.task == "removal" else _content(rng, placed, ground)
    )
    clear = shown
    for by in strengths:
        kind = rng.random()
        flaw: Flaw
        if kind < 0.1:
            flaw = texture
        elif kind < 0.14:
            flaw = saturated
        else:
            flaw = FLAWS[int(rng.integers(len(FLAWS)))]
        worse = flaw(rng, by, picture, canvas)
        part = rng.random() < 0.2
        if part:
            # Over a part of the mask only.
            where = _smooth(rng, 4, 1) > 0
            worse = np.where(where, worse, picture)
        picture = np.clip(worse, 0, 255).astype(np.float32)
        clear = clear and by < 0.5
    if rng.random() < 0.3:
        picture = _blurred(picture, float(rng.uniform(0.2, 0.6)))
    outside = world.source_picture(scene)
    pixels = np.where(mask[..., None], world.to_pixels(picture), outside)
    return pixels, _attributes(scene) if clear and scene.task != "removal" else (-1, -1, -1, -1)


def _ranks(image: Pixels, scene: Scene) -> NDArray[np.float32]:
    found = truth.score(image, scene)
    return np.array([found.get(name, np.nan) for name in DIMENSIONS], np.float32)


def make_groups(seed: Sequence[int], count: int) -> Groups:
    """`count` groups; the same seed gives the same bytes."""
    rng = np.random.default_rng(list(seed))
    names = tuple(TASK_SHARE)
    tasks = [str(t) for t in rng.choice(names, count, p=list(TASK_SHARE.values()))]
    shape = (count, VARIANTS)
    groups = Groups(
        tasks=tasks,
        prompts=[],
        others=[],
        sources=np.zeros((count, SIZE, SIZE, 3), np.uint8),
        masks=np.zeros((count, SIZE, SIZE), np.uint8),
        images=np.zeros((*shape, SIZE, SIZE, 3), np.uint8),
        scores=np.full((*shape, len(DIMENSIONS)), np.nan, np.float32),
        other_scores=np.full((*shape, len(DIMENSIONS)), np.nan, np.float32),
        drawn=np.full((*shape, 4), -1, np.int64),
    )
    for index, task in enumerate(tasks):
        scene = world.sample_scene(rng, task)
        other = second_scene(rng, scene)
        groups.prompts.append(scene.prompt)
        groups.others.append(other.prompt if other else "")
        groups.sources[index] = world.source_picture(scene)
        groups.masks[index] = world.mask_picture(scene.box)
        for variant in range(VARIANTS):
            # Two clean answers, one to each prompt, then ever more flaws.
            shown = other if other and (variant == 1 or variant > 4) else scene
            if other and variant > 5 and rng.random() < 0.6:
                shown = scene
            flaws = (0, 0 if other else 2, 1, 1, 1, 1, 2, 3)[variant]
            image, drawn = draw_answer(rng, shown, flaws)
            groups.images[index, variant] = image
            groups.drawn[index, variant] = drawn
            groups.scores[index, variant] = _ranks(image, scene)
            if other:
                groups.other_scores[index, variant] = _ranks(image, other)
    return groups
