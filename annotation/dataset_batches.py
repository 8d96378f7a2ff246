"""What the database says about judged sets, batch by batch, in columns.

A batch is some candidate sets in the order of their ids, with their candidates and all that the
selection holds about them. Each costs a constant number of statements whatever its size, and no
Python object a row: the database copies columns out as CSV, which Arrow reads. What it said is
digested, so that the same can be asked again later to see whether it has changed.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Count, QuerySet, TextField
from django.db.models.functions import Cast

from annotation.models import Judgment, Rating
from generation.models import Candidate, CandidateSet

# The first batch is a small one, so that there is something to see at once.
FIRST_SETS, MOST_SETS = 250, 20_000
ROWS = 20_000  # judgments and ratings of the batches after it, about
BLOCK = 2**24  # bytes; longer than any row
Columns = Mapping[str, pa.DataType]
WHOLE, REAL, TEXT = pa.int64(), pa.float64(), pa.string()
CODED = pa.dictionary(pa.int32(), TEXT)
MOMENT = pa.timestamp("us", tz="UTC")

SETS: Columns = {
    "pk": WHOLE,
    "uid": TEXT,
    "size": WHOLE,
    "source__task_id": WHOLE,
    "source__image_id": WHOLE,
    "source__image__sha256": CODED,
    "source__image__width": WHOLE,
    "source__image__height": WHOLE,
    "source__mask_id": WHOLE,
    "source__mask__sha256": CODED,
    "source__prompt": CODED,
    "source__split": CODED,
    "tags": CODED,
    "source__external_id": CODED,
    "source__licence": CODED,
    "source__attribution": CODED,
}
CANDIDATES: Columns = {
    "set_id": WHOLE,
    "pk": WHOLE,
    "index": WHOLE,
    "image_id": WHOLE,
    "image__sha256": CODED,
    "policy_id": WHOLE,
    "seed": WHOLE,
    "num_inference_steps": WHOLE,
    "strength": REAL,
    "guidance_scale": REAL,
    "true_cfg_scale": REAL,
    "negative_prompt": CODED,
    "prompt": CODED,
    "width": WHOLE,
    "height": WHOLE,
}
TURN: Columns = {
    "set_id": WHOLE,
    "assignment_id": WHOLE,
    "assignment__uid": TEXT,
    "assignment__annotator_id": WHOLE,
    "assignment__item_id": WHOLE,
    "assignment__item__campaign_id": WHOLE,
    "assignment__kind": CODED,
    "order": CODED,
    "assignment__seconds_spent": REAL,
    "dimension_id": WHOLE,
    "wording_id": WHOLE,
    "revision": WHOLE,
    "created_at": MOMENT,
}
JUDGMENTS: Columns = {**TURN, "outcome": CODED, "best_id": WHOLE, "worst_id": WHOLE}
RATINGS: Columns = {**TURN, "candidate__index": WHOLE, "value": WHOLE}


@dataclass(frozen=True)
class Said:
    """Of a batch; the columns of each table are those above."""

    last: int  # set
    sets: pa.RecordBatch
    candidates: pa.RecordBatch
    judgments: pa.RecordBatch
    ratings: pa.RecordBatch
    digest: bytes

    @property
    def answers(self) -> int:
        return len(self.judgments) + len(self.ratings)


@dataclass(frozen=True)
class Asked:
    """What a dataset is about; of the sets in `also` nobody need have said anything."""

    judgments: QuerySet[Judgment]
    ratings: QuerySet[Rating] | None = None
    also: QuerySet[CandidateSet] | None = None

    def batches(self, after: int = 0) -> Iterator[Said]:
        """Those of the sets behind that one."""
        most = FIRST_SETS
        while found := self._next(after, most):
            yield self._about(list(found))
            after = max(found)
            most = min(MOST_SETS, max(1, ROWS * len(found) // found.total()))

    def _next(self, after: int, most: int) -> Counter[int]:
        """The next sets, with how many answers there are about each."""
        found: Counter[int] = Counter()
        ends = []
        for rows, key in self._sources():
            counted = rows.filter(**{f"{key}__gt": after}).order_by(key).values_list(key)
            some = dict(counted.annotate(n=Count("pk"))[:most])
            found.update(some)
            if len(some) == most:
                ends.append(max(some))  # what there is behind it was not asked for
        chosen: Counter[int] = Counter()
        for pk in sorted(found):
            many = chosen.total() + found[pk] > 2 * ROWS
            if chosen and (many or any(pk > end for end in ends)):
                break
            chosen[pk] = found[pk]
        return chosen

    def _sources(self) -> list[tuple[QuerySet[Any], str]]:
        found: list[tuple[QuerySet[Any] | None, str]] = [
            (self.judgments, "set_id"),
            (self.ratings, "set_id"),
            (self.also, "pk"),
        ]
        return [(rows, key) for rows, key in found if rows is not None]

    def _about(self, sets: list[int]) -> Said:
        digest = hashlib.sha256()

        def read(rows: QuerySet[Any], key: str, columns: Columns, **more: Any) -> pa.RecordBatch:
            mine = rows.filter(**{f"{key}__in": sets}).order_by(key, "pk").annotate(**more)
            data = _copied(mine.values_list(*columns))
            digest.update(data)
            return _read(data, columns)

        ratings = Rating.objects.none() if self.ratings is None else self.ratings
        order = Cast("assignment__order", TextField())
        return Said(
            max(sets),
            read(
                CandidateSet.objects.all(),
                "pk",
                SETS,
                tags=Cast("source__tags", TextField()),
            ),
            read(Candidate.objects.all(), "set_id", CANDIDATES),
            read(self.judgments, "set_id", JUDGMENTS, order=order),
            read(ratings, "set_id", RATINGS, order=order),
            digest.digest(),
        )


def _copied(rows: QuerySet[Any]) -> bytes:
    try:
        sql, values = rows.query.sql_with_params()
    except EmptyResultSet:  # Django can tell that there is nothing without asking
        return b""
    found = io.BytesIO()
    with connection.cursor() as cursor:
        asked = cursor.mogrify(sql, values)  # COPY takes no values
        with cursor.copy(f"COPY ({asked}) TO STDOUT (FORMAT csv)") as blocks:
            for block in blocks:
                found.write(block)
    return found.getvalue()


def _read(data: bytes, columns: Columns) -> pa.RecordBatch:
    schema = pa.schema(list(columns.items()))
    if not data:
        return pa.RecordBatch.from_pylist([], schema)
    table = csv.read_csv(
        pa.BufferReader(data),
        csv.ReadOptions(use_threads=False, column_names=schema.names, block_size=BLOCK),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(
            column_types=schema,
            # Nothing stands for no value, and "" for an empty text.
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return table.unify_dictionaries().combine_chunks().to_batches()[0]
