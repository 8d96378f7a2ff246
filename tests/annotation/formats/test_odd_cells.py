"""Whatever stands in a cell, a reader answers with rows and reasons: it never breaks off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from annotation.formats import FORMATS
from annotation.formats.rows import Comparison
from generation.readers import ReadError, Refusal
from tests.annotation.formats.specimens import FILES, put

ODD: list[Any] = [
    None,
    "",
    "no\0ne",
    "\ud800",
    "x" * 5000,
    -1,
    10**400,
    2.5,
    float("nan"),
    True,
    [],
    [None],
    [[1]],
    ["1.png", 2],
    [{"rank": "first"}],
    {},
    {"bytes": "text", "path": 3},
    {"image": None},
    b"\xff",
]


# A process of its own reads each Parquet file: all of them take minutes.
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_an_odd_cell_is_no_accident(format: str, every: int, tmp_path: Path) -> None:
    name, row = FILES[format]
    count = 0
    cases = [(cell, odd) for cell in row() for odd in ODD]
    for cell, odd in cases[::every]:
        try:
            path = put(tmp_path, name, [row() | {cell: odd}])
        except (TypeError, ValueError, OverflowError, pa.ArrowException):
            continue  # no file of the format holds that
        try:
            found = list(FORMATS[format].read(path))
        except ReadError:
            continue
        count += 1
        assert all(isinstance(one, Comparison | Refusal) for one in found)
    assert count > 3 * len(row()) / every
