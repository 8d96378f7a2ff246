"""Flipped labels and a hacked reward, on the starter models: the gates stop both and say why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F
from safetensors.torch import load_file, save_file

from annotation.models import Judgment
from generation import policies
from generation.models import Policy, Source, Split
from generation.ownership import JobState
from modeling import evaluation, gates, newest, round_work, rounds
from modeling.models import RewardModel, Round
from modeling.round_steps import Name
from modeling.starter import world
from modeling.statistics import Interval
from tests.modeling.project import CONFIG, Project, make_judged_campaign, make_project
from tests.modeling.test_gates import comparison, reward_figures
from tests.modeling.test_rounds import finish, step_of

WEIGHTS = Path(world.__file__).parent / "weights"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def starter(transactional_db: None) -> Project:
    """Two tasks of the starter world with the shipped policy and reward model."""
    return make_project(WEIGHTS / "policy", WEIGHTS / "reward")


def flip(judgments: Any) -> None:
    judgments.filter(outcome="picked").update(best=F("worst"), worst=F("best"))


def at_the_training(project: Project, **config: Any) -> Round:
    """A round whose sets are labelled; sabotage is still possible."""
    round_ = rounds.create(annotators="simulated", config={**CONFIG, **config})
    campaign = make_judged_campaign(project)
    Round.objects.filter(pk=round_.pk).update(campaign=campaign)
    finish(round_, Name.GENERATE, Name.LABEL)
    round_.refresh_from_db()
    return round_


def work(round_: Round, *names: str) -> str:
    for name in names:
        rounds.execute(step_of(round_, name))
        step = step_of(round_, name)
        assert (step.state, step.error) == (JobState.SUCCEEDED, "")
    round_.refresh_from_db()
    return str(step_of(round_, names[-1]).result.get("reason"))


# --- the reward model ---


def test_labels_that_are_all_flipped_contradict_the_active_model(starter: Project) -> None:
    make_judged_campaign(starter)
    honest: list[Interval] = []
    flipped: list[Interval] = []
    for found in (honest, flipped):
        ids = newest.unseen(starter.reward, simulated=True).values_list("pk", flat=True)
        found += newest.accuracy([starter.reward, starter.reward], list(ids))
        flip(Judgment.objects.all())
    assert honest[0].value > 0.8
    assert flipped[0].value == pytest.approx(1 - honest[0].value)
    figures: dict[str, Any] = {"new": reward_figures(), "last": reward_figures(), "excluded": []}
    pairs = comparison(0.1, 0.9)
    assert gates.reward_gate(comparison=pairs, newest=honest, **figures).passed
    gate = gates.reward_gate(comparison=pairs, newest=flipped, **figures)
    assert not gate.passed
    assert "labels and model contradict each other" in gate.reason


@pytest.mark.long
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_reward_model_of_flipped_labels_is_stopped(starter: Project, everywhere: bool) -> None:
    """Flipped where it learns, or also where it is measured, so that it looks better than ever."""
    training = {**CONFIG["reward"], "steps": 60, "lr": 2e-3, "batch_size": 8, "lora_rank": 8}
    round_ = at_the_training(starter, reward=training)
    split = Split.values if everywhere else [Split.TRAIN]
    flip(Judgment.objects.filter(set__source__split__in=split))

    reason = work(round_, Name.TRAIN_REWARD, Name.GATE_REWARD)

    found = step_of(round_, Name.GATE_REWARD).result
    assert not found["passed"]
    assert round_.reward_model is not None
    assert RewardModel.objects.get(pk=round_.reward_model.pk).state == RewardModel.State.RETIRED
    # Labels that contradict the active model end the round; else it goes on with that one.
    assert round_.outcome.startswith("The reward gate stayed shut.") == everywhere
    assert round_work.rewarding(round_) == starter.reward or everywhere
    difference = found["comparison"]["difference"]
    if everywhere:
        assert difference > 0
        assert "labels and model contradict each other" in reason
    else:
        assert difference < 0
        assert "not better than the last reward model, which is kept" in reason
    starter.reward.refresh_from_db()
    assert starter.reward.state == "active"
    assert round_.reward_model is not None
    assert round_.reward_model.state == "retired"


# --- the policy ---


def broken(project: Project, directory: Path) -> Policy:
    """The starter policy with its transformer's last layer scaled: loud pictures."""
    shutil.copytree(WEIGHTS / "policy", directory)
    file = next((directory / "transformer").glob("*.safetensors"))
    weights = load_file(file)
    weights["proj_out.weight"] = weights["proj_out.weight"] * 1.6
    save_file(weights, file)
    return policies.register(
        name="broken", location=str(directory), parent=project.policy, max_pixels=64 * 64
    )


def test_a_broken_policy_is_stopped_by_what_was_measured(starter: Project, tmp_path: Path) -> None:
    policy = broken(starter, tmp_path / "broken")
    sources = list(Source.objects.filter(split=Split.HOLDOUT, task__active=True))
    made = evaluation.evaluate_policy(
        policy, starter.policy, sources=sources, reward=starter.reward
    )
    gate = gates.policy_gate(made.figures, alarm="")
    assert not gate.passed
    assert {one["name"] for one in gate.checks} >= {"outside_psnr", "reward_margin", "usable"}


@pytest.mark.long
def test_a_policy_that_hacks_its_reward_is_stopped(starter: Project) -> None:
    """Without anchors and at a hundred times the pace it climbs its reward and ruins pictures."""
    training = {
        **CONFIG["policy"],
        **{"steps": 15, "lr": 3e-3, "batch_size": 6, "num_inference_steps": 4, "lora_rank": 8},
        **{"anchor_weight": 0.0, "tone_weight": 0.0, "monitor": {"every": 0, "sources": 2}},
    }
    config = {"evaluation_sources_per_task": 4, "sampling": {"num_inference_steps": 4}}
    round_ = at_the_training(starter, policy=training, **config)
    finish(round_, Name.TRAIN_REWARD, Name.GATE_REWARD, skipped="the shipped one")

    reason = work(round_, Name.TRAIN_POLICY, Name.EVALUATE, Name.GATE_POLICY)

    assert round_.outcome.startswith("The policy gate stayed shut.")
    result = step_of(round_, Name.GATE_POLICY).result
    assert result["passed"] is False
    climbed = next(one for one in result["checks"] if one["name"] == "reward_margin")
    assert climbed["difference"] > 0
    assert any(word in reason for word in ("no improvement", "worse", "Outside the mask"))
    starter.policy.refresh_from_db()
    assert starter.policy.state == "active"
