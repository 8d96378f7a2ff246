"""The round: generate → label → train reward → gate → train policy → evaluate → gate → human check
→ promote.

A round is a row with nine steps. Whoever hears the bell does the next step; a step that fails
keeps its reason and can be run again; a gate that does not open ends the round, and everything
stays usable. Every change of state is a row of its own, written in the same transaction, so a
process may die anywhere: what it had not committed is done again by the next one. What people
decide about a round is in `round_decisions`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
from annotation.models import Campaign
from generation import faults, policies
from generation.candidates import CandidateError
from generation.images import ImageError
from generation.models import Policy, Source, default_project
from generation.ownership import JobState, LeaseLost
from modeling import (
    evaluation,
    human_check,
    launch,
    round_config,
    round_steps,
    runs,
    snapshots,
    transitions,
)
from modeling.models import RewardModel, Round, RoundRule, RoundStep
from modeling.round_steps import Name, Progress, StepFailed, Waiting, Work
from modeling.transitions import State

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
    rule: RoundRule | None = None,
    reason: str = "Started by hand.",
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
    held_out = values["held_out_reward"]
    if held_out and not RewardModel.objects.filter(name=held_out).exists():
        raise RoundError(
            _("There is no reward model “%(name)s” (held_out_reward).") % {"name": held_out}
        )
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
                rule=rule,
            )
            RoundStep.objects.bulk_create(
                RoundStep(round=round_, name=name, position=position)
                for position, name in enumerate(Name)
            )
            transitions.record(round_, to=State.OPEN, reason=reason, actor=user)
    except (IntegrityError, ValidationError) as error:
        open_round = Round.objects.filter(finished_at__isnull=True).first()
        which = name_of(open_round) if open_round else _("Another round")
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
    found = Source.objects.usable().filter(task__active=True, project=default_project())
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


def name_of(round_: Round) -> str:
    return _("Round %(number)s") % {"number": round_.number}


# --- going on ---


def current_step(round_: Round) -> RoundStep | None:
    """The first step that is not done; None when the round is over."""
    steps = RoundStep.objects.filter(round_id=round_.pk, round__finished_at__isnull=True)
    # With a fresh round: the caller's may not know its campaign yet.
    unfinished = steps.exclude(state=JobState.SUCCEEDED).select_related("round__campaign")
    return unfinished.order_by("position").first()


def waits_for_people(step: RoundStep) -> bool:
    """A step that did its part and cannot go on before people have done theirs."""
    if step.state != JobState.QUEUED:
        return False
    if step.name == Name.PROMOTE:
        return bool(step.result.get("asked")) and not step.result.get("approved")
    if step.name == Name.HUMAN_CHECK:
        people = step.round.annotators == Round.Annotators.HUMAN
        return people and "campaign" in step.result and not human_check.enough(step)
    return (
        step.name == Name.LABEL
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
        _show_progress(step)
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


def _show_progress(step: RoundStep) -> None:
    queued = RoundStep.objects.filter(pk=step.pk, state=JobState.QUEUED)
    if step.name == Name.HUMAN_CHECK:
        queued.update(message=human_check.waiting(step))
    if step.name != Name.LABEL:
        return
    done, total = judged_share(campaign_of(step.round))
    queued.update(
        progress=done, total=total, message=f"Waiting for people: {done} of {total} sets labelled"
    )


def campaign_of(round_: Round) -> Campaign:
    if round_.campaign is None:
        raise RoundError(
            _("%(name)s has no campaign yet; its sets are being made.") % {"name": name_of(round_)}
        )
    return round_.campaign


def execute(step: RoundStep, *, progress: Progress | None = None) -> bool:
    """Do the step's work if it is its turn and free; True when this call brought it to an end.

    Safe to call twice and again after a crash.
    """
    now = current_step(step.round)
    if now is None or now.pk != step.pk or waits_for_people(step) or not _claim(step):
        return False
    step.round.refresh_from_db()
    try:
        with step.heartbeat() as lost:
            work = Work(step, lost, progress)
            result = round_steps.WORK[step.name](work)
            _finish(step, result)
    except LeaseLost:
        return False
    except Waiting as waiting:
        _wait(step, str(waiting))
        return False
    except READABLE as error:
        _fail(step, str(error))
    except Exception as error:
        if step.may_pass(error):
            raise
        log.exception("%s failed", step)
        _fail(step, faults.sentence(error) or f"{type(error).__name__}: {error}")
    return True


@transaction.atomic
def _claim(step: RoundStep) -> bool:
    left = RoundStep.objects.filter(pk=step.pk, state=JobState.RUNNING).exists()
    if not step.claim():
        return False
    reason = "Taken over: whoever worked on it stopped answering." if left else ""
    transitions.record(step.round, step=step.name, to=State.RUNNING, reason=reason)
    return True


@transaction.atomic
def _finish(step: RoundStep, result: Mapping[str, Any]) -> None:
    """The step's end and all that follows from it, or nothing of it."""
    step.refresh_from_db(fields=["result"])
    step.finish(result={**step.result, **result}, message="")
    to = State.DONE
    if "skipped" in step.result:
        to = State.SKIPPED
    elif "passed" in step.result:
        to = State.PASSED if step.result["passed"] else State.SHUT
    keys = ("skipped", "reason", "alarm", "figure")
    reason = next((str(step.result[key]) for key in keys if step.result.get(key)), "")
    transitions.record(step.round, step=step.name, to=to, reason=reason)
    follow(step)


@transaction.atomic
def _fail(step: RoundStep, error: str) -> None:
    step.fail(error)
    if step.state == JobState.FAILED:
        transitions.record(step.round, step=step.name, to=State.FAILED, reason=error)


@transaction.atomic
def _wait(step: RoundStep, message: str) -> None:
    """Give the step back: it waits in the queue until people have done their part."""
    mine = RoundStep.objects.filter(pk=step.pk, epoch=step.epoch, state=JobState.RUNNING)
    if not mine.update(state=JobState.QUEUED, lease_until=None, message=message):
        return
    step.refresh_from_db()
    _show_progress(step)
    transitions.record(step.round, step=step.name, to=State.WAITING, reason=message)


def follow(step: RoundStep) -> None:
    """What the end of a step means for its round."""
    round_ = Round.objects.get(pk=step.round_id)
    if step.name == Name.PROMOTE:
        promoted = step.result["promoted"]
        close(round_, _outcome(round_, step), to=State.PROMOTED if promoted else State.ENDED)
    elif step.name == Name.TRAIN_POLICY and "alarm" in step.result:
        gate = {"passed": False, "reason": step.result["alarm"], "figure": "alarm"}
        round_.steps.filter(name=Name.GATE_POLICY).update(result=gate)
        close(round_, f"The policy was not promoted{_keep_reward(round_)}. {gate['reason']}")
    elif step.name in round_steps.GATES and step.result.get("passed") is False:
        if round_config.read(round_).keep_going:
            return
        if step.name == Name.GATE_REWARD:
            _retire(round_)
            if step.result.get("put_aside"):
                return  # the policy is trained by the last one
            outcome = f"The reward gate stayed shut. {step.result['reason']}"
        else:
            kept = _keep_reward(round_)
            outcome = f"{GATE_NAMES[step.name]} stayed shut{kept}. {step.result['reason']}"
        close(round_, outcome)


GATE_NAMES: dict[str, str] = {
    Name.GATE_POLICY: "The policy gate",
    Name.HUMAN_CHECK: "The human check",
}


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
    if round_.policy is None:
        return f"Promoted the reward model '{round_.reward_model}'; there is no new policy."
    figure = round_.steps.get(name=Name.GATE_POLICY).result.get("figure", "")
    return f"Promoted '{round_.policy}': {figure}." if figure else f"Promoted '{round_.policy}'."


@transaction.atomic
def close(
    round_: Round,
    outcome: str,
    *,
    to: State = State.ENDED,
    actor: User | AnonymousUser | None = None,
) -> None:
    reason = outcome
    if len(outcome) > 300:
        outcome = outcome[:299] + "…"
    open_round = Round.objects.filter(pk=round_.pk, finished_at__isnull=True)
    if open_round.update(finished_at=Now(), outcome=outcome):
        transitions.record(round_, to=to, reason=reason, actor=actor)
        for step in round_.steps.exclude(state=JobState.SUCCEEDED):
            step.cancel()
    round_.refresh_from_db()
    for campaign in round_steps.campaigns_of(round_):
        if campaign.state != Campaign.State.CLOSED:
            campaigns.change_state(campaign, Campaign.State.CLOSED)


def open_rounds() -> list[Round]:
    return list(Round.objects.filter(finished_at__isnull=True).order_by(F("number")))
