"""A claimed step of a round, and what all kinds of its work have in common."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, connections

from annotation.counts import judged_share
from annotation.models import Campaign, Criterion
from generation import candidates
from generation.models import Source, Split, Task, default_project
from generation.ownership import Job, JobState, LeaseLost
from modeling import round_config
from modeling.models import RewardModel, Round, RoundStep

Name = RoundStep.Name
Progress = Callable[[int, int, str], None]
WATCH_SECONDS = 2.0
NO_POLICY = "There is no new policy."


class StepFailed(Exception):
    """One readable sentence: why the step cannot go on, and the remedy."""


class Waiting(Exception):
    """The step has done its part and waits for people; the message says for what."""


class Work:
    """A claimed step with its round and configuration."""

    def __init__(self, step: RoundStep, lost: threading.Event, progress: Progress | None) -> None:
        self.step = step
        self.round: Round = step.round
        self.config = round_config.read(self.round)
        self.lost = lost
        self._progress = progress

    def note(self, **result: Any) -> None:
        """Add to the step's result, fenced."""
        self.step.result = {**self.step.result, **result}
        self.step.renew(result=self.step.result)

    def tell(self, done: int, total: int, message: str = "") -> None:
        self.step.renew(progress=done, total=total, message=message[:500])
        if self._progress is not None:
            self._progress(done, total, message)

    def before(self, name: Name) -> RoundStep:
        return self.round.steps.get(name=name)

    def was_skipped(self, name: Name) -> bool:
        return "skipped" in self.before(name).result

    def every(self, what: str) -> Callable[[int, int], None]:
        """A progress function that tells now and then, and stops work that is no longer owned."""
        last = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal last
            if self.lost.is_set():
                raise LeaseLost(f"{self.step} is no longer owned here")
            if done == total or time.monotonic() - last > WATCH_SECONDS:
                last = time.monotonic()
                self.tell(done, total, f"{done} of {total} {what}")

        return tell


# A round labels and evaluates the sources of the default project: its campaign belongs to one
# project, and nobody else may see the pictures.


def tasks_of(round_: Round) -> list[Task]:
    """Active tasks that have training sources and something to ask."""
    asked = Criterion.objects.filter(dimension__active=True).values("task")
    trainable = Source.objects.usable().train().filter(project=default_project()).values("task")
    return list(Task.objects.active().filter(pk__in=asked).filter(pk__in=trainable))


def pick(task: Task, count: int, split: Split, seed: int) -> list[Source]:
    mine = Source.objects.usable().filter(task=task, split=split, project=default_project())
    if not count or not mine.exists():
        return []
    return candidates.pick_sources(task, count, split, seed, project=default_project())


def was_put_aside(round_: Round) -> bool:
    """Whether the new reward model was not better, and the round goes on with the last one."""
    return bool(round_.steps.get(name=Name.GATE_REWARD).result.get("put_aside"))


def rewarding(round_: Round) -> RewardModel:
    """The reward model that the round's policy is trained by."""
    new = round_.reward_model
    return round_.parent_reward if new is None or was_put_aside(round_) else new


def bring_to_end(work: Work, job: Job, execute: Callable[[Any], bool]) -> None:
    """Do a job's work here, or wait for whoever owns it; StepFailed if it failed."""
    with _mirrored(work, job):
        while not execute(job):
            job.refresh_from_db()
            if job.state not in (JobState.QUEUED, JobState.RUNNING):
                break
            if work.lost.wait(1.0):
                raise LeaseLost(f"{work.step} is no longer owned here")
    job.refresh_from_db()
    if job.state == JobState.CANCELLED:
        raise StepFailed("It was cancelled. Run the step again to go on.")
    if job.state != JobState.SUCCEEDED:
        raise StepFailed(job.error or f"{job} ended without a result. Run the step again.")


@contextmanager
def _mirrored(work: Work, job: Job) -> Iterator[None]:
    """Show the job's progress as the step's while the block runs."""
    stop = threading.Event()

    def watch() -> None:
        seen: tuple[int, int, str] | None = None
        try:
            while not stop.wait(WATCH_SECONDS):
                try:
                    row = type(job).objects.values_list("progress", "total", "message")
                    now = row.get(pk=job.pk)
                    if now != seen:
                        seen = now
                        work.tell(*now)
                except (LeaseLost, DatabaseError):
                    continue  # the step's own heartbeat decides
        finally:
            connections.close_all()

    thread = threading.Thread(target=watch, name=f"mirror-{work.step.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def simulate(work: Work, campaign: Campaign) -> None:
    """Let simulated annotators judge what is left of the campaign."""
    from modeling import simulation

    before, total = judged_share(campaign)

    def labelled(done: int) -> None:
        if work.lost.is_set():
            raise LeaseLost(f"{work.step} is no longer owned here")
        if done % 20 == 0 or before + done == total:
            work.tell(before + done, total, f"{before + done} of {total} sets labelled")

    simulation.simulate(
        campaign=campaign,
        noise=work.config.noise,
        # A step that goes on after a crash must not repeat the slips it has made.
        seed=work.round.seed + 1_000_003 * before,
        progress=labelled,
    )


def free_name(name: str) -> str:
    """The name, with a number where a campaign before has taken it."""
    taken = set(Campaign.objects.filter(name__startswith=name).values_list("name", flat=True))
    names = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
    return next(one for one in names if one not in taken)
