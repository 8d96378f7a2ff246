"""EditReward-Data: one row per pair of edits of a source, the preferred one first; ties are marked.

`choice_dist` counts the people for either edit. The scores of single pictures stay empty: people
here compare. A folder for every dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.hpdv3 import counted, votes_of
from annotation.formats.rows import Comparison, Outgoing, RowError, answer_of, pairs
from generation.readers import Refusal

HOLDS = frozenset({"source", "models", "votes", "no_difference", "split"})
SCORES = [f"model{n}_{which}_score" for n in (1, 2) for which in ("dim1", "dim2", "overall")]


def write(data: Outgoing, out: Path) -> None:
    with files.Shelf(out, files.JsonArray) as shelf:
        for row in data:
            if row.source is None:
                data.lose("no_source")
                continue
            for dimension in row.dimensions():
                folder = out / dimension
                for pair in pairs(row, dimension):
                    if not any(pair.count(choice) for choice in ("first", "second", "same")):
                        continue
                    preferred = pair.preferred()
                    first, second = preferred or (pair.first, pair.second)
                    line = {
                        "prompt": row.prompt,
                        "path_src": files.keep(row.source, folder),
                        "path1": files.keep(first, folder),
                        "path2": files.keep(second, folder),
                        **counted(pair, first),
                        "model1": first.model,
                        "model2": second.model,
                        **dict.fromkeys(SCORES),
                        "tie_case": preferred is None,
                    }
                    shelf.add(f"{dimension}/{files.PART[row.split]}.json", line)


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".json", ".jsonl"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    tie = row.get("tie_case", False)
    if not isinstance(tie, bool) and tie is not None:
        raise RowError(f"Its tie_case is {tie!r}, not true or false.")
    counted = row.get("choice_dist") is not None
    if counted:
        counted = any(files.several(row, "choice_dist", int, float))
    said = (answer_of("same"),) if tie and not counted else votes_of(row)
    return Comparison(
        prompt=files.words(row, "prompt"),
        pictures=files.two_pictures(row, ("path1", "path2"), ("model1", "model2"), base),
        answers=said,
        source=files.picture(files.words(row, "path_src"), "path_src", base),
    )
