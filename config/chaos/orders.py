"""A program that orders work over the API, and a server that is told when work has ended."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from config.chaos.asking import Asker, Unanswered

OPEN = {"queued", "running"}
AT_ONCE = 3  # orders of one kind that are open


@dataclass(frozen=True)
class Desk:
    port: int
    token: str
    campaign: str
    sources: list[int]
    stop: Callable[[], bool]
    over: Callable[[], bool]


@dataclass
class Ordered:
    kind: str  # the API's name of the list
    id: int
    state: str = "queued"


class Clerk(threading.Thread):
    """Keeps some orders of each kind open; each has a key by which it is done once."""

    def __init__(self, desk: Desk, seed: str) -> None:
        super().__init__(daemon=True)
        self.desk = desk
        self.draw = random.Random(seed)
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Authorization": f"Bearer {desk.token}",
        }
        self.api = Asker(desk.port, headers, desk.over, self.draw)
        self.orders: list[Ordered] = []
        self.refused: Counter[str] = Counter()
        self.error = ""

    def run(self) -> None:
        kinds = itertools.cycle(["generations", "exports", "edits"])
        try:
            while not self.desk.stop():
                kind = next(kinds)
                self.look(kind)
                if len([one for one in self.open() if one.kind == kind]) < AT_ONCE:
                    self._order(kind)
                time.sleep(self.draw.uniform(0.1, 0.6))
        except Unanswered as error:
            self.error = f"never answered: {error}"
        except Exception:
            self.error = traceback.format_exc()

    def open(self) -> list[Ordered]:
        return [one for one in self.orders if one.state in OPEN]

    def look(self, kind: str = "") -> None:
        """Ask what became of the orders that were open."""
        for one in self.open():
            if kind in ("", one.kind):
                one.state = self.api.ask("GET", f"/api/v1/{one.kind}/{one.id}").json()["state"]

    def _order(self, kind: str) -> None:
        key, body = uuid.UUID(int=self.draw.getrandbits(128)).hex, json.dumps(self._body(kind))
        answer = self.api.ask("POST", f"/api/v1/{kind}", body, **{"Idempotency-Key": key})
        while answer.status == 409:  # the first copy of it is still being answered
            time.sleep(0.5)
            answer = self.api.ask("POST", f"/api/v1/{kind}", body, **{"Idempotency-Key": key})
        if answer.status in {200, 201, 202}:
            self.orders.append(Ordered(kind, answer.json()["id"]))
        else:
            self.refused[f"{kind} {answer.status} {answer.body[:200]!r}"] += 1

    def _body(self, kind: str) -> dict[str, Any]:
        if kind == "exports":
            return {"selection": {"campaigns": [self.desk.campaign]}, "images": "none"}
        if kind == "edits":
            source = self.draw.choice(self.desk.sources)
            return {"source": source, "n": 2, "num_inference_steps": 2}
        sources = self.draw.choices(self.desk.sources, k=2)
        return {"sources": sources, "seed": self.draw.randrange(10**6)}


class Listener:
    """What the site's webhooks say, by the key that each message has."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                heard[body["id"]] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
