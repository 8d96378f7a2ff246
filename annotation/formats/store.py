"""Checked rows into the database, each once: sets, turns and judgments of one campaign."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from annotation import campaigns
from annotation.formats.checks import Checked, ImportRefused, Turn, blank_size, uid_of
from annotation.formats.rows import Answer
from annotation.models import Assignment, Campaign, Dimension, Item, Judgment
from generation import images, sources
from generation.models import Candidate, CandidateSet, Policy, Project, Source, Task

NOT_STATED = "model not stated"


@dataclass
class Report(sources.Report):
    """Rows are created where something of them was new."""

    judgments: int = 0
    campaign: str = ""

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"judgments": self.judgments, "campaign": self.campaign}


class Store:
    """The import's campaign, and what of it is known already."""

    def __init__(self, task: Task, project: Project, title: str, *, dry_run: bool) -> None:
        if len(title) > 120:
            raise ImportRefused("Give the import a --name of at most 120 characters.")
        self.task, self.project, self.title, self.dry_run = task, project, title, dry_run
        self.campaign = Campaign.objects.filter(name=title).first()
        if self.campaign is not None and (
            self.campaign.origin != Campaign.Origin.IMPORTED or self.campaign.project != project
        ):
            raise ImportRefused(f"There is another campaign “{title}”. Choose a --name.")
        self._policies: dict[str, Policy] = {}
        self._people: dict[str, int] = {}
        self._voters: Counter[tuple[uuid.UUID, str]] = Counter()
        self._overlap = 1
        self._new = False

    def take(self, rows: Sequence[Checked], report: Report) -> None:
        turns = [(row, turn, self._name(row, turn)) for row in rows for turn in row.turns]
        with transaction.atomic():
            if not self.dry_run and rows:
                self._lock()
            said = _said({uid for _row, _turn, uid in turns})
            new: list[tuple[Checked, Turn, uuid.UUID, list[tuple[Dimension, Answer]]]] = []
            odd: dict[int, str] = {}
            fresh: Counter[int] = Counter()
            for row, turn, uid in turns:
                answers = []
                for dimension, answer in turn.answers:
                    before = said.setdefault((uid, dimension.pk), None)
                    if before is None:
                        said[uid, dimension.pk] = _content(answer)
                        answers.append((dimension, answer))
                    elif before != _content(answer):
                        odd[id(row)] = (
                            f"“{turn.annotator}” answered otherwise about the same pictures on "
                            f"{dimension.slug}: the first answer counts."
                        )
                if answers:
                    new.append((row, turn, uid, answers))
                    fresh[id(row)] += len(answers)
            if not self.dry_run:
                self._store(new)
        for row in rows:
            report.judgments += fresh[id(row)]
            if fresh[id(row)]:
                report.created += 1
            elif id(row) in odd:
                report.refused.append((row.row.name, odd[id(row)]))
            else:
                report.existing += 1

    def _name(self, row: Checked, turn: Turn) -> uuid.UUID:
        """The turn's uid. Who is not named is told apart from others who said the same."""
        if turn.annotator:
            return uid_of(self.project.slug, self.title, row.uid.hex, "by", turn.annotator)
        said = [(dimension.slug, *_content(answer)) for dimension, answer in turn.answers]
        key = (row.uid, json.dumps(said))
        self._voters[key] += 1
        return uid_of(self.project.slug, self.title, row.uid.hex, "said", said, self._voters[key])

    def _lock(self) -> None:
        """Two imports of one name go one after the other."""
        if self.campaign is None:
            self.campaign = campaigns.open_campaign(
                name=self.title,
                sets=[],
                tasks=[self.task],
                state=Campaign.State.CLOSED,
                project=self.project,
                origin=Campaign.Origin.IMPORTED,
                may_be_empty=True,
            )
            self._new = True
        Campaign.objects.select_for_update(no_key=True).get(pk=self.campaign.pk)

    def _store(
        self,
        new: Sequence[tuple[Checked, Turn, uuid.UUID, list[tuple[Dimension, Answer]]]],
    ) -> None:
        if not new:
            return
        assert self.campaign is not None
        sets = self._sets({row.uid: row for row, *_ in new})
        items = self._items(sets.values())
        turns = self._turns([(items[sets[row.uid].pk], turn, uid) for row, turn, uid, _ in new])
        shown = {
            (one.set_id, one.index): one.pk
            for one in Candidate.objects.filter(set__in=list(sets.values()))
        }
        rows = []
        for row, _turn, uid, answers in new:
            made = sets[row.uid].pk
            for dimension, answer in answers:
                picked = answer.best is not None and answer.worst is not None
                rows.append(
                    Judgment(
                        assignment=turns[uid],
                        set_id=made,
                        dimension=dimension,
                        wording=dimension.wording,
                        outcome=answer.outcome,
                        best_id=shown[made, answer.best or 0] if picked else None,
                        worst_id=shown[made, answer.worst or 0] if picked else None,
                    )
                )
        Judgment.objects.bulk_create(rows)
        self._date(rows, [answer for *_, answers in new for _dimension, answer in answers])
        self.campaign.dimensions.add(*{dimension for *_, said in new for dimension, _ in said})

    def _date(self, rows: Sequence[Judgment], answers: Sequence[Answer]) -> None:
        """When it was said, where that is known, and not when it came here."""
        dated = []
        for row, answer in zip(rows, answers, strict=True):
            if answer.at is not None:
                row.created_at = answer.at
                dated.append(row)
        Judgment.objects.bulk_update(dated, ["created_at"])

    def _sets(self, rows: Mapping[uuid.UUID, Checked]) -> dict[uuid.UUID, CandidateSet]:
        found = {one.uid: one for one in CandidateSet.objects.filter(uid__in=list(rows))}
        missing = [row for uid, row in rows.items() if uid not in found]
        stored = iter(images.store_all([one for row in missing for one in row.pictures]))
        made = [
            CandidateSet(
                uid=row.uid,
                source=self._source_row(row),
                size=len(row.pictures),
                state=CandidateSet.State.READY,
            )
            for row in missing
        ]
        CandidateSet.objects.bulk_create(made)
        Candidate.objects.bulk_create(
            Candidate(
                set=one,
                index=index,
                policy=self._policy(model),
                image=next(stored),
                prompt=row.prompt,
                width=picture.width,
                height=picture.height,
                versions={"imported_from": f"{self.title}, {row.row.name}"},
            )
            for one, row in zip(made, missing, strict=True)
            for index, (picture, model) in enumerate(zip(row.pictures, row.models, strict=True))
        )
        return {one.uid: one for one in (*found.values(), *made) if one.uid is not None}

    def _source_row(self, row: Checked) -> Source:
        source, _created = sources.add_source(
            task=self.task,
            image=row.source,
            mask=row.mask,
            prompt=row.prompt,
            tags=_tags(row.row.said.get("tags", "")),
            licence=row.row.said.get("licence", ""),
            attribution=row.row.said.get("attribution", ""),
            external_id=row.row.external_id,
            project=self.project,
            size=blank_size(row.pictures[0]),
            origin=Source.Origin.IMPORTED,
        )
        return source

    def _policy(self, model: str) -> Policy:
        """An external policy of that name; a policy with weights here keeps its name to itself."""
        name = model or NOT_STATED
        if name not in self._policies:
            kind = Policy.Kind.EXTERNAL
            taken = Policy.objects.filter(name=name).exclude(kind=kind).exists()
            title = f"{name[:109]} (imported)" if taken else name
            self._policies[name], _made = Policy.objects.get_or_create(name=title, kind=kind)
        return self._policies[name]

    def _items(self, sets: Iterable[CandidateSet]) -> dict[int, Item]:
        """By the set's key."""
        keys = [one.pk for one in sets]
        Item.objects.bulk_create(
            (Item(campaign=self.campaign, set_id=key, position=0.0) for key in keys),
            ignore_conflicts=True,
        )
        found = Item.objects.filter(campaign=self.campaign, set__in=keys, shown=[])
        return {item.set_id: item for item in found.select_related("set")}

    def _turns(self, wanted: Sequence[tuple[Item, Turn, uuid.UUID]]) -> dict[uuid.UUID, Assignment]:
        uids = {uid: (item, turn) for item, turn, uid in wanted}
        found = {one.uid: one for one in Assignment.objects.filter(uid__in=list(uids))}
        taken = Assignment.objects.filter(item__in={item for item, *_ in wanted})
        slots = dict(taken.order_by().values_list("item").annotate(last=Max("slot")))
        made = []
        for uid, (item, turn) in uids.items():
            if uid in found:
                continue
            slot = slots[item.pk] = slots.get(item.pk, -1) + 1
            at = next((one.at for _, one in turn.answers if one.at), None) or timezone.now()
            made.append(
                Assignment(
                    uid=uid,
                    item=item,
                    set_id=item.set_id,
                    annotator_id=self._person(turn.annotator or f"voter {slot + 1}"),
                    slot=slot,
                    order=list(range(item.set.size)),
                    state=Assignment.State.SUBMITTED,
                    lease_until=at,
                    submitted_at=at,
                    seconds_spent=next((one.seconds for _, one in turn.answers), None),
                )
            )
        self._overlap = max([self._overlap, *(one.slot + 1 for one in made)])
        Assignment.objects.bulk_create(made)
        return {one.uid: one for one in (*found.values(), *made) if one.uid is not None}

    def _person(self, name: str) -> int:
        """An account for somebody of this import, of whom nothing but that is known."""
        if name not in self._people:
            digest = hashlib.sha256(f"{self.project.slug}\n{self.title}\n{name}".encode())
            user, _made = User.objects.get_or_create(
                username=f"imported-{digest.hexdigest()[:20]}",
                defaults={"is_active": False, "password": make_password(None)},
            )
            self._people[name] = user.pk
        return self._people[name]

    def finish(self) -> None:
        """A set has as many people as answered at most; nobody is asked for more."""
        if self.campaign is None or self.dry_run:
            return
        with transaction.atomic():
            row = Campaign.objects.select_for_update(no_key=True).get(pk=self.campaign.pk)
            row.tasks.add(self.task)
            if self._overlap > row.overlap:
                row.overlap = self._overlap
            row.completed_at = row.completed_at or timezone.now()
            row.save(update_fields=["overlap", "completed_at"])
            if self._new:
                campaigns.note_made(row, None)


def _tags(text: str) -> dict[str, Any]:
    try:
        tags = json.loads(text or "{}")
    except ValueError:
        return {}
    return tags if isinstance(tags, dict) else {}


def _content(answer: Answer) -> tuple[str, int | None, int | None]:
    return answer.outcome, answer.best, answer.worst


def _said(
    turns: set[uuid.UUID],
) -> dict[tuple[uuid.UUID, int], tuple[str, int | None, int | None] | None]:
    """What is stored already, by turn and dimension."""
    rows = Judgment.objects.current().filter(assignment__uid__in=turns)
    names = ("assignment__uid", "dimension_id", "outcome", "best__index", "worst__index")
    return {
        (uid, dimension): (outcome, best, worst)
        for uid, dimension, outcome, best, worst in rows.values_list(*names)
        if uid is not None
    }
