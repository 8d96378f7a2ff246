"""Evens out the work of a server's worker processes, and lines up what annotators wait for.

All workers accept from one socket, and a browser stays with the worker that took its connection: of
eight busy browsers one worker may have six. Whoever has two requests more under way than the least
busy worker answers with `Connection: close`; the browser connects anew and may meet the other one.

Python runs one thread of a process at a time, and threads that take it from each other cost both:
labelling's short requests are answered soonest one after another, in the order they came.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

SLOTS = 64  # workers of one server; those above count nobody and are counted by nobody
AHEAD = 2
PATIENCE = 0.25  # seconds
Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


class Lane:
    """Lets so many threads in at once, the others in the order they came.

    Whoever waited `patience` seconds takes the place of the one that is in for longest: a request
    that waits for somebody else's lock holds nobody up for longer than that.
    """

    def __init__(self, width: int, patience: float = PATIENCE) -> None:
        self.width = width
        self.patience = patience
        self.lock = threading.Lock()
        self.inside: deque[object] = deque()
        self.waiting: deque[threading.Lock] = deque()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        mine = self._enter()
        try:
            yield
        finally:
            with self.lock:
                if mine in self.inside:  # else its place was taken over
                    self.inside.remove(mine)
                    if self.waiting:
                        self._let_in(self.waiting.popleft())

    def _enter(self) -> threading.Lock:
        mine = threading.Lock()
        mine.acquire()
        with self.lock:
            if len(self.inside) < self.width:
                self._let_in(mine)
            else:
                self.waiting.append(mine)
        if not mine.acquire(timeout=self.patience):
            with self.lock:
                if mine in self.waiting:
                    self.waiting.remove(mine)
                    self.inside.popleft()
                    self._let_in(mine)
        return mine

    def _let_in(self, one: threading.Lock) -> None:
        self.inside.append(one)
        one.release()


class Balanced:
    """A WSGI application that shares the number of its requests under way in a small file."""

    def __init__(
        self, application: Application, folder: Path, *, lane: str = "", width: int = 0
    ) -> None:
        """Requests below the path `lane` go `width` at a time; 0: as they come."""
        self.application = application
        self.path = lane
        self.lane = Lane(width) if width else None
        self.lock = threading.Lock()
        self.workers, self.mine = _join(folder)

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: Sequence[tuple[str, str]], *error: Any) -> Any:
            if environ["SERVER_PROTOCOL"] == "HTTP/1.1" and self.is_ahead():
                headers = [*headers, ("Connection", "close")]
            return start_response(status, headers, *error)

        self._count(1)
        try:
            if self.lane is None or not environ["PATH_INFO"].startswith(self.path):
                return self.application(environ, start)
            with self.lane.turn():
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
