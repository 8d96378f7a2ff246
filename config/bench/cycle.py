"""One annotator cycle: what it costs in statements, in time, and how many there are in a second."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from subprocess import PIPE
from typing import Any

from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotation.campaigns import dimensions_for, tasks_of
from annotation.models import Campaign
from config.bench.site import Site
from config.bench.world import World, analyse, make_world
from config.runtime.postgres import tail

Found = dict[str, float]
TRANSACTION = re.compile(r"(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b")
HOST = "localhost"
JSON = {"Accept": "application/json"}


# Statements ---------------------------------------------------------------------------------------


def statements(*, items: int) -> Found:
    world = make_world(items=items, people=1)
    client = Client(SERVER_NAME=HOST)
    client.force_login(world.people[0])
    slugs = slugs_of(world.campaign)
    turns = _ahead(client, world.campaign)
    counted = []
    for _cycle in range(14):
        with CaptureQueriesContext(connection) as captured:
            turns = turns[1:] + _submit(client, turns[0], turns[1:], slugs)
        counted.append([query["sql"] for query in captured])
    # The first ones fill caches. Of the others some bring new sets: the most is what counts.
    warm = max(counted[-6:], key=len)
    plain = [sql for sql in warm if not TRANSACTION.match(sql)]
    return {"cycle_sql": len(plain), "cycle_sql_with_transactions": len(warm)}


def _ahead(client: Client, campaign: Campaign) -> list[int]:
    answer = client.post(f"/label/campaign/{campaign.pk}/ahead/", headers=JSON)
    return [one["turn"] for one in answer.json()["sets"]]


def _submit(client: Client, turn: int, have: Sequence[int], slugs: Iterable[str]) -> list[int]:
    said: dict[str, Any] = {"submission": str(uuid.uuid4()), "seconds": "4", "have": list(have)}
    for slug in slugs:
        said |= {f"best-{slug}": "1", f"worst-{slug}": "2"}
    answer = client.post(f"/label/{turn}/", said, headers=JSON)
    assert answer.status_code == 200, answer.content
    return [one["turn"] for one in answer.json()["sets"]]


def slugs_of(campaign: Campaign) -> list[str]:
    return [one.slug for task in tasks_of(campaign) for one in dimensions_for(campaign, task)]


# The running site ---------------------------------------------------------------------------------


def under_load(site: Site, *, items: int, seconds: float) -> Found:
    world = make_world(items=items, people=32)
    analyse()
    sessions = [session_of(world, place) for place in range(32)]
    _cycles(site, world, sessions[:8], seconds=min(seconds, 3))  # both workers get warm
    found: Found = {}
    for clients in (1, 8, 32):
        load = _cycles(site, world, sessions[:clients], seconds=seconds)
        found[f"cycles_per_second_{clients}"] = len(load.took) / load.wall
        if clients == 8:
            found["cycle_p95_ms_8"] = 1000 * quantiles(load.took, n=20)[-1]
            found["cycle_server_ms"] = 1000 * load.web / len(load.took)
            found["cycle_database_ms"] = 1000 * load.database / len(load.took)
    found["web_worker_mb"] = site.worker_bytes() / 2**20
    return found


def session_of(world: World, place: int) -> str:
    client = Client(SERVER_NAME=HOST)
    client.force_login(world.people[place])
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@dataclass(frozen=True)
class Load:
    """Seconds: of each cycle, of the whole, and of the processors."""

    took: list[float]
    wall: float
    web: float
    database: float


def _cycles(site: Site, world: World, sessions: list[str], *, seconds: float) -> Load:
    orders = {
        "port": site.port,
        "campaign": world.campaign.pk,
        "slugs": slugs_of(world.campaign),
        "sessions": sessions,
        "seconds": seconds,
    }
    command = [sys.executable, "-S", "-m", "config.bench.clients"]
    with subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, text=True, cwd=settings.BASE_DIR
    ) as clients:
        assert clients.stdin is not None
        assert clients.stdout is not None
        json.dump(orders, clients.stdin)
        clients.stdin.close()
        # Until then each fills its browser up with sets.
        clients.stdout.readline()
        web, database = site.web_seconds(), site.database_seconds()
        measured = json.loads(clients.stdout.read())
        web, database = site.web_seconds() - web, site.database_seconds() - database
    if measured["errors"]:
        log = tail(settings.DATA_DIR / "logs" / "web.log", 30)
        raise RuntimeError(f"Clients failed: {measured['errors'][:3]}\nThe web's log ends:\n{log}")
    return Load(measured["seconds"], measured["wall"], web, database)
