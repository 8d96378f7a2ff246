"""HPDv2: `train.json` with pairs, `test.json` with rankings by several people; pictures beside.

Training rows say one person's choice each, of a pair. Held-out sets keep all their pictures, every
person's ranks (best, worst, and the others between them) and the ranks of all together. A folder
for every dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import (
    Comparison,
    Outgoing,
    RowError,
    answer_of,
    common_ranks,
    of_ranking,
    pairs,
    ranks,
)
from generation.external import MOST_PER_SET
from generation.readers import Refusal

HOLDS = frozenset({"votes", "split", "no_difference", "annotators", "sets"})


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, files.JsonArray) as shelf:
        for row in data:
            for dimension in row.dimensions():
                if row.split == "train":
                    _write_pairs(shelf, out / dimension, row, dimension, data)
                else:
                    _write_ranking(shelf, out / dimension, row, dimension)


def _write_pairs(
    shelf: files.Shelf, folder: Path, row: Comparison, dimension: str, data: Outgoing
) -> None:
    said = row.on(dimension)
    # The pairs of training rows are told apart from those of held-out ones, which hold more.
    data.lose("no_difference", sum(answer.outcome == "no_difference" for answer in said))
    data.lose("annotators", sum(bool(answer.annotator) for answer in said))
    data.lose("sets", len(row.pictures) > 2)
    for pair in pairs(row, dimension):
        paths = [files.keep(one, folder, "train") for one in (pair.first, pair.second)]
        for vote in pair.votes:
            if vote.choice in ("first", "second"):
                first = int(vote.choice == "first")
                line = {
                    "prompt": row.prompt,
                    "file_path": [path.removeprefix("train/") for path in paths],
                    "human_preference": [first, 1 - first],
                }
                shelf.add(f"{dimension}/train.json", line)


def _write_ranking(shelf: files.Shelf, folder: Path, row: Comparison, dimension: str) -> None:
    said = [answer for answer in row.on(dimension) if answer.outcome != "cannot_judge"]
    if not said:
        return
    n = len(row.pictures)
    paths = [files.keep(one, folder, "test") for one in row.pictures]
    line = {
        "prompt": row.prompt,
        "image_path": [path.removeprefix("test/") for path in paths],
        "rank": common_ranks(said, n),
        "raw_annotations": [
            {"rank": ranks(answer, n), "user_hash": answer.annotator} for answer in said
        ],
    }
    shelf.add(f"{dimension}/test.json", line)


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".json"], _comparisons)


def _comparisons(row: Row, base: Path) -> list[Comparison]:
    prompt = files.words(row, "prompt")
    if "file_path" in row:
        paths = files.several(row, "file_path", str)
        said = files.several(row, "human_preference", int)
        choice = {(1, 0): "first", (0, 1): "second"}.get(tuple(said))
        if len(paths) != 2 or choice is None:
            raise RowError(f"Its human_preference is {said}, not [1, 0] or [0, 1] of two pictures.")
        shown = tuple(files.picture(one, "file_path", base, below="train") for one in paths)
        return [Comparison(prompt, shown, (answer_of(choice),))]  # type: ignore[arg-type]
    paths = files.several(row, "image_path", str)
    shown = tuple(files.picture(one, "image_path", base, below="test") for one in paths)
    people = row.get("raw_annotations") or [{"rank": row.get("rank")}]
    if not isinstance(people, list):
        raise RowError("Its “raw_annotations” is not a list.")
    found: dict[tuple[int, ...], Comparison] = {}
    for one in people:
        if not isinstance(one, dict):
            raise RowError("Its “raw_annotations” holds something that is no object.")
        ranking = files.several(one, "rank", int)
        if len(ranking) != len(paths):
            raise RowError(f"It has {len(paths)} pictures and a rank of {len(ranking)}.")
        who = files.words(one, "user_hash", optional=True)
        for places, answer in of_ranking(ranking, MOST_PER_SET):
            about = found.get(places)
            if about is None:
                about = Comparison(prompt, tuple(shown[place] for place in places), ())
            answers = (*about.answers, replace(answer, annotator=who))
            found[places] = replace(about, answers=answers)
    return list(found.values())
