"""The work of a round's steps, one function each: what it needs, does and leaves behind.

Everything a step starts is linked from its `result` in the transaction that creates it, so a step
that runs again goes on with the same generation run, campaign, snapshot and training run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import User
from django.db import DatabaseError, connections, transaction

from annotation import campaigns
from annotation.counts import judged_share
from annotation.models import Campaign, Criterion, Judgment, JudgmentQuerySet
from generation import audit, candidates, policies
from generation.models import GenerationRun, Source, Split, Task, Verb, default_project
from generation.ownership import Job, JobState, LeaseLost
from modeling import evaluation, gates, round_config, runs, snapshots
from modeling.models import Evaluation, RewardModel, Round, RoundStep, Snapshot, TrainingRun

Name = RoundStep.Name
Progress = Callable[[int, int, str], None]
WATCH_SECONDS = 2.0


class StepFailed(Exception):
    """One readable sentence: why the step cannot go on, and the remedy."""


class Waiting(Exception):
    """The step has done its part and waits for people."""


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


# --- generate ---


# A round labels and evaluates the sources of the default project: its campaign belongs to one
# project, and nobody else may see the pictures.


def tasks_of(round_: Round) -> list[Task]:
    """Active tasks that have training sources and something to ask."""
    asked = Criterion.objects.filter(dimension__active=True).values("task")
    trainable = Source.objects.train().filter(project=default_project()).values("task")
    return list(Task.objects.active().filter(pk__in=asked).filter(pk__in=trainable))


def _pick(task: Task, count: int, split: Split, seed: int) -> list[Source]:
    mine = Source.objects.filter(task=task, split=split, project=default_project())
    if not count or not mine.exists():
        return []
    return candidates.pick_sources(task, count, split, seed, project=default_project())


def generate(work: Work) -> dict[str, Any]:
    run_id = work.step.result.get("generation_run")
    if run_id is None:
        sources: list[Source] = []
        for task in tasks_of(work.round):
            sources += _pick(task, work.config.sets_per_task, Split.TRAIN, work.round.seed)
            sources += _pick(task, work.config.holdout_sets, Split.HOLDOUT, work.round.seed)
        with transaction.atomic():
            run = candidates.order_sets(
                policy=work.round.parent_policy, sources=sources, seed=work.round.seed
            )
            work.note(generation_run=run.pk)
    else:
        run = GenerationRun.objects.get(pk=run_id)
        run.retry()
    _bring_to_end(work, run, candidates.make)
    sets = run.sets.ready().count()
    return {"sets": sets, "figure": f"{sets} sets"}


def _bring_to_end(work: Work, job: Job, execute: Callable[[Any], bool]) -> None:
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


# --- label ---


def label(work: Work) -> dict[str, Any]:
    campaign = work.round.campaign or _open_campaign(work)
    if work.round.annotators == Round.Annotators.SIMULATED:
        from modeling.simulation import simulate

        _, total = judged_share(campaign)
        before, _ = judged_share(campaign)

        def labelled(done: int) -> None:
            if work.lost.is_set():
                raise LeaseLost(f"{work.step} is no longer owned here")
            if done % 20 == 0 or before + done == total:
                work.tell(before + done, total, f"{before + done} of {total} sets labelled")

        simulate(
            campaign=campaign,
            noise=work.config.noise,
            # A step that goes on after a crash must not repeat the slips it has made.
            seed=work.round.seed + 1_000_003 * before,
            progress=labelled,
        )
    elif not labelled_enough(work.round):
        raise Waiting
    return close_labelling(work.round)


def _open_campaign(work: Work) -> Campaign:
    round_ = work.round
    run = GenerationRun.objects.get(pk=work.before(Name.GENERATE).result["generation_run"])
    sets = list(run.sets.ready().select_related("source__task").order_by("pk"))
    name = f"Round {round_.number}"
    if Campaign.objects.filter(name=name).exists():
        name = f"Round {round_.number} ({round_.created_at:%Y-%m-%d %H:%M:%S})"
    with transaction.atomic():
        campaign = campaigns.open_campaign(
            name=name,
            sets=sets,
            tasks=list({one.source.task_id: one.source.task for one in sets}.values()),
            simulated=round_.annotators == Round.Annotators.SIMULATED,
            seed=round_.seed,
        )
        Round.objects.filter(pk=round_.pk).update(campaign=campaign)
        work.note(campaign=campaign.pk)
    round_.campaign = campaign
    return campaign


def labelled_enough(round_: Round) -> bool:
    """Every set of the campaign has all its judgments, or a person said that it is enough."""
    if round_.campaign is None:
        return False
    done, total = judged_share(round_.campaign)
    return done >= total or round_.campaign.state == Campaign.State.CLOSED


def close_labelling(round_: Round) -> dict[str, Any]:
    campaign = round_.campaign
    assert campaign is not None
    campaigns.change_state(campaign, Campaign.State.CLOSED)
    judgments = Judgment.objects.counted().filter(assignment__item__campaign=campaign)
    picked = judgments.filter(outcome=Judgment.Outcome.PICKED).count()
    counts = {
        "sets": judged_share(campaign)[0],
        "judgments": judgments.count(),
        "picked": picked,
    }
    return {**counts, "figure": f"{picked} labels on {counts['sets']} sets"}


def judgments_of(round_: Round) -> JudgmentQuerySet:
    """What the round's reward model learns from."""
    judgments = Judgment.objects.counted()
    if round_config.read(round_).earlier_labels:
        simulated = round_.annotators == Round.Annotators.SIMULATED
        return judgments.filter(assignment__item__campaign__simulated=simulated)
    return judgments.filter(assignment__item__campaign=round_.campaign)


# --- train ---


def train_reward(work: Work) -> dict[str, Any]:
    run = _run_of(work)
    if run is None:
        snapshot = snapshots.take(judgments_of(work.round))
        with transaction.atomic():
            run = runs.start_reward(
                snapshot=snapshot,
                parent=work.round.parent_reward,
                config={"seed": work.round.seed, **work.config.reward},
                min_judgments=min(work.config.min_judgments, runs.MIN_JUDGMENTS),
                user=work.round.started_by,
            )
            work.note(snapshot=snapshot.pk, run=run.pk)
    _bring_to_end(work, run, runs.execute)
    assert run.reward_model is not None
    Round.objects.filter(pk=work.round.pk).update(reward_model=run.reward_model)
    return {"reward_model": run.reward_model.pk, "figure": run.reward_model.name}


def train_policy(work: Work) -> dict[str, Any]:
    reward = work.round.reward_model
    if reward is None:
        raise StepFailed("The round has no reward model; run the step before again.")
    run = _run_of(work)
    if run is None:
        with transaction.atomic():
            run = runs.start_policy(
                parent=work.round.parent_policy,
                reward=reward,
                config={"seed": work.round.seed, **work.config.policy},
                user=work.round.started_by,
            )
            work.note(run=run.pk, notes=run.message)
    try:
        _bring_to_end(work, run, runs.execute)
    except StepFailed:
        if reason := runs.alarm(run):
            # No failure: the training did what it should, and there is no policy to promote.
            return {"alarm": reason, "figure": "alarm"}
        raise
    assert run.policy is not None
    Round.objects.filter(pk=work.round.pk).update(policy=run.policy)
    return {"policy": run.policy.pk, "figure": run.policy.name}


def _run_of(work: Work) -> TrainingRun | None:
    """The step's training run, to go on with; None where a new one is needed.

    A failed run that has a checkpoint goes on from it. One without learned nothing, and what
    stopped it (too few labels, a wrong setting) may have changed since: it is started afresh.
    """
    run = TrainingRun.objects.filter(pk=work.step.result.get("run")).first()
    if run is None or run.state not in (JobState.FAILED, JobState.CANCELLED):
        return run
    if not runs.has_checkpoint(run):
        return None
    run.retry()
    run.refresh_from_db()
    return run


# --- measure and decide ---


def gate_reward(work: Work) -> dict[str, Any]:
    new, last = work.round.reward_model, work.round.parent_reward
    assert new is not None
    snapshot = Snapshot.objects.get(pk=work.before(Name.TRAIN_REWARD).result["snapshot"])
    run = TrainingRun.objects.get(pk=work.before(Name.TRAIN_REWARD).result["run"])
    work.tell(0, 1, "Comparing with the last reward model on held-out labels")
    found = evaluation.compare_rewards(new, last, snapshot, run)
    new.excluded = gates.unusable_dimensions(found.new.figures, last.excluded)
    new.save(update_fields=["excluded"])
    gate = gates.reward_gate(
        new=found.new.figures,
        last=found.last.figures,
        comparison=found.overall,
        excluded=new.excluded,
        prompt_swap_threshold=work.config.prompt_swap_threshold,
    )
    return {**gate.as_dict(), "comparison": found.overall, "excluded": new.excluded}


def evaluate(work: Work) -> dict[str, Any]:
    policy, parent = work.round.policy, work.round.parent_policy
    assert policy is not None
    sources = [
        source
        for task in tasks_of(work.round)
        for source in _pick(
            task,
            work.config.evaluation_sources_per_task,
            Split.HOLDOUT,
            work.config.evaluation_seed,
        )
    ]
    # Everything is measured again or not at all: an evaluation row is written in one piece.
    made = evaluation.evaluate_policy(
        policy,
        parent,
        sources=sources,
        seed=work.config.evaluation_seed,
        judge=work.round.parent_reward,
        sampling=work.config.sampling,
        progress=_every(work, "pictures"),
    )
    overall = made.figures["usable"].get("all")
    win, _, lose = made.figures["win_tie_lose"]
    figure = f"{win:.0%} better, {lose:.0%} worse"
    if overall:
        figure = f"usable {overall['parent']:.0%} → {overall['new']:.0%}"
    return {"evaluation": made.pk, "figure": figure}


def _every(work: Work, what: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if work.lost.is_set():
            raise LeaseLost(f"{work.step} is no longer owned here")
        if done == total or time.monotonic() - last > WATCH_SECONDS:
            last = time.monotonic()
            work.tell(done, total, f"{done} of {total} {what}")

    return tell


def gate_policy(work: Work) -> dict[str, Any]:
    made = Evaluation.objects.get(pk=work.before(Name.EVALUATE).result["evaluation"])
    run = TrainingRun.objects.get(pk=work.before(Name.TRAIN_POLICY).result["run"])
    return gates.policy_gate(made.figures, alarm=runs.alarm(run)).as_dict()


def promote(work: Work) -> dict[str, Any]:
    round_ = work.round
    opened = [
        work.before(name).result.get("passed") for name in (Name.GATE_REWARD, Name.GATE_POLICY)
    ]
    if not all(opened):
        return {"promoted": False, "reason": "A gate did not open; the round went on to measure."}
    if not work.config.promote:
        return {"promoted": False, "reason": "The round was to measure only."}
    assert round_.policy is not None
    assert round_.reward_model is not None
    with transaction.atomic():
        work.step.renew()
        policies.activate(round_.policy)
        activate_reward(round_.reward_model)
    return {"promoted": True, "figure": round_.policy.name}


@transaction.atomic
def activate_reward(model: RewardModel, *, actor: User | None = None) -> None:
    """Let the next policies be rewarded by this model; the one that was active retires.

    Without an actor a round promotes it.
    """
    list(RewardModel.objects.select_for_update().order_by("pk"))
    active = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).exclude(pk=model.pk)
    before = list(active.values_list("name", flat=True))
    active.update(state=RewardModel.State.RETIRED)
    RewardModel.objects.filter(pk=model.pk).update(state=RewardModel.State.ACTIVE)
    audit.record(
        actor=actor,
        verb=Verb.REWARD_ACTIVE,
        thing=model,
        before={"active": before},
        after={"active": [model.name]},
    )
    model.refresh_from_db()


WORK: dict[str, Callable[[Work], dict[str, Any]]] = {
    Name.GENERATE: generate,
    Name.LABEL: label,
    Name.TRAIN_REWARD: train_reward,
    Name.GATE_REWARD: gate_reward,
    Name.TRAIN_POLICY: train_policy,
    Name.EVALUATE: evaluate,
    Name.GATE_POLICY: gate_policy,
    Name.PROMOTE: promote,
}
GATES = (Name.GATE_REWARD, Name.GATE_POLICY)
