"""EditReward-Bench: Parquet, one row per pair with a majority, the preferred edit first.

What is prompt_following there is text_alignment here. Both benchmarks of that name are read: that
of EditScore, which is also written, and that of TIGER-Lab with its `ranking` of two candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import (
    Choice,
    Comparison,
    Outgoing,
    RowError,
    answer_of,
    pairs,
)
from generation.quoting import one_line
from generation.readers import Refusal

HOLDS = frozenset({"source", "task", "split"})
THEIRS = {"text_alignment": "prompt_following"}
OURS = {theirs: ours for ours, theirs in THEIRS.items()}
RANKINGS: dict[str, Choice] = {"A>B": "first", "B>A": "second", "A=B": "same"}


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, partial(files.Parquet, features=_features())) as shelf:
        for row in data:
            if row.source is None:
                data.lose("no_source")
                continue
            for dimension in row.dimensions():
                for pair in pairs(row, dimension):
                    preferred = pair.preferred()
                    if preferred is None:
                        data.lose("undecided")
                        continue
                    line = {
                        "key": [f"{row.key}_{one.sha256[:16]}" for one in preferred],
                        "instruction": row.prompt,
                        "input_image": files.inside(row.source),
                        "output_images": [files.inside(one) for one in preferred],
                        "task_type": row.task,
                        "dimension": THEIRS.get(dimension, dimension),
                    }
                    shelf.add(f"data/{files.PART[row.split]}-00000-of-00001.parquet", line)


def _features() -> Any:
    from datasets import Features, Image, List, Value

    text = Value("string")
    return Features(
        {
            "key": List(text),
            "instruction": text,
            "input_image": Image(),
            "output_images": List(Image()),
            "task_type": text,
            "dimension": text,
        }
    )


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".parquet"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    if "ranking" in row:
        return _of_tiger_lab(row, base)
    outputs = row.get("output_images")
    if not isinstance(outputs, list) or len(outputs) != 2:
        raise RowError("Its “output_images” are not two pictures.")
    dimension = files.words(row, "dimension", optional=True)
    return Comparison(
        prompt=files.words(row, "instruction"),
        pictures=tuple(files.picture(one, "output_images", base) for one in outputs),
        answers=(answer_of("first", dimension=OURS.get(dimension, dimension)),),
        source=files.picture(row.get("input_image"), "input_image", base),
    )


def _of_tiger_lab(row: Row, base: Path) -> Comparison:
    ranking = files.words(row, "ranking")
    if ranking not in RANKINGS:
        raise RowError(f"Its ranking is “{one_line(ranking)}”, not A>B, B>A or A=B.")
    return Comparison(
        prompt=files.words(row, "instruction"),
        pictures=files.two_pictures(
            row, ("candidate_1", "candidate_2"), ("model_1", "model_2"), base
        ),
        answers=(answer_of(RANKINGS[ranking]),),
        source=files.picture(row.get("source_image"), "source_image", base),
    )
