from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """A costly answer, made once in `seconds` at most however many ask for it at once.

    Whoever asks while somebody makes the next one gets the last one.
    """

    def __init__(self, make: Callable[[], T], *, seconds: float) -> None:
        self.make, self.seconds = make, seconds
        self._lock = threading.Lock()
        self._last: tuple[T, float] | None = None

    def __call__(self) -> T:
        last = self._last
        if last is not None and time.monotonic() < last[1]:
            return last[0]
        if not self._lock.acquire(blocking=last is None):
            assert last is not None
            return last[0]
        try:
            made = self._last
            if made is None or time.monotonic() >= made[1]:
                made = self._last = (self.make(), time.monotonic() + self.seconds)
            return made[0]
        finally:
            self._lock.release()

    def forget(self) -> None:
        self._last = None
