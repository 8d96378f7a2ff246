"""What the database says about judged sets, batch by batch, in columns.

A batch is some candidate sets in the order of their ids, with their candidates and all that the
selection holds about them. Each costs a constant number of statements whatever its size, and no
Python object a row: the database copies columns out as CSV, which Arrow reads. What it said is
digested, so that the same can be asked again later to see whether it has changed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Max, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from annotation.models import Judgment, Rating
from generation.models import Candidate, CandidateSet

# Numbers of sets that are looked at first, and the most judgments of the first batch: few, so that
# there is something to see at once.
FIRST_SPAN, FIRST_ROWS = 250, 2_500
ROWS = 20_000  # judgments and ratings of the batches after it, about; twice as many at most
WIDER = 4  # times as many sets as before at most
# The same set's number stands in all three (the database sees to that): whichever the database
# starts from, it reads the span alone.
SET_KEYS = ("set_id", "assignment__set_id", "assignment__item__set_id")
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
        """Those of the sets behind that one.

        A batch is what there is about a span of numbers of sets: so the database reads no more than
        that, however large the whole is. Spans become as wide as it takes.
        """
        end = CandidateSet.objects.aggregate(most=Max("pk"))["most"] or 0
        span, most = FIRST_SPAN, min(FIRST_ROWS, 2 * ROWS)
        while after < end:
            said = self._about(after, min(after + span, end), most)
            if len(said.sets):
                yield said
                most = 2 * ROWS
            wide, after = said.last - after, said.last
            span = max(1, min(WIDER * wide, wide * ROWS // max(1, said.answers)))

    def _about(self, after: int, last: int, most: int) -> Said:
        digest = hashlib.sha256()
        judgments, last = _answers(self.judgments, JUDGMENTS, (after, last), most, digest)
        ratings = _read(b"", RATINGS)
        if self.ratings is not None:
            ratings, last = _answers(self.ratings, RATINGS, (after, last), most, digest)
            judgments = _upto(judgments, last)
        sets = [*judgments.column("set_id").unique(), *ratings.column("set_id").unique()]
        found = {one.as_py() for one in sets}
        if self.also is not None:
            found |= set(self.also.filter(pk__gt=after, pk__lte=last).values_list("pk", flat=True))
        of = RawSQL("SELECT unnest(%s::bigint[])", [sorted(found)])  # one value, however many

        def read(rows: QuerySet[Any], columns: Columns) -> pa.RecordBatch:
            data = _copied(rows.values_list(*columns)) if found else b""
            digest.update(data)
            return _read(data, columns)

        return Said(
            last,
            read(
                CandidateSet.objects.filter(pk__in=of)
                .annotate(tags=Cast("source__tags", TextField()))
                .order_by("pk"),
                SETS,
            ),
            read(Candidate.objects.filter(set__in=of).order_by("set_id", "index"), CANDIDATES),
            judgments,
            ratings,
            digest.digest(),
        )


def _answers(
    rows: QuerySet[Any],
    columns: Columns,
    between: tuple[int, int],
    most: int,
    digest: hashlib._Hash,
) -> tuple[pa.RecordBatch, int]:
    """About the sets behind the first number up to the second, or up to an earlier one where there
    are too many; up to which."""
    after, last = between
    spans = {f"{key}__gt": after for key in SET_KEYS} | {f"{key}__lte": last for key in SET_KEYS}
    order = Cast("assignment__order", TextField())
    found = rows.filter(**spans).annotate(order=order).order_by("set_id", "pk")
    while True:
        data = _copied(found.values_list(*columns)[:most])
        answers = _read(data, columns)
        sets = answers.column("set_id")
        if len(answers) < most:
            break
        if sets[0] != sets[-1]:
            last = sets[-1].as_py() - 1  # about which there may be more
            answers = _upto(answers, last)
            break
        most *= 2
    digest.update(data)
    return answers, last


def _upto(answers: pa.RecordBatch, last: int) -> pa.RecordBatch:
    sets = answers.column("set_id").to_numpy()
    return answers.slice(0, int(np.searchsorted(sets, last, "right")))


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
