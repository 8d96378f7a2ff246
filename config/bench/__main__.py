"""Measures in the environment that `manage.py bench` made: `python -m config.bench ORDERS`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django

Found = dict[str, float]


@dataclass(frozen=True)
class Orders:
    groups: list[str]
    seconds: float
    items: int  # of the campaign that is judged over HTTP
    small: int
    large: int
    rounds: int
    repeats: int
    answers: int  # of the large export


def main(orders: Orders, into: Path) -> None:
    found = _training(orders)
    if {"site", "sql", "claims", "export"} & set(orders.groups):
        found |= _labelling(orders)
    into.write_text(json.dumps(found))


def _labelling(orders: Orders) -> Found:
    from django.conf import settings

    from config.runtime.postgres import Postgres

    postgres = Postgres(settings.DATA_DIR)
    found: Found = {}
    if "site" in orders.groups:
        found |= _on_a_site(orders, postgres)
    postgres.acquire()
    try:
        if "sql" in orders.groups:
            _say("counting statements …")
            found |= _statements(orders)
        if "claims" in orders.groups:
            _say(f"claiming among {orders.small:,} and {orders.large:,} items …")
            from config.bench import claims

            found |= claims.measure(small=orders.small, large=orders.large, rounds=orders.rounds)
        if "export" in orders.groups:
            _say(f"exporting {orders.answers:,} judgments …")
            from config.bench import exports

            found |= exports.measure(large=orders.answers)
    finally:
        _close()
        postgres.release_and_wait()
    return found


def _training(orders: Orders) -> Found:
    found: Found = {}
    if not {"prefix", "step", "halves"} & set(orders.groups):
        return found
    import diffusers
    import transformers

    # The table is what is read here; loading bars would bury what is said.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if "prefix" in orders.groups:
        _say("questions in one reading …")
        from modeling.reward.bench import prefix_speedups

        for backward in (False, True):
            found |= prefix_speedups(backward=backward, repeats=orders.repeats)
    if "step" in orders.groups:
        _say("a policy step beside the literal Algorithm 1 …")
        from modeling.policy import step_bench

        # Steps differ in the length of their rollouts: their mean needs more of them.
        found |= step_bench.figures(repeats=2 * orders.repeats)
    if "halves" in orders.groups:
        _say("the gradient in two halves …")
        from modeling.policy import bench, step_bench

        with tempfile.TemporaryDirectory() as folder:
            halves = bench.two_half_memory(step_bench.flux_like_run(Path(folder)))
        found |= {key: value for key, value in halves.items() if key.endswith("_ratio")}
    return found


def _on_a_site(orders: Orders, postgres: Any) -> Found:
    from config.bench import cycle
    from config.bench.site import Site

    site = Site()
    try:
        _say("first start …")
        site.start()
        site.stop()
        _say("second start …")
        found = {"cold_start_s": site.start()}
        postgres.acquire()
        _say("cycles …")
        return found | cycle.under_load(site, items=orders.items, seconds=orders.seconds)
    finally:
        site.stop()
        _close()


def _statements(orders: Orders) -> Found:
    from django.core.management import call_command

    from config.bench import cycle

    call_command("migrate", verbosity=0, interactive=False)
    return cycle.statements(items=min(orders.items, 500))


def _close() -> None:
    from django.db import connections

    for one in connections.all(initialized_only=True):
        one.close()
        one.close_pool()  # type: ignore[attr-defined]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    main(Orders(**json.loads(sys.argv[1])), Path(sys.argv[2]))
