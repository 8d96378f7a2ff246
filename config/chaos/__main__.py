"""Kills in the environment that `manage.py chaos` made: `python -m config.chaos ORDERS FILE`."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from config.chaos.orders import Clerk
    from config.chaos.people import Person

LOOK_SECONDS = 0.5
WARM_SECONDS = 30.0  # for everybody's first answer


@dataclass(frozen=True)
class Orders:
    kills: int
    seed: int
    pause: float  # seconds between two kills, on average
    people: int
    items: int
    settle: float  # seconds for everything to be finished after the last kill


@dataclass
class Clock:
    """Until when people work, and until when they wait for an answer."""

    stopped_at: float = 0.0
    settle: float = 0.0

    def stop(self) -> bool:
        return self.stopped_at > 0

    def end(self) -> None:
        self.stopped_at, self.settle = self.stopped_at or time.monotonic(), 0.0

    def over(self) -> bool:
        return self.stop() and time.monotonic() > self.stopped_at + self.settle


def main(orders: Orders) -> dict[str, Any]:
    from config import durability
    from config.bench.site import Site
    from config.chaos import counting, world
    from config.chaos.orders import Clerk, Desk, Listener
    from config.chaos.people import Person, Work
    from config.chaos.targets import WEIGHTS, Killer

    clock = Clock(settle=orders.settle)
    site, listener = Site(), Listener()
    try:
        say("starting the site …")
        site.start()
        ground = world.make(people=orders.people, items=orders.items, listener=listener.url)
        named = ground.world.campaign
        work = Work(site.port, named.pk, ground.slugs, 0.2, clock.stop, clock.over)
        desk = Desk(site.port, ground.token, named.name, ground.sources, clock.stop, clock.over)
        people = [
            Person(work, ground.headers(place), f"{orders.seed} {place}")
            for place in range(orders.people)
        ]
        clerk = Clerk(desk, f"{orders.seed} clerk")
        for thread in [*people, clerk]:
            thread.start()
        begin = time.monotonic() + WARM_SECONDS
        until(lambda: all(map(_works, people)), lambda: time.monotonic() > begin)
        killer = Killer(site, random.Random(orders.seed))
        say(f"killing {orders.kills} processes, seed {orders.seed} …")
        began = time.monotonic()
        killer.work(orders.kills, pause=orders.pause, amid=lambda: _tell(killer.kills, people))
        seconds = time.monotonic() - began
        say("waiting until everything is finished …")
        clock.stopped_at = time.monotonic()
        for thread in [*people, clerk]:
            thread.join()
        until(lambda: site.is_ready() and _settled(clerk), clock.over)
        settled = time.monotonic() - clock.stopped_at
        found = counting.count(ground, people, clerk, listener)
        if not site.is_ready():
            found.stuck.append("the site is not ready")
        if risky := durability.unsafe():
            found.lost.append(f"commits are acknowledged that are not on the disk: {risky}")
    finally:
        clock.end()
        site.stop()
        listener.stop()
        _close()
    for line in found.wrong:
        say(line)
    done = [one for one in clerk.orders if one.state == "succeeded"]
    return {
        "kills": sum(killer.kills.values()),
        "acknowledged": found.acknowledged,
        "stored": found.stored,
        "lost": len(found.lost),
        "doubled": len(found.doubled),
        "stuck": len(found.stuck),
        "seed": orders.seed,
        "seconds": round(seconds, 1),
        "settled_seconds": round(settled, 1),
        "sent_again": clerk.api.broken + sum(one.broken for one in people),
        "sent_twice": sum(one.doubles for one in people),
        "refused": sum(not one.acknowledged for person in people for one in person.sent),
        "skipped": sum(one.skipped for one in people),
        "undone": sum(one.undone for one in people),
        "undone_perhaps": sum(one.maybe_undone for one in people),
        **{kind: sum(one.kind == kind for one in done) for kind in counting.ROWS},
        "orders_refused": sum(clerk.refused.values()),
        "messages": len(listener.heard),
        "messages_heard_twice": found.heard_twice,
        **{f"kills_{name}": killer.kills[name] for name in WEIGHTS},
    }


def until(true: Callable[[], bool], over: Callable[[], bool]) -> None:
    while not true() and not over():
        time.sleep(LOOK_SECONDS)


def _works(person: Person) -> bool:
    return any(one.acknowledged for one in list(person.sent))


def _settled(clerk: Clerk) -> bool:
    from django.db import InterfaceError, OperationalError, connection

    from config.chaos.asking import Unanswered
    from generation.webhook_rows import Delivery

    try:
        clerk.look()
        waits = Delivery.objects.filter(state=Delivery.State.WAITING).exists()
    except (
        InterfaceError,
        OperationalError,
        Unanswered,
    ):  # the connection is older than the last kill
        connection.close()
        return False
    return not waits and not clerk.open()


def _tell(kills: Any, people: list[Any]) -> None:
    if (number := sum(kills.values())) and number % 20 == 0:
        acknowledged = sum(one.acknowledged for person in people for one in list(person.sent))
        say(f"{number} kills, {acknowledged} submissions acknowledged")


def _close() -> None:
    from django.db import connections

    for one in connections.all(initialized_only=True):
        one.close()
        one.close_pool()  # type: ignore[attr-defined]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    Path(sys.argv[2]).write_text(json.dumps(main(Orders(**json.loads(sys.argv[1])))))
