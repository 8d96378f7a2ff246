"""GenAI-Bench, image edition: Parquet, one row per vote; "both bad" is read as no difference.

The prompts that describe the picture before and after stay empty: only the instruction is known. A
folder for every dimension.
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

HOLDS = frozenset({"source", "models", "votes", "no_difference", "split"})
VOTES = {"first": "leftvote", "second": "rightvote", "same": "tievote"}
CHOICES: dict[str, Choice] = {
    "leftvote": "first",
    "rightvote": "second",
    "tievote": "same",
    "bothbad_vote": "same",
}


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, partial(files.Parquet, features=_features())) as shelf:
        for row in data:
            if row.source is None:
                data.lose("no_source")
                continue
            for dimension in row.dimensions():
                name = f"{dimension}/{files.PART[row.split]}-00000-of-00001.parquet"
                for pair in pairs(row, dimension):
                    for vote in pair.votes:
                        if vote.choice in VOTES:
                            line = {
                                "source_prompt": "",
                                "target_prompt": "",
                                "instruct_prompt": row.prompt,
                                "source_image": files.inside(row.source),
                                "left_model": pair.first.model,
                                "left_output_image": files.inside(pair.first),
                                "right_model": pair.second.model,
                                "right_output_image": files.inside(pair.second),
                                "vote_type": VOTES[vote.choice],
                            }
                            shelf.add(name, line)


def _features() -> Any:
    from datasets import Features, Image, Value

    text = Value("string")
    return Features(
        {
            "source_prompt": text,
            "target_prompt": text,
            "instruct_prompt": text,
            "source_image": Image(),
            "left_model": text,
            "left_output_image": Image(),
            "right_model": text,
            "right_output_image": Image(),
            "vote_type": text,
        }
    )


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".parquet"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    vote = files.words(row, "vote_type")
    if vote not in CHOICES:
        raise RowError(f"Its vote_type is “{one_line(vote)}”, not one of {', '.join(CHOICES)}.")
    return Comparison(
        prompt=files.words(row, "instruct_prompt"),
        pictures=files.two_pictures(
            row,
            ("left_output_image", "right_output_image"),
            ("left_model", "right_model"),
            base,
        ),
        answers=(answer_of(CHOICES[vote]),),
        source=files.picture(row.get("source_image"), "source_image", base),
    )
