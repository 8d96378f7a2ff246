"""What labels said of the drawn values, and of which sets they would say most."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path

import pytest
from PIL import Image as Pillow

from annotation.models import Campaign
from generation.models import Candidate, CandidateSet, SamplingPlan, Task
from modeling import information, rounds, sampling
from modeling.judging import JudgeError
from modeling.models import RewardModel, RoundStep, SetScore
from tests.annotation.factories import make_campaign, make_dimension, make_turn
from tests.factories import make_picture, make_plan, make_policy, make_set, make_source, make_user
from tests.modeling.project import CONFIG, Project
from tests.modeling.test_commands import call
from tests.modeling.test_rerank import add_member

PICTURES = [make_picture(seed) for seed in range(4)]


def draw_set(
    plan: SamplingPlan, guidance: list[float], pictures: list[Pillow.Image] = PICTURES
) -> CandidateSet:
    source = plan.task.sources.first() or make_source(plan.task)
    made = make_set(source, plan=plan, size=len(guidance), pictures=pictures[: len(guidance)])
    for index, value in enumerate(guidance):
        Candidate.objects.filter(set=made, index=index).update(guidance_scale=value)
    return made


@pytest.fixture
def judged(db: None) -> tuple[Task, Campaign]:
    """Two sets, judged on two dimensions each by one person."""
    task = Task.objects.get(slug="fill")
    plan = make_plan(task, guidance_scale=[10.0, 30.0], steps=[3])
    sharp, nice = make_dimension("sharp", task=task), make_dimension("nice", task=task)
    sets = [draw_set(plan, [10.0, 10.0, 30.0, 30.0]) for _ in range(2)]
    campaign = make_campaign(task=task, sets=sets, seed=0)
    first, second = campaign.items.order_by("set_id")
    user = make_user()
    make_turn(first, user, {sharp: (0, 2), nice: "no_difference"})
    make_turn(second, user, {sharp: (0, 1), nice: "cannot_judge"})
    return task, campaign


def test_it_counts_who_took_part_in_informative_labels(judged: tuple[Task, Campaign]) -> None:
    """Set 1: candidates 0 and 2 took part in one of two labels. Set 2: 0 and 1 in the only one."""
    found = sampling.evidence(judged[0], simulated=False)

    assert found.sets == 2
    assert found.seen["guidance_scale"] == {10.0: (0.5 + 2.0, 1.5), 30.0: (0.5, 3.5)}
    assert found.seen["steps"] == {3: (3.0, 5.0)}
    assert sampling.evidence(judged[0], simulated=True).sets == 0
    assert sampling.evidence(Task.objects.get(slug="removal"), simulated=False).sets == 0


def test_what_the_reward_model_knows_is_not_informative(judged: tuple[Task, Campaign]) -> None:
    task, campaign = judged
    model = RewardModel.objects.create(name="judge", location="-")
    first, second = (item.set for item in campaign.items.order_by("set_id"))

    def lists(*scores: float) -> dict[str, list[float]]:
        return {"score": list(scores), "std": [0.0] * 4, "flipped": [0.0] * 4}

    opinions = {first: lists(2.0, 0.0, -2.0, 0.0), second: lists(0.5, 0.0, 0.0, -0.5)}
    for one, said in opinions.items():
        SetScore.objects.create(set=one, reward_model=model, by_dimension={"sharp": said})

    found = sampling.evidence(task, simulated=False, model=model)

    # 0 over 2 with a margin of 4 · 3/4 = 3 was clear; 0 over 1 with 0.5 · 3/4 was not. "nice" was
    # not scored, so that it says nothing.
    assert found.sets == 2
    assert found.seen["guidance_scale"] == {10.0: (2.0, 2.0), 30.0: (0.0, 4.0)}
    SetScore.objects.filter(set=second).delete()
    assert sampling.evidence(task, simulated=False, model=model).sets == 1


def test_a_label_brings_a_bit_where_the_model_has_no_opinion() -> None:
    def bits(score: list[float], std: float = 0.0, flipped: float = 0.0) -> float:
        two = {"score": score, "std": [std] * 2, "flipped": [flipped] * 2}
        return information.expected({"sharp": two})

    # Two candidates: scores of m and -m are a margin of m.
    assert bits([0.0, 0.0]) == pytest.approx(1.0)
    even = log(0.9 / 0.1)
    entropy = -(0.9 * log(0.9) + 0.1 * log(0.1)) / log(2)
    assert bits([even, -even]) == pytest.approx(entropy)
    assert bits([-even, even]) == pytest.approx(entropy)
    assert entropy < bits([even, -even], std=2.0) < 1.0
    assert entropy < bits([even, -even], flipped=0.5) < 1.0
    assert bits([even, -even], flipped=1.0) == pytest.approx(1.0)
    assert bits([9999.0, -9999.0]) == pytest.approx(0.0)
    assert information.expected({}) == 0.0


def test_it_scores_each_set_once_and_asks_first_what_says_most(project: Project) -> None:
    task = project.tasks[0]
    plan = SamplingPlan.objects.get(task=task, current=True)
    sets = [
        draw_set(plan, [10.0, 30.0], pictures=[make_picture(2 * n), make_picture(2 * n + 1)])
        for n in range(3)
    ]
    alone = make_set(task.sources.all()[0], size=1, pictures=PICTURES[:1])

    assert information.measure(project.reward, [*sets, alone]) == 3
    assert information.measure(project.reward, [*sets, alone]) == 0

    found = {one.set_id: one for one in SetScore.objects.filter(reward_model=project.reward)}
    assert set(found) == {one.pk for one in sets}
    for one in found.values():
        assert one.by_dimension
        for lists in one.by_dimension.values():
            assert [len(lists[name]) for name in ("score", "std", "flipped")] == [2, 2, 2]
            assert lists["score"][0] == pytest.approx(-lists["score"][1], abs=2e-4)
    bits = {pk: information.expected(one.by_dimension) for pk, one in found.items()}
    campaign = make_campaign(task=task, sets=sets, seed=0)
    said = call("select_sets", campaign=campaign.name, count=1)
    most = max(bits, key=lambda pk: bits[pk])
    assert f"{most}" in said
    assert f"{bits[most]:.3f}" in said
    assert campaign.items.order_by("position")[0].set_id == most


def test_an_ensemble_scores_a_set_again_with_its_spread(project: Project, tmp_path: Path) -> None:
    one, other = (add_member(project, tmp_path / str(seed), seed) for seed in (0, 1))
    plan = SamplingPlan.objects.get(task=project.tasks[0], current=True)
    made = draw_set(plan, [10.0, 30.0], pictures=PICTURES[:2])
    assert information.measure(one, [made]) == 1
    alone = SetScore.objects.get().by_dimension
    make_campaign(task=plan.task, sets=[made], name="Few")

    call("select_sets", campaign="Few", count=1, reward=one.name, member=[other.name])

    score = SetScore.objects.get()
    assert score.members == [other.pk]
    assert information.measure(one, [made], others=[other]) == 0
    for dimension, lists in score.by_dimension.items():
        assert alone[dimension]["std"] == [0.0, 0.0]
        assert min(lists["std"]) > 0
    with pytest.raises(JudgeError, match="LoRAs on one base"):
        information.measure(one, [made], others=[project.reward])


def test_the_most_informative_sets_are_taken_from_clusters_in_turn() -> None:
    ordered = [(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6), (5, 0.5)]
    of = {1: 0, 2: 0, 3: 1, 4: 0, 5: 2}
    asked = []

    def clusters(sets: Sequence[int], count: int) -> list[int]:
        asked.append(count)
        return [of[one] for one in sets]

    # Small clusters first: each gives its best, then 1's cluster its second.
    assert information.spread(ordered, 3, clusters) == [(1, 0.9), (3, 0.7), (5, 0.5)]
    assert information.spread(ordered, 4, clusters) == [(1, 0.9), (2, 0.8), (3, 0.7), (5, 0.5)]
    # With two, 3 and 5 stand alone in their clusters and so come before 1.
    assert information.spread(ordered, 2, clusters) == [(3, 0.7), (5, 0.5)]
    assert information.spread(ordered, 5, clusters) == ordered
    # Four times as many as are wanted take part.
    assert information.spread(ordered, 1, lambda sets, count: [0] * len(sets)) == [(1, 0.9)]
    assert asked == [3, 4, 2]


def test_a_round_draws_from_what_earlier_labels_said(project: Project) -> None:
    task, other = project.tasks
    plan = SamplingPlan.objects.get(task=task, current=True)
    sets = [draw_set(plan, [10.0, 10.0, 30.0]) for _ in range(20)]
    campaign = make_campaign(task=task, sets=sets, seed=0, simulated=True)
    user, asked = make_user(), list(task.dimensions.all())
    for item in campaign.items.all():
        make_turn(item, user, dict.fromkeys(asked, (0, 1)))
    told = call("adapt_plans", simulated=True, dry_run=True)
    assert "adaptive: from 20 sets, close under tiny reward" in told
    assert "1 of 2 plans would change" in told
    assert not task.plans.filter(version__gt=plan.version).exists()
    second = make_policy("second", location=project.policy.location)
    settings = CONFIG | {
        "other_policies": {"second": 0.5},
        "adapt_plans": True,
        "sets_per_task": 1,
        "holdout_sets_per_task": 0,
    }
    round_ = rounds.create(annotators="simulated", config=settings)
    step = RoundStep.objects.select_related("round").get(round=round_, name="generate")

    assert rounds.execute(step)

    step.refresh_from_db()
    assert SetScore.objects.filter(reward_model=project.reward).count() == 20
    (new,) = SamplingPlan.objects.filter(pk__in=step.result["plans"])
    assert (new.task, new.version) == (task, plan.version + 1)
    assert new.made_by == "adaptive: from 20 sets, close under tiny reward"
    low, high = new.weights["guidance_scale"]
    assert low > high >= 0.25
    assert other.plans.get(current=True).weights == {}
    made = Candidate.objects.filter(set__run=step.result["generation_run"], image__isnull=False)
    assert set(made.values_list("policy", flat=True)) == {project.policy.pk, second.pk}
    used = CandidateSet.objects.filter(run=step.result["generation_run"])
    assert set(used.values_list("plan", flat=True)) == {new.pk, other.plans.get(current=True).pk}
