"""Pick-a-Pic v1 and v2: Parquet, one row per person and pair, pictures inside; ties are 0.5.

A folder for every dimension, which the format has no word for. `jpg_0` and `jpg_1` hold PNG here:
readers go by the content.
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
    Pair,
    RowError,
    Vote,
    answer_of,
    pairs,
)
from generation.readers import Refusal

HOLDS = frozenset({"models", "annotators", "votes", "no_difference", "split", "time"})
LABELS: dict[Choice, tuple[float, float]] = {
    "first": (1.0, 0.0),
    "second": (0.0, 1.0),
    "same": (0.5, 0.5),
}


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, partial(files.Parquet, features=_features())) as shelf:
        for row in data:
            for dimension in row.dimensions():
                name = f"{dimension}/{files.PART[row.split]}-00000-of-00001.parquet"
                for pair in pairs(row, dimension):
                    for vote in pair.votes:
                        if vote.choice in LABELS:
                            shelf.add(name, _row(row, dimension, pair, vote))


def _row(row: Comparison, dimension: str, pair: Pair, vote: Vote) -> dict[str, Any]:
    first, second = LABELS[vote.choice]
    best = {"first": pair.first.sha256, "second": pair.second.sha256}.get(vote.choice, "tie")
    return {
        "are_different": True,
        "best_image_uid": best,
        "caption": row.prompt,
        "created_at": vote.answer.at,
        "has_label": True,
        "image_0_uid": pair.first.sha256,
        "image_0_url": "",
        "image_1_uid": pair.second.sha256,
        "image_1_url": "",
        "jpg_0": pair.first.bytes(),
        "jpg_1": pair.second.bytes(),
        "label_0": first,
        "label_1": second,
        "model_0": pair.first.model,
        "model_1": pair.second.model,
        "num_example_per_prompt": len(row.pictures),
        "ranking_id": files.number_of(
            f"{row.key} {dimension} {pair.first.sha256} {pair.second.sha256}"
        ),
        "user_id": files.number_of(vote.answer.annotator),
    }


def _features() -> Any:
    from datasets import Features, Value

    kinds = {
        "bool": ("are_different", "has_label"),
        "binary": ("jpg_0", "jpg_1"),
        "float64": ("label_0", "label_1"),
        "int64": ("num_example_per_prompt", "ranking_id", "user_id"),
        "timestamp[us, tz=UTC]": ("created_at",),
    }
    of = {name: kind for kind, names in kinds.items() for name in names}
    names = (
        *("are_different", "best_image_uid", "caption", "created_at", "has_label"),
        *("image_0_uid", "image_0_url", "image_1_uid", "image_1_url", "jpg_0", "jpg_1"),
        *("label_0", "label_1", "model_0", "model_1", "num_example_per_prompt"),
        *("ranking_id", "user_id"),
    )
    return Features({name: Value(of.get(name, "string")) for name in names})


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".parquet"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    if row.get("has_label") is False:
        raise RowError("Nobody labelled it (has_label is false).")
    labels = (files.number(row, "label_0"), files.number(row, "label_1"))
    choice = next((name for name, label in LABELS.items() if label == labels), None)
    if choice is None:
        raise RowError(f"Its labels are {labels[0]} and {labels[1]}, not 1 and 0, 0 and 1 or 0.5.")
    shown = tuple(
        files.picture(
            row.get(f"jpg_{n}") or row.get(f"image_{n}_url"),
            f"jpg_{n}",
            base,
            model=files.words(row, f"model_{n}", optional=True),
        )
        for n in (0, 1)
    )
    who = row.get("user_id")
    at = row.get("created_at")
    return Comparison(
        prompt=files.words(row, "caption"),
        pictures=shown,
        answers=(
            answer_of(choice, annotator="" if who is None else str(who), at=files.moment(at)),
        ),
    )
