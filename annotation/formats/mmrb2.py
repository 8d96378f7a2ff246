"""MMRB2: one object with all `pairs`, each of two responses and which of them people chose.

`human_annotations` holds everybody's answer (A, B or same), `prompt_metadata` task, dimension,
split and the path of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import (
    Answer,
    Choice,
    Comparison,
    Outgoing,
    Pair,
    Picture,
    RowError,
    answer_of,
    pairs,
)
from generation.quoting import one_line
from generation.readers import Refusal

HOLDS = frozenset({"source", "mask", "task", "models", "annotators", "votes", "split"})
LETTERS = {"first": "A", "second": "B", "same": "same"}
CHOICES: dict[str, Choice] = {"A": "first", "B": "second", "same": "same"}


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, partial(files.JsonArray, key="pairs")) as shelf:
        for row in data:
            for dimension in row.dimensions():
                for pair in pairs(row, dimension):
                    chosen = pair.preferred()
                    if chosen is None:
                        data.lose("undecided")
                        continue
                    shelf.add("pairs.json", _row(out, row, dimension, pair, chosen[0]))


def _row(out: Path, row: Comparison, dimension: str, pair: Pair, chosen: Picture) -> dict[str, Any]:
    content = [["text", row.prompt]]
    metadata = {"task": row.task, "dimension": dimension, "split": row.split}
    if row.source is not None:
        content.append(["image", files.keep(row.source, out)])
    if row.mask is not None:
        metadata["mask"] = files.keep(row.mask, out)
    responses = {
        f"response_{letter}": {
            "model": one.model,
            "response_content": [["image", files.keep(one, out)]],
        }
        for letter, one in (("a", pair.first), ("b", pair.second))
    }
    return {
        "pair_id": f"{row.key}_{dimension}_{pair.first.sha256[:16]}_{pair.second.sha256[:16]}",
        "prompt_source": "oneloop",
        "prompt_content": content,
        "prompt_metadata": metadata,
        **responses,
        "chosen": "A" if chosen is pair.first else "B",
        "human_annotations": {
            vote.answer.annotator: LETTERS[vote.choice]
            for vote in pair.votes
            if vote.choice in LETTERS
        },
    }


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".json"], _comparison, key="pairs")


def _comparison(row: Row, base: Path) -> Comparison:
    chosen = files.words(row, "chosen")
    if chosen not in ("A", "B"):
        raise RowError(f"Its chosen is “{one_line(chosen)}”, not A or B.")
    texts, images = _content(row.get("prompt_content"), "prompt_content")
    if len(images) > 1:
        raise RowError("Its prompt has several pictures, and a source here is one.")
    metadata = row.get("prompt_metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    mask = metadata.get("mask")
    dimension = metadata.get("dimension")
    return Comparison(
        prompt="\n".join(texts),
        pictures=(_response(row, "response_a", base), _response(row, "response_b", base)),
        answers=_answers(row, chosen, dimension if isinstance(dimension, str) else ""),
        source=files.picture(images[0], "prompt_content", base) if images else None,
        mask=files.picture(mask, "mask", base) if mask else None,
    )


def _answers(row: Row, chosen: str, dimension: str) -> tuple[Answer, ...]:
    said = row.get("human_annotations")
    if isinstance(said, dict) and said and all(one in CHOICES for one in _plain(said)):
        return tuple(
            answer_of(CHOICES[one], dimension=dimension, annotator=str(who))
            for who, one in said.items()
        )
    return (answer_of(CHOICES[chosen], dimension=dimension),)


def _plain(said: dict[str, Any]) -> list[str]:
    return [one if isinstance(one, str) else "" for one in said.values()]


def _response(row: Row, name: str, base: Path) -> Picture:
    response = row.get(name)
    if not isinstance(response, dict):
        raise RowError(f"It has no “{name}”.")
    _texts, images = _content(response.get("response_content"), f"{name}.response_content")
    if len(images) != 1:
        raise RowError(
            f"Its {name} has {len(images)} pictures: only single ones are compared here."
        )
    model = files.words(response, "model", optional=True)
    return files.picture(images[0], name, base, model=model)


def _content(content: Any, name: str) -> tuple[list[str], list[str]]:
    texts: list[str] = []
    images: list[str] = []
    if not isinstance(content, list):
        raise RowError(f"Its “{name}” is not a list.")
    for part in content:
        kind, value = part if isinstance(part, list) and len(part) == 2 else ("", None)
        if kind not in ("text", "image") or not isinstance(value, str):
            raise RowError(f"Its “{name}” holds something that is no text and no picture.")
        (texts if kind == "text" else images).append(value)
    return texts, images
