"""Rapidata's sets: Parquet, one row per pair with the share of the votes for either picture.

Three of our dimensions have names there; the others keep theirs. An answer that found no difference
is half a vote for either. `detailed_results_…` names every voter's picture, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import (
    Answer,
    Comparison,
    Outgoing,
    Pair,
    Picture,
    RowError,
    answer_of,
    pairs,
)
from generation.readers import Refusal

HOLDS = frozenset({"models", "votes", "annotators", "split"})
THEIRS = {"overall": "preference", "text_alignment": "alignment", "structure": "coherence"}
OURS = {theirs: ours for ours, theirs in THEIRS.items()}
SHARE = "weighted_results_image1_"


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, partial(files.Parquet, features=_features(data.questions))) as shelf:
        for row in data:
            for (first, second), said in _by_pair(row).items():
                one, other = row.pictures[first], row.pictures[second]
                line: dict[str, Any] = {
                    "prompt": row.prompt,
                    "image1": files.inside(one),
                    "image2": files.inside(other),
                    "model1": one.model,
                    "model2": other.model,
                }
                for dimension, pair in said.items():
                    line |= _results(THEIRS.get(dimension, dimension), pair)
                    split = pair.count("first") or pair.count("second")
                    data.lose("no_difference", pair.count("same") if split else 0)
                shelf.add(f"data/{files.PART[row.split]}-00000-of-00001.parquet", line)


def _by_pair(row: Comparison) -> dict[tuple[int, int], dict[str, Pair]]:
    found: dict[tuple[int, int], dict[str, Pair]] = {}
    for dimension in row.dimensions():
        for pair in pairs(row, dimension):
            if pair.count("unknown") < len(pair.votes):
                places = (row.pictures.index(pair.first), row.pictures.index(pair.second))
                found.setdefault(places, {})[dimension] = pair
    return found


def _results(name: str, pair: Pair) -> dict[str, Any]:
    first, second, same = (pair.count(choice) for choice in ("first", "second", "same"))
    share = (first + same / 2) / (first + second + same)
    voted = [
        {
            "votedFor": (pair.first if vote.choice == "first" else pair.second).name,
            "userDetails": {"id": vote.answer.annotator},
        }
        for vote in pair.votes
        if vote.choice in ("first", "second")
    ]
    return {
        f"weighted_results_image1_{name}": share,
        f"weighted_results_image2_{name}": 1 - share,
        f"detailed_results_{name}": json.dumps(voted),
    }


def _features(questions: Mapping[str, str]) -> Any:
    from datasets import Features, Image, Value

    text, real = Value("string"), Value("float64")
    results: dict[str, Value] = {}
    for dimension in sorted(questions):
        name = THEIRS.get(dimension, dimension)
        results |= {
            f"weighted_results_image1_{name}": real,
            f"weighted_results_image2_{name}": real,
            f"detailed_results_{name}": text,
        }
    start = {"prompt": text, "image1": Image(), "image2": Image(), "model1": text, "model2": text}
    return Features(start | results)


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".parquet"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    shown = files.two_pictures(row, ("image1", "image2"), ("model1", "model2"), base)
    names = [column.removeprefix(SHARE) for column in row if column.startswith(SHARE)]
    answers = [answer for name in names for answer in _answers(row, name, shown)]
    if not answers:
        raise RowError(f"No column {SHARE}… says whom people preferred.")
    return Comparison(files.words(row, "prompt"), shown, tuple(answers))


def _answers(row: Row, name: str, shown: tuple[Picture, ...]) -> list[Answer]:
    """Everybody's, where they are told; else one, for the larger share."""
    dimension = OURS.get(name, name)
    first = files.number(row, f"{SHARE}{name}")
    second = files.number(row, f"weighted_results_image2_{name}")
    if first is None or second is None:
        return []
    if first < 0 or second < 0:
        raise RowError(f"Its shares for {name} are {first} and {second}.")
    if told := _told(row.get(f"detailed_results_{name}"), dimension, row, shown):
        return told
    choice = "same" if first == second else "first" if first > second else "second"
    return [answer_of(choice, dimension=dimension)]  # type: ignore[arg-type]


def _told(voted: Any, dimension: str, row: Row, shown: tuple[Picture, ...]) -> list[Answer]:
    """Empty where a vote is for neither picture: names differ from set to set."""
    if isinstance(voted, str):
        try:
            voted = json.loads(voted)
        except ValueError:
            return []
    found = []
    for one in voted if isinstance(voted, list) else []:
        if not isinstance(one, dict):
            return []
        name = PurePosixPath(str(one.get("votedFor"))).name
        places = [n for n in (1, 2) if name in _names(row, n, shown[n - 1])]
        if len(places) != 1:
            return []
        details = one.get("userDetails")
        who = details.get("id", "") if isinstance(details, dict) else ""
        choice = "first" if places == [1] else "second"
        found.append(
            answer_of(choice, dimension=dimension, annotator=str(who))  # type: ignore[arg-type]
        )
    return found


def _names(row: Row, n: int, picture: Picture) -> set[str]:
    """What a vote for the picture may call it."""
    cell = row.get(f"image{n}")
    path = cell.get("path") if isinstance(cell, dict) else cell
    names = {f"image{n}", picture.model, picture.name}
    return (names | {PurePosixPath(path).name} if isinstance(path, str) else names) - {""}
