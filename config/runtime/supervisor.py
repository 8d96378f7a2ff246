"""Keeps the processes of one machine running, and takes all of them along when it ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
# A child that ran this long was healthy: its next failure counts as the first.
HEALTHY_SECONDS = 60.0
PR_SET_PDEATHSIG = 1
# An OpenMP thread that waits by spinning starves whoever shares its cores: here that is people who
# label. A training that has two cores for itself takes 1.5 times as long so, but beside one other
# busy process a fifth of the time.
SHARED = {"OMP_WAIT_POLICY": "PASSIVE"}
# Loaded before any fork: between fork and exec only calls that need no lock are safe.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Child:
    name: str
    command: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    # Each signal with the seconds it gets; whatever is left then is killed.
    stop_signals: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),)
    # Children of a higher stage use those of a lower one, and stop first.
    stage: int = 1
    niceness: int = 0
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = None

    def start(self, guard: "Guard") -> None:
        parent = os.getpid()
        last_signal = self.stop_signals[-1][0]

        def in_child() -> None:
            # Said here, no moment is left in which the supervisor could die between both.
            guard.add(os.getpid())
            if LIBC is not None:
                # When the supervisor is killed its children get the word from the kernel, and
                # those that do not hear it are ended by the guard.
                LIBC.prctl(PR_SET_PDEATHSIG, int(last_signal))
                if os.getppid() != parent:
                    os._exit(1)
            if self.niceness:
                os.nice(self.niceness)

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=SHARED | os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the supervisor, which stops its children in order.
                start_new_session=True,
                preexec_fn=in_child,
            )
        self.started_at = time.monotonic()
        self.restart_at = None

    def plan_restart(self) -> float:
        if time.monotonic() - self.started_at > HEALTHY_SECONDS:
            self.failures = 0
        delay: float = min(FIRST_DELAY_SECONDS * 2**self.failures, LONGEST_DELAY_SECONDS)
        self.failures += 1
        self.restart_at = time.monotonic() + delay
        return delay

    def kill_group(self, guard: "Guard") -> None:
        """End what a dead or stubborn child left behind, so that a new one finds its port free."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            guard.discard(self.process.pid)


class Guard:
    """A process that outlives a killed supervisor by the time it takes to end its children."""

    def __init__(self) -> None:
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def add(self, group: int) -> None:
        self._say(b"+%d\n" % group)

    def discard(self, group: int) -> None:
        self._say(b"-%d\n" % group)

    def replace_if_dead(self, groups: list[int]) -> None:
        if self._process.poll() is not None:
            self.close()
            self._process = self._start()
            for group in groups:
                self.add(group)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        # A dead one is replaced soon.
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), line)

    def _start(self) -> subprocess.Popen[bytes]:
        # -S -E: standard library only, so that it stays small.
        return subprocess.Popen(
            [sys.executable, "-S", "-E", "-m", "config.runtime.guard"],
            cwd=Path(__file__).resolve().parent.parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )


@dataclass
class Supervisor:
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)
    guard: Guard = field(default_factory=Guard)

    def start(self, child: Child) -> None:
        child.start(self.guard)
        self.children.append(child)

    def look_after(self) -> None:
        """Restart what died, later each time it dies again. Call it several times a second."""
        running = [child for child in self.children if child.restart_at is None]
        self.guard.replace_if_dead([child.process.pid for child in running if child.process])
        for child in self.children:
            if child.restart_at is not None:
                if time.monotonic() >= child.restart_at:
                    child.start(self.guard)
            elif child.process is not None and child.process.poll() is not None:
                child.kill_group(self.guard)
                code = child.process.returncode
                delay = child.plan_restart()
                self.say(
                    f"{child.name} ended ({_describe(code)}), starting it again in {delay:g} s. "
                    f"Its log, {child.log}, ends with: {_last_line(child.log)}"
                )

    def stop(self) -> None:
        """Stop the children, those of the highest stage first and all of one stage at once."""
        for stage in sorted({child.stage for child in self.children}, reverse=True):
            _stop_together([child for child in self.children if child.stage == stage], self.guard)
        self.children.clear()
        self.guard.close()


def _stop_together(children: list[Child], guard: Guard) -> None:
    started = time.monotonic()
    # Per child: its next signals with the time at which each is due.
    due = {}
    for child in children:
        at, plan = started, []
        for number, seconds in child.stop_signals:
            plan.append((at, number))
            at += seconds
        due[child.name] = [*plan, (at, signal.SIGKILL)]
    running = [child for child in children if child.process is not None]
    while running:
        for child in running[:]:
            assert child.process is not None
            if child.process.poll() is not None:
                child.kill_group(guard)
                running.remove(child)
            elif time.monotonic() >= due[child.name][0][0]:
                number = due[child.name].pop(0)[1]
                if number == signal.SIGKILL:
                    child.kill_group(guard)
                    child.process.wait()
                else:
                    child.process.send_signal(number)
        time.sleep(0.02)


def _describe(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "(nothing)")
