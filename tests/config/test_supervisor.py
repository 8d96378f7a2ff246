"""What happens to the processes of a supervisor that is killed without a word."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.slow
# Two children, one deaf to every word but SIGKILL, the other one with a deaf child of its own.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
SUPERVISOR = f"""
import subprocess, sys, time
from pathlib import Path
from config.runtime.supervisor import Child, Supervisor

deaf = [sys.executable, "-c", {DEAF!r}]
parent = f"import subprocess; subprocess.run({{deaf!r}})"
log = Path(sys.argv[1])
supervisor = Supervisor(say=print)
for name, command in ("deaf", deaf), ("parent", [sys.executable, "-c", parent]):
    supervisor.start(Child(name, command, log, {{"WHOSE": sys.argv[1]}}))
told = None
while not Path(sys.argv[1] + ".stop").exists():
    supervisor.look_after()
    if told != (told := supervisor.guard.pid):
        print(told, flush=True)
    time.sleep(0.1)
supervisor.stop()
"""


class Supervised:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(self.log)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.guard = self.next_guard()
        _wait_for(lambda: len(self.children()) == 3, "its three processes")

    def next_guard(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def children(self) -> set[int]:
        return {pid for pid in _pids() if f"WHOSE={self.log}".encode() in _read(pid, "environ")}


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    one = Supervised(tmp_path)
    yield one
    one.process.kill()
    one.process.wait()
    for pid in one.children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_none_outlives_a_killed_one(supervised: Supervised) -> None:
    supervised.process.kill()
    _wait_for(lambda: not supervised.children(), "their end")
    _wait_for(lambda: not _lives(supervised.guard), "the guard's end")


def test_a_killed_guard_is_replaced(supervised: Supervised) -> None:
    os.kill(supervised.guard, signal.SIGKILL)
    assert _lives(supervised.next_guard())
    supervised.process.kill()
    _wait_for(lambda: not supervised.children(), "their end")


def test_the_guard_goes_with_one_that_stops(supervised: Supervised) -> None:
    Path(f"{supervised.log}.stop").touch()
    assert supervised.process.wait(60) == 0
    assert not supervised.children()
    assert not _lives(supervised.guard)


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.1)


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _lives(guard: int) -> bool:
    return b"config.runtime.guard" in _read(guard, "cmdline")
