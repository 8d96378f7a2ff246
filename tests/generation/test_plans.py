"""Weights of a plan: what is drawn from them, and what labels make of them."""

from __future__ import annotations

import numpy as np
import pytest

from generation import candidates, plans
from generation.bandit import PARAMETERS, Evidence, learnt_weights
from generation.models import Candidate, SamplingPlan, Task
from tests.factories import make_plan, make_policy, make_source, make_task


@pytest.fixture
def task(db: None) -> Task:
    return make_task("mend")


def drawn(task: Task, field: str, *, sets: int = 1, seed: int = 0) -> list[object]:
    source = task.sources.first() or make_source(task, size=(32, 32))
    run = candidates.order_sets(policy=make_policy(), sources=[source] * sets, seed=seed)
    rows = Candidate.objects.filter(set__run=run).order_by("set_id", "index")
    return list(rows.values_list(field, flat=True))


def seen(**counts: list[tuple[object, float, float]]) -> Evidence:
    return Evidence(
        sets=100,
        seen={
            name: {value: (yes, no) for value, yes, no in values} for name, values in counts.items()
        },
    )


def lists(plan: SamplingPlan) -> dict[str, list[object]]:
    return {name: getattr(plan, name) for name in PARAMETERS}


def test_a_plan_without_weights_is_drawn_from_as_ever(task: Task) -> None:
    make_plan(task, steps=[2, 3, 5], true_cfg_scale=[1.0, 2.0], candidates_per_set=3)
    rng = np.random.default_rng([7, 0])
    expected = []
    for _ in range(3):
        rng.integers(candidates.LARGEST_SEED)
        expected.append([2, 3, 5][int(rng.integers(3))])
        for count in (1, 2, 2, 2):  # strength, guidance_scale, true_cfg_scale, negative_prompts
            rng.integers(count)

    assert drawn(task, "num_inference_steps", seed=7) == expected


def test_it_draws_by_the_weights(task: Task) -> None:
    make_plan(task, guidance_scale=[10.0, 30.0], weights={"guidance_scale": [0.9, 0.1]})

    values = drawn(task, "guidance_scale", sets=250)

    # 1,000 draws: a standard deviation of 9.5 around 900.
    assert 860 < values.count(10.0) < 940
    assert values == drawn(task, "guidance_scale", sets=250)
    steps = drawn(task, "num_inference_steps", sets=250)
    assert 440 < steps.count(2) < 560


def test_a_value_that_says_more_is_drawn_more_and_none_is_given_up(task: Task) -> None:
    plan = make_plan(task, steps=[2, 4, 8, 16], strength=[1.0], guidance_scale=[10.0, 30.0])
    evidence = seen(
        steps=[(2, 5.0, 195.0), (4, 120.0, 80.0), (8, 60.0, 140.0), (16, 60.0, 140.0)],
        guidance_scale=[(10.0, 50.0, 50.0), (30.0, 50.0, 50.0)],
    )

    weights = learnt_weights(lists(plan), evidence)

    assert weights["steps"] == pytest.approx([0.125, 0.625, 0.125, 0.125], abs=0.01)
    assert weights["guidance_scale"] == pytest.approx([0.5, 0.5], abs=0.02)
    assert "strength" not in weights  # a single value is no choice
    # Nothing is known of the negative prompts, so nothing is preferred.
    assert weights["negative_prompts"] == pytest.approx([0.5, 0.5], abs=0.02)
    assert weights == learnt_weights(lists(plan), evidence)


def test_thompson_s_share_is_the_chance_of_being_best(task: Task) -> None:
    """Beta(2, 1) against Beta(1, 1): P(x > y) = E[x] = 2/3."""
    plan = make_plan(task, steps=[2, 3])
    weights = learnt_weights(lists(plan), seen(steps=[(2, 1.0, 0.0)]), floor=0.0)
    assert weights["steps"] == pytest.approx([2 / 3, 1 / 3], abs=0.02)


def test_over_rounds_the_bandit_finds_the_informative_value(task: Task) -> None:
    plan = make_plan(task, steps=[2, 4, 8])
    rng = np.random.default_rng(0)
    chances = {2: 0.2, 4: 0.3, 8: 0.45}
    evidence = Evidence()
    for _ in range(8):
        for value in drawn(task, "num_inference_steps", sets=25, seed=int(rng.integers(9999))):
            assert isinstance(value, int)
            evidence.add("steps", value, float(rng.random() < chances[value]))
        evidence.sets += 25
        plan = plans.adapt(task, evidence, because="adaptive") or plan

    assert plan.weights["steps"][2] > 0.6
    assert min(plan.weights["steps"]) >= 0.5 / 3 - 1e-4


def test_it_makes_a_new_version_and_says_why(task: Task) -> None:
    first = make_plan(task, steps=[2, 3])
    evidence = seen(steps=[(2, 80.0, 20.0), (3, 20.0, 80.0)])

    second = plans.adapt(task, evidence, because="adaptive: from 100 sets")

    assert second is not None
    assert SamplingPlan.objects.get(task=task, current=True) == second
    assert (second.version, second.made_by) == (2, "adaptive: from 100 sets")
    assert second.weights["steps"] == pytest.approx([0.75, 0.25], abs=0.01)
    first.refresh_from_db()
    assert (first.current, first.weights) == (False, {})
    # The same evidence changes nothing more, and a few sets decide nothing.
    assert plans.adapt(task, evidence, because="again") is None
    evidence.sets = plans.LEAST_SETS - 1
    evidence.add("steps", 3, 1.0)
    assert plans.adapt(task, evidence, because="too few") is None
    assert task.plans.count() == 2
