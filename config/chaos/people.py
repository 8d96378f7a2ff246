"""Annotators who send until they are answered, often twice, and sometimes take things back."""

from __future__ import annotations

import random
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

from config.chaos.asking import Answer, Asker, Unanswered

SIZE = 4  # candidates per set
SAME = "no_difference"
Said = dict[str, tuple[str, str]]  # by dimension: the best and the worst, as places on the page


@dataclass
class Submission:
    """What was sent about a turn under one id, and what came back at last."""

    turn: int
    id: str
    said: Said
    correction: bool
    answers: list[int] = field(default_factory=list)  # status codes, one per copy that was sent

    @property
    def acknowledged(self) -> bool:
        return 200 in self.answers

    def form(self) -> list[tuple[str, str]]:
        fields = [("submission", self.id), ("seconds", "1.5")]
        fields += [("correction", "1")] if self.correction else []
        for slug, (best, worst) in self.said.items():
            fields += [(f"best-{slug}", best), (f"worst-{slug}", worst)]
        return fields


@dataclass(frozen=True)
class Work:
    port: int
    campaign: int
    slugs: list[str]
    pause: float  # seconds that a person looks at a set, on average
    stop: Callable[[], bool]
    over: Callable[[], bool]


class Person(threading.Thread):
    def __init__(self, work: Work, headers: dict[str, str], seed: str) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.draw = random.Random(seed)
        self.headers = headers
        self.windows = [self._window(), self._window()]
        self.turns: list[int] = []
        self.finished: list[int] = []  # what an undo would reopen, the last one at the end
        self.sent: list[Submission] = []
        self.skipped = self.undone = self.maybe_undone = self.doubles = 0
        self.error = ""

    def _window(self) -> Asker:
        over, draw = self.work.over, random.Random(self.draw.random())
        return Asker(self.work.port, self.headers, over, draw)

    @property
    def broken(self) -> int:
        return sum(window.broken for window in self.windows)

    def run(self) -> None:
        try:
            while not self.work.stop():
                self._step()
        except Unanswered as error:
            self.error = f"never answered: {error}"
        except Exception:
            self.error = traceback.format_exc()

    def _step(self) -> None:
        if not self.turns:
            self._more(self._ask(f"/label/campaign/{self.work.campaign}/ahead/", []))
        if not self.turns:
            time.sleep(0.5)  # the queue is empty for now
            return
        time.sleep(self.draw.expovariate(1 / self.work.pause))
        turn, chance = self.turns.pop(0), self.draw.random()
        if chance < 0.05:
            self._skip(turn)
        else:
            self._submit(turn, twice=chance < 0.20, correction=False)
        if self.draw.random() < 0.07:
            self._undo()

    # What people do -------------------------------------------------------------------------------

    def _submit(self, turn: int, *, twice: bool, correction: bool) -> None:
        key = str(uuid.UUID(int=self.draw.getrandbits(128), version=4))
        said = {slug: self._answer() for slug in self.work.slugs}
        one = Submission(turn, key, said, correction)
        self.sent.append(one)
        if twice and self.draw.random() < 0.5:
            # Enter was pressed twice, or a second window sends the outbox, too.
            self.doubles += 1
            both = [threading.Thread(target=self._send, args=(one, n)) for n in (0, 1)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
        else:
            self._send(one, 0)
            if twice:
                self.doubles += 1
                self._send(one, 1)
        if len(one.answers) < 1 + twice:
            raise Unanswered(f"submission {one.id}")
        if one.acknowledged:
            self._has_finished(turn)

    def _send(self, one: Submission, window: int) -> None:
        fields = one.form() + ([("have", str(turn)) for turn in self.turns] if not window else [])
        try:
            answer = self.windows[window].ask("POST", f"/label/{one.turn}/", urlencode(fields))
        except Unanswered:
            return  # whoever sent it notices that an answer is missing
        one.answers.append(answer.status)
        if not window:
            self._more(answer)

    def _skip(self, turn: int) -> None:
        answer = self._ask(f"/label/{turn}/skip/", [("reason", "broken")])
        if answer.status == 200:
            self.skipped += 1
            self._has_finished(turn)
            self._more(answer)

    def _undo(self) -> None:
        """Take back what was done last, and do it anew. What became of a request that nobody
        answered does not matter then: the new submission stands either way."""
        if not self.finished:
            return
        path = f"/label/campaign/{self.work.campaign}/undo/"
        answer = self.windows[0].once("POST", path)
        if answer is None:
            self.maybe_undone += 1
            turn = self.finished.pop()
        elif answer.status == 200:
            self.undone += 1
            turn = answer.json()["sets"][0]["turn"]
            if turn in self.finished:
                self.finished.remove(turn)
        else:
            return  # a skipped set that others have taken since
        if turn in self.turns:
            self.turns.remove(turn)
        self._submit(turn, twice=False, correction=True)

    # Parts ----------------------------------------------------------------------------------------

    def _ask(self, path: str, fields: list[tuple[str, str]]) -> Answer:
        return self.windows[0].ask("POST", path, urlencode(fields))

    def _answer(self) -> tuple[str, str]:
        if self.draw.random() < 0.1:
            return SAME, ""
        best, worst = self.draw.sample("1234"[:SIZE], 2)
        return best, worst

    def _has_finished(self, turn: int) -> None:
        if turn in self.finished:
            self.finished.remove(turn)
        self.finished.append(turn)

    def _more(self, answer: Answer) -> None:
        if answer.status != 200:
            return
        got = [one["turn"] for one in answer.json()["sets"]]
        self.turns += [turn for turn in got if turn not in self.turns]
