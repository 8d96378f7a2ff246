"""The one-machine runtime under measurement, and what its processes use."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from config.runtime.postgres import Postgres

READY_SECONDS = 180
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Site:
    port: int = field(default_factory=lambda: _free_port())
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and say how many seconds passed until it could serve."""
        began = time.monotonic()
        command = [sys.executable, "manage.py", "up", "--no-starter", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            stdout=(settings.DATA_DIR.parent / "up.txt").open("wb"),
            stderr=subprocess.STDOUT,
        )
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > began + READY_SECONDS:
                raise RuntimeError(f"The site does not start. It says:\n{self.said()}")
            time.sleep(0.02)
        return time.monotonic() - began

    @staticmethod
    def said() -> str:
        return (settings.DATA_DIR.parent / "up.txt").read_text()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    # What it uses ---------------------------------------------------------------------------------

    def web(self) -> list[int]:
        """Granian's own process and, below it, its workers."""
        assert self.process is not None
        above = dict(parents())
        top = [p for p, parent in above.items() if parent == self.process.pid and _is_granian(p)]
        return top + [pid for pid, parent in above.items() if parent in top]

    def web_seconds(self) -> float:
        return sum(_cpu_seconds(pid) for pid in self.web())

    def worker_bytes(self) -> int:
        """Resident memory of the largest worker, shared pages counted in full."""
        workers = self.web()[1:]
        pages = (_read(pid, "statm", lambda text: int(text.split()[1])) for pid in workers)
        return max(pages) * PAGE_BYTES

    @staticmethod
    def database_seconds() -> float:
        postmaster = Postgres(settings.DATA_DIR).pid()
        below = [pid for pid, parent in parents() if parent == postmaster]
        return sum(_cpu_seconds(pid) for pid in below)


def parents() -> Iterator[tuple[int, int]]:
    for directory in Path("/proc").glob("[0-9]*"):
        pid = int(directory.name)
        yield pid, _read(pid, "stat", lambda text: int(text.rpartition(")")[2].split()[1]))


def _is_granian(pid: int) -> bool:
    try:
        return b"granian" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _cpu_seconds(pid: int) -> float:
    def used(text: str) -> int:
        fields = text.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])  # user and system time

    return _read(pid, "stat", used) * TICK_SECONDS


def _read(pid: int, name: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(Path(f"/proc/{pid}/{name}").read_text())
    except OSError:  # it has ended
        return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
