"""A claim in a very large campaign against one in a small one, each in a database of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, connections

from annotation import campaigns, contents, judgments, queue
from annotation.judgments import Answer
from config.bench import world as worlds
from config.bench.world import World

Found = dict[str, float]
PEOPLE = 200
JUDGED = 0.4
LONG = 10_000  # items that the busiest person has judged


@dataclass
class Side:
    """A database with its campaign."""

    name: str
    items: int
    world: World | None = None

    @property
    def there(self) -> World:
        assert self.world is not None
        return self.world


def measure(*, small: int, large: int, rounds: int) -> Found:
    sides = [Side("bench_small", small), Side("bench_large", large)]
    make_databases(sides)
    for side in sides:
        with on(side):
            side.world = worlds.make_world(items=side.items, people=PEOPLE, size=2)
            worlds.analyse()
    found: Found = {}
    ratios = {}
    for stage, people in STAGES.items():
        for side in sides:
            with on(side):
                stage(side.there)
        few, many = _interleaved(sides, people, rounds)
        ratios[stage.__name__] = many / few
        if stage is fresh:
            found |= {"claim_ms_1k": 1000 * few, "claim_ms_1m": 1000 * many}
    found |= {f"claim_ratio_{name}": ratio for name, ratio in ratios.items()}
    return found | {"claim_ratio_1m_vs_1k": max(ratios.values())}


# Stages -------------------------------------------------------------------------------------------


def fresh(world: World) -> None:
    """Nobody has judged anything."""


def done_40(world: World) -> None:
    worlds.judge(world, JUDGED)
    worlds.analyse()


def veteran(world: World) -> None:
    """The last person has judged item after item behind that, and nobody else there."""
    user = world.people[-1]
    number = min(LONG, world.campaign.items.count() // 4)
    worlds.work_long(world, user, share=JUDGED + 0.1, number=number)
    worlds.analyse()


def priority(world: World) -> None:
    """What that person has judged gets priority, so that it lies in front of everything."""
    user = world.people[-1]
    mine = world.campaign.items.filter(assignments__annotator=user, full=False)
    items = world.campaign.items.filter(pk__in=mine.values("pk"))
    contents.set_priority(campaign=world.campaign, items=items, priority=1)
    worlds.analyse()


# Who claims then: some people, or the busiest one.
STAGES = {
    fresh: slice(0, 4),
    done_40: slice(4, 8),
    veteran: slice(-1, None),
    priority: slice(-1, None),
}


# Measuring ----------------------------------------------------------------------------------------


def _interleaved(sides: list[Side], people: slice, rounds: int) -> tuple[float, float]:
    """Median seconds of a claim on each side, taken in turns so that a busy moment hits both."""
    took: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds + 3):
        for side in sides:
            with on(side):
                users = side.there.people[people]
                seconds = claim(side.there, users[number % len(users)])
            if number >= 3:
                took[side.name].append(seconds)
    few, many = (median(took[side.name]) for side in sides)
    return few, many


def claim(world: World, user: User) -> float:
    began = time.perf_counter()
    turn = queue.claim(user=user, campaign=world.campaign)
    seconds = time.perf_counter() - began
    assert turn is not None
    asked = campaigns.dimensions_for(world.campaign, turn.set.source.task)
    answers = {dimension.slug: Answer("picked", 0, 1) for dimension in asked}
    judgments.record(assignment=turn, user=user, answers=answers)
    return seconds


def make_databases(sides: list[Side]) -> None:
    template = ""
    for side in sides:
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{side.name}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{side.name}" {template}')
        connections.databases[side.name] = connections.databases["default"] | {"NAME": side.name}
        if not template:
            with on(side):
                call_command("migrate", verbosity=0, interactive=False)
            # A database is copied only while nobody is connected to it.
            connections[side.name].close()
            connections[side.name].close_pool()  # type: ignore[attr-defined]
            template = f'TEMPLATE "{side.name}"'


def drop_databases(sides: list[Side]) -> None:
    for side in sides:
        connections[side.name].close()
        connections[side.name].close_pool()  # type: ignore[attr-defined]
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{side.name}" WITH (FORCE)')


@contextmanager
def on(side: Side) -> Iterator[None]:
    """Let the code under measurement, which knows one database, work on this one."""
    before = connections["default"]
    connections["default"] = connections[side.name]
    try:
        yield
    finally:
        connections["default"] = before
