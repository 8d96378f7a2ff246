"""What grows with the number of judgments: `python -m config.bench.scale --rows 10000000`.

Two databases of their own, one of 100,000 judgments and one of many, loaded by PostgreSQL itself:
one campaign, a thousand people, four dimensions, four fifths judged by one or two people. Every
step is taken on both. What pages count may be kept for a moment: "…_first" is a page that counts
everything. The server is the one that DATABASE_URL names, or an embedded one in a folder that is
removed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config.bench.claims import Side

Found = dict[str, float]
SMALL = 100_000
PEOPLE = 1000
JUDGED = 0.8
SIZE = 4
PER_ITEM = 5 / 3  # people about a judged item: of every third one only one


class FirstRows(Exception):
    """The export has written something; the rest of it is not waited for."""


def measure(*, small: int, large: int, rounds: int, say: Callable[[str], None]) -> Found:
    from config.bench import claims

    sides = [claims.Side("scale_small", small), claims.Side("scale_large", large)]
    claims.make_databases(sides)
    found: Found = {}
    for side in sides:
        began = time.perf_counter()
        with claims.on(side):
            load(side)
            found |= sizes(side)
        say(f"{side.items:,} judgments loaded in {time.perf_counter() - began:.0f} s")
    for name, step in STEPS.items():
        for which in ["", "_first"] if name in PAGES else [""]:
            few, many = (taken(side, step, rounds, afresh=bool(which)) for side in sides)
            key = name + which
            found |= {f"{key}_ms_small": few, f"{key}_ms_large": many, f"{key}_ratio": many / few}
            say(f"{key:>16}  {few:9.1f} ms  {many:9.1f} ms  × {many / few:.2f}")
    claims.drop_databases(sides)
    return found


def load(side: Side) -> None:
    from django.contrib.auth.models import User

    from annotation.campaigns import dimensions_for
    from annotation.models import Campaign
    from config.bench import exports
    from config.bench import world as worlds
    from generation.models import Task

    asked = dimensions_for(Campaign(), Task.objects.get(slug="fill"))
    items = round(side.items / (len(asked) * PER_ITEM * JUDGED))
    side.world = worlds.make_world(items=items, people=PEOPLE, size=SIZE)
    worlds.judge(side.world, JUDGED)
    wordings = [dimension.wording.pk for dimension in asked]
    worlds.load({exports.JUDGMENTS: {"wordings": wordings}}, campaign=side.world.campaign.pk)
    User.objects.create_superuser("root", password="!")
    worlds.analyse()


def sizes(side: Side) -> Found:
    from django.db import connection

    from annotation.models import Judgment

    which = side.name.removeprefix("scale_")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        (size,) = cursor.fetchone()
    return {f"judgments_{which}": Judgment.objects.count(), f"database_mb_{which}": size / 2**20}


def taken(
    side: Side, step: Callable[[Side, int], float | None], rounds: int, *, afresh: bool
) -> float:
    """The median of its milliseconds; a step that times itself says so."""
    from django.core.cache import cache

    from config.bench import claims

    found = []
    cache.clear()  # of the other database
    with claims.on(side):
        for number in range(rounds + 1):
            if afresh:
                cache.clear()
            began = time.perf_counter()
            itself = step(side, number)
            found.append(time.perf_counter() - began if itself is None else itself)
    return 1000 * median(found[1:])


# Steps --------------------------------------------------------------------------------------------


def claim(side: Side, number: int) -> float:
    from config.bench import claims

    return claims.claim(side.there, side.there.people[number])


def submit(side: Side, number: int) -> float:
    """Claimed beforehand, which is not counted."""
    from annotation import campaigns, judgments, queue
    from annotation.judgments import Answer

    user, campaign = side.there.people[100 + number], side.there.campaign
    turn = queue.claim(user=user, campaign=campaign)
    assert turn is not None
    asked = campaigns.dimensions_for(campaign, turn.set.source.task)
    answers = {dimension.slug: Answer("picked", 0, 1) for dimension in asked}
    began = time.perf_counter()
    judgments.record(assignment=turn, user=user, answers=answers)
    return time.perf_counter() - began


def expire(side: Side, number: int) -> None:
    from annotation import queue

    queue.expire_leases()


def page(path: str, *, who: str = "annotator") -> Callable[[Side, int], float]:
    def get(side: Side, number: int) -> float:
        from django.contrib.auth.models import User
        from django.test import Client

        root = User.objects.get(username="root")
        user = side.there.people[200 + number] if who == "annotator" else root
        client = Client(SERVER_NAME="localhost")
        client.force_login(user)
        began = time.perf_counter()
        response = client.get(path.format(campaign=side.there.campaign.pk), secure=True)
        seconds = time.perf_counter() - began
        if response.status_code != 200:
            raise RuntimeError(f"{path} answers {response.status_code}.")
        return seconds

    return get


def export_first_rows(side: Side, number: int) -> float:
    from annotation import datasets
    from annotation.exports import Selection

    chosen = Selection(campaigns=[side.there.campaign.name])
    began = time.perf_counter()

    def seen(count: int) -> None:
        if count:
            raise FirstRows

    with tempfile.TemporaryDirectory() as folder:
        try:
            datasets.write(
                Path(folder) / "dataset", chosen.judgments(), salt=datasets.FRESH, progress=seen
            )
        except FirstRows:
            return time.perf_counter() - began
    raise RuntimeError("The export wrote nothing.")


def scrape(side: Side, number: int) -> None:
    from config import site_metrics

    names = {metric.name for metric in site_metrics.of_the_database()}
    if "oneloop_judged_sets_last_hour" not in names:
        raise RuntimeError("The metrics of labelling are missing.")


STEPS: dict[str, Callable[[Side, int], float | None]] = {
    "claim": claim,
    "submit": submit,
    "expire": expire,
    "export": export_first_rows,
    "scrape": scrape,
}
PAGES: dict[str, Callable[[Side, int], float | None]] = {
    "home": page("/"),
    "history": page("/label/history/"),
    "campaigns": page("/campaigns/", who="manager"),
    "progress": page("/campaigns/{campaign}/", who="manager"),
    "dashboard": page("/", who="manager"),
}
STEPS |= PAGES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="judgments of the large one")
    parser.add_argument("--small", type=int, default=SMALL, help="judgments of the small one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oneloop-scale-") as home:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
        os.environ["ONELOOP_DATA"] = home
        import django

        django.setup()
        found = on_a_server(chosen)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    return 0


def on_a_server(chosen: argparse.Namespace) -> Found:
    from django.conf import settings

    from config.runtime.postgres import Postgres

    sizes = {"small": chosen.small, "large": chosen.rows, "rounds": chosen.rounds}

    def say(text: str) -> None:
        print(text, flush=True)

    if not settings.DATABASE_IS_EMBEDDED:
        return measure(**sizes, say=say)
    server = Postgres(settings.DATA_DIR)
    server.acquire()
    try:
        return measure(**sizes, say=say)
    finally:
        server.release_and_wait()


if __name__ == "__main__":
    sys.exit(main())
