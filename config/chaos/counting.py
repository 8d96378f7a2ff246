"""What the database says after it all, beside what was acknowledged."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from django.core.files.storage import default_storage
from django.db.models import Count, F, Q

from annotation.models import Assignment, Campaign, Export, Item, Judgment
from config.bench.world import OVERLAP
from config.chaos.orders import Clerk, Listener, Ordered
from config.chaos.people import SAME, Person, Said, Submission
from config.chaos.world import Ground
from generation import images
from generation.models import Candidate, GenerationRun
from generation.ownership import JobState
from generation.webhook_rows import Delivery
from modeling.models import Edit

State = Assignment.State
DONE = {State.SUBMITTED, State.LATE}
ROWS: dict[str, Any] = {"generations": GenerationRun, "exports": Export, "edits": Edit}


@dataclass
class Found:
    """One sentence for each thing that must not be."""

    acknowledged: int = 0
    stored: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    heard_twice: int = 0

    @property
    def wrong(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.stuck]


def count(ground: Ground, people: list[Person], clerk: Clerk, listener: Listener) -> Found:
    found = Found()
    _submissions(found, ground.world.campaign, people)
    _places(found, ground.world.campaign)
    _orders(found, ground, clerk.orders)
    _messages(found, listener)
    errors = [one.error for one in people] + [clerk.error]
    found.stuck += [error for error in errors if error]
    return found


# Submissions --------------------------------------------------------------------------------------


def _submissions(found: Found, campaign: Campaign, people: Iterable[Person]) -> None:
    turns = {row.pk: row for row in Assignment.objects.filter(item__campaign=campaign)}
    revisions, current = _answers(campaign, turns)
    acknowledged: dict[int, list[Submission]] = defaultdict(list)
    for person in people:
        for one in person.sent:
            if one.acknowledged:
                acknowledged[one.turn].append(one)
            if len(set(one.answers)) > 1:
                found.lost.append(f"copies of {one} were answered differently")
    for turn in turns.keys() | acknowledged.keys():
        _compare(found, turn, acknowledged[turn], revisions[turn])
        if acknowledged[turn]:
            row, last = turns[turn], acknowledged[turn][-1]
            stands = row.state in DONE and str(row.submission) == last.id
            if not stands or current[turn] != last.said:
                found.lost.append(f"{last} does not stand: {row.state}, {current[turn]}")


def _compare(found: Found, turn: int, said: list[Submission], stored: list[Said]) -> None:
    found.acknowledged += len(said)
    for one, there in zip_longest(said, stored):
        if one is None:
            found.doubled.append(f"turn {turn} holds what nobody was told of: {there}")
        elif there == one.said:
            found.stored += 1
        else:
            found.lost.append(f"turn {turn} holds {there} instead of {one}")


def _answers(
    campaign: Campaign, turns: dict[int, Assignment]
) -> tuple[dict[int, list[Said]], dict[int, Said]]:
    """By turn: what was stored, revision by revision, and what stands; as places on the page."""
    by_revision: dict[int, dict[int, Said]] = defaultdict(lambda: defaultdict(dict))
    current: dict[int, Said] = defaultdict(dict)
    rows = Judgment.objects.filter(assignment__item__campaign=campaign).order_by("revision")
    for turn, revision, slug, outcome, best, worst, stands in rows.values_list(
        *("assignment", "revision", "dimension__slug", "outcome"),
        *("best__index", "worst__index", "current"),
    ):
        order = turns[turn].order
        picked = outcome == Judgment.Outcome.PICKED
        said = (str(order.index(best) + 1), str(order.index(worst) + 1)) if picked else (SAME, "")
        by_revision[turn][revision][slug] = said
        if stands:
            current[turn][slug] = said
    revisions: dict[int, list[Said]] = defaultdict(list)
    for turn, found in by_revision.items():
        revisions[turn] = list(found.values())
    return revisions, current


def _places(found: Found, campaign: Campaign) -> None:
    """Items that too many people have, or one person twice, or whose `full` is wrong."""
    live = Q(assignments__kind="work", assignments__state__in=["open", "submitted"])
    items = Item.objects.filter(campaign=campaign).annotate(
        turns=Count("assignments", filter=live),
        people=Count("assignments__annotator", filter=live, distinct=True),
    )
    for item in items.filter(Q(turns__gt=OVERLAP) | ~Q(turns=F("people"))):
        found.doubled.append(f"item {item.pk} is held {item.turns} times by {item.people} people")
    for item in items.filter(Q(full=True, turns__lt=OVERLAP) | Q(full=False, turns__gte=OVERLAP)):
        found.stuck.append(f"item {item.pk} has {item.turns} turns and full={item.full}")


# Orders -------------------------------------------------------------------------------------------


def _orders(found: Found, ground: Ground, orders: list[Ordered]) -> None:
    for one in orders:
        if one.state != JobState.SUCCEEDED:
            run = GenerationRun.objects.filter(sets__edit=one.id) if one.kind == "edits" else None
            row = (run or ROWS[one.kind].objects.filter(pk=one.id)).get()
            found.stuck.append(f"{one} is {row.state}, attempt {row.attempt}: {row.error}")
    for kind, model in ROWS.items():
        rows = model.objects.filter(requested_by=ground.clerk)
        if kind == "generations":
            rows = rows.exclude(sets__in=Edit.objects.values("set"))
        known = [one.id for one in orders if one.kind == kind]
        for pk in rows.exclude(pk__in=known).values_list("pk", flat=True):
            found.doubled.append(f"{kind} {pk} was ordered by nobody")
    _pictures(found, ground)
    _archives(found)


def _pictures(found: Found, ground: Ground) -> None:
    made = Candidate.objects.filter(set__run__requested_by=ground.clerk)
    for one in made.select_related("image"):
        if one.image is None:
            continue  # its run is not finished, which was said already
        if hashlib.sha256(images.read_bytes(one.image)).hexdigest() != one.image.sha256:
            found.lost.append(f"the picture of candidate {one.pk} is not what was stored")
    sets = made.values("set", size=F("set__size")).annotate(n=Count("pk"))
    found.doubled += [f"{row}" for row in sets.exclude(n=F("size"))]


def _archives(found: Found) -> None:
    named = set(Export.objects.exclude(archive="").values_list("archive", flat=True))
    there = set()
    if default_storage.exists("exports"):
        names = default_storage.listdir("exports")[1]
        there = {f"exports/{name}" for name in names if name.endswith(".zip")}
    found.lost += [f"the archive {name} is gone" for name in named - there]
    found.doubled += [f"the archive {name} is of no export" for name in there - named]
    for name in named & there:
        with default_storage.open(name) as file, zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                found.lost.append(f"the archive {name} is damaged")


def _messages(found: Found, listener: Listener) -> None:
    told: Counter[int] = Counter()
    for row in Delivery.objects.filter(event__startswith="run."):
        told[json.loads(row.body)["data"]["id"]] += 1
        if row.state != Delivery.State.DELIVERED:
            found.stuck.append(f"message {row.pk} is {row.state}: {row.error}")
        elif not listener.heard[str(row.key)]:
            found.lost.append(f"message {row.pk} never arrived")
    found.doubled += [
        f"the end of run {run} was told {n} times" for run, n in told.items() if n > 1
    ]
    ended = GenerationRun.objects.exclude(state__in=[JobState.QUEUED, JobState.RUNNING])
    found.lost += [f"nobody was told of the end of {run}" for run in ended if not told[run.pk]]
    # A message whose answer nobody heard is sent again; its key says that it is the same.
    found.heard_twice = sum(n - 1 for n in listener.heard.values())
