"""The page of sampling plans: versions, weights and what their labels said."""

from __future__ import annotations

import pytest
from django.test import Client

from generation.models import CandidateSet, SamplingPlan, Task
from modeling import sampling_page
from modeling.models import RewardModel, SetScore
from tests.annotation.factories import make_campaign, make_dimension, make_turn
from tests.factories import make_plan, make_set, make_source, make_task, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def plans() -> list[SamplingPlan]:
    """Two versions: of the first one set in two was informative, of the second both."""
    task = make_task("mend", name="Mend")
    sharp = make_dimension("sharp", task=task)
    said: list[tuple[int, int] | str] = ["no_difference", (0, 1), (0, 1), (2, 3)]
    made, sets = [], list[CandidateSet]()
    for weights in ({}, {"steps": [0.25, 0.75]}):
        made.append(make_plan(task, weights=weights, made_by="adaptive" if weights else "max"))
        sets += [make_set(make_source(task), plan=made[-1]) for _ in range(2)]
    campaign = make_campaign(task=task, sets=sets, simulated=True)
    user = make_user()
    for item, answer in zip(campaign.items.order_by("set_id"), said, strict=True):
        make_turn(item, user, {sharp: answer})
    return made


def history(*, simulated: bool = True, model: RewardModel | None = None) -> sampling_page.History:
    found = sampling_page.histories(simulated=simulated, model=model)
    return next(one for one in found if one.task.slug == "mend")


def test_it_shows_what_each_version_led_to(plans: list[SamplingPlan]) -> None:
    found = history()

    new, old = found.versions
    assert (old.plan, new.plan) == (plans[0], plans[1])
    assert (old.picked.value, old.picked.n) == (0.5, 2)
    assert (new.picked.value, new.picked.n) == (1.0, 2)
    steps = next(drawn for drawn in new.drawn if drawn.name == "Steps")
    assert [(value.shown, value.percent) for value in steps.values] == [("2", 25), ("3", 75)]
    negative = next(drawn for drawn in old.drawn if drawn.name == "Negative prompts")
    assert [value.shown for value in negative.values] == ["none", "blurry"]
    assert found.chart is not None
    assert [dot.label for dot in found.chart.dots] == ["1: 50 %", "2: 100 %"]
    # Labels of people are another matter.
    assert history(simulated=False).chart is None
    assert sampling_page.only_simulated()


def test_it_counts_what_was_close_under_the_reward_model(plans: list[SamplingPlan]) -> None:
    model = RewardModel.objects.create(name="judge", location="-")
    for one, lead in zip(CandidateSet.objects.order_by("pk"), (0.0, 0.0, 9.0, 0.0), strict=True):
        lists = {"score": [lead, 0.0, 0.0, 0.0], "std": [0.0] * 4, "flipped": [0.0] * 4}
        SetScore.objects.create(set=one, reward_model=model, by_dimension={"sharp": lists})

    new, old = history(model=model).versions

    assert (old.informative.value, old.informative.n) == (0.5, 2)
    assert (new.informative.value, new.informative.n) == (0.5, 2)
    assert new.picked.value == 1.0


def test_the_page_says_it_in_words(plans: list[SamplingPlan]) -> None:
    client = Client()
    client.force_login(make_user("vera", role="viewer"))

    page = client.get("/sampling/").content.decode()

    assert "100.0 % of the labels of the newest judged version say something" in page
    assert "adaptive" in page
    assert "<strong>Simulated labels</strong>" in page
    people = client.get("/sampling/?labels=people").content.decode()
    assert "No set of this task was labelled yet" in people
    Task.objects.update(active=False)
    assert "No active task has a sampling plan" in client.get("/sampling/").content.decode()
