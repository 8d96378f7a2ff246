"""What a dataset's card says about its rows, counted batch by batch while they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from annotation import agreement
from annotation.agreement import Floats
from annotation.dataset_rows import PICKED, SAME, Batch, indices, numbers

# What is counted, of which tables by which columns.
COUNTERS: dict[str, list[tuple[str, list[str]]]] = {
    "tasks": [("sets", ["task"])],
    "splits": [("sets", ["split"])],
    "licences": [("sets", ["licence"])],
    "policies": [("candidates", ["policy"])],
    "answers": [("judgments", ["task", "dimension", "outcome"])],
    "ratings": [("ratings", ["task", "dimension"])],
    "origins": [("judgments", ["origin"]), ("ratings", ["origin"])],
    "kinds": [("judgments", ["kind"])],
    "campaigns": [("judgments", ["campaign"]), ("ratings", ["campaign"])],
    "wordings": [("judgments", ["dimension", "wording"]), ("ratings", ["dimension", "wording"])],
}
VALUES = 9  # candidate indexes, and "no difference" as the last
SEP = "\t"  # between the parts of a counter's key, so that it can be put into JSON


class Tally:
    def __init__(self) -> None:
        self.counters: dict[str, Counter[str]] = {name: Counter() for name in COUNTERS}
        self.picks: Counter[str] = Counter()  # policy and: shown, best or worst
        self.coincidences: dict[str, Floats] = {}  # by dimension, of best picks
        self.units: Counter[str] = Counter()  # answered by two people or more, by dimension

    def add(self, batch: Batch, tables: Mapping[str, pa.RecordBatch]) -> None:
        for name, places in COUNTERS.items():
            for table, columns in places:
                self.counters[name].update(_counted(tables[table], columns))
        self._add_picks(batch, tables["candidates"])
        self._add_agreement(batch, tables["judgments"])

    def _add_picks(self, batch: Batch, candidates: pa.RecordBatch) -> None:
        """How often each policy's candidates were shown, best and worst where some were picked."""
        policy = candidates.column("policy")
        names = policy.dictionary.to_pylist()
        rows = batch.said.candidates
        of = np.full(batch.images.shape, -1)  # (S, W)
        of[batch.set_of(rows), numbers(rows.column("index"))] = indices(policy)
        picked = batch.outcome == PICKED
        sets = batch.judged_set[picked]
        found = {
            "shown": of[sets][batch.shown[picked]],
            "best": of[sets, batch.best[picked]],
            "worst": of[sets, batch.worst[picked]],
        }
        for said, codes in found.items():
            for code, n in zip(*np.unique(codes, return_counts=True), strict=True):
                self.picks[f"{names[code]}{SEP}{said}"] += int(n)

    def _add_agreement(self, batch: Batch, judgments: pa.RecordBatch) -> None:
        said = np.where(batch.outcome == SAME, VALUES - 1, batch.best)
        known = said >= 0
        items = numbers(batch.said.judgments.column("assignment__item_id"))
        dimension = judgments.column("dimension")
        codes = indices(dimension)
        for code, slug in enumerate(dimension.dictionary.to_pylist()):
            mine = known & (codes == code)
            _, counts = agreement.count(items[mine], said[mine], VALUES)
            pairs = agreement.coincidences(counts).sum(0)
            self.coincidences[slug] = self.coincidences.get(slug, 0) + pairs
            self.units[slug] += int((counts.sum(1) > 1).sum())

    def alphas(self) -> dict[str, tuple[float, int]]:
        """By dimension: Krippendorff's alpha of the best picks, and how many units it is of."""
        return {
            slug: (agreement.alpha_of(pairs, "nominal"), self.units[slug])
            for slug, pairs in sorted(self.coincidences.items())
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "counters": self.counters,
            "picks": self.picks,
            "coincidences": {slug: pairs.tolist() for slug, pairs in self.coincidences.items()},
            "units": self.units,
        }

    def add_json(self, stored: Mapping[str, Any]) -> None:
        """Add what `as_json` gave."""
        for name, counter in stored["counters"].items():
            self.counters[name].update(counter)
        self.picks.update(stored["picks"])
        for slug, pairs in stored["coincidences"].items():
            self.coincidences[slug] = self.coincidences.get(slug, 0) + np.array(pairs)
        self.units.update(stored["units"])


def _counted(rows: pa.RecordBatch, columns: list[str]) -> Counter[str]:
    """How often each combination of the columns' values occurs."""
    texts: list[list[str]] = []
    codes = np.zeros(len(rows), np.int64)
    for name in columns:
        column = rows.column(name)
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts.append(["", *(str(value) for value in column.dictionary.to_pylist())])
        codes = codes * len(texts[-1]) + indices(column) + 1  # 0 is the code of no value
    found, counts = np.unique(codes, return_counts=True)
    places = np.unravel_index(found, [len(known) for known in texts])
    keys = (
        SEP.join(known[code] for known, code in zip(texts, row, strict=True))
        for row in zip(*(place.tolist() for place in places), strict=True)
    )
    return Counter(dict(zip(keys, counts.tolist(), strict=True)))
