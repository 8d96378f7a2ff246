"""The gate that people are: a blind comparison that the round opens by itself and waits for."""

from __future__ import annotations

from typing import Any

import pytest

from annotation import judgments, queue
from annotation.campaigns import dimensions_for
from annotation.judgments import Answer
from annotation.models import Campaign
from generation.models import Candidate, Policy, Source, Split
from modeling import rounds
from modeling.models import Evaluation, EvaluationPair, Round
from modeling.round_steps import Name
from tests.factories import make_image, make_user
from tests.modeling.project import Project
from tests.modeling.test_rounds import finish, step_of
from tests.modeling.test_transitions import at_the_policy_gate, go_on


@pytest.fixture
def project(quick_project: Project) -> Project:
    return quick_project


def at_the_check(project: Project, annotators: str = "human", **config: Any) -> Round:
    """A round whose policy was measured on eight held-out sources and passed its gate."""
    round_ = at_the_policy_gate(project)
    config = {"human_comparisons": 3, **config}
    Round.objects.filter(pk=round_.pk).update(config=round_.config | config, annotators=annotators)
    round_.refresh_from_db()
    made = Evaluation.objects.get(pk=step_of(round_, Name.EVALUATE).result["evaluation"])
    sampling = {"num_inference_steps": 2, "guidance_scale": 30.0, "true_cfg_scale": 1.0}
    made.parent_policy, made.config = project.policy, {"sampling": sampling}
    made.save()
    for source in Source.objects.filter(split=Split.HOLDOUT, task__active=True):
        EvaluationPair.objects.create(
            evaluation=made,
            source=source,
            seed=7,
            parent_image=make_image(),
            image=make_image(),
        )
    finish(round_, Name.GATE_POLICY, passed=True, reason="…")
    return round_


def compare(campaign: Campaign, *, new_wins: bool) -> None:
    """One person compares one pair without being told which is which."""
    user = make_user()
    turn = queue.claim(user=user, campaign=campaign)
    assert turn is not None
    best = 0 if new_wins else 1
    dimensions = dimensions_for(campaign, turn.set.source.task)
    answers = {one.slug: Answer("picked", best, 1 - best) for one in dimensions}
    judgments.record(assignment=turn, user=user, answers=answers)


def test_it_opens_a_blind_comparison_and_waits(project: Project) -> None:
    round_ = at_the_check(project)
    go_on(round_)

    campaign = Campaign.objects.get()
    assert (campaign.purpose, campaign.state) == ("comparison", "open")
    assert campaign.name == "Round 1: new or old"
    assert campaign.items.count() == 3
    assert len({item.set.source.task_id for item in campaign.items.all()}) == 2
    pair = EvaluationPair.objects.order_by("pk")[0]
    new, old = Candidate.objects.filter(set__source=pair.source).order_by("index")
    assert (new.policy, new.image) == (round_.policy, pair.image)
    assert (old.policy, old.image) == (project.policy, pair.parent_image)
    assert (new.num_inference_steps, new.guidance_scale) == (2, 30.0)
    step = step_of(round_, Name.HUMAN_CHECK)
    assert step.message == "Waiting for people: 0 of 3 pairs compared"
    assert step.is_waiting
    assert not rounds.execute(step)
    compare(campaign, new_wins=True)
    rounds.ring(round_)
    assert "1 of 3 pairs" in step_of(round_, Name.HUMAN_CHECK).message


@pytest.mark.parametrize("new_wins", [True, False])
def test_people_open_or_shut_the_gate(project: Project, new_wins: bool) -> None:
    round_ = at_the_check(project, human_comparisons=8)
    go_on(round_)
    campaign = Campaign.objects.get()
    for _ in range(8):
        compare(campaign, new_wins=new_wins)
    go_on(round_)

    result = step_of(round_, Name.HUMAN_CHECK).result
    assert result["passed"] is new_wins
    share = "100%" if new_wins else "0%"
    assert f"Of 8 pairs that people compared blind the new policy won {share}" in result["reason"]
    campaign.refresh_from_db()
    assert campaign.state == Campaign.State.CLOSED
    if new_wins:
        go_on(round_)
        assert Policy.objects.get(state="active").name == "new policy"
    else:
        round_.refresh_from_db()
        assert round_.outcome.startswith("The human check stayed shut")
        assert Policy.objects.get(state="active") == project.policy


def test_simulated_annotators_compare_too(project: Project) -> None:
    round_ = at_the_check(project, "simulated", human_comparisons=100)
    go_on(round_)
    campaign = Campaign.objects.get()
    assert campaign.simulated
    assert campaign.items.count() == 8  # there are no more pictures than were measured
    assert "checks" in step_of(round_, Name.HUMAN_CHECK).result


def test_it_asks_for_a_judge_that_is_there(project: Project) -> None:
    with pytest.raises(rounds.RoundError, match="no reward model “nobody”"):
        rounds.create(annotators="human", config={"held_out_reward": "nobody"})
    for wrong in ({"human_rule": "best"}, {"psnr_loss": -1}, {"human_share": 50}):
        with pytest.raises(rounds.RoundError, match=next(iter(wrong))):
            rounds.create(annotators="human", config=wrong)
