import numpy as np
import pytest

from annotation import outlines


def mask(*rows: str) -> np.ndarray:
    return np.array([[255 if c == "#" else 0 for c in row] for row in rows], np.uint8)


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        (("....", ".##.", "...."), "M1 1H3V2H1Z"),
        (("##", "##"), "M0 0H2V2H0Z"),
        (("..", ".."), ""),
    ],
)
def test_it_goes_around_what_is_white(rows: tuple[str, ...], path: str) -> None:
    assert outlines.outline(mask(*rows)) == path


def test_it_leaves_holes_out() -> None:
    path = outlines.outline(mask("###", "#.#", "###"))
    assert path.count("M") == path.count("Z") == 2


@pytest.mark.parametrize("seed", range(5))
def test_it_encloses_exactly_the_white_pixels(seed: int) -> None:
    """Each vertical edge left of a pixel's centre flips inside and outside (even-odd rule)."""
    pixels = (np.random.default_rng(seed).random((9, 11)) < 0.5).astype(np.uint8) * 255
    inside = np.zeros(pixels.shape, bool)
    for x, top, bottom in vertical_edges(outlines.outline(pixels)):
        inside[top:bottom, x:] ^= True
    assert (inside == (pixels > 0)).all()


def vertical_edges(path: str) -> list[tuple[int, int, int]]:
    edges = []
    for loop in filter(None, path.replace("Z", "").split("M")):
        steps = loop.replace("H", " H").replace("V", " V").split()
        x, y = int(steps[0]), int(steps[1])
        start = (x, y)
        for step in [*steps[2:], f"V{start[1]}"]:
            if step[0] == "H":
                x = int(step[1:])
                continue
            to = int(step[1:])
            edges.append((x, min(y, to), max(y, to)))
            y = to
    return edges
