"""Requests that are sent again until somebody answers. Standard library only."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SECONDS = 30.0  # until a request counts as unanswered
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
AGAIN = {429, 500, 502, 503, 504}


class Unanswered(Exception):
    """The site did not answer in the time that was left."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Asker:
    """One browser or program: a connection, made anew whenever it breaks."""

    port: int
    headers: dict[str, str]
    over: Callable[[], bool]  # whether nobody waits for an answer any more
    draw: random.Random
    broken: int = 0  # requests whose answer never came, or was "try again"
    _server: http.client.HTTPConnection | None = field(default=None, repr=False)

    def once(self, method: str, path: str, body: str = "", **headers: str) -> Answer | None:
        """What was answered; None where nobody knows what became of the request."""
        if self._server is None:
            self._server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            self._server.request(method, path, body or None, self.headers | headers)
            response = self._server.getresponse()
            found = Answer(response.status, response.read())
        except (OSError, http.client.HTTPException):
            self._server.close()
            self._server = None
            self.broken += 1
            return None
        if found.status in AGAIN:
            self.broken += 1
            return None
        return found

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        pause = FIRST_PAUSE
        while (found := self.once(method, path, body, **headers)) is None:
            if self.over():
                raise Unanswered(f"{method} {path}")
            time.sleep(pause * self.draw.uniform(0.8, 1.2))
            pause = min(2 * pause, LONGEST_PAUSE)
        return found
