"""32 annotators at once, as processes that are killed at any moment, on a campaign of many sets.

`make test-all` has 5,000 of them, `make test` less than a third.

What they do is drawn from a seed, which is printed; `ONELOOP_SEED=… pytest` draws the same again.
The order in which the processes meet is the machine's own.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.models import Count, F

from annotation.models import Assignment, Campaign, Item, Judgment
from generation.models import Candidate, CandidateSet
from tests.annotation.crowd import Journal, Line, Person, run
from tests.annotation.factories import make_campaign, make_judged_task
from tests.factories import make_policy, make_source, make_user

PEOPLE = 32
SIZE = 3
State = Assignment.State
DONE = {State.SUBMITTED, State.LATE}
Answers = dict[str, tuple[str, int | None, int | None]]

fork = multiprocessing.get_context("fork")


def make_sets(task: Any, number: int) -> list[CandidateSet]:
    """Sets of one source whose candidates share one picture: as cheap as rows can be."""
    source, policy = make_source(task), make_policy()
    sets = CandidateSet.objects.bulk_create(
        CandidateSet(source=source, size=SIZE, state=CandidateSet.State.READY)
        for _ in range(number)
    )
    Candidate.objects.bulk_create(
        Candidate(
            set=made,
            index=index,
            policy=policy,
            image=source.image,
            seed=index,
            num_inference_steps=3,
            strength=1.0,
            guidance_scale=30.0,
            true_cfg_scale=1.0,
            width=64,
            height=64,
        )
        for made in sets
        for index in range(SIZE)
    )
    return sets


@dataclass
class Crowd:
    """The processes of all people: one each, replaced when it is killed."""

    seed: int
    campaign: Campaign
    slugs: list[str]
    people: list[User]
    folder: Path
    kills: int = 0
    kills_amid_a_call: int = 0
    lives: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.busy = RawArray("b", len(self.people))
        self.stop = fork.Event()
        self.draw = random.Random(self.seed)

    def journal(self, place: int) -> Path:
        return self.folder / f"{place}.jsonl"

    def start(self, place: int, *, wild: bool) -> BaseProcess:
        self.lives[place] += 1
        person = Person(
            user=self.people[place],
            campaign=self.campaign,
            slugs=self.slugs,
            size=SIZE,
            draw=random.Random(f"{self.seed} {place} {self.lives[place]}"),
            journal=Journal(self.journal(place)),
            busy=self.busy,
            place=place,
        )
        act = partial(person.work, self.stop.is_set) if wild else person.drain
        process = fork.Process(target=run, args=(person, act))
        process.start()
        return process

    def work_wildly(self, seconds: float) -> None:
        living = {place: self.start(place, wild=True) for place in range(PEOPLE)}
        end = time.monotonic() + seconds
        while living and time.monotonic() < end:
            time.sleep(self.draw.uniform(0.02, 0.3))
            for place in [place for place, one in living.items() if not one.is_alive()]:
                living.pop(place).join()
            if living:
                place = self.draw.choice(sorted(living))
                victim = living[place]
                assert victim.pid is not None
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
                self.kills += 1
                self.kills_amid_a_call += self.busy[place]
                self.busy[place] = 0
                living[place] = self.start(place, wild=True)
        self.stop.set()
        for process in living.values():
            process.join()

    def finish(self) -> None:
        # Those who were never there before come last: they can take what all others passed over.
        for group in (range(PEOPLE), range(PEOPLE, len(self.people))):
            living = [self.start(place, wild=False) for place in group]
            for process in living:
                process.join()


def release_connections() -> None:
    """No connection and no thread of a pool may be shared with a child."""
    connections.close_all()
    connection.close_pool()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("items", "wild_seconds"),
    # After those seconds the rest is done by ordinary people.
    [pytest.param(5_000, 45, marks=pytest.mark.long), (1_500, 15)],
)
def test_it_loses_doubles_and_mixes_up_nothing_whoever_is_killed(
    items: int, wild_seconds: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("ONELOOP_SEED") or random.SystemRandom().randrange(10**6))
    overlap = 2
    task = make_judged_task(dimensions=2)
    campaign = make_campaign(task=task, sets=make_sets(task, items), overlap=overlap)
    crowd = Crowd(
        seed=seed,
        campaign=campaign,
        slugs=list(task.dimensions.values_list("slug", flat=True)),
        people=[make_user() for _ in range(PEOPLE + 2)],
        folder=tmp_path,
    )
    for place in range(len(crowd.people)):
        crowd.journal(place).touch()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    release_connections()
    began = time.monotonic()
    try:
        crowd.work_wildly(wild_seconds)
        crowd.finish()
    except BaseException:
        crowd.stop.set()
        raise
    seconds = time.monotonic() - began

    journals = {
        user.pk: Journal.read(crowd.journal(place)) for place, user in enumerate(crowd.people)
    }
    failed = [line["error"] for lines in journals.values() for line in lines if "error" in line]
    assert failed == []
    stored = read_turns()
    wrong = {
        "lost": [one for user, lines in journals.items() for one in lost(user, lines, stored)],
        "doubled": [*doubled(), *unsent(journals, stored)],
        "foreign": foreign(journals, stored),
    }
    counts = Counter(line["what"] for lines in journals.values() for line in lines)
    states = Counter(turn.state for turn in stored.values())
    with capsys.disabled():
        print(
            f"\nseed {seed}: {PEOPLE} people, {items} items × {overlap}, {seconds:.0f} s; "
            f"{crowd.kills} kills ({crowd.kills_amid_a_call} amid a call); "
            f"{counts['stored']} acknowledged ({states['late']} late), {counts['undone']} undone, "
            f"{counts['skipped']} skipped, {counts['ran out']} leases run out, "
            f"{counts['refused']} refused; "
            + ", ".join(f"{len(found)} {name}" for name, found in wrong.items())
        )
    assert wrong == {"lost": [], "doubled": [], "foreign": []}
    assert over_or_under(campaign, overlap) == []
    assert states["open"] == 0
    assert not Item.objects.filter(full=False).exists()
    assert crowd.kills_amid_a_call > 0
    assert min(counts[what] for what in ("undone", "skipped", "ran out", "refused")) > 0


# What the database says --------------------------------------------------------------------------


@dataclass
class Stored:
    """A turn as it ended: who, which state, its answers revision by revision."""

    annotator: int
    state: str
    submission: str | None
    revisions: list[Answers]
    current: Answers


def read_turns() -> dict[int, Stored]:
    turns = {
        pk: Stored(annotator, state, str(submission) if submission else None, [], {})
        for pk, annotator, state, submission in Assignment.objects.values_list(
            "pk", "annotator", "state", "submission"
        )
    }
    answers: dict[tuple[int, int], Answers] = defaultdict(dict)
    rows = Judgment.objects.order_by("revision", "pk").values_list(
        "assignment",
        "revision",
        "dimension__slug",
        "outcome",
        "best__index",
        "worst__index",
        "current",
    )
    for turn, revision, slug, outcome, best, worst, current in rows:
        answers[turn, revision][slug] = (outcome, best, worst)
        if current:
            turns[turn].current[slug] = (outcome, best, worst)
    for (turn, _revision), said in sorted(answers.items()):
        turns[turn].revisions.append(said)
    return turns


def said_in(line: Line) -> Answers:
    return {slug: tuple(answer) for slug, answer in line["answers"].items()}


def lost(user: int, lines: list[Line], stored: dict[int, Stored]) -> list[str]:
    """What was acknowledged and is not there, or does not stand although nobody took it back."""
    sent = {line["id"]: line for line in lines if line["what"] == "sent"}
    found = []
    standing: dict[int, str] = {}  # turn → id of the submission that should stand
    unsure = 0  # withdrawals that were begun and never answered
    unsure_turns = set()  # corrections that were begun and refused or never answered
    for line in lines:
        if line["what"] == "undoing":
            unsure += 1
        elif line["what"] == "not undone":
            unsure -= 1
        elif line["what"] == "undone":
            unsure -= 1
            standing.pop(line["turn"], None)
        elif line["what"] == "stored":
            if said_in(sent[line["id"]]) not in stored[line["turn"]].revisions:
                found.append(f"{user}: {line} was never stored")
            standing[line["turn"]] = line["id"]
    for turn, key in standing.items():
        row = stored[turn]
        stands = row.state in DONE and row.submission == key and row.current == said_in(sent[key])
        if not stands:
            unsure_turns.add(turn)
    if len(unsure_turns) > unsure:
        found += [f"{user}: turn {turn} does not stand: {stored[turn]}" for turn in unsure_turns]
    return found


def doubled() -> list[str]:
    """More than one turn, slot or answer where there may be one."""
    live = Assignment.objects.filter(kind=Assignment.Kind.WORK)
    twice = live.values("item", "annotator").annotate(n=Count("pk")).filter(n__gt=1)
    slots = live.filter(state=State.SUBMITTED).values("item", "slot").annotate(n=Count("pk"))
    current = Judgment.objects.filter(current=True).values("assignment", "dimension")
    return [
        *(f"one person twice: {row}" for row in twice),
        *(f"one slot twice: {row}" for row in slots.filter(n__gt=1)),
        *(f"one answer twice: {row}" for row in current.annotate(n=Count("pk")).filter(n__gt=1)),
    ]


def unsent(journals: dict[int, list[Line]], stored: dict[int, Stored]) -> list[str]:
    """Turns that hold more revisions than were sent, or other answers than any that were sent."""
    sent: dict[int, list[Answers]] = defaultdict(list)
    for lines in journals.values():
        for line in lines:
            if line["what"] == "sent":
                sent[line["turn"]].append(said_in(line))
    found = []
    for pk, turn in stored.items():
        left = list(sent[pk])
        for said in turn.revisions:
            if said not in left:
                found.append(f"turn {pk} holds what was not sent, or twice: {said}")
                break
            left.remove(said)
        if bool(turn.current) != (turn.state in DONE):
            found.append(f"turn {pk} is {turn.state} with current answers {turn.current}")
    return found


def foreign(journals: dict[int, list[Line]], stored: dict[int, Stored]) -> list[str]:
    """Answers in somebody else's turn or about another set's candidates."""
    judged = Judgment.objects.all()
    others = (
        judged.exclude(set=F("assignment__set"))
        | judged.filter(best__isnull=False).exclude(best__set=F("set"))
        | judged.filter(worst__isnull=False).exclude(worst__set=F("set"))
    )
    found = [f"judgment {pk} is about another set" for pk in others.values_list("pk", flat=True)]
    for user, lines in journals.items():
        turns = {line["turn"] for line in lines if line["what"] in {"stored", "skipped", "undone"}}
        found += [f"turn {pk} is not {user}'s" for pk in turns if stored[pk].annotator != user]
    return found


def over_or_under(campaign: Campaign, overlap: int) -> list[str]:
    """Items that not exactly `overlap` different people judged, or whose `full` is wrong."""
    judged: dict[int, list[int]] = defaultdict(list)
    rows = Assignment.objects.filter(kind=Assignment.Kind.WORK, state=State.SUBMITTED)
    for item, annotator in rows.values_list("item", "annotator"):
        judged[item].append(annotator)
    found = []
    for pk, full in campaign.items.values_list("pk", "full"):
        people = judged[pk]
        if len(people) != overlap or len(set(people)) != overlap or not full:
            found.append(f"item {pk}: judged by {people}, full: {full}")
    return found
