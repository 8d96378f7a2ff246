import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from pycocotools import mask as coco

from generation import images
from generation.areas import Area
from generation.images import ImageError
from tests.factories import make_picture

SIDES = st.integers(1, 40)


def drawn(value: object, size: tuple[int, int] = (4, 3)) -> list[list[int]]:
    """Rows of 0 and 1."""
    mask = np.asarray(Area(value).draw(size, name="the mask"))
    assert set(np.unique(mask)) <= {0, 255}
    rows: list[list[int]] = (mask // 255).tolist()
    return rows


def test_runs_go_down_the_columns() -> None:
    # 1 not, 2 edited, 3 not, 6 edited: the first column is 0 1 1, the second 0 0 0.
    expected = [[0, 0, 1, 1], [1, 0, 1, 1], [1, 0, 1, 1]]
    assert drawn({"size": [3, 4], "counts": [1, 2, 3, 6]}) == expected
    # The same as BrushData has it: start, counted from 1, and length.
    assert drawn({"size": [3, 4], "runs": [2, 2, 7, 6]}) == expected
    assert drawn({"size": [3, 4], "runs": [7, 6, 2, 2]}) == expected


def test_a_box_is_left_top_width_height() -> None:
    assert drawn([1, 0, 2, 1]) == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_several_shapes_are_one_area() -> None:
    boxes = [[0, 0, 1, 3], [3, 0, 1, 1]]
    assert drawn(boxes) == [[1, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]]
    square = [1, 1, 1, 3, 3, 3, 3, 1]
    points = [[1, 1], [1, 3], [3, 3], [3, 1]]
    assert drawn([square]) == drawn(square) == drawn(points) == drawn([1, 1, 2, 2])


@given(st.data(), SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_run_lengths_are_read_as_pycocotools_writes_them(
    data: st.DataObject, width: int, height: int
) -> None:
    bits = data.draw(st.binary(min_size=width * height, max_size=width * height))
    flags: NDArray[np.uint8] = np.frombuffer(bits, np.uint8).reshape(height, width) % 3 % 2
    said = coco.encode(np.asfortranarray(flags))
    for counts in (said["counts"], said["counts"].decode()):
        assert drawn({"size": said["size"], "counts": counts}, (width, height)) == flags.tolist()


@given(
    st.lists(st.tuples(st.floats(-9, 50), st.floats(-9, 50)), min_size=3, max_size=9),
    st.integers(13, 40),
    st.integers(13, 40),
)
@settings(max_examples=150, deadline=None)
def test_a_polygon_is_filled_as_pycocotools_fills_it(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    numbers = [side for point in points for side in point]
    expected = coco.decode(coco.frPyObjects([numbers], height, width))[:, :, 0]
    assert drawn([numbers], (width, height)) == expected.tolist()


@given(st.tuples(st.floats(0, 30), st.floats(0, 30), st.floats(0, 30), st.floats(0, 30)))
@settings(max_examples=60, deadline=None)
def test_a_box_is_filled_as_pycocotools_fills_it(box: tuple[float, ...]) -> None:
    expected = coco.decode(coco.frPyObjects(np.array([box]), 32, 40))[:, :, 0]
    assert drawn(list(box), (40, 32)) == expected.tolist()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"size": [3, 4], "counts": [1, 2]}, "do not add up to 4 × 3"),
        ({"size": [3, 4], "counts": [-1, 13]}, "do not add up"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "its size is"),
        ({"size": [-3, -4], "counts": [12]}, "its size is"),
        ({"size": [3, 4], "counts": "\x00"}, "not COCO's"),
        ({"size": [3, 4], "counts": "o"}, "cut off"),
        ({"size": "3x4", "counts": [12]}, "is not understood"),
        ({"size": [3, 4], "runs": [2]}, "not pairs"),
        ({"size": [3, 4], "runs": [1, 5, 2, 2]}, "do not add up"),
        ([1, 2, 3], "no polygon and no box"),
        ([[]], "empty"),
        (["left"], "is not understood"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside"),
        ([1, 2, float("nan"), 4], "far outside"),
        (json.loads("[" * 900 + "]" * 900), "is not understood"),
    ],
)
def test_it_says_why_numbers_are_no_mask(value: object, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        Area(value).draw((4, 3), name="the mask")


# The alpha channel


def png(alpha: Pillow.Image | None) -> bytes:
    picture = make_picture(1)
    if alpha is not None:
        picture.putalpha(alpha)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_what_is_transparent_is_edited() -> None:
    alpha = Pillow.new("L", (64, 64), 255)
    alpha.paste(0, (0, 0, 16, 64))
    mask = images.decode_alpha(png(alpha), name="cat.png")
    assert (mask.getpixel((3, 3)), mask.getpixel((40, 3))) == (255, 0)


@pytest.mark.parametrize(
    ("alpha", "reason"),
    [
        (None, "cat.png has no alpha channel. Save it as PNG"),
        (Pillow.new("L", (64, 64), 255), "Nothing in cat.png is transparent"),
        (Pillow.linear_gradient("L").resize((64, 64)), "The alpha channel of cat.png is not black"),
    ],
)
def test_it_says_why_an_alpha_channel_is_no_mask(alpha: Pillow.Image | None, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        images.decode_alpha(png(alpha), name="cat.png")
