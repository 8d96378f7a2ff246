"""HPDv3, as HPSv3 trains on it: one row per pair that has a majority, the preferred picture first.

`choice_dist` counts the people for either picture, `confidence` is the majority's share of them.
`train.json` and `test.json` in a folder for every dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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

HOLDS = frozenset({"models", "votes", "split"})
MOST_VOTES = 1000


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, files.JsonArray) as shelf:
        for row in data:
            for dimension in row.dimensions():
                folder = out / dimension
                for pair in pairs(row, dimension):
                    preferred = pair.preferred()
                    if preferred is None:
                        data.lose("undecided")
                        continue
                    line = {
                        "prompt": row.prompt,
                        "path1": files.keep(preferred[0], folder),
                        "path2": files.keep(preferred[1], folder),
                        **counted(pair, preferred[0]),
                        "model1": preferred[0].model,
                        "model2": preferred[1].model,
                    }
                    shelf.add(f"{dimension}/{files.PART[row.split]}.json", line)


def counted(pair: Pair, first: Picture) -> dict[str, object]:
    """How many people preferred `first` and how many the other, and the larger share."""
    votes = [pair.count("first"), pair.count("second")]
    if first is not pair.first:
        votes.reverse()
    share = round(votes[0] / sum(votes), 4) if sum(votes) else None
    return {"confidence": share, "choice_dist": votes}


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".json", ".jsonl"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    shown = files.two_pictures(row, ("path1", "path2"), ("model1", "model2"), base)
    return Comparison(files.words(row, "prompt"), shown, votes_of(row))


def votes_of(row: Row) -> tuple[Answer, ...]:
    """Everybody's vote where `choice_dist` counts people; else the one that the row itself is."""
    files.number(row, "confidence")
    if row.get("choice_dist") is None:
        return (answer_of("first"),)
    shares = files.several(row, "choice_dist", int, float)
    if len(shares) != 2 or min(shares) < 0:
        raise RowError(f"Its choice_dist is {shares}, not how many chose path1 and path2.")
    whole = all(isinstance(share, int) or share.is_integer() for share in shares)
    if not whole or not 0 < sum(shares) <= MOST_VOTES:
        return (answer_of("first"),)
    first, second = (int(share) for share in shares)
    return (answer_of("first"),) * first + (answer_of("second"),) * second
