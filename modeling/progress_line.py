"""Progress of a training on a terminal or in a log."""

from __future__ import annotations

import time

from django.core.management.base import OutputWrapper

from generation.ownership import JobState
from modeling import runs
from modeling.models import TrainingRun


class Printer:
    """A line at most every `every` seconds, and one for the last step."""

    def __init__(self, out: OutputWrapper, every: float = 5.0) -> None:
        self.out, self.every = out, every
        self.last = 0.0

    def __call__(self, done: int, total: int, message: str = "") -> None:
        now = time.monotonic()
        if not total or (done < total and now - self.last < self.every):
            return
        self.last = now
        self.out.write(f"  {done}/{total} {message}".rstrip())


def execute(out: OutputWrapper, run: TrainingRun) -> None:
    """Do the run's work in this process, or follow the worker that has it, with progress."""
    out.write(f"{run} in {run.directory}")
    tell = Printer(out)
    while run.state in (JobState.QUEUED, JobState.RUNNING):
        if not runs.execute(run, progress=tell):
            time.sleep(1.0)
        run.refresh_from_db()
        tell(run.progress, max(run.total, run.progress + 1), run.message)
