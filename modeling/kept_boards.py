"""Large boards are shown again for a while, so that nobody counts them twice.

At 100,000 judgments a board takes seconds of a web worker, and a public link may be opened by
anybody as often as they like. A board is kept for SHARE times what it took, so that however often
it is asked for, a process spends at most one part in SHARE of its time on it. A small one is
counted anew each time, and so shows a judgment at once.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from modeling import leaderboard
from modeling.leaderboard import Board, Scope

LARGE = 20_000  # comparisons and ratings
SHARE = 20
MOST = 50  # boards in memory

_kept: dict[Scope, Kept] = {}
_counting: dict[Scope, threading.Lock] = {}
_guard = threading.Lock()


@dataclass(frozen=True)
class Kept:
    board: Board
    made_at: datetime
    until: float  # of time.monotonic()


def board(scope: Scope) -> tuple[Board, datetime | None]:
    """The board, and when it was counted where that was not just now."""
    if (found := _current(scope)) is not None:
        return found.board, found.made_at
    with _guard:
        lock = _counting.setdefault(scope, threading.Lock())
    with lock:  # who asks meanwhile waits for this one's
        if (found := _current(scope)) is not None:
            return found.board, found.made_at
        made_at, started = timezone.now(), time.monotonic()
        made = leaderboard.board(scope)
        took = time.monotonic() - started
        with _guard:
            if made.comparisons + made.ratings > LARGE:
                if len(_kept) >= MOST:
                    _kept.pop(min(_kept, key=lambda one: _kept[one].until))
                _kept[scope] = Kept(made, made_at, time.monotonic() + SHARE * took)
            _counting.pop(scope, None)
    return made, None


def _current(scope: Scope) -> Kept | None:
    with _guard:
        found = _kept.get(scope)
        if found is not None and time.monotonic() > found.until:
            del _kept[scope]
            found = None
    return found
