"""VideoAlign-style CSV: a line per pair and person, with A, B or same for every dimension."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import (
    Answer,
    Choice,
    Comparison,
    Outgoing,
    RowError,
    answer_of,
    pairs,
)
from generation.readers import Refusal

HOLDS = frozenset({"no_difference", "votes", "split"})
COLUMNS = ("path_A", "path_B", "prompt")
LETTERS = {"first": "A", "second": "B", "same": "same"}
CHOICES: dict[str, Choice] = {"A": "first", "B": "second", "same": "same"}


def write(data: Outgoing, out: Path) -> None:
    columns = [*COLUMNS, *sorted(data.questions)]
    with files.Shelf(out, partial(files.Csv, columns=columns)) as shelf:
        for row in data:
            for (first, second), people in _by_pair(row).items():
                for said in people.values():
                    paths = {
                        "path_A": files.keep(row.pictures[first], out),
                        "path_B": files.keep(row.pictures[second], out),
                    }
                    line = paths | {"prompt": row.prompt} | said
                    shelf.add(f"{files.PART[row.split]}.csv", line)


def _by_pair(row: Comparison) -> dict[tuple[int, int], dict[str, dict[str, str]]]:
    """By the pair and the person: what was said on each dimension."""
    found: dict[tuple[int, int], dict[str, dict[str, str]]] = {}
    for dimension in row.dimensions():
        for pair in pairs(row, dimension):
            places = (row.pictures.index(pair.first), row.pictures.index(pair.second))
            for vote in pair.votes:
                if vote.choice in LETTERS:
                    people = found.setdefault(places, {})
                    said = people.setdefault(vote.answer.annotator, {})
                    said[dimension] = LETTERS[vote.choice]
    return found


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".csv"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    """Every column whose cells are A, B or same is a dimension."""
    answers: list[Answer] = []
    odd = []
    for column, cell in row.items():
        if cell in CHOICES and column not in COLUMNS and not column.endswith(("_A", "_B")):
            answers.append(answer_of(CHOICES[cell], dimension=column))
        elif cell and column not in COLUMNS:
            odd.append(f"{column} is “{cell}”")
    if not answers:
        raise RowError(
            f"No column says A, B or same{f': {odd[0]}' if odd else ''}. Give one for a dimension."
        )
    return Comparison(
        prompt=files.words(row, "prompt"),
        pictures=files.two_pictures(row, ("path_A", "path_B"), ("A_model", "B_model"), base),
        answers=tuple(answers),
    )
