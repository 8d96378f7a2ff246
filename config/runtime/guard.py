"""Ends the processes that a killed supervisor leaves behind.

The kernel sends them a signal when their supervisor dies, but one that is only starting may have no
ear for it yet, and Celery's beat answers by writing to a database that is going at that moment. So
this process knows them all. It reads `+12` for a new process group and `-12` for one that has
ended; where its input ends, those still alive get `GRACE_SECONDS` and are then killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 10.0


def follow(lines: Iterable[str]) -> set[int]:
    """The process groups that are left at the end of the input."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    return groups


def end(groups: set[int], seconds: float = GRACE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while (groups := {group for group in groups if _lives(group)}) and time.monotonic() < until:
        time.sleep(0.1)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    end(follow(sys.stdin))
