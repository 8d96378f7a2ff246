"""Metrics for Prometheus. Every one of the project is declared here or in `config.site_metrics`.

What web workers count lies in files that all of them map: whichever answers `/metrics` sums them
up. The rest is asked of the database and the broker when somebody scrapes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from django.db import connection
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from config import site_metrics
from config.kept import Kept
from config.runtime import shared_counts

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SCRAPE_SECONDS = 5
POOL_SECONDS = 1.0

web = CollectorRegistry()
REQUESTS = Counter(
    "oneloop_http_requests",
    "Requests answered, by the name of the address.",
    ["view", "method", "status"],
    registry=web,
)
SECONDS = Histogram(
    "oneloop_http_request_duration_seconds",
    "How long answers took.",
    ["view"],
    buckets=BUCKETS,
    registry=web,
)
POOL = Gauge(
    "oneloop_database_pool_connections",
    "Of the web workers' pools: open, idle, and requests that wait for one.",
    ["state"],
    multiprocess_mode="livesum",
    registry=web,
)
_pool_seen_at = 0.0


def count_request(view: str, method: str, status: int, seconds: float) -> None:
    REQUESTS.labels(view, method if method in METHODS else "other", str(status)).inc()
    SECONDS.labels(view).observe(seconds)
    _look_at_pool()


def _look_at_pool() -> None:
    global _pool_seen_at
    if (now := time.monotonic()) < _pool_seen_at + POOL_SECONDS:
        return
    _pool_seen_at = now
    pool = getattr(connection, "pool", None)
    stats = pool.get_stats() if pool is not None else {}
    POOL.labels("open").set(stats.get("pool_size", 0))
    POOL.labels("idle").set(stats.get("pool_available", 0))
    POOL.labels("waiting").set(stats.get("requests_waiting", 0))


def exposition() -> bytes:
    return generate_latest(_web_registry()) + site()


def _web_registry() -> CollectorRegistry:
    folder = os.environ.get(shared_counts.NAME)
    if not folder:
        return web
    _forget_dead(Path(folder))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=folder)
    return registry


def _forget_dead(folder: Path) -> None:
    """Gauges of workers that ended; their counts stay."""
    for file in folder.glob("gauge_live*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            multiprocess.mark_process_dead(int(pid), path=str(folder))


def _ask_site() -> bytes:
    registry = CollectorRegistry()
    registry.register(site_metrics.Site())
    return generate_latest(registry)


# Scraping often, or by several, costs the database no more.
site = Kept(_ask_site, seconds=SCRAPE_SECONDS)
