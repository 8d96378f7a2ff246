"""Judgments and ratings back into rows, with the turns in which they were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db.models import Max

from annotation.errors import DatasetError
from annotation.models import Assignment, Campaign, Item, Judgment, Rating
from annotation.portable import turn_uid
from annotation.restore.taxonomy import Known
from generation.models import Candidate, CandidateSet

Row = Mapping[str, Any]
Answer = TypeVar("Answer", Judgment, Rating)
KINDS = {Assignment.Kind.WORK.value, Assignment.Kind.REVIEW.value}


@dataclass(frozen=True)
class TurnRow:
    """A judgment or a rating as the dataset has it, and what its turn and set are called here."""

    name: str
    turn: UUID
    set: UUID
    row: Row


class Answers(Generic[Answer]):
    """Some judgments, or some ratings, on their way in.

    `sets` are those of the dataset that are here. What is here already stays as it is, but where
    the dataset has a later revision of what came from a dataset.
    """

    model: type[Answer]

    def __init__(
        self,
        known: Known,
        sets: Mapping[UUID, int],
        rows: Sequence[TurnRow],
        installation: UUID,
    ) -> None:
        self.known, self.sets = known, sets
        keys = {sets[row.set] for row in rows if row.set in sets}
        self.sizes = dict(CandidateSet.objects.filter(pk__in=keys).values_list("pk", "size"))
        places = Candidate.objects.filter(set__in=keys).values_list("set_id", "index", "pk")
        self.candidates = {(set_id, index): pk for set_id, index, pk in places}
        self.turns = _turns({row.turn for row in rows}, keys, installation)
        for name in {row.row["campaign"] for row in rows if row.turn not in self.turns}:
            # One that the card does not describe is said of each of its rows.
            if name in known.asked:
                known.campaign(name)
        self.items = {
            (item.campaign_id, item.set_id, tuple(item.shown)): item
            for item in Item.objects.filter(
                set__in=keys, campaign__in=list(known.campaigns.values())
            )
        }
        self.there: dict[tuple[Any, ...], Answer] = self._there()
        self.good: list[tuple[TurnRow, Answer]] = []
        self.older: list[int] = []

    def _there(self) -> dict[tuple[Any, ...], Answer]:
        turns = [turn.pk for turn in self.turns.values()]
        rows = self.model._default_manager.filter(assignment__in=turns, current=True)
        return {self._key(row.assignment_id, row): row for row in rows}

    def _key(self, turn: Any, answer: Answer) -> tuple[Any, ...]:
        if isinstance(answer, Rating):
            return turn, answer.candidate_id, answer.dimension_id
        return turn, answer.dimension_id

    def check(self, given: TurnRow) -> bool:
        """Whether it is new. Raises DatasetError; then nothing of it stays."""
        row = given.row
        if given.set not in self.sets:
            raise DatasetError("Its set is not here, or was refused.")
        self.known.check_campaign(row["campaign"])
        set_id = self.sets[given.set]
        answer = self._answer(row, set_id)
        answer.set_id = set_id
        answer.revision = _whole(row["revision"], "revision", 1, 10**6)
        answer.created_at = row["judged_at"] or datetime.now(UTC)
        turn = self.turns.get(given.turn)
        if turn is None:
            turn = self.turns[given.turn] = self._turn(given, set_id, answer.created_at)
        elif turn.set_id != set_id:
            raise DatasetError("Its turn was about another set.")
        answer.assignment = turn
        there = self.there.get(self._key(turn.pk, answer)) if turn.pk else None
        if there is not None:
            # What people say here themselves is not for an import to correct.
            if turn.uid is None or there.revision >= answer.revision:
                return False
            self.older.append(there.pk)
        self.good.append((given, answer))
        return True

    def _answer(self, row: Row, set_id: int) -> Answer:
        raise NotImplementedError

    def _candidate(self, set_id: int, index: Any) -> int:
        if (set_id, index) not in self.candidates:
            raise DatasetError(f"Its set has no candidate {index}.")
        return self.candidates[set_id, index]

    def _turn(self, given: TurnRow, set_id: int, at: datetime) -> Assignment:
        row, size = given.row, self.sizes[set_id]
        order = list(row["order"] or [])
        if sorted(set(order)) != sorted(order) or not set(order) <= set(range(size)) or not order:
            raise DatasetError(f"Its order {order} is not one of {size} candidates.")
        kind = row.get("kind") or Assignment.Kind.WORK.value
        if kind not in KINDS:
            raise DatasetError(f"“{kind}” is no kind of turn that a dataset holds.")
        campaign = self.known.campaign(row["campaign"])
        shown = tuple(sorted(order)) if len(order) < size else ()
        key = (campaign.pk, set_id, shown)
        item = self.items.get(key)
        if item is None:
            item = self.items[key] = Item(
                campaign=campaign, set_id=set_id, shown=list(shown), position=Item.START
            )
        return Assignment(
            uid=given.turn,
            item=item,
            set_id=set_id,
            annotator_id=self.known.person(row["annotator"]),
            kind=kind,
            slot=0,
            order=order,
            state=Assignment.State.SUBMITTED,
            lease_until=at,
            submitted_at=at,
            seconds_spent=row["seconds_spent"],
        )

    def store(self) -> None:
        turns = {given.turn: answer.assignment for given, answer in self.good}
        new = [turn for turn in turns.values() if turn.pk is None]
        self._store_items({id(turn.item): turn.item for turn in new}.values())
        for turn in new:
            turn.item = turn.item  # whose key is known only now
        _give_slots(new)
        Assignment.objects.bulk_create(new)
        self.model._default_manager.filter(pk__in=self.older).update(current=False)
        for _given, answer in self.good:
            answer.assignment = answer.assignment
        answers = [answer for _given, answer in self.good]
        moments = [answer.created_at for answer in answers]
        made = self.model._default_manager.bulk_create(answers)
        # Storing sets the time to now.
        for answer, moment in zip(made, moments, strict=True):
            answer.created_at = moment
        self.model._default_manager.bulk_update(made, ["created_at"], batch_size=500)

    def _store_items(self, items: Iterable[Item]) -> None:
        Item.objects.bulk_create(item for item in items if item.pk is None)


class Judgments(Answers[Judgment]):
    model = Judgment

    def _answer(self, row: Row, set_id: int) -> Judgment:
        outcome, best, worst = row["outcome"], row["best"], row["worst"]
        if outcome not in Judgment.Outcome.values:
            raise DatasetError(f"“{outcome}” is no outcome of a judgment.")
        if (outcome == Judgment.Outcome.PICKED) != (best is not None and worst is not None):
            raise DatasetError(
                "A best and a worst belong to a judgment that picked, and only there."
            )
        if best is not None and best == worst:
            raise DatasetError("Its best is its worst.")
        return Judgment(
            dimension=self.known.dimension(row["dimension"]),
            wording=self.known.wording(row["dimension"], row["wording"]),
            outcome=outcome,
            best_id=None if best is None else self._candidate(set_id, best),
            worst_id=None if worst is None else self._candidate(set_id, worst),
        )


class Ratings(Answers[Rating]):
    model = Rating

    def _answer(self, row: Row, set_id: int) -> Rating:
        slug = row["dimension"]
        low, high = (0, 1) if slug is None else (1, 5)
        return Rating(
            candidate_id=self._candidate(set_id, row["candidate"]),
            dimension=None if slug is None else self.known.dimension(slug),
            wording=None if slug is None else self.known.wording(slug, row["wording"]),
            value=_whole(row["value"], "value", low, high),
        )


def _whole(value: Any, what: str, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise DatasetError(f"Its {what} is {value}, and not a whole number from {low} to {high}.")
    return value


def _turns(wanted: set[UUID], sets: set[int], installation: UUID) -> dict[UUID, Assignment]:
    """Those that are here: under their name, or given here and exported from here."""
    found = {turn.uid: turn for turn in Assignment.objects.filter(uid__in=wanted) if turn.uid}
    if rest := wanted - found.keys():
        native = Assignment.objects.filter(
            set__in=sets, uid__isnull=True, state=Assignment.State.SUBMITTED
        )
        for turn in native:
            uid = UUID(turn_uid(turn.pk, None, of=installation))
            if uid in rest:
                found[uid] = turn
    return found


def _give_slots(turns: Sequence[Assignment]) -> None:
    """The next free one of each item's; a campaign asks for as many people as there are then."""
    work = [turn for turn in turns if turn.kind == Assignment.Kind.WORK]
    taken: dict[int, int] = dict(
        Assignment.objects.filter(
            item__in={turn.item_id for turn in work},
            kind=Assignment.Kind.WORK,
            state__in=[Assignment.State.OPEN, Assignment.State.SUBMITTED],
        )
        .values("item")
        .annotate(next=Max("slot") + 1)
        .values_list("item", "next")
    )
    needed: dict[int, int] = {}
    for turn in work:
        turn.slot = taken.get(turn.item_id, 0)
        taken[turn.item_id] = turn.slot + 1
        campaign = turn.item.campaign_id
        needed[campaign] = max(needed.get(campaign, 1), turn.slot + 1)
    for campaign, people in needed.items():
        Campaign.objects.filter(pk=campaign, overlap__lt=people).update(overlap=people)
