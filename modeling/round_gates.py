"""The steps of a round that measure and decide: both gates and the evaluation between them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generation.models import Split
from modeling import evaluation, gates, newest, reward_gap, runs
from modeling.models import Evaluation, RewardModel, Round, Snapshot, TrainingRun
from modeling.round_work import NO_POLICY, Name, StepFailed, Work, pick, rewarding, tasks_of


def gate_reward(work: Work) -> dict[str, Any]:
    new, last = work.round.reward_model, work.round.parent_reward
    if new is None:
        return {"skipped": "There is no new reward model."}
    snapshot = Snapshot.objects.get(pk=work.before(Name.TRAIN_REWARD).result["snapshot"])
    run = TrainingRun.objects.get(pk=work.before(Name.TRAIN_REWARD).result["run"])
    work.tell(0, 1, "Comparing with the last reward model on held-out labels")
    found = evaluation.compare_rewards(new, last, snapshot, run)
    new.excluded = gates.unusable_dimensions(found.new.figures, last.excluded)
    new.save(update_fields=["excluded"])
    simulated = work.round.annotators == Round.Annotators.SIMULATED
    labels = newest.unseen(new, simulated=simulated).values_list("pk", flat=True)
    ids = list(labels[: work.config.newest_labels])
    gate = gates.reward_gate(
        new=found.new.figures,
        last=found.last.figures,
        comparison=found.overall,
        excluded=new.excluded,
        prompt_swap_threshold=work.config.prompt_swap_threshold,
        newest=newest.accuracy([last, new], ids) if ids else (),
        newest_accuracy=work.config.newest_accuracy,
    )
    contradicted = any(one["name"] == "newest" and one["passed"] is False for one in gate.checks)
    config = work.config
    put_aside = (
        not gate.passed and config.keep_last_reward and not config.keep_going and not contradicted
    )
    result = {**gate.as_dict(), "comparison": found.overall, "excluded": new.excluded}
    return {**result, "put_aside": True} if put_aside else result


def evaluate(work: Work) -> dict[str, Any]:
    policy, parent = work.round.policy, work.round.parent_policy
    if policy is None:
        return {"skipped": NO_POLICY}
    sources = [
        source
        for task in tasks_of(work.round)
        for source in pick(
            task,
            work.config.evaluation_sources_per_task,
            Split.HOLDOUT,
            work.config.evaluation_seed,
        )
    ]
    # Whoever trained the policy does not judge it; what the other reward model says is shown.
    reward = rewarding(work.round)
    judge = held_out_reward(work.config.held_out_reward) or work.round.parent_reward
    # Everything is measured again or not at all: an evaluation row is written in one piece, with
    # the step's note of it.
    made = Evaluation.objects.filter(pk=work.step.result.get("evaluation")).first()
    made = made or evaluation.evaluate_policy(
        policy,
        parent,
        sources=sources,
        seed=work.config.evaluation_seed,
        judge=judge if judge != reward else None,
        reward=reward,
        sampling=work.config.sampling,
        progress=work.every("pictures"),
        stored=lambda row: work.note(evaluation=row.pk),
    )
    overall = made.figures["usable"].get("all")
    win, _, lose = made.figures["win_tie_lose"]
    figure = f"{win:.0%} better, {lose:.0%} worse"
    if overall:
        figure = f"usable {overall['parent']:.0%} → {overall['new']:.0%}"
    return {"evaluation": made.pk, "figure": figure}


def gate_policy(work: Work) -> dict[str, Any]:
    if work.round.policy is None:
        return {"skipped": NO_POLICY}
    if work.was_skipped(Name.EVALUATE):
        raise StepFailed(
            "The evaluation was skipped, so nothing was measured. Roll the round back to it, or "
            "skip this gate as well."
        )
    made = Evaluation.objects.get(pk=work.before(Name.EVALUATE).result["evaluation"])
    run = TrainingRun.objects.get(pk=work.before(Name.TRAIN_POLICY).result["run"])
    gate = gates.policy_gate(made.figures, alarm=runs.alarm(run), psnr_loss=work.config.psnr_loss)
    return replace(gate, checks=[*gate.checks, *reward_gap.shown(made.figures)]).as_dict()


def held_out_reward(name: str) -> RewardModel | None:
    """The reward model of that name; StepFailed where a name is given and there is none."""
    found = RewardModel.objects.filter(name=name).first() if name else None
    if name and found is None:
        raise StepFailed(
            f"There is no reward model '{name}' to judge the policy (held_out_reward). Register "
            "it in the admin and run the step again, or skip the step."
        )
    return found
