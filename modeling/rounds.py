"""The round: generate → label → train reward → gate → train policy → evaluate → gate → promote.

A round is a row with eight steps. Whoever hears the bell does the next step; a step that fails
keeps its reason and can be run again; a gate that does not open ends the round, and everything
stays usable.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F, Max
from django.db.models.functions import Now
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from annotation import campaigns
from annotation.counts import judged_share
from annotation.errors import DatasetError, Refused
from annotation.models import Campaign, Judgment
from generation import policies
from generation.candidates import CandidateError
from generation.images import ImageError
from generation.models import GenerationRun, Policy, Source, Split, default_project
from generation.ownership import JobState, LeaseLost
from modeling import evaluation, launch, round_config, round_steps, runs, snapshots
from modeling.models import Evaluation, RewardModel, Round, RoundStep, TrainingRun
from modeling.round_steps import Name, Progress, StepFailed, Waiting, Work

log = logging.getLogger(__name__)
# Failures whose message was written for people.
READABLE = (
    StepFailed,
    runs.RunFailed,
    launch.LaunchError,
    snapshots.SnapshotError,
    evaluation.EvaluationError,
    Refused,
    DatasetError,
    CandidateError,
    ImageError,
    policies.PolicyError,
    FileNotFoundError,
)


class RoundError(Exception):
    """One readable sentence: why a round cannot do this now, and the remedy."""


# --- starting ---


def create(
    *,
    annotators: str,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    user: User | AnonymousUser | None = None,
) -> Round:
    """Open a round from the active policy and reward model; RoundError leaves nothing behind."""
    from modeling.rundir import RunError

    if annotators not in Round.Annotators.values:
        raise RoundError(
            _("'%(annotators)s' is not a kind of annotators; choose %(known)s.")
            % {"annotators": annotators, "known": " or ".join(Round.Annotators)}
        )
    try:
        values = round_config.complete(config or {}, annotators)
    except RunError as error:
        raise RoundError(str(error)) from error
    policy, reward = _starting_models()
    _require_sources(annotators)
    try:
        with transaction.atomic():
            newest = Round.objects.aggregate(newest=Max("number"))["newest"] or 0
            round_ = Round.objects.create(
                number=newest + 1,
                annotators=annotators,
                seed=seed,
                config=values,
                parent_policy=policy,
                parent_reward=reward,
                started_by=user if isinstance(user, User) else None,
            )
            RoundStep.objects.bulk_create(
                RoundStep(round=round_, name=name, position=position)
                for position, name in enumerate(Name)
            )
    except (IntegrityError, ValidationError) as error:
        open_round = Round.objects.filter(finished_at__isnull=True).first()
        which = _name(open_round) if open_round else _("Another round")
        raise RoundError(
            _("%(which)s is still open. Finish or cancel it before starting the next one.")
            % {"which": which}
        ) from error
    return round_


def _starting_models() -> tuple[Policy, RewardModel]:
    try:
        policy = policies.active()
        runs.check_policy(policy)
    except (policies.PolicyError, runs.RunFailed) as error:
        raise RoundError(str(error)) from error
    reward = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first()
    if reward is None:
        raise RoundError(
            _(
                "No reward model is active, so there is nothing to start from. Run "
                "`load_starter`, or make a reward model active in the admin."
            )
        )
    try:
        runs.check_reward(reward)
    except runs.RunFailed as error:
        raise RoundError(str(error)) from error
    return policy, reward


def _require_sources(annotators: str) -> None:
    found = Source.objects.filter(task__active=True, project=default_project())
    if not found.train().exists() or not found.holdout().exists():
        missing = _("held-out") if found.train().exists() else _("training")
        raise RoundError(
            _(
                "There are no %(missing)s sources for an active task. Import more with "
                "`import_sources`; each picture falls into the training or the held-out part "
                "by its content."
            )
            % {"missing": missing}
        )
    if annotators == Round.Annotators.SIMULATED and found.filter(scene__isnull=True).exists():
        names = found.filter(scene__isnull=True).values_list("task__name", flat=True).distinct()
        raise RoundError(
            _(
                "Simulated annotators judge starter scenes only, and these tasks have other "
                "sources: %(tasks)s. Let people label, or deactivate those tasks."
            )
            % {"tasks": ", ".join(sorted(set(names)))}
        )


def _name(round_: Round) -> str:
    return _("Round %(number)s") % {"number": round_.number}


# --- going on ---


def current_step(round_: Round) -> RoundStep | None:
    """The first step that is not done; None when the round is over."""
    steps = RoundStep.objects.filter(round_id=round_.pk, round__finished_at__isnull=True)
    # With a fresh round: the caller's may not know its campaign yet.
    unfinished = steps.exclude(state=JobState.SUCCEEDED).select_related("round__campaign")
    return unfinished.order_by("position").first()


def waits_for_people(step: RoundStep) -> bool:
    """A label step whose campaign is open to people and has not enough labels yet."""
    return (
        step.name == Name.LABEL
        and step.state == JobState.QUEUED
        and step.round.annotators == Round.Annotators.HUMAN
        and step.round.campaign_id is not None
        and not round_steps.labelled_enough(step.round)
    )


def ring(round_: Round) -> None:
    """Ring the bell of the next step, if it is free and not waiting for people."""
    step = current_step(round_)
    if step is None or not RoundStep.objects.claimable().filter(pk=step.pk).exists():
        return
    if waits_for_people(step):
        _show_labelling(step)
        return
    transaction.on_commit(lambda: _ring_the_bell(step.pk))


def _ring_the_bell(step_id: int) -> None:
    from modeling import jobs

    try:
        # A bell that nobody hears in time is rung again; old ones must not pile up.
        jobs.execute_step.apply_async((step_id,), expires=60, retry=False)
    except OperationalError as error:
        log.warning("No broker to ring for step %s (%s); beat will ring again.", step_id, error)


advance = ring


def _show_labelling(step: RoundStep) -> None:
    done, total = judged_share(_campaign(step.round))
    RoundStep.objects.filter(pk=step.pk, state=JobState.QUEUED).update(
        progress=done, total=total, message=f"Waiting for people: {done} of {total} sets labelled"
    )


def _campaign(round_: Round) -> Campaign:
    if round_.campaign is None:
        raise RoundError(
            _("%(name)s has no campaign yet; its sets are being made.") % {"name": _name(round_)}
        )
    return round_.campaign


def execute(step: RoundStep, *, progress: Progress | None = None) -> bool:
    """Do the step's work if it is its turn and free; True when this call brought it to an end.

    Safe to call twice and again after a crash.
    """
    now = current_step(step.round)
    if now is None or now.pk != step.pk or waits_for_people(step) or not step.claim():
        return False
    step.round.refresh_from_db()
    try:
        with step.heartbeat() as lost:
            work = Work(step, lost, progress)
            result = round_steps.WORK[step.name](work)
            step.refresh_from_db(fields=["result"])
            step.finish(result={**step.result, **result}, message="")
    except LeaseLost:
        return False
    except Waiting:
        _wait(step)
        return False
    except READABLE as error:
        step.fail(str(error))
    except Exception as error:
        log.exception("%s failed", step)
        step.fail(f"{type(error).__name__}: {error}")
    else:
        _after(step)
    return True


def _wait(step: RoundStep) -> None:
    """Give the label step back: it waits in the queue until people have labelled enough."""
    mine = RoundStep.objects.filter(pk=step.pk, epoch=step.epoch, state=JobState.RUNNING)
    mine.update(state=JobState.QUEUED, lease_until=None)
    step.refresh_from_db()
    _show_labelling(step)


def _after(step: RoundStep) -> None:
    round_ = Round.objects.get(pk=step.round_id)
    if step.name == Name.PROMOTE:
        _close(round_, _outcome(round_, step))
    elif step.name == Name.TRAIN_POLICY and round_.policy is None:
        gate = {"passed": False, "reason": step.result["alarm"], "figure": "alarm"}
        round_.steps.filter(name=Name.GATE_POLICY).update(result=gate)
        _close(round_, f"The policy was not promoted{_keep_reward(round_)}. {gate['reason']}")
    elif step.name in round_steps.GATES and not step.result["passed"]:
        if round_config.read(round_).keep_going:
            return
        if step.name == Name.GATE_REWARD:
            _retire(round_)
            outcome = f"The reward gate stayed shut. {step.result['reason']}"
        else:
            kept = _keep_reward(round_)
            outcome = f"The policy gate stayed shut{kept}. {step.result['reason']}"
        _close(round_, outcome)


def _retire(round_: Round) -> None:
    ready = RewardModel.objects.filter(rounds=round_, state=RewardModel.State.READY)
    ready.update(state=RewardModel.State.RETIRED)


def _keep_reward(round_: Round) -> str:
    """A reward model that passed its gate is better whatever became of the policy."""
    passed = round_.steps.get(name=Name.GATE_REWARD).result.get("passed")
    if not passed or not round_config.read(round_).promote or round_.reward_model is None:
        return ""
    round_steps.activate_reward(round_.reward_model)
    return "; the new reward model is kept"


def _outcome(round_: Round, step: RoundStep) -> str:
    if not step.result["promoted"]:
        return f"Measured, not promoted. {step.result['reason']}"
    figure = round_.steps.get(name=Name.GATE_POLICY).result.get("figure", "")
    return f"Promoted '{round_.policy}': {figure}."


def _close(round_: Round, outcome: str) -> None:
    if len(outcome) > 300:
        outcome = outcome[:299] + "…"
    open_round = Round.objects.filter(pk=round_.pk, finished_at__isnull=True)
    if open_round.update(finished_at=Now(), outcome=outcome):
        for step in round_.steps.exclude(state=JobState.SUCCEEDED):
            step.cancel()
    round_.refresh_from_db()
    if round_.campaign is not None and round_.campaign.state != Campaign.State.CLOSED:
        campaigns.change_state(round_.campaign, Campaign.State.CLOSED)


# --- what people decide ---


@dataclass(frozen=True)
class Labelling:
    done: int  # sets
    total: int
    judgments: int
    missing: int  # labels on training pictures still needed before anything can be learned
    waiting: bool  # the label step is the current one


def labelling_progress(round_: Round) -> Labelling:
    done, total = judged_share(_campaign(round_))
    mine = Judgment.objects.current().filter(assignment__item__campaign=round_.campaign)
    usable = (
        round_steps.judgments_of(round_)
        .filter(outcome=Judgment.Outcome.PICKED, set__source__split=Split.TRAIN)
        .count()
    )
    step = current_step(round_)
    return Labelling(
        done=done,
        total=total,
        judgments=mine.count(),
        missing=max(0, round_config.read(round_).min_judgments - usable),
        waiting=step is not None and step.name == Name.LABEL,
    )


def finish_labelling(round_: Round) -> None:
    """Go on with the labels that are there."""
    step = current_step(round_)
    if step is None or step.name != Name.LABEL:
        raise RoundError(_("%(name)s is not waiting for labels.") % {"name": _name(round_)})
    missing = labelling_progress(round_).missing
    if missing:
        raise RoundError(
            _(
                "%(missing)s more labels with a best and a worst on training pictures are "
                "needed before the reward model can be trained. Label more sets first."
            )
            % {"missing": missing}
        )
    campaigns.change_state(_campaign(round_), Campaign.State.CLOSED)
    round_.refresh_from_db()
    ring(round_)


def retry(step: RoundStep) -> None:
    """Run a failed step again; what it has done already is kept."""
    if step.round.finished_at is not None:
        raise RoundError(_("%(name)s is finished; start a new one.") % {"name": _name(step.round)})
    if not step.retry():
        raise RoundError(
            _("%(name)s is %(state)s; only a failed step can be run again.")
            % {"name": step.get_name_display(), "state": step.get_state_display().lower()}
        )
    step.refresh_from_db()
    ring(step.round)


def cancel(round_: Round) -> None:
    """End an open round: its running work stops, its labels and models are kept."""
    round_.refresh_from_db()
    if round_.finished_at is not None:
        raise RoundError(_("%(name)s is finished already.") % {"name": _name(round_)})
    for step in round_.steps.all():
        step.cancel()
        for model, key in ((GenerationRun, "generation_run"), (TrainingRun, "run")):
            job = model.objects.filter(pk=(step.result or {}).get(key)).first()
            if job is not None:
                job.cancel()
    _close(round_, "Cancelled.")


# --- what came out ---


def report(round_: Round) -> dict[str, Any]:
    """One entry of `run_round --json`."""
    figures: dict[str, Any] = {}
    if round_.reward_model is not None:
        measured = round_.reward_model.evaluations.first()
        if measured is not None:
            figures = measured.figures
    evaluated = Evaluation.objects.filter(policy=round_.policy, kind="policy").first()
    made = evaluated.figures if round_.policy is not None and evaluated is not None else {}
    steps = {step.name: step for step in round_.steps.all()}
    gates = {
        name.removeprefix("gate_"): {key: step.result[key] for key in ("passed", "reason")}
        for name, step in steps.items()
        if name in round_steps.GATES and "passed" in step.result
    }
    return {
        "round": round_.number,
        "seed": round_.seed,
        "prompt_swap_accuracy": figures.get("prompt_swap_accuracy"),
        "reward_accuracy": {
            task: {
                name: {key: cell[key] for key in ("accuracy", "low", "high", "n")}
                for name, cell in row.items()
            }
            for task, row in figures.get("reward_accuracy", {}).items()
        },
        "usable": made.get("usable", {}),
        "dimensions": made.get("dimensions", {}),
        "win_tie_lose": list(made.get("win_tie_lose", [])),
        "outside_psnr": made.get("outside_psnr"),
        "gates": gates,
        "promoted": bool(steps[Name.PROMOTE].result.get("promoted")),
        "outcome": round_.outcome,
        "seconds": {name: round(seconds(step), 1) for name, step in steps.items()},
    }


def seconds(step: RoundStep) -> float:
    if step.started_at is None or step.finished_at is None:
        return 0.0
    return (step.finished_at - step.started_at).total_seconds()


def open_rounds() -> list[Round]:
    return list(Round.objects.filter(finished_at__isnull=True).order_by(F("number")))
