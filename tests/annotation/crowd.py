"""People who misbehave in every way that people and their machines do, for the concurrency test.

Each is a process of its own. What it is about to do and what was answered it writes to a journal,
one line each: a line "sent" before a call, a line "stored" after it has returned. Killed between
the two, the next process of the same person sends the same again, as the page's outbox does.
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback
import uuid
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from annotation import judgments, queue
from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Assignment, Campaign

Line = dict[str, Any]


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, what: str, **fields: Any) -> None:
        # One call per line: a kill leaves it out or leaves it whole.
        os.write(self._file, json.dumps({"what": what} | fields).encode() + b"\n")

    @staticmethod
    def read(path: Path) -> list[Line]:
        return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass
class Person:
    user: User
    campaign: Campaign
    slugs: list[str]
    size: int  # candidates per set
    draw: random.Random
    journal: Journal
    busy: MutableSequence[int]  # shared with the parent: whether a call is under way
    place: int

    def call(self, act: Callable[..., Any], **arguments: Any) -> Any:
        self.busy[self.place] = 1
        try:
            return act(**arguments)
        finally:
            self.busy[self.place] = 0

    # What people do ---------------------------------------------------------------------------

    def work(self, stop: Callable[[], bool]) -> None:
        self.send_again_what_was_not_answered()
        idle = 0
        while not stop() and idle < 20:
            wanted = self.draw.choice([1, 2, 8, 16, 25])
            held = self.call(
                queue.claim_ahead, user=self.user, campaign=self.campaign, wanted=wanted
            )
            idle = 0 if held else idle + 1
            if not held:
                time.sleep(0.05)
            for turn in held[: self.draw.randint(1, 25)]:
                self.do_something(turn)

    def do_something(self, turn: int) -> None:
        chance = self.draw.random()
        if chance < 0.05:
            self.skip(turn)
        elif chance < 0.10:
            self.let_the_lease_run_out(turn)
            if self.draw.random() < 0.5:
                self.submit(turn)
        elif chance < 0.13:
            pass  # walks away from it
        else:
            sent = self.submit(turn)
            after = self.draw.random()
            if after < 0.05:
                self.send(sent)
            elif after < 0.10:
                self.submit(turn)  # a correction, or the same set in a second window
            elif after < 0.15:
                self.undo()

    def drain(self) -> None:
        self.send_again_what_was_not_answered()
        while held := queue.claim_ahead(user=self.user, campaign=self.campaign, wanted=3):
            for turn in held:
                self.submit(turn)

    def submit(self, turn: int) -> Line:
        answers = {slug: self.answer() for slug in self.slugs}
        line = {"turn": turn, "id": str(uuid.UUID(int=self.draw.getrandbits(128), version=4))}
        line["answers"] = {slug: list(answer) for slug, answer in answers.items()}
        line["correction"] = self.draw.random() < 0.7
        self.journal.write("sent", **line)
        self.send(line)
        return line

    def answer(self) -> tuple[str, int | None, int | None]:
        if self.draw.random() < 0.1:
            return "no_difference", None, None
        best, worst = self.draw.sample(range(self.size), 2)
        return "picked", best, worst

    def send(self, line: Line) -> None:
        try:
            self.call(
                judgments.record,
                assignment=line["turn"],
                user=self.user,
                answers={slug: Answer(*answer) for slug, answer in line["answers"].items()},
                submission=uuid.UUID(line["id"]),
                correction=line["correction"],
            )
        except Refused as error:
            self.journal.write("refused", turn=line["turn"], id=line["id"], code=error.code)
        else:
            self.journal.write("stored", turn=line["turn"], id=line["id"])

    def send_again_what_was_not_answered(self) -> None:
        lines = Journal.read(self.journal.path)
        answered = {line["id"] for line in lines if line["what"] in {"stored", "refused"}}
        for line in lines:
            if line["what"] == "sent" and line["id"] not in answered:
                self.send(line)

    def skip(self, turn: int) -> None:
        try:
            self.call(judgments.skip, assignment=turn, user=self.user, reason="broken")
        except Refused as error:
            self.journal.write("not skipped", turn=turn, code=error.code)
        else:
            self.journal.write("skipped", turn=turn)

    def undo(self) -> None:
        self.journal.write("undoing")
        try:
            turn = self.call(judgments.undo, user=self.user, campaign=self.campaign)
        except Refused as error:
            self.journal.write("not undone", code=error.code)
        else:
            self.journal.write("undone", turn=turn.pk)

    def let_the_lease_run_out(self, turn: int) -> None:
        past = timezone.now() - timedelta(seconds=1)
        mine = Assignment.objects.filter(pk=turn, state=Assignment.State.OPEN)
        self.call(mine.update, lease_until=past)
        self.call(queue.expire_leases)
        self.journal.write("ran out", turn=turn)


def run(person: Person, act: Callable[[], None]) -> None:
    """The whole life of a process; what must not happen goes to the journal, too."""
    try:
        act()
    except Exception:
        person.journal.write("failed", error=traceback.format_exc())
