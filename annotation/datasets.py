"""Datasets: judgments and all they refer to as a directory that anyone can open.

    card.json            schema version, content hash, counts, taxonomy with its wording
    README.md            says the same to people, and to `datasets.load_dataset` which file is which
    sets.parquet         one row per candidate set
    candidates.parquet   one row per candidate, with every value drawn for it
    judgments.parquet    one row per judgment, no-difference and cannot-judge among them
    preferences.parquet  the derived pairs
    ties.parquet         pairs between which somebody found no difference
    ratings.parquet      one row per rating: usable or not, or 1 to 5 on a dimension
    annotators.parquet   how often each person was right, where that was estimated
    images/ab/<sha256>.png, or images-00000.parquet …, or images-00000.tar …

Everything is streamed: memory does not grow with the number of judgments. Sets and turns are named
so that they keep their names from one database to the next (`annotation.portable`). `verify`
computes the content hash again from the files.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from django.core.exceptions import EmptyResultSet
from django.db import connection, transaction
from django.db.models import Max, QuerySet

from annotation import dataset_card, dataset_parts, dataset_pictures, feedback, pseudonyms
from annotation.dataset_batches import Asked
from annotation.dataset_files import (
    FEEDBACK,
    NO_PICTURES,
    SCHEMA,
    SCHEMA_VERSION,
    TABLES,
    read_card,
    rows,
    schema_of,
    verify,
)
from annotation.dataset_hash import ContentHash
from annotation.dataset_parts import Draft
from annotation.dataset_pictures import Pictures, Shown
from annotation.dataset_rows import Batch, Names, names
from annotation.dataset_tally import Tally
from annotation.errors import DatasetError
from annotation.models import Aggregation, Feedback, Judgment, Rating
from annotation.portable import set_uid
from generation.installation import installation
from generation.models import CandidateSet, Split

__all__ = [
    "DatasetError",
    "Pictures",
    "WeightedFeedback",
    "Written",
    "one_moment",
    "read_card",
    "rows",
    "verify",
    "write",
]

PART = 10  # batches
FRESH = ""  # instead of a salt: one that nobody learns


@dataclass(frozen=True)
class Written:
    content_hash: str
    counts: dict[str, int]
    resumed: int = 0  # judgments and ratings that an earlier attempt had written
    began_anew: bool = False  # since what that attempt had written has changed


@dataclass(frozen=True)
class WeightedFeedback:
    """Events in production, and what a preference that they imply weighs beside a person's."""

    rows: QuerySet[Feedback]
    weight: float


def write(
    directory: Path | str,
    judgments: QuerySet[Judgment],
    *,
    ratings: QuerySet[Rating] | None = None,
    implied: WeightedFeedback | None = None,
    imported_weight: float = 1.0,
    salt: str | None = None,
    pictures: Pictures | None = None,
    compression: str = "zstd",
    resumable: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Write these judgments and ratings, as they are given, to a new or empty directory.

    `implied` adds what production says, in a file of its own; preferences that were imported weigh
    `imported_weight` times a person's. With a `salt` people have other pseudonyms than on this
    installation's own pages. The directory appears whole or not at all; what a `resumable` call had
    written when it ended, however it did, the next one of the same kind goes on with. `progress` is
    told how many answers were written since it was last told.
    """
    target = Path(directory)
    pictures = pictures or Pictures()
    with dataset_parts.opened(target, resumable=resumable, compression=compression) as draft:
        asked = Asked(judgments.order_by(), ratings)
        if resumable:
            asked = _agreed(draft, target, asked, pictures, salt)
        with one_moment():
            known = names(_pseudonym(draft, salt), imported_weight)
            work = _Work(draft, asked, known, implied)
            work.write_tables(progress or (lambda count: None))
            card = work.card(pictures)
        # Pictures never change, so that they need no moment of their own.
        dataset_pictures.write(draft.dataset, work.shown, pictures)
        (draft.dataset / "card.json").write_text(
            json.dumps(card, indent=1, ensure_ascii=False) + "\n"
        )
        (draft.dataset / "README.md").write_text(dataset_card.readme(card, work.tally))
        draft.dataset.rename(target)
        shutil.rmtree(draft.folder)
    return Written(card["content_hash"], card["counts"], work.resumed, work.began_anew)


@contextmanager
def one_moment() -> Iterator[None]:
    """Whatever is read inside shows the database at one moment; in a transaction, at that one's."""
    installation()  # must have its name before: there, nothing can be written
    inside = connection.in_atomic_block
    with transaction.atomic():
        if not inside:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


# What is asked ----------------------------------------------------------------------------------


def _agreed(
    draft: Draft, target: Path, asked: Asked, pictures: Pictures, salt: str | None
) -> Asked:
    """What an earlier attempt was asked, too; what has come in since is left to another dataset."""
    question = {
        "schema_version": SCHEMA_VERSION,
        "judgments": _sql(asked.judgments),
        "ratings": "" if asked.ratings is None else _sql(asked.ratings),
        "pictures": asdict(pictures),
        "compression": draft.compression,
        "salt": None if salt is None else hashlib.sha256(salt.encode()).hexdigest(),
    }
    if not draft.state:
        draft.state |= {
            "question": question,
            "newest": [_newest(Judgment.objects.all()), _newest(Rating.objects.all())],
            "salt": secrets.token_hex(16),
        }
        draft.save()
    if draft.state["question"] != question:
        raise DatasetError(
            f"'{target}' was begun with other options. Repeat that command to finish it, or "
            f"delete '{draft.folder}' to begin anew."
        )
    judgment, rating = draft.state["newest"]
    ratings = None if asked.ratings is None else asked.ratings.filter(pk__lte=rating)
    return Asked(asked.judgments.filter(pk__lte=judgment), ratings)


def _sql(rows: QuerySet[Any]) -> str:
    try:
        return str(rows.query.sql_with_params())
    except EmptyResultSet:
        return ""


def _newest(rows: QuerySet[Any]) -> int:
    return rows.aggregate(newest=Max("pk"))["newest"] or 0


def _pseudonym(draft: Draft, salt: str | None) -> Callable[[int], str]:
    if salt is None:
        return pseudonyms.pseudonym
    if salt == FRESH:
        salt = draft.state.setdefault("salt", secrets.token_hex(16))
    return pseudonyms.salted(salt)


# Writing ----------------------------------------------------------------------------------------


class _Work:
    """The tables of a dataset, in the moment that it shows."""

    def __init__(
        self,
        draft: Draft,
        asked: Asked,
        known: Names,
        implied: WeightedFeedback | None,
    ) -> None:
        self.draft = draft
        self.names = known
        self.implied = implied
        self.feedback: list[feedback.Implied] = []
        self.asked = asked
        if implied is not None:
            self.feedback = list(_of_feedback(implied))
            sets = {row.preference.set for row in self.feedback}
            self.asked = replace(asked, also=CandidateSet.objects.filter(pk__in=sets))
        self.begin()

    def begin(self) -> None:
        self.hash, self.tally, self.shown = ContentHash(), Tally(), Shown()
        self.resumed = 0
        self.began_anew = False

    def write_tables(self, progress: Callable[[int], None]) -> None:
        self._resume()
        progress(self.resumed)
        while self._write_part(progress):
            pass
        self._write_feedback()
        self._write_annotators()
        self.draft.join()

    def card(self, pictures: Pictures) -> dict[str, Any]:
        also = [] if self.implied is None else [feedback.DIMENSION]
        taxonomy = dataset_card.taxonomy(self.tally, also)
        counts = {name: self.hash.counts().get(name, 0) for name in TABLES}
        card = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "content_hash": self.hash.hex(taxonomy, SCHEMA_VERSION),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": counts,
            "taxonomy": taxonomy,
            "licence": dataset_card.licences(self.tally),
            "images": asdict(pictures),
        }
        if self.implied is not None:
            counts[FEEDBACK] = len(self.feedback)
            card[FEEDBACK] = {
                "weight": self.implied.weight,
                "events": self.implied.rows.count(),
                "preferences": len(self.feedback),
                "dimension": feedback.DIMENSION,
            }
        counts["images"] = 0 if pictures.form == NO_PICTURES else len(self.shown)
        return card

    # Parts --------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Take over what was finished before, if the database still says the same about it."""
        parts = self.draft.parts
        if not parts:
            return
        for part in parts:
            self.hash.add_json(part["hash"])
            self.tally.add_json(part["tally"])
            self.resumed += part["answers"]
        if parts[-1]["context"] == self._context() and all(map(self._stands, parts)):
            self.shown = Shown(self.draft.shown)
            return
        self.begin()
        self.began_anew = True
        self.draft.clear()

    def _stands(self, part: dict[str, Any]) -> bool:
        said = hashlib.sha256()
        for batch in self.asked.batches(part["after"]):
            said.update(batch.digest)
            if batch.last >= part["last"]:
                return batch.last == part["last"] and said.hexdigest() == part["said"]
        return False

    def _context(self) -> str:
        """What rows are made from besides what the batches say."""
        accuracy = [
            [*key, value]
            for key, value in sorted(self.names.accuracy.items())
            if self.names.campaigns[key[0]] in self.tally.counters["campaigns"]
        ]
        context = {"taxonomy": dataset_card.taxonomy(self.tally), "accuracy": accuracy}
        return hashlib.sha256(json.dumps(context).encode()).hexdigest()

    def _write_part(self, progress: Callable[[int], None]) -> bool:
        """The next batches; whether there were any."""
        after = last = self.draft.parts[-1]["last"] if self.draft.parts else 0
        batches = islice(self.asked.batches(after), PART)
        first = next(batches, None)
        if first is None:
            return False
        said, found, tally, answers = hashlib.sha256(), ContentHash(), Tally(), 0
        with self.draft.new_part() as files:
            for batch in chain([first], batches):
                made = Batch(batch, self.names)
                tables = made.tables()
                for name, rows in tables.items():
                    files.add(name, rows)
                    found.add(name, rows)
                tally.add(made, tables)
                self.shown.add(made.pictures)
                said.update(batch.digest)
                last = batch.last
                answers += batch.answers
                progress(batch.answers)
        self.hash.add_json(found.as_json())
        self.tally.add_json(tally.as_json())
        part = {
            "after": after,
            "last": last,
            "said": said.hexdigest(),
            "answers": answers,
            "hash": found.as_json(),
            "tally": tally.as_json(),
            "context": self._context(),
        }
        self.draft.finish(part, self.shown)
        return True

    # Tables that are written at once ------------------------------------------------------------

    def _write_annotators(self) -> None:
        """How often people were right, as far as answers of theirs are here."""
        found = Aggregation.objects.filter(campaign__name__in=self.tally.counters["campaigns"])
        keys = ("assignment__item__campaign_id", "assignment__annotator_id", "dimension_id")
        mine = self.asked.judgments.filter(assignment__item__campaign__aggregation__in=found)
        there = set(mine.order_by().values_list(*keys).distinct())
        rows = [
            {
                "annotator": self.names.pseudonym(entry["user"]),
                "campaign": self.names.campaigns[one.campaign_id],
                "dimension": self.names.dimensions[entry["dimension"]],
                "n": entry["n"],
                "accuracy": entry["accuracy"],
                "attentive": entry.get("attentive"),
            }
            for one in found.order_by("campaign")
            for entry in one.reliability
            if (one.campaign_id, entry["user"], entry["dimension"]) in there
        ]
        self._write("annotators", rows)

    def _write_feedback(self) -> None:
        if self.implied is None:
            return
        assert self.asked.also is not None
        uids = dict(self.asked.also.values_list("pk", "uid"))
        rows = [
            asdict(one.preference)
            | {
                "set": set_uid(number, uids[number], of=self.names.installation),
                "weight": one.preference.weight * self.implied.weight,
                "annotator": one.user,
                "reliability": None,
                "judged_at": one.happened_at,
            }
            for one in self.feedback
            for number in [one.preference.set]
        ]
        self._write(FEEDBACK, rows)

    def _write(self, table: str, rows: list[dict[str, Any]]) -> None:
        batch = pa.RecordBatch.from_pylist(rows, schema=schema_of(table))
        self.hash.add(table, batch)
        self.draft.write(table, batch)


def _of_feedback(implied: WeightedFeedback) -> Iterator[feedback.Implied]:
    """Held-out pictures are left out: what is measured there people said."""
    return (row for row in feedback.derive(implied.rows) if row.preference.split == Split.TRAIN)
