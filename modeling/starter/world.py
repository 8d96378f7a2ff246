"""The procedural starter world: small scenes with masks and captions for the five edit tasks.

Every scene is 64 x 64 pixels, laid out on a 4-pixel grid: a solid, gradient or striped background,
up to two small distractor shapes, and under the mask what a perfect answer shows: a coloured
shape, two digits, or plain background. A scene holds all that `truth.score` needs to judge any
picture of it. numpy and PIL only; the same generator state gives the same scene.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 64
GRID = 4
TASKS = ("fill", "extend_prompt", "extend_noprompt", "removal", "text_rendering")
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "fill": ("text_alignment", "consistency", "structure", "aesthetics"),
    "extend_prompt": ("text_alignment", "consistency", "structure", "aesthetics"),
    "extend_noprompt": ("consistency", "structure", "aesthetics"),
    "removal": ("removal_quality",),
    "text_rendering": ("text_rendering", "consistency", "structure", "aesthetics"),
}
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 45),
    "green": (40, 150, 60),
    "blue": (45, 85, 215),
    "yellow": (245, 210, 45),
    "purple": (150, 55, 190),
    "black": (30, 30, 35),
}
SHAPES = ("circle", "square", "triangle", "star")
INK = (30, 30, 45)
REMOVAL_PROMPT = "remove"
EXTEND_PROMPT = "high-definition, perfect composition"
# What a source shows where nothing exists yet (an extended canvas).
EMPTY = 128.0

DIGIT_WIDTH, DIGIT_HEIGHT = 16, 16
CELL_WIDTH, CELL_HEIGHT = 4, 3
DIGIT_CELLS: dict[str, tuple[str, ...]] = {
    "0": ("111", "101", "101", "101", "111"),
    "1": ("010", "110", "010", "010", "111"),
    "2": ("111", "001", "111", "100", "111"),
    "3": ("111", "001", "111", "001", "111"),
    "4": ("101", "101", "111", "001", "001"),
    "5": ("111", "100", "111", "001", "111"),
    "6": ("111", "100", "111", "101", "111"),
    "7": ("111", "001", "001", "010", "010"),
    "8": ("111", "101", "111", "101", "111"),
    "9": ("111", "101", "111", "001", "111"),
}

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Background:
    kind: str  # "solid", "gradient" or "stripes"
    first: Colour
    second: Colour
    direction: str = "x"  # "x", "y" or "xy": where colours change
    period: int = 16
    phase: int = 0


@dataclass(frozen=True)
class Shape:
    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    task: str
    background: Background
    box: Box  # x0, y0, x1, y1 of the mask; the end is exclusive
    distractors: tuple[Shape, ...] = ()
    subject: Shape | None = None  # under the mask; for removal it is what has to go
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scene":
        ground = dict(data["background"])
        ground["first"], ground["second"] = tuple(ground["first"]), tuple(ground["second"])
        x0, y0, x1, y1 = data["box"]
        return cls(
            task=data["task"],
            background=Background(**ground),
            box=(x0, y0, x1, y1),
            distractors=tuple(Shape(**one) for one in data.get("distractors", ())),
            subject=Shape(**data["subject"]) if data.get("subject") else None,
            text=data.get("text", ""),
        )

    @property
    def prompt(self) -> str:
        if self.task == "removal":
            return REMOVAL_PROMPT
        if self.task == "extend_noprompt":
            return EXTEND_PROMPT
        if self.task == "text_rendering":
            return f'the number "{self.text}"'
        assert self.subject is not None
        return f"a {self.subject.colour} {self.subject.shape}"


@dataclass(frozen=True)
class Example:
    task: str
    image: Pixels  # (64, 64, 3), the source picture
    mask: Pixels  # (64, 64), 255 = edit
    prompt: str
    target: Pixels  # (64, 64, 3), a perfect answer
    scene: Scene


# --- drawing ---


def shape_points(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    if shape == "circle":
        turns = np.arange(40) / 40
        reach = np.full(40, radius)
    elif shape == "square":
        turns = np.arange(4) / 4 + 0.125
        reach = np.full(4, radius * 0.9 * 2**0.5)
    elif shape == "triangle":
        turns = np.arange(3) / 3 - 0.25
        reach = np.full(3, radius * 1.15)
        y = y + radius * 0.2
    elif shape == "star":
        turns = np.arange(10) / 10 - 0.25
        reach = np.where(np.arange(10) % 2 == 0, radius * 1.1, radius * 0.46)
    else:
        raise ValueError(f"unknown shape {shape!r}; the world has {', '.join(SHAPES)}")
    angle = 2 * np.pi * turns
    return [
        (float(a), float(b))
        for a, b in zip(x + reach * np.cos(angle), y + reach * np.sin(angle), strict=True)
    ]


def coverage(points: Sequence[tuple[float, float]], size: int = SIZE) -> Floats:
    """The antialiased cover (size, size) in [0, 1] of a polygon in pixel coordinates."""
    scale = 4
    canvas = Image.new("L", (size * scale, size * scale))
    ImageDraw.Draw(canvas).polygon(
        [(a * scale - 0.5, b * scale - 0.5) for a, b in points], fill=255
    )
    return np.asarray(canvas.reduce(scale), np.float32) / np.float32(255)


def shape_cover(shape: Shape) -> Floats:
    return coverage(shape_points(shape.shape, shape.x, shape.y, shape.radius))


@lru_cache(maxsize=16)
def digit_cover(digit: str) -> Floats:
    """A digit's ink (16, 16): cells of 4 x 3 pixels, 2 pixels free left and right, 1 below."""
    cells = np.array([[int(c) for c in row] for row in DIGIT_CELLS[digit]], np.float32)
    ink = np.zeros((DIGIT_HEIGHT, DIGIT_WIDTH), np.float32)
    ink[:15, 2:14] = np.kron(cells, np.ones((CELL_HEIGHT, CELL_WIDTH), np.float32))
    ink.setflags(write=False)
    return ink


def text_cover(text: str, box: Box) -> Floats:
    cover = np.zeros((SIZE, SIZE), np.float32)
    x, y = box[0] + GRID, box[1] + GRID
    for index, digit in enumerate(text):
        left = x + index * DIGIT_WIDTH
        cover[y : y + DIGIT_HEIGHT, left : left + DIGIT_WIDTH] = digit_cover(digit)
    return cover


def paint(canvas: Floats, cover: Floats, colour: Iterable[float]) -> Floats:
    ink = np.array(list(colour), np.float32)
    return np.asarray(canvas + cover[..., None] * (ink - canvas), np.float32)


def background_picture(background: Background) -> Floats:
    """The background alone, (64, 64, 3) in 0..255."""
    first = np.array(background.first, np.float32)
    second = np.array(background.second, np.float32)
    line = np.arange(SIZE, dtype=np.float32)
    row, column = np.meshgrid(line, line, indexing="ij")
    places = {"x": column, "y": row, "xy": (row + column) * np.float32(0.5)}
    along = places[background.direction]
    if background.kind == "solid":
        share = np.zeros_like(along)
    elif background.kind == "gradient":
        share = along / np.float32(SIZE - 1)
    else:
        position = (along + background.phase) % background.period
        share = (position >= background.period / 2).astype(np.float32)
    return np.asarray(first + share[..., None] * (second - first), np.float32)


def mask_picture(box: Box) -> Pixels:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    return mask


def to_pixels(picture: Floats) -> Pixels:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def surroundings(scene: Scene) -> Floats:
    """Background and distractors: everything but what belongs under the mask."""
    canvas = background_picture(scene.background)
    for one in scene.distractors:
        canvas = paint(canvas, shape_cover(one), COLOURS[one.colour])
    return canvas


def paint_subject(canvas: Floats, scene: Scene) -> Floats:
    if scene.text:
        return paint(canvas, text_cover(scene.text, scene.box), INK)
    if scene.subject is not None:
        return paint(canvas, shape_cover(scene.subject), COLOURS[scene.subject.colour])
    return canvas


def target_picture(scene: Scene) -> Pixels:
    canvas = surroundings(scene)
    return to_pixels(canvas if scene.task == "removal" else paint_subject(canvas, scene))


def source_picture(scene: Scene) -> Pixels:
    canvas = surroundings(scene)
    if scene.task == "removal":
        canvas = paint_subject(canvas, scene)
    elif scene.task.startswith("extend"):
        canvas[mask_picture(scene.box) > 0] = EMPTY
    return to_pixels(canvas)


# --- sampling ---


def pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _muted(rng: np.random.Generator) -> NDArray[np.float64]:
    value = rng.uniform(165, 240)
    tint = rng.uniform(0, 1, 3)
    tint = (tint - tint.min()) / max(tint.max() - tint.min(), 1e-6)
    return np.asarray(value * (1 - rng.uniform(0.08, 0.38) * (1 - tint)))


def _colour(values: NDArray[np.float64]) -> Colour:
    r, g, b = (int(v) for v in np.clip(np.rint(values), 0, 255))
    return r, g, b


def sample_background(rng: np.random.Generator) -> Background:
    kind = str(rng.choice(["solid", "gradient", "stripes"], p=[0.5, 0.3, 0.2]))
    while True:
        first = _muted(rng)
        if kind == "stripes":
            second = first - rng.uniform(28, 52)
        else:
            second = first + rng.uniform(-45, 45, 3)
        # The objects' colours must stand out everywhere.
        nearest = min(
            float(np.linalg.norm(ground - np.array(colour)))
            for ground in (first, second, (first + second) / 2)
            for colour in COLOURS.values()
        )
        if nearest >= 105 and second.min() > 70:
            break
    direction = pick(rng, ("x", "y", "xy") if kind == "gradient" else ("x", "y"))
    period = int(pick(rng, (8, 16)))
    phase = int(rng.integers(period // GRID)) * GRID
    if kind == "solid":
        return Background(kind, _colour(first), _colour(first))
    return Background(kind, _colour(first), _colour(second), direction, period, phase)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _sample_distractors(rng: np.random.Generator, box: Box) -> tuple[Shape, ...]:
    found: list[Shape] = []
    taken: list[Box] = [box]
    for _ in range(int(rng.integers(3))):
        for _attempt in range(6):
            x, y = (GRID * int(v) for v in rng.integers(2, SIZE // GRID - 1, 2))
            room = (x - 8, y - 8, x + 8, y + 8)
            if not any(_overlap(room, other) for other in taken):
                found.append(
                    Shape(pick(rng, SHAPES), pick(rng, tuple(COLOURS)), x, y, pick(rng, (5, 6)))
                )
                taken.append(room)
                break
    return tuple(found)


def _sample_box(rng: np.random.Generator, width: int, height: int, grid: int, edge: int) -> Box:
    x = edge + grid * int(rng.integers((SIZE - width - 2 * edge) // grid + 1))
    y = edge + grid * int(rng.integers((SIZE - height - 2 * edge) // grid + 1))
    return x, y, x + width, y + height


def _sample_strip(rng: np.random.Generator) -> Box:
    width = int(pick(rng, (20, 24)))
    return (
        (0, 0, width, SIZE),
        (SIZE - width, 0, SIZE, SIZE),
        (0, 0, SIZE, width),
        (0, SIZE - width, SIZE, SIZE),
    )[int(rng.integers(4))]


def _subject_in(rng: np.random.Generator, box: Box) -> Shape:
    width, height = box[2] - box[0], box[3] - box[1]
    half = min(width, height) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if width != height:
        shift = GRID * int(rng.integers(-2, 3))
        x, y = (x + shift, y) if width > height else (x, y + shift)
    radius = round(half * (0.68 if width == height else 0.78))
    return Shape(pick(rng, SHAPES), pick(rng, tuple(COLOURS)), x, y, radius)


def sample_scene(rng: np.random.Generator, task: str) -> Scene:
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; the starter world has {', '.join(TASKS)}")
    background = sample_background(rng)
    text, subject = "", None
    if task.startswith("extend"):
        box = _sample_strip(rng)
    elif task == "text_rendering":
        # 8 pixels are one token of the starter policy, so every digit covers whole tokens.
        inner = _sample_box(rng, 2 * DIGIT_WIDTH, DIGIT_HEIGHT, 8, 8)
        box = (inner[0] - GRID, inner[1] - GRID, inner[2] + GRID, inner[3] + GRID)
        text = "".join(str(d) for d in rng.integers(0, 10, 2))
    else:
        side = 2 * int(pick(rng, (12, 16)))
        box = _sample_box(rng, side, side, GRID, GRID)
    if task in ("fill", "extend_prompt", "removal"):
        subject = _subject_in(rng, box)
    return Scene(task, background, box, _sample_distractors(rng, box), subject, text)


def example_of(scene: Scene) -> Example:
    return Example(
        task=scene.task,
        image=source_picture(scene),
        mask=mask_picture(scene.box),
        prompt=scene.prompt,
        target=target_picture(scene),
        scene=scene,
    )


def sample_example(rng: np.random.Generator, task: str) -> Example:
    return example_of(sample_scene(rng, task))
