"""ImageRewardDB: Parquet, one row per picture with its rank among those of its prompt.

Ranks are those of all answers together. The ratings of single pictures stay empty. A folder for
every dimension. The repository's `test.json` (`generations`, `ranking`) is read, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import (
    Comparison,
    Outgoing,
    Picture,
    RowError,
    common_ranks,
    of_ranking,
)
from generation.external import MOST_PER_SET
from generation.readers import Refusal

HOLDS = frozenset({"no_difference", "sets", "split"})
RATINGS = ("overall_rating", "image_text_alignment_rating", "fidelity_rating")


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, partial(files.Parquet, features=_features())) as shelf:
        for row in data:
            for dimension in row.dimensions():
                said = [one for one in row.on(dimension) if one.outcome != "cannot_judge"]
                if not said:
                    continue
                ranking = common_ranks(said, len(row.pictures))
                for picture, rank in zip(row.pictures, ranking, strict=True):
                    line = {
                        "image": files.inside(picture),
                        "prompt_id": row.key,
                        "prompt": row.prompt,
                        "classification": "",
                        "image_amount_in_total": len(row.pictures),
                        "rank": rank,
                    }
                    name = f"{dimension}/{files.PART[row.split]}-00000-of-00001.parquet"
                    shelf.add(name, line)


def _features() -> Any:
    from datasets import Features, Image, Value

    text, whole = Value("string"), Value("int64")
    return Features(
        {
            "image": Image(),
            "prompt_id": text,
            "prompt": text,
            "classification": text,
            "image_amount_in_total": whole,
            "rank": whole,
            **dict.fromkeys(RATINGS, whole),
        }
    )


def read(path: Path) -> Iterator[Comparison | Refusal]:
    """Rows of one prompt stand together, as they do there."""
    rows = files.records(path, [".parquet", ".json"])
    for _group, members in groupby(rows, key=_group_of):
        yield from _comparisons(list(members), path)


def _group_of(record: tuple[str, Row | str, Path]) -> object:
    name, row, file = record
    together = isinstance(row, dict) and "generations" not in row and row.get("prompt_id")
    return (file, row["prompt_id"]) if together and isinstance(row, dict) else name


def _comparisons(
    members: list[tuple[str, Row | str, Path]], path: Path
) -> Iterator[Comparison | Refusal]:
    name, first, file = members[0]
    try:
        rows = [row for _name, row, _file in members if isinstance(row, dict)]
        if isinstance(first, str):
            raise RowError(f"This {first}.")
        pictures, ranking = (
            _of_repository(first, file) if "generations" in first else _of(rows, file)
        )
        if len(pictures) < 2 or len(ranking) != len(pictures):
            raise RowError(f"It has {len(pictures)} pictures and {len(ranking)} ranks.")
        prompt = files.words(first, "prompt")
    except RowError as error:
        yield Refusal(name, str(error))
        return
    for places, answer in of_ranking(ranking, MOST_PER_SET):
        shown = tuple(pictures[place] for place in places)
        yield Comparison(prompt, shown, (answer,), name, files.folder_of(file, path))


def _of(rows: list[Row], file: Path) -> tuple[list[Picture], list[int]]:
    if not rows[0].get("prompt_id"):
        raise RowError("It has no “prompt_id”, which tells whose ranks belong together.")
    ranks = [row.get("rank") for row in rows]
    if any(isinstance(rank, bool) or not isinstance(rank, int) for rank in ranks):
        raise RowError("Its “rank” is not a whole number.")
    pictures = [files.picture(row.get("image"), "image", file.parent) for row in rows]
    return pictures, [rank for rank in ranks if rank is not None]


def _of_repository(row: Row, file: Path) -> tuple[list[Picture], list[int]]:
    paths = files.several(row, "generations", str)
    return (
        [files.picture(one, "generations", file.parent, below="images") for one in paths],
        files.several(row, "ranking", int),
    )
