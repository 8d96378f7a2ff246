"""The processes of a site, by what they do, and their ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from config.bench.site import Site, parents
from config.runtime.postgres import Postgres

# How often each is killed, beside the others. Whoever is restarted later and later after each death
# is spared a little, so that there is something to kill.
WEIGHTS = {
    "web_worker": 4,
    "web_parent": 1,
    "default_worker_child": 3,
    "default_worker_parent": 1,
    "gpu_worker_child": 2,
    "gpu_worker_parent": 1,
    "beat": 1,
    "broker": 1,
    "postmaster": 2,
    "database_backend": 3,
}
PATIENCE_SECONDS = 5.0  # for a process that is being started again
# What multiprocessing starts beside the processes that do the work.
HELPERS = (b"resource_tracker", b"semaphore_tracker")


@dataclass
class Killer:
    site: Site
    draw: random.Random
    kills: Counter[str] = field(default_factory=Counter)

    def work(self, number: int, *, pause: float, amid: Callable[[], None]) -> None:
        """Kill so many processes, each kind once before the draw decides; `amid` runs between."""
        first = list(WEIGHTS)
        self.draw.shuffle(first)
        drawn = self.draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=number)
        for name in [*first, *drawn][:number]:
            time.sleep(self.draw.uniform(0.2, 2 * pause - 0.2))
            amid()
            self.kill(name)

    def kill(self, name: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            living = self.living()
            if found := living.get(name):
                break
            if self.site.process is not None and self.site.process.poll() is not None:
                raise RuntimeError(f"The site has ended:\n{self.site.said()}")
            if time.monotonic() > end and living:
                name = self.draw.choice(sorted(living))
                found = living[name]
                break
            time.sleep(0.05)
        try:
            os.kill(self.draw.choice(sorted(found)), signal.SIGKILL)
        except ProcessLookupError:
            return self.kill(name)
        self.kills[name] += 1

    def living(self) -> dict[str, list[int]]:
        assert self.site.process is not None
        below: dict[int, list[int]] = {}
        for pid, parent in parents():
            below.setdefault(parent, []).append(pid)
        found: dict[str, list[int]] = {}
        for pid in below.get(self.site.process.pid, []):
            command = _command(pid)
            children = [one for one in below.get(pid, []) if _works(one)]
            for mark, parent_name, child_name in (
                (b"granian", "web_parent", "web_worker"),
                (b"default@", "default_worker_parent", "default_worker_child"),
                (b"gpu@", "gpu_worker_parent", "gpu_worker_child"),
                (b"beat", "beat", ""),
                (b"valkey-server", "broker", ""),
            ):
                if mark in command:
                    found[parent_name] = [pid]
                    found[child_name] = children
                    break
        if (postmaster := Postgres(settings.DATA_DIR).pid()) is not None:
            found["postmaster"] = [postmaster]
            found["database_backend"] = below.get(postmaster, [])
        return {name: pids for name, pids in found.items() if pids and name}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _works(pid: int) -> bool:
    command = _command(pid)
    return bool(command) and not any(helper in command for helper in HELPERS)
