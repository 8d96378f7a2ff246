"""What people decide about a round: enough labels, again, skip, back, yes, no, and undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext as _

from annotation import campaigns
from annotation.counts import judged_share
from annotation.models import Campaign, Judgment
from generation import policies
from generation.models import GenerationRun, Policy, Split
from generation.ownership import JobState
from modeling import round_config, round_steps, rounds, runs, transitions
from modeling.models import RewardModel, Round, RoundStep, TrainingRun
from modeling.round_steps import Name
from modeling.rounds import RoundError, name_of
from modeling.transitions import State

Actor = User | AnonymousUser | None


# --- labels ---


@dataclass(frozen=True)
class Labelling:
    done: int  # sets
    total: int
    judgments: int
    missing: int  # labels on training pictures still needed before anything can be learned
    waiting: bool  # the label step is the current one


def labelling_progress(round_: Round) -> Labelling:
    done, total = judged_share(rounds.campaign_of(round_))
    mine = Judgment.objects.current().filter(assignment__item__campaign=round_.campaign)
    usable = (
        round_steps.judgments_of(round_)
        .filter(outcome=Judgment.Outcome.PICKED, set__source__split=Split.TRAIN)
        .count()
    )
    step = rounds.current_step(round_)
    return Labelling(
        done=done,
        total=total,
        judgments=mine.count(),
        missing=max(0, round_config.read(round_).min_judgments - usable),
        waiting=step is not None and step.name == Name.LABEL,
    )


def finish_labelling(round_: Round) -> None:
    """Go on with the labels that are there."""
    step = rounds.current_step(round_)
    if step is None or step.name != Name.LABEL:
        raise RoundError(_("%(name)s is not waiting for labels.") % {"name": name_of(round_)})
    missing = labelling_progress(round_).missing
    if missing:
        raise RoundError(
            _(
                "%(missing)s more labels with a best and a worst on training pictures are "
                "needed before the reward model can be trained. Label more sets first."
            )
            % {"missing": missing}
        )
    campaigns.change_state(rounds.campaign_of(round_), Campaign.State.CLOSED)
    round_.refresh_from_db()
    rounds.ring(round_)


# --- one step ---


@transaction.atomic
def retry(step: RoundStep, *, actor: Actor = None) -> None:
    """Run a failed step again; what it has done already is kept."""
    if step.round.finished_at is not None:
        raise RoundError(
            _("%(name)s is finished; start a new one.") % {"name": name_of(step.round)}
        )
    if not step.retry():
        raise RoundError(
            _("%(name)s is %(state)s; only a failed step can be run again.")
            % {"name": step.get_name_display(), "state": step.get_state_display().lower()}
        )
    step.refresh_from_db()
    transitions.record(
        step.round, step=step.name, to=State.QUEUED, reason="To be run again.", actor=actor
    )
    rounds.ring(step.round)


@transaction.atomic
def skip(step: RoundStep, *, reason: str, actor: Actor = None) -> None:
    """Go on without the current step; a gate that is skipped counts as passed."""
    reason = _require_reason(reason)
    round_ = Round.objects.select_for_update().get(pk=step.round_id)
    now = rounds.current_step(round_)
    if now is None or now.pk != step.pk:
        raise RoundError(
            _("%(name)s is not the step that the round is at; only that one can be skipped.")
            % {"name": step.get_name_display()}
        )
    _stop_work(now)
    result: dict[str, Any] = {**now.result, "skipped": reason, "figure": ""}
    if now.name in round_steps.GATES:
        result |= {"passed": True, "reason": reason}
    elif now.name == Name.PROMOTE:
        result |= {"promoted": False, "reason": reason}
    # A worker that is at it loses the row by the next epoch.
    RoundStep.objects.filter(pk=now.pk).update(
        state=JobState.SUCCEEDED,
        epoch=F("epoch") + 1,
        lease_until=None,
        started_at=Coalesce("started_at", Now()),
        finished_at=Now(),
        message="",
        error="",
        result=result,
    )
    now.refresh_from_db()
    transitions.record(round_, step=now.name, to=State.SKIPPED, reason=reason, actor=actor)
    rounds.follow(now)
    rounds.ring(round_)


@transaction.atomic
def roll_back(step: RoundStep, *, reason: str, actor: Actor = None) -> None:
    """Do this step and all after it afresh; a round that ended without promotion opens again."""
    reason = _require_reason(reason)
    round_ = Round.objects.select_for_update().get(pk=step.round_id)
    _require_reach(round_, step)
    later = list(round_.steps.filter(position__gte=step.position))
    begun = [one for one in later if one.started_at is not None]
    for one in later:
        _stop_work(one)
    if round_.finished_at is not None:
        _open_again(round_)
        transitions.record(round_, to=State.OPEN, reason=reason, actor=actor)
    _forget(round_, from_position=step.position)
    RoundStep.objects.filter(pk__in=[one.pk for one in later]).update(
        state=JobState.QUEUED,
        epoch=F("epoch") + 1,
        attempt=0,
        lease_until=None,
        started_at=None,
        finished_at=None,
        progress=0,
        total=0,
        message="",
        error="",
        result={},
    )
    for one in begun:
        transitions.record(round_, step=one.name, to=State.QUEUED, reason=reason, actor=actor)
    round_.refresh_from_db()
    rounds.ring(round_)


def _require_reason(reason: str) -> str:
    if not reason.strip():
        raise RoundError(_("Say why: the reason is written down beside the step."))
    return reason.strip()


def _require_reach(round_: Round, step: RoundStep) -> None:
    if is_promoted(round_):
        raise RoundError(
            _("%(name)s was promoted. Undo its promotion first.") % {"name": name_of(round_)}
        )
    if step.started_at is None:
        raise RoundError(
            _("%(step)s was not begun yet, so there is nothing to roll back.")
            % {"step": step.get_name_display()}
        )


def _open_again(round_: Round) -> None:
    try:
        with transaction.atomic():
            Round.objects.filter(pk=round_.pk).update(finished_at=None, outcome="")
    except IntegrityError as error:
        other = Round.objects.filter(finished_at__isnull=True).first()
        raise RoundError(
            _("%(other)s is open. Finish or cancel it before %(name)s is opened again.")
            % {"other": name_of(other) if other else _("Another round"), "name": name_of(round_)}
        ) from error


def _forget(round_: Round, *, from_position: int) -> None:
    """Take what the steps from there on had made off the round; the rows themselves stay."""
    at = {step.name: step.position for step in round_.steps.all()}
    changes: dict[str, Any] = {}
    if from_position <= at[Name.TRAIN_POLICY]:
        changes["policy"] = None
    if from_position <= at[Name.TRAIN_REWARD]:
        if round_.reward_model is not None:
            _retire(round_.reward_model, round_.parent_reward)
        changes["reward_model"] = None
    label = round_.campaign
    if from_position <= at[Name.GENERATE]:
        changes["campaign"] = None
    elif from_position <= at[Name.LABEL] and label and label.state == Campaign.State.CLOSED:
        campaigns.change_state(label, Campaign.State.OPEN)
    for campaign in round_steps.campaigns_of(round_):
        kept = campaign == label and from_position > at[Name.GENERATE]
        if not kept and campaign.state != Campaign.State.CLOSED:
            campaigns.change_state(campaign, Campaign.State.CLOSED)
    if changes:
        Round.objects.filter(pk=round_.pk).update(**changes)


def _retire(model: RewardModel, parent: RewardModel) -> None:
    """A reward model that its round takes back judges nothing any more."""
    model.refresh_from_db()
    if model.state == RewardModel.State.ACTIVE:
        round_steps.activate_reward(parent)
    RewardModel.objects.filter(pk=model.pk).update(state=RewardModel.State.RETIRED)


def _stop_work(step: RoundStep) -> None:
    for model, key in ((GenerationRun, "generation_run"), (TrainingRun, "run")):
        job = model.objects.filter(pk=(step.result or {}).get(key)).first()
        if job is not None:
            job.cancel()


# --- the whole round ---


@transaction.atomic
def approve(round_: Round, *, actor: Actor = None) -> None:
    """Let the promotion go on that waits for somebody's yes."""
    step = rounds.current_step(round_)
    if step is None or step.name != Name.PROMOTE or not rounds.waits_for_people(step):
        raise RoundError(_("%(name)s is not waiting for an approval.") % {"name": name_of(round_)})
    RoundStep.objects.filter(pk=step.pk).update(result={**step.result, "approved": True})
    transitions.record(
        round_, step=step.name, to=State.QUEUED, reason="The promotion was approved.", actor=actor
    )
    rounds.ring(round_)


@transaction.atomic
def cancel(round_: Round, *, actor: Actor = None) -> None:
    """End an open round: its running work stops, its labels and models are kept."""
    round_.refresh_from_db()
    if round_.finished_at is not None:
        raise RoundError(_("%(name)s is finished already.") % {"name": name_of(round_)})
    for step in round_.steps.all():
        step.cancel()
        _stop_work(step)
    rounds.close(round_, "Cancelled.", to=State.CANCELLED, actor=actor)


def is_promoted(round_: Round) -> bool:
    """What the round promoted is what the next one would start from."""
    promote = round_.steps.get(name=Name.PROMOTE).result
    return bool(promote.get("promoted")) and is_active(round_)


def is_active(round_: Round) -> bool:
    """One of the models that the round made is the active one."""
    policy, reward = round_.policy, round_.reward_model
    return (policy is not None and policy.state == Policy.State.ACTIVE) or (
        reward is not None and reward.state == RewardModel.State.ACTIVE
    )


@transaction.atomic
def undo_promotion(round_: Round, *, reason: str, actor: Actor = None) -> None:
    """Make the models active again that the round started from, at once."""
    reason = _require_reason(reason)
    round_ = Round.objects.select_for_update().get(pk=round_.pk)
    if round_.finished_at is None or not is_active(round_):
        raise RoundError(
            _("Nothing that %(name)s made is active, so there is nothing to undo.")
            % {"name": name_of(round_)}
        )
    person = actor if isinstance(actor, User) else None
    try:
        if round_.policy is not None and round_.policy.state == Policy.State.ACTIVE:
            runs.check_policy(round_.parent_policy)
            policies.activate(round_.parent_policy, actor=person)
        if round_.reward_model and round_.reward_model.state == RewardModel.State.ACTIVE:
            runs.check_reward(round_.parent_reward)
            round_steps.activate_reward(round_.parent_reward, actor=person)
    except (policies.PolicyError, runs.RunFailed) as error:
        raise RoundError(str(error)) from error
    outcome = f"Promotion undone: {reason} {round_.outcome}"
    Round.objects.filter(pk=round_.pk).update(outcome=outcome[:300])
    step = round_.steps.get(name=Name.PROMOTE)
    RoundStep.objects.filter(pk=step.pk).update(result={**step.result, "undone": reason})
    transitions.record(round_, to=State.UNDONE, reason=reason, actor=actor)
