"""Training in a process of its own, through `accelerate launch`.

One GPU, many GPUs and many nodes are the same code with another accelerate configuration: the
environment variable ACCELERATE_CONFIG names its file. Without it this machine's accelerators are
used, or its CPU.

A worker that is killed takes its trainer along: the launcher asks the kernel to end with the
worker, the trainer asks to end with the launcher, and whatever is left of an earlier attempt is
ended before the next one starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from generation import trail

LOG = "log.txt"
STOP_SECONDS = 10.0
LAST_LINES = 30
PR_SET_PDEATHSIG = 1


class LaunchError(Exception):
    """The trainer cannot be started; one readable sentence."""


def command(module: str, directory: str | Path) -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*launcher, *_placement(), "-m", module, "--run", str(directory)]


def _placement() -> list[str]:
    config = os.environ.get("ACCELERATE_CONFIG", "").strip()
    if config:
        if not Path(config).is_file():
            raise LaunchError(
                f"ACCELERATE_CONFIG names '{config}', which is no file. Write one with "
                "`accelerate config --config_file FILE`, or unset the variable."
            )
        return ["--config_file", config]
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", "") or str(len(os.sched_getaffinity(0)))
    flags = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    flags += ["--num_cpu_threads_per_process", threads]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return [*flags, "--num_processes", str(count), *(["--multi_gpu"] if count > 1 else [])]
    return [*flags, "--num_processes", "1", "--cpu"]


class Trainer:
    """A running training; its output goes to log.txt in the run directory."""

    def __init__(self, module: str, directory: str | Path, *, cwd: str | Path) -> None:
        self.directory = Path(directory)
        end_leftovers(module, directory)
        arguments = command(module, directory)
        prctl: Any = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

        def end_with_parent() -> None:
            if prctl is not None:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        with (self.directory / LOG).open("ab") as log:
            self.process = subprocess.Popen(
                arguments,
                cwd=cwd,
                env=os.environ | trail.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: one signal reaches the launcher and every rank.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None when the training still runs after `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End the launcher and every rank, politely first."""
        for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + patience
            while _group_lives(self.process.pid) and time.monotonic() < deadline:
                self.process.poll()
                time.sleep(0.05)
        self.process.poll()

    def last_words(self) -> str:
        """The last line of the log that says something, for a failure without error.json."""
        return next(reversed(self._log()), "")

    def was_killed(self) -> bool:
        """Whether the launcher says that a process of the training was killed."""
        return any("SIGKILL" in line for line in self._log()[-LAST_LINES:])

    def _log(self) -> list[str]:
        try:
            lines = (self.directory / LOG).read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line.strip() for line in lines if line.strip()]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def leftovers(module: str, directory: str | Path) -> list[int]:
    """Processes of this machine that still train in `directory`: an earlier attempt's."""
    found = []
    tail = [module, "--run", str(directory)]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        if arguments[-3:] == tail and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def end_leftovers(module: str, directory: str | Path) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while (pids := leftovers(module, directory)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
