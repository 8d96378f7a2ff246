"""The last gate: people compare the new policy's pictures with its parent's, blind.

The round opens a comparison of the very pictures that were measured, waits until enough pairs are
judged, and looks at the new policy's share of wins and at how far the reward model's lies above it.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, zip_longest
from typing import Any

from django.db import transaction

from annotation import campaigns, comparisons
from annotation.counts import judged_share
from annotation.models import Campaign
from generation.models import Candidate, CandidateSet, Task, default_project
from generation.models import Project as ProjectRow
from modeling import gates, leaderboard, reward_gap
from modeling.models import Evaluation, EvaluationPair, Round, RoundStep
from modeling.round_work import NO_POLICY, Name, StepFailed, Waiting, Work, free_name, simulate
from modeling.statistics import Interval


def human_check(work: Work) -> dict[str, Any]:
    if not work.config.human_comparisons:
        return {"skipped": "The round's settings ask for no comparison by people."}
    if work.round.policy is None:
        return {"skipped": NO_POLICY}
    campaign = campaign_of(work.step) or _open(work)
    if work.round.annotators == Round.Annotators.SIMULATED:
        simulate(work, campaign)
    elif not enough(work.step):
        raise Waiting(waiting(work.step))
    campaigns.change_state(campaign, Campaign.State.CLOSED)
    gate = _verdict(work, campaign)
    return gate.as_dict()


def campaign_of(step: RoundStep) -> Campaign | None:
    return Campaign.objects.filter(pk=step.result.get("campaign")).first()


def enough(step: RoundStep) -> bool:
    campaign = campaign_of(step)
    if campaign is None:
        return False
    done, total = judged_share(campaign)
    return campaign.state == Campaign.State.CLOSED or done >= min(step.result["needed"], total)


def waiting(step: RoundStep) -> str:
    campaign = campaign_of(step)
    done = judged_share(campaign)[0] if campaign is not None else 0
    return f"Waiting for people: {done} of {step.result.get('needed', 0)} pairs compared"


def _open(work: Work) -> Campaign:
    evaluation = work.before(Name.EVALUATE).result.get("evaluation")
    if evaluation is None:
        raise StepFailed(
            "The evaluation was skipped, so there are no pictures to compare. Roll the round back "
            "to it, or skip this check as well."
        )
    new, parent = work.round.policy, work.round.parent_policy
    assert new is not None
    pairs = -(-work.config.human_comparisons // work.config.human_overlap)
    with transaction.atomic():
        chosen = _choose(evaluation, pairs)
        _make_sets(Evaluation.objects.get(pk=evaluation), chosen)
        tasks = Task.objects.filter(pk__in={pair.source.task_id for pair in chosen})
        campaign = comparisons.open_comparison(
            a=new,
            b=parent,
            name=free_name(f"Round {work.round.number}: new or old"),
            tasks=list(tasks),
            project=ProjectRow.objects.get(pk=default_project()),
            overlap=work.config.human_overlap,
            simulated=work.round.annotators == Round.Annotators.SIMULATED,
        )
        work.note(campaign=campaign.pk, needed=work.config.human_comparisons)
    return campaign


def _choose(evaluation: int, count: int) -> list[EvaluationPair]:
    """The first pairs of each task in turn."""
    of_task: dict[int, list[EvaluationPair]] = defaultdict(list)
    for pair in EvaluationPair.objects.filter(evaluation=evaluation).order_by("pk"):
        of_task[pair.source.task_id].append(pair)
    mixed = chain.from_iterable(zip_longest(*of_task.values()))
    return [pair for pair in mixed if pair is not None][:count]


def _make_sets(evaluation: Evaluation, pairs: list[EvaluationPair]) -> None:
    """Sets of two: the new policy's picture and its parent's, of the same noise."""
    for pair in pairs:
        made = CandidateSet.objects.create(
            source=pair.source, size=2, state=CandidateSet.State.READY
        )
        sides = ((evaluation.policy, pair.image), (evaluation.parent_policy, pair.parent_image))
        for index, (policy, image) in enumerate(sides):
            assert policy is not None
            Candidate.objects.create(
                set=made,
                index=index,
                policy=policy,
                image=image,
                seed=pair.seed,
                strength=1.0,
                prompt=pair.source.effective_prompt,
                width=image.width,
                height=image.height,
                **evaluation.config["sampling"],
            )


def _verdict(work: Work, campaign: Campaign) -> gates.Gate:
    scope = leaderboard.Scope(
        project=campaign.project, campaigns=(campaign,), simulated=campaign.simulated
    )
    policies, rows = leaderboard.comparisons(scope)
    new, parent = work.round.policy, work.round.parent_policy
    assert new is not None
    if new.pk not in policies or parent.pk not in policies:
        return gates.Gate(False, "Nobody could say which of the two is better.", "no answers")
    share = leaderboard.share_of_wins(rows, policies.index(new.pk), policies.index(parent.pk))
    pairs = judged_share(campaign)[0]
    gate = decide(share, pairs, rule=work.config.human_rule, asked=work.config.human_share)
    measured = Evaluation.objects.get(pk=work.before(Name.EVALUATE).result["evaluation"])
    gap = reward_gap.by_people(measured, scope, new=new.pk, parent=parent.pk)
    return reward_gap.shut_if_wide(gate, gap, limit=work.config.max_reward_gap)


def decide(share: Interval, pairs: int, *, rule: str, asked: float) -> gates.Gate:
    better = rule == "better"
    passed = share.low > asked if better else share.high >= asked
    words = f"above {asked:.0%}" if better else f"not clearly below {asked:.0%}"
    reason = (
        f"Of {pairs} pairs that people compared blind the new policy won {share.value:.0%} (ties "
        f"count half; 95 % {share.low:.0%}–{share.high:.0%}, {share.n} answers); {words} is asked "
        "for."
    )
    found = gates.check(
        "human", passed, reason, asked=words, n=share.n, new=share.value, low=share.low,
        high=share.high, of_new=True,
    )  # fmt: skip
    return gates.Gate(passed, reason, f"won {share.value:.0%}", [found])
