"""Evens out the connections of a server's worker processes.

All workers accept from one socket, and a browser stays with the worker that took its connection: of
eight busy browsers one worker may have six. Whoever has two requests more under way than the least
busy worker answers with `Connection: close`; the browser connects anew and may meet the other one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

SLOTS = 64  # workers of one server; those above count nobody and are counted by nobody
AHEAD = 2
Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


class Balanced:
    """A WSGI application that shares the number of its requests under way in a small file."""

    def __init__(self, application: Application, folder: Path) -> None:
        self.application = application
        self.lock = threading.Lock()
        self.workers, self.mine = _join(folder)

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: Sequence[tuple[str, str]], *error: Any) -> Any:
            if environ["SERVER_PROTOCOL"] == "HTTP/1.1" and self.is_ahead():
                headers = [*headers, ("Connection", "close")]
            return start_response(status, headers, *error)

        self._count(1)
        try:
            return self.application(environ, start)
        finally:
            self._count(-1)

    def is_ahead(self) -> bool:
        if self.mine is None:
            return False
        others = [
            self.workers[place + 1]
            for place in range(0, 2 * SLOTS, 2)
            if self.workers[place] and place != self.mine
        ]
        return bool(others) and self.workers[self.mine + 1] >= min(others) + AHEAD

    def _count(self, more: int) -> None:
        if self.mine is not None:
            with self.lock:
                self.workers[self.mine + 1] += more


def _join(folder: Path) -> tuple[memoryview, int | None]:
    """The shared numbers, two for each worker: its process and its requests; and this one's place.

    Workers of one server have one parent, which names the file.
    """
    try:
        return _take_place(folder)
    except OSError:  # nothing can be written there: this worker takes what it gets
        return memoryview(bytearray()), None


def _take_place(folder: Path) -> tuple[memoryview, int | None]:
    # Containers may share the folder, each with processes of the same numbers.
    here = f"web-{socket.gethostname()}-"
    for old in folder.glob(f"{here}*.load"):
        server = old.stem.removeprefix(here)
        if server.isdecimal() and not _lives(int(server)):
            old.unlink(missing_ok=True)
    with (folder / f"{here}{os.getppid()}.load").open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            file.truncate(2 * SLOTS * 4)
            workers = memoryview(mmap.mmap(file.fileno(), 2 * SLOTS * 4)).cast("i")
            for place in range(0, 2 * SLOTS, 2):
                if not workers[place] or not _lives(workers[place]):
                    workers[place + 1] = 0
                    workers[place] = os.getpid()
                    return workers, place
        finally:
            # Closing would not: the map keeps a descriptor of its own.
            fcntl.flock(file, fcntl.LOCK_UN)
    return workers, None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
