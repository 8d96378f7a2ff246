"""The order of an import: names, sets, judgments, ratings, and how well people judged.

Rows come in chunks, each in a transaction of its own; where the database refuses one, its rows are
tried one by one.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from annotation.dataset_files import rows, tables_of
from annotation.errors import DatasetError
from annotation.models import Aggregation, Assignment, Campaign, Judgment
from annotation.restore.pictures import Pictures
from annotation.restore.sets import Chunk, SetRows, by_uid, known_sets
from annotation.restore.taxonomy import learn
from annotation.restore.turns import Answers, Judgments, Ratings, TurnRow
from generation.installation import installation
from generation.models import Project

if TYPE_CHECKING:
    from generation.console import Progress

SETS, ANSWERS = 200, 2000  # of a transaction
Row = Mapping[str, Any]
Some = TypeVar("Some")
EARLIER = (
    "This dataset is of version {}, which names its rows by their numbers in a database: a later "
    "export of the same rows would come in twice. It holds no ratings, no annotators' accuracy, no "
    "campaigns' settings and of wordings only the newest, and reviewers' decisions count as work."
)
# What a row may raise whose values are of another kind than those of its column should be.
WRONG = (DatasetError, KeyError, TypeError, ValueError, AttributeError)
ANSWERED: dict[str, type[Answers[Any]]] = {"judgments": Judgments, "ratings": Ratings}


@dataclass
class Report:
    """What an import did, row by row; `tables` says it for sets, judgments and ratings apart."""

    rows: int = 0
    created: int = 0
    existing: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, table: str, outcome: str, n: int = 1) -> None:
        mine = self.tables.setdefault(table, {"created": 0, "existing": 0, "refused": 0})
        mine[outcome] += n
        self.rows += n
        self.created += n * (outcome == "created")
        self.existing += n * (outcome == "existing")

    def refuse(self, table: str, name: str, error: Exception) -> None:
        known = isinstance(error, DatasetError)
        reason = str(error) if known else f"It is not understood ({error})."
        self.refused.append((name, reason))
        self.count(table, "refused")

    def as_json(self) -> dict[str, Any]:
        refused = [{"row": row, "reason": reason} for row, reason in self.refused]
        return {**vars(self), "refused": refused}


class Restoring:
    def __init__(
        self,
        directory: Path,
        card: Row,
        *,
        project: Project,
        name: str | None,
        origin: str | None,
        keep: bool,
        progress: Progress | None,
    ) -> None:
        self.directory, self.card, self.progress = directory, card, progress
        self.project, self.name, self.origin, self.keep = project, name, origin, keep
        self.version: int = card["schema_version"]
        self.pictures = Pictures(directory, (card.get("images") or {}).get("form", "files"))
        self.installation = installation()
        self.namespace = UUID(card["content_hash"][:32])
        # Sets that were made here, exported, and come back: their names are not stored.
        self.native: dict[UUID, int] = {}
        self.report = Report()

    def run(self) -> Report:
        if self.version < 3:
            self.report.notes.append(EARLIER.format(self.version))
        self._learn()
        self._know_people()
        for sets in _chunks(self._sets(), SETS):
            self._take_sets(sets)
        for table in ANSWERED:
            for given in _chunks(self._given(table), ANSWERS):
                self._take(table, given)
        self._take_accuracies()
        self.known.tidy(whole=not self.report.created and not self.report.existing)
        return self.report

    def _rows(self, table: str) -> Iterator[dict[str, Any]]:
        return rows(self.directory, table) if table in tables_of(self.version) else iter(())

    def _seen(self, items: Iterable[Some], table: str) -> Iterable[Some]:
        if self.progress is None:
            return items
        return self.progress(items, total=self.card["counts"].get(table, 0), unit=table)

    def _uid(self, kind: str, name: Any) -> UUID:
        return UUID(name) if self.version >= 3 else uuid.uuid5(self.namespace, f"{kind}/{name}")

    # Names --------------------------------------------------------------------------------------

    def _learn(self) -> None:
        try:
            asked = self.card["taxonomy"].get("campaigns") or self._campaigns()
            self.known = learn(
                self.card, asked, project=self.project, name=self.name, origin=self.origin
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"The card of '{self.directory}' does not describe its tasks and dimensions as it "
                f"should ({error!r}). Export the dataset again."
            ) from None

    def _campaigns(self) -> dict[str, dict[str, Any]]:
        """Of a dataset whose card says nothing of them."""
        return {
            row["campaign"]: {"simulated": row.get("simulated", False)}
            for row in self._rows("judgments")
        }

    def _know_people(self) -> None:
        """Whoever gave a turn that is here is the same person as before, whatever the salt."""
        if not Assignment.objects.filter(uid__isnull=False).exists():
            return
        for table in ANSWERED:
            for chunk in _chunks(self._rows(table), ANSWERS):
                said = {self._uid("turn", row["assignment"]): row["annotator"] for row in chunk}
                turns = Assignment.objects.filter(uid__in=said)
                for turn, person in turns.values_list("uid", "annotator_id"):
                    if turn is not None:
                        self.known.met[said[turn]] = person

    # Sets ---------------------------------------------------------------------------------------

    def _sets(self) -> Iterator[SetRows]:
        imported = self._only_imported()
        waiting: dict[Any, list[Row]] = defaultdict(list)
        rest = self._rows("candidates")
        for row in self._seen(self._rows("sets"), "sets"):
            key = row["set"]
            # They lie in the same order, so that few have to wait.
            while len(waiting[key]) < (row["size"] or 0) and (said := next(rest, None)) is not None:
                waiting[said["set"]].append(said)
            yield SetRows(self._uid("set", key), row, waiting.pop(key), imported(key))

    def _only_imported(self) -> Callable[[Any], bool]:
        """Whether a set was judged by others' people alone."""
        if self.origin is not None:
            return lambda _key: self.origin == Campaign.Origin.IMPORTED
        theirs = {
            name
            for name, row in self.known.asked.items()
            if row.get("origin") == Campaign.Origin.IMPORTED
        }
        if not theirs:
            return lambda _key: False
        judged: dict[bool, set[Any]] = {True: set(), False: set()}
        for table in ANSWERED:
            for row in self._rows(table):
                judged[row["campaign"] in theirs].add(row["set"])
        only = judged[True] - judged[False]
        return lambda key: key in only

    def _take_sets(self, sets: Sequence[SetRows]) -> None:
        named, native = known_sets({one.uid: one.row for one in sets}, self.installation)
        self.native |= native
        new = [one for one in sets if one.uid not in named and one.uid not in native]
        self.report.count("sets", "existing", len(sets) - len(new))
        self._store_sets(new)

    def _store_sets(self, sets: Sequence[SetRows]) -> None:
        chunk = Chunk(self.known, self.pictures, sets)
        for one in sets:
            try:
                chunk.check(one, keep=self.keep)
            except WRONG as error:
                self.report.refuse("sets", one.name, error)
        good = [one for one, _source, _candidates in chunk.good]
        if not self._stored("sets", [one.name for one in good], chunk.store):
            for one in good:
                self._store_sets([one])

    # Judgments and ratings ----------------------------------------------------------------------

    def _given(self, table: str) -> Iterator[TurnRow]:
        for number, row in enumerate(self._seen(self._rows(table), table), 1):
            yield TurnRow(
                name=f"{table} row {number}",
                turn=self._uid("turn", row["assignment"]),
                set=self._uid("set", row["set"]),
                row=row,
            )

    def _take(self, table: str, given: Sequence[TurnRow]) -> None:
        asked = {one.set for one in given}
        sets = {uid: self.native[uid] for uid in asked & self.native.keys()}
        sets |= by_uid(asked)
        with transaction.atomic():
            self._store_answers(table, given, sets)

    def _store_answers(
        self, table: str, given: Sequence[TurnRow], sets: Mapping[UUID, int]
    ) -> None:
        answers = ANSWERED[table](self.known, sets, given, self.installation)
        for one in given:
            try:
                if not answers.check(one):
                    self.report.count(table, "existing")
            except WRONG as error:
                self.report.refuse(table, one.name, error)
        good = [one for one, _answer in answers.good]
        if not self._stored(table, [one.name for one in good], answers.store):
            for one in good:
                self._store_answers(table, [one], sets)

    def _stored(self, table: str, names: Sequence[str], store: Callable[[], None]) -> bool:
        """False where the database refuses one of several: then nothing of them is stored."""
        try:
            with transaction.atomic():
                store()
        except (IntegrityError, DataError) as error:
            if len(names) > 1:
                return False
            said = str(error).splitlines()[0]
            self.report.refuse(table, names[0], DatasetError(f"The database refuses it: {said}."))
        else:
            self.report.count(table, "created", len(names))
        return True

    # How well people judged ---------------------------------------------------------------------

    def _take_accuracies(self) -> None:
        """Those of campaigns that took something in; they are what weighs their answers."""
        by_campaign: dict[str, list[Row]] = defaultdict(list)
        for row in self._rows("annotators"):
            if row["campaign"] in self.known.campaigns:
                by_campaign[row["campaign"]].append(row)
        for name, said in by_campaign.items():
            self._aggregate(self.known.campaigns[name], said)

    @transaction.atomic
    def _aggregate(self, campaign: Campaign, said: Sequence[Row]) -> None:
        entries = {
            (self.known.person(row["annotator"]), self.known.dimension(row["dimension"]).pk): row
            for row in said
            if row["dimension"] in self.known.dimensions
        }
        found, _made = Aggregation.objects.select_for_update().get_or_create(campaign=campaign)
        kept = [one for one in found.reliability if (one["user"], one["dimension"]) not in entries]
        found.reliability = kept + [
            {"user": user, "dimension": dimension}
            | {key: row[key] for key in ("n", "accuracy", "attentive")}
            for (user, dimension), row in entries.items()
        ]
        found.made_at = timezone.now()
        found.judgments = Judgment.objects.filter(
            current=True, assignment__item__campaign=campaign
        ).count()
        found.save(update_fields=["reliability", "made_at", "judgments"])


def _chunks(items: Iterable[Some], size: int) -> Iterator[list[Some]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
