"""The work of a round's steps, one function each: what it needs, does and leaves behind.

Everything a step starts is linked from its `result` in the transaction that creates it, so a step
that runs again goes on with the same generation run, campaign, snapshot and training run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from annotation import campaigns
from annotation.counts import judged_share
from annotation.models import Campaign, Judgment, JudgmentQuerySet
from generation import audit, candidates, policies
from generation.models import GenerationRun, Policy, Source, Split, Verb
from generation.ownership import JobState
from modeling import human_check, judging, round_config, round_gates, runs, sampling, snapshots
from modeling.models import RewardModel, Round, Snapshot, TrainingRun
from modeling.round_work import (
    Name,
    Progress,
    StepFailed,
    Waiting,
    Work,
    bring_to_end,
    free_name,
    pick,
    rewarding,
    simulate,
    tasks_of,
    was_put_aside,
)

__all__ = ["Name", "Progress", "StepFailed", "Waiting", "Work", "tasks_of"]

# --- generate ---


def generate(work: Work) -> dict[str, Any]:
    if not work.config.collect:
        return {"skipped": "The round's settings ask for no new labels."}
    run_id = work.step.result.get("generation_run")
    if run_id is None:
        sources: list[Source] = []
        for task in tasks_of(work.round):
            sources += pick(task, work.config.sets_per_task, Split.TRAIN, work.round.seed)
            sources += pick(task, work.config.holdout_sets, Split.HOLDOUT, work.round.seed)
        if work.config.adapt_plans:
            _score_earlier_labels(work)
        with transaction.atomic():
            if work.config.adapt_plans:
                _adapt_plans(work)
            run = candidates.order_sets(
                policy=work.round.parent_policy,
                sources=sources,
                seed=work.round.seed,
                mix=_mix(work),
            )
            work.note(generation_run=run.pk)
    else:
        run = GenerationRun.objects.get(pk=run_id)
        run.retry()
    bring_to_end(work, run, candidates.make)
    sets = run.sets.ready().count()
    return {"sets": sets, "figure": f"{sets} sets"}


def _mix(work: Work) -> dict[Policy, float]:
    others = work.config.other_policies
    own = {work.round.parent_policy: 1 - sum(others.values())}
    return own | {policies.named(name): share for name, share in others.items()} if others else {}


def _score_earlier_labels(work: Work) -> None:
    if work.round.parent_reward is not None:
        sampling.measure(
            tasks_of(work.round),
            work.round.parent_reward,
            simulated=work.round.annotators == Round.Annotators.SIMULATED,
            progress=work.every("earlier sets scored"),
        )
        judging.release()


def _adapt_plans(work: Work) -> None:
    made = sampling.adapt(
        tasks_of(work.round),
        simulated=work.round.annotators == Round.Annotators.SIMULATED,
        model=work.round.parent_reward,
    )
    work.note(plans=[plan.pk for plan in made])


# --- label ---


def label(work: Work) -> dict[str, Any]:
    if work.was_skipped(Name.GENERATE):
        return {"skipped": "There are no new sets to label; earlier labels are learnt from."}
    campaign = work.round.campaign or _open_campaign(work)
    if work.round.annotators == Round.Annotators.SIMULATED:
        simulate(work, campaign)
    elif not labelled_enough(work.round):
        raise Waiting("Waiting for people.")
    return close_labelling(work.round)


def _open_campaign(work: Work) -> Campaign:
    round_ = work.round
    run = GenerationRun.objects.get(pk=work.before(Name.GENERATE).result["generation_run"])
    sets = list(run.sets.ready().select_related("source__task").order_by("pk"))
    with transaction.atomic():
        campaign = campaigns.open_campaign(
            name=free_name(f"Round {round_.number}"),
            sets=sets,
            tasks=list({one.source.task_id: one.source.task for one in sets}.values()),
            simulated=round_.annotators == Round.Annotators.SIMULATED,
            seed=round_.seed,
        )
        Round.objects.filter(pk=round_.pk).update(campaign=campaign)
        work.note(campaign=campaign.pk)
    round_.campaign = campaign
    return campaign


def campaigns_of(round_: Round) -> list[Campaign]:
    """What the round asks people: its labels and, where it has one, its human check."""
    check = round_.steps.filter(name=Name.HUMAN_CHECK).first()
    asked = check.result.get("campaign") if check is not None else None
    return list(Campaign.objects.filter(pk__in=[round_.campaign_id, asked]))


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
    if round_config.read(round_).earlier_labels or round_.campaign_id is None:
        simulated = round_.annotators == Round.Annotators.SIMULATED
        return judgments.filter(assignment__item__campaign__simulated=simulated)
    return judgments.filter(assignment__item__campaign=round_.campaign)


def snapshot_of(round_: Round) -> Snapshot:
    weight = round_config.read(round_).feedback_weight
    return snapshots.take(judgments_of(round_), feedback_weight=weight or None)


# --- train ---


def train_reward(work: Work) -> dict[str, Any]:
    run = _run_of(work)
    if run is None:
        snapshot = snapshot_of(work.round)
        with transaction.atomic():
            run = runs.start_reward(
                snapshot=snapshot,
                parent=work.round.parent_reward,
                config={"seed": work.round.seed, **work.config.reward},
                min_judgments=min(work.config.min_judgments, runs.MIN_JUDGMENTS),
                user=work.round.started_by,
            )
            work.note(snapshot=snapshot.pk, run=run.pk)
    bring_to_end(work, run, runs.execute)
    assert run.reward_model is not None
    Round.objects.filter(pk=work.round.pk).update(reward_model=run.reward_model)
    return {"reward_model": run.reward_model.pk, "figure": run.reward_model.name}


def train_policy(work: Work) -> dict[str, Any]:
    if work.round.reward_model is None and not work.was_skipped(Name.TRAIN_REWARD):
        raise StepFailed("The round has no reward model; roll it back to the step that trains it.")
    run = _run_of(work)
    if run is None:
        with transaction.atomic():
            run = runs.start_policy(
                parent=work.round.parent_policy,
                reward=rewarding(work.round),
                config={"seed": work.round.seed, **work.config.policy},
                user=work.round.started_by,
            )
            work.note(run=run.pk, notes=run.message)
    try:
        bring_to_end(work, run, runs.execute)
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


# --- promote ---


def promote(work: Work) -> dict[str, Any]:
    round_ = work.round
    aside = was_put_aside(round_)
    steps = round_.steps.filter(name__in=GATES)
    gates = [step.result.get("passed") for step in steps if not step.result.get("put_aside")]
    if False in gates:
        return {"promoted": False, "reason": "A gate did not open; the round went on to measure."}
    if not work.config.promote:
        return {"promoted": False, "reason": "The round was to measure only."}
    reward = None if aside else round_.reward_model
    if round_.policy is None and reward is None:
        return {"promoted": False, "reason": "Nothing new was trained."}
    _require_same_parents(round_, reward)
    if work.config.approval and not work.step.result.get("approved"):
        work.note(asked=True)
        raise Waiting("Waiting for somebody to approve the promotion.")
    with transaction.atomic():
        work.step.renew()
        if round_.policy is not None:
            policies.activate(round_.policy)
        if reward is not None:
            activate_reward(reward)
    return {"promoted": True, "figure": str(round_.policy or reward)}


def _require_same_parents(round_: Round, reward: RewardModel | None) -> None:
    """What people made active meanwhile was never compared with, and is not replaced unasked."""
    for parent, new in (
        (round_.parent_policy, round_.policy),
        (round_.parent_reward, reward),
    ):
        active = type(parent).objects.filter(state="active").first()
        if new is not None and active is not None and active not in (parent, new):
            raise StepFailed(
                f"'{active}' was made active while the round ran, and '{new}' was compared with "
                f"'{parent}'. Make '{parent}' active and run this step again, or skip it."
            )


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
    Name.GATE_REWARD: round_gates.gate_reward,
    Name.TRAIN_POLICY: train_policy,
    Name.EVALUATE: round_gates.evaluate,
    Name.GATE_POLICY: round_gates.gate_policy,
    Name.HUMAN_CHECK: human_check.human_check,
    Name.PROMOTE: promote,
}
GATES = (Name.GATE_REWARD, Name.GATE_POLICY, Name.HUMAN_CHECK)
