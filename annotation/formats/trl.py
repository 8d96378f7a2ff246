"""TRL's preference format with images: a judge is asked about two pictures, in Parquet.

The prompt shows the source and the area to edit, where there are any, and both pictures, and asks
the dimension's question; `chosen` and `rejected` are the answers. So `DPOTrainer` trains a
vision-language model to judge as people do. A folder for every dimension. Rows whose answers are
pictures themselves are read as well.
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
    Picture,
    RowError,
    Vote,
    answer_of,
    pairs,
)
from generation.readers import Refusal

HOLDS = frozenset({"source", "mask", "votes", "split"})
SOURCE = "This picture was to be edited."
MASK = "Only what is white here was to be changed."
FIRST, SECOND = "The first picture:", "The second picture:"
PROMPT = "What was asked for: "
ANSWERS: dict[str, Choice] = {"The first picture.": "first", "The second picture.": "second"}


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, partial(files.Parquet, features=_features())) as shelf:
        for row in data:
            for dimension in row.dimensions():
                name = f"{dimension}/{files.PART[row.split]}-00000-of-00001.parquet"
                for pair in pairs(row, dimension):
                    for vote in pair.votes:
                        if vote.choice in ("first", "second"):
                            shown = (pair.first, pair.second)
                            question = data.questions.get(dimension, dimension)
                            shelf.add(name, _row(row, shown, vote, question))


def _row(
    row: Comparison, shown: tuple[Picture, Picture], vote: Vote, question: str
) -> dict[str, Any]:
    parts: list[tuple[str, Picture | None]] = [
        (SOURCE, row.source),
        (MASK, row.mask),
        (FIRST, shown[0]),
        (SECOND, shown[1]),
    ]
    content: list[dict[str, str | None]] = []
    images = []
    for text, picture in parts:
        if picture is not None:
            content += [{"type": "text", "text": text}, {"type": "image", "text": None}]
            images.append(files.inside(picture))
    content.append({"type": "text", "text": PROMPT + row.prompt})
    content.append({"type": "text", "text": question})
    answers = list(ANSWERS)
    if vote.choice == "second":
        answers.reverse()
    chosen, rejected = (
        [{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in answers
    )
    return {
        "prompt": [{"role": "user", "content": content}],
        "chosen": chosen,
        "rejected": rejected,
        "images": images,
    }


def _features() -> Any:
    from datasets import Features, Image, List, Value

    text = Value("string")
    messages = List({"role": text, "content": List({"type": text, "text": text})})
    return Features(
        {"prompt": messages, "chosen": messages, "rejected": messages, "images": List(Image())}
    )


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".parquet", ".jsonl", ".json"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    if "completion" in row:
        raise RowError("It is unpaired: one answer by itself says no preference.")
    images = row.get("images") or []
    if not isinstance(images, list):
        raise RowError("Its “images” is not a list.")
    shown = [files.picture(one, "images", base) for one in images]
    prompt, before = _texts(row, "prompt")
    chosen, in_chosen = _texts(row, "chosen")
    _rejected, in_rejected = _texts(row, "rejected")
    if before + in_chosen + in_rejected != len(shown):
        raise RowError(
            f"It names {before + in_chosen + in_rejected} pictures and has {len(shown)} images."
        )
    if (in_chosen, in_rejected) == (1, 1) and before <= 1:
        return Comparison(
            prompt="\n".join(prompt),
            pictures=(shown[-2], shown[-1]),
            answers=(answer_of("first"),),
            source=shown[0] if before else None,
        )
    choice = ANSWERS.get("".join(chosen))
    if choice is None or len(shown) < 2:
        raise RowError("It compares texts. Pictures are compared here.")
    asked = dict(zip([text for text in prompt if text in (SOURCE, MASK)], shown, strict=False))
    said = [text.removeprefix(PROMPT) for text in prompt if text.startswith(PROMPT)]
    return Comparison(
        prompt=said[0] if said else "",
        pictures=(shown[-2], shown[-1]),
        answers=(answer_of(choice),),
        source=asked.get(SOURCE),
        mask=asked.get(MASK),
    )


def _texts(row: Row, name: str) -> tuple[list[str], int]:
    """The texts of messages and the number of their pictures."""
    messages = row.get(name)
    if isinstance(messages, str):
        return [messages], 0
    if not isinstance(messages, list):
        raise RowError(f"Its “{name}” is neither text nor messages.")
    texts: list[str] = []
    pictures = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            raise RowError(f"A message of its “{name}” has no content.")
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "image":
                pictures += 1
            elif kind == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"])
            else:
                raise RowError(f"A message of its “{name}” holds “{kind}”, not text or image.")
    return texts, pictures
