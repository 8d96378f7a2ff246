"""Simulated annotators, for Locust: `python -m tests.load` writes their orders and starts them.

Each thinks, submits, and waits for the next set; what is reported as “cycle” is the time from the
submission to the next set on hand, as the annotator feels it. Pictures that this annotator has not
seen are fetched, as a browser would.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
import uuid
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from locust import FastHttpUser, constant, events, task

ORDERS: dict[str, Any] = json.loads(Path(os.environ["LOAD_ORDERS"]).read_text())
TURN = re.compile(r'"turn": (\d+)')
PICTURE = re.compile(r"/images/[0-9a-f]{64}\.png\?size=screen")
NUMBERS = count()
BEGAN = time.monotonic()
SECONDS: dict[str, list[float]] = {"cycle": [], "picture": []}
FAILURES: list[str] = []


class Annotator(FastHttpUser):
    abstract = True
    host = ORDERS["host"]
    wait_time = constant(0)  # the pauses are in the cycle, so that the first one differs
    network_timeout = connection_timeout = 60.0

    def on_start(self) -> None:
        person = ORDERS["people"][next(NUMBERS) % len(ORDERS["people"])]
        self.arrive(person)
        # Nobody starts on the same beat.
        time.sleep(random.uniform(0, ORDERS["think"]))

    @task
    def cycle(self) -> None:
        # As people do: mostly about the mean, now and then long.
        time.sleep(min(6 * ORDERS["think"], random.gammavariate(4, ORDERS["think"] / 4)))
        began = time.perf_counter()
        try:
            self.submit()
        except Exception as error:
            FAILURES.append(f"{type(error).__name__}: {error}"[:300])
            return
        _note("cycle", began)
        self.look()

    def arrive(self, person: str) -> None:
        raise NotImplementedError

    def submit(self) -> None:
        raise NotImplementedError

    def look(self) -> None:
        """Fetch the pictures of the set that came."""

    def ask(self, method: str, path: str, **more: Any) -> str:
        answer = self.client.request(method, path, catch_response=False, **more)
        if answer.status_code not in {200, 201}:
            said = (answer.text or "no answer")[:200]
            raise RuntimeError(f"{method} {path}: {answer.status_code} {said}")
        return answer.text or ""


class OneLoop(Annotator):
    """Like the page's script: some sets are kept ready, and answers bring new ones now and then."""

    abstract = ORDERS["system"] != "oneloop"

    def arrive(self, person: str) -> None:
        token = "b" * 32
        self.headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": f"sessionid={person}; csrftoken={token}",
            "X-CSRFToken": token,
        }
        self.turns: list[str] = []
        self.seen: set[str] = set()
        self.new: list[str] = []
        self.take(self.post(f"/label/campaign/{ORDERS['campaign']}/ahead/", []))
        self.look()

    def submit(self) -> None:
        turn = self.turns.pop(0)
        fields = [("submission", str(uuid.uuid4())), ("seconds", "8")]
        for slug in ORDERS["slugs"]:
            best, worst = random.sample("1234", 2)
            fields += [(f"best-{slug}", best), (f"worst-{slug}", worst)]
        self.take(self.post(f"/label/{turn}/", [*fields, *(("have", one) for one in self.turns)]))
        if not self.turns:
            raise RuntimeError("no further set came")

    def look(self) -> None:
        for path in self.new:
            began = time.perf_counter()
            try:
                self.ask("GET", path, headers=self.headers, name="picture")
            except Exception as error:
                FAILURES.append(f"{type(error).__name__}: {error}"[:300])
                continue
            _note("picture", began)
        self.new = []

    def post(self, path: str, fields: list[tuple[str, str]]) -> str:
        body = urlencode(fields)
        return self.ask("POST", path, data=body, headers=self.headers, name="submit")

    def take(self, body: str) -> None:
        self.turns += TURN.findall(body)
        self.new += dict.fromkeys(one for one in PICTURE.findall(body) if one not in self.seen)
        self.seen.update(self.new)


class LabelStudio(Annotator):
    """Through its API, as its own page does: submit an annotation, ask for the next task."""

    abstract = ORDERS["system"] != "label-studio"

    def arrive(self, person: str) -> None:
        self.headers = {"Authorization": f"Token {person}"}
        self.next()

    def submit(self) -> None:
        result = [
            {
                "from_name": f"{kind}-{slug}",
                "to_name": "source",
                "type": "choices",
                "value": {"choices": [random.choice("1234")]},
            }
            for slug in ORDERS["slugs"]
            for kind in ("best", "worst")
        ]
        path = f"/api/tasks/{self.at}/annotations?project={ORDERS['campaign']}"
        said = {"result": result, "lead_time": 8.0}
        self.ask("POST", path, json=said, headers=self.headers, name="submit")
        self.next()

    def next(self) -> None:
        path = f"/api/projects/{ORDERS['campaign']}/next"
        self.at = json.loads(self.ask("GET", path, headers=self.headers, name="next"))["id"]


def _note(what: str, began: float) -> None:
    """Failures count from the start; times count once all are at work."""
    if time.monotonic() > BEGAN + ORDERS["settle"]:
        SECONDS[what].append(time.perf_counter() - began)


@events.quitting.add_listener
def write(environment: Any, **_more: Any) -> None:
    Path(ORDERS["into"]).write_text(json.dumps({"seconds": SECONDS, "failures": FAILURES}))
