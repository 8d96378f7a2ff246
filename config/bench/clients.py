"""Browsers that submit as fast as they are answered: `python -m config.bench.clients`.

Standard library only. Reads its orders as JSON from standard input, says when all clients are ready
to go, and writes the times it measured. Like the page's script, each client keeps some sets ready,
submits the oldest and gets new ones with the same answer, several every few submissions.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import sys
import threading
import time
import uuid
from typing import Any
from urllib.parse import urlencode

TURN = re.compile(rb'"turn": (\d+)')
PLACES = "1234"


class Client(threading.Thread):
    def __init__(self, orders: dict[str, Any], session: str) -> None:
        super().__init__(daemon=True)
        self.orders = orders
        token = "b" * 32
        self.headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": f"sessionid={session}; csrftoken={token}",
            "X-CSRFToken": token,
        }
        self.server = http.client.HTTPConnection("127.0.0.1", orders["port"], timeout=30)
        self.turns: list[str] = []
        self.seconds: list[float] = []
        self.error = ""

    def run(self) -> None:
        try:
            self.fill_up()
            BARRIER.wait(60)
            end = time.monotonic() + self.orders["seconds"]
            while time.monotonic() < end:
                began = time.perf_counter()
                self.submit()
                self.seconds.append(time.perf_counter() - began)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            BARRIER.abort()

    def fill_up(self) -> None:
        self.post(f"/label/campaign/{self.orders['campaign']}/ahead/", [])

    def submit(self) -> None:
        turn = self.turns.pop(0)
        fields = [("submission", str(uuid.uuid4())), ("seconds", "4.2")]
        for slug in self.orders["slugs"]:
            best, worst = random.sample(PLACES, 2)
            fields += [(f"best-{slug}", best), (f"worst-{slug}", worst)]
        self.post(f"/label/{turn}/", [*fields, *(("have", one) for one in self.turns)])

    def post(self, path: str, fields: list[tuple[str, str]]) -> None:
        self.server.request("POST", path, urlencode(fields), self.headers)
        response = self.server.getresponse()
        body = response.read()
        got = [turn.decode() for turn in TURN.findall(body)]
        self.turns += got
        if response.status != 200 or not self.turns:
            raise RuntimeError(f"{path} answered {response.status}: {body[:300]!r}")


if __name__ == "__main__":
    orders = json.load(sys.stdin)
    clients = [Client(orders, session) for session in orders["sessions"]]
    BARRIER = threading.Barrier(len(clients) + 1)
    for client in clients:
        client.start()
    try:
        BARRIER.wait(60)
    except threading.BrokenBarrierError:
        time.sleep(0.5)
    began = time.monotonic()
    print("began", flush=True)
    for client in clients:
        client.join(orders["seconds"] + 60)
    json.dump(
        {
            "wall": time.monotonic() - began,
            "seconds": [second for client in clients for second in client.seconds],
            "errors": [client.error for client in clients if client.error],
        },
        sys.stdout,
    )
