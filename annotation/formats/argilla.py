"""Argilla's records as JSON lines, flat as its exports are: a record per set with all its pictures.

The fields are `prompt`, `source`, `mask` and `image_0`, `image_1`, …; every dimension is two label
questions, `<dimension>_best` and `<dimension>_worst`, whose labels are the names of the pictures,
`no_difference` and `cannot_judge`. A single question whose labels are two pictures is read as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import Answer, Comparison, Outgoing, RowError
from generation.readers import Refusal

HOLDS = frozenset(
    {"source", "mask", "task", "sets", "models", "annotators", "votes", "no_difference"}
    | {"cannot_judge", "split"}
)
FIELD = re.compile(r"image_\d+$")
OUTCOMES = ("no_difference", "cannot_judge")


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, files.JsonLines) as shelf:
        for row in data:
            shelf.add("records.jsonl", _record(out, row))


def _record(out: Path, row: Comparison) -> Row:
    record: Row = {
        "id": row.key,
        "status": "completed",
        "prompt": row.prompt,
        "source": files.keep(row.source, out) if row.source else None,
        "mask": files.keep(row.mask, out) if row.mask else None,
    }
    for place, picture in enumerate(row.pictures):
        record[f"image_{place}"] = files.keep(picture, out)
    for dimension in row.dimensions():
        said = row.on(dimension)
        for end in ("best", "worst"):
            question = f"{dimension}_{end}"
            record |= {
                f"{question}.responses": [_label(answer, end) for answer in said],
                f"{question}.responses.users": [answer.annotator for answer in said],
                f"{question}.responses.status": ["submitted"] * len(said),
                f"{question}.suggestion": None,
            }
    metadata = {f"image_{place}_model": one.model for place, one in enumerate(row.pictures)}
    return record | metadata | {"task": row.task, "split": row.split}


def _label(answer: Answer, end: str) -> str:
    place = answer.best if end == "best" else answer.worst
    return answer.outcome if place is None else f"image_{place}"


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".jsonl", ".json", ".parquet"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    fields = sorted(
        (name for name in row if FIELD.match(name) and row[name]),
        key=lambda name: int(name.removeprefix("image_")),
    )
    if len(fields) < 2:
        raise RowError("It has no two pictures in fields such as image_0 and image_1.")
    questions = [name.removesuffix(".responses") for name in row if name.endswith(".responses")]
    answers = [answer for name in questions for answer in _answers(row, name, fields)]
    if not answers:
        raise RowError("It has no submitted response that names a picture.")
    return Comparison(
        prompt=files.words(row, "prompt"),
        pictures=tuple(
            files.picture(
                row[name], name, base, model=files.words(row, f"{name}_model", optional=True)
            )
            for name in fields
        ),
        answers=tuple(answers),
        source=files.picture(row["source"], "source", base) if row.get("source") else None,
        mask=files.picture(row["mask"], "mask", base) if row.get("mask") else None,
    )


def _answers(row: Row, question: str, fields: list[str]) -> Iterator[Answer]:
    if question.endswith("_worst"):
        return
    dimension = question.removesuffix("_best")
    worst = dict(_responses(row, f"{dimension}_worst"))
    for who, label in _responses(row, question):
        if label in OUTCOMES:
            yield Answer(label, dimension=dimension, annotator=who)  # type: ignore[arg-type]
            continue
        other = worst.get(who)
        if not worst and len(fields) == 2:
            other = next((name for name in fields if name != label), None)
        if label not in fields or other not in fields or label == other:
            raise RowError(f"A response to {question} is “{label}”, and to the worst “{other}”.")
        best, last = fields.index(label), fields.index(other)
        yield Answer("picked", best, last, dimension=dimension, annotator=who)


def _responses(row: Row, question: str) -> Iterator[tuple[str, str]]:
    """Who submitted what; people without a name are told apart by their place."""
    said = row.get(f"{question}.responses") or []
    users = row.get(f"{question}.responses.users") or [None] * len(said)
    status = row.get(f"{question}.responses.status") or ["submitted"] * len(said)
    lists = (said, users, status)
    if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists}) > 1:
        raise RowError(f"Its responses to {question} are not as many as their users.")
    for place, (label, user, state) in enumerate(zip(*lists, strict=True)):
        if state == "submitted":
            yield str(user) if user else f"response {place + 1}", str(label)
