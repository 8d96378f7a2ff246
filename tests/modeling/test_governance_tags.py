"""Figures per group of sources: what is compared with what, when it alarms, and who sees it."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from math import comb
from pathlib import Path

import numpy as np
import pytest
from django.test import Client

from annotation import queue, ratings
from annotation.ratings import Scores
from generation.models import Policy, Project, Role, Source
from modeling import governance_tags
from modeling.governance_tags import ACCURACY, MARGIN, USABLE, Subject
from modeling.models import Evaluation, EvaluationPair, RewardModel, TrainingRun
from tests.annotation.factories import make_campaign, make_judged_task
from tests.factories import make_image, make_policy, make_set, make_source, make_task, make_user
from tests.modeling.test_pages import make_child


def test_its_p_is_that_of_fishers_exact_test() -> None:
    """8 of 20 right inside, 17 of 20 outside: Fisher's two-sided p by the hypergeometric terms."""
    values = np.array([1.0] * 8 + [0.0] * 12 + [1.0] * 17 + [0.0] * 3)
    inside = np.arange(40) < 20
    found, p = governance_tags.compare(values, inside, np.zeros(40, int))
    chances = [comb(25, k) * comb(15, 20 - k) / comb(40, 20) for k in range(5, 21)]
    exact = sum(one for k, one in zip(range(5, 21), chances, strict=True) if abs(k - 12.5) >= 4.5)
    assert found is not None
    assert p is not None
    assert found.value == pytest.approx(8 / 20 - 17 / 20)
    assert abs(p - exact) < 0.006
    assert found.low < -0.45 < found.high < 0


def test_a_group_of_hard_tasks_is_not_called_worse() -> None:
    """Task 1 succeeds at 90 %, task 2 at 30 %; the group has mostly the second, and is as good."""
    values = np.array(([1.0] * 9 + [0.0]) * 4 + ([1.0] * 3 + [0.0] * 7) * 4)
    tasks = np.repeat([1, 2], 40)
    inside = np.zeros(80, bool)
    inside[:10] = inside[40:70] = True
    assert values[inside].mean() < values[~inside].mean() - 0.2
    found, p = governance_tags.compare(values, inside, tasks)
    assert found is not None
    assert p is not None
    assert found.value == pytest.approx(0, abs=1e-9)
    assert p > 0.9


def test_few_sources_are_not_tested() -> None:
    values = np.array([0.0] * 9 + [1.0] * 30)
    assert governance_tags.compare(values, np.arange(39) < 9, np.zeros(39, int)) == (None, None)


@pytest.fixture
def measured(db: None) -> Policy:
    """30 sources: of ten each in ink, oil and chalk, those in chalk are unusable."""
    policy = make_child(make_policy("parent"), "child")
    figures = {"margin": {"all": {"judge": "the judge"}}}
    evaluation = Evaluation.objects.create(
        kind="policy", policy=policy, parent_policy=policy.parent, figures=figures
    )
    task, picture = make_task(), make_image()
    for number in range(30):
        style = ("ink", "oil", "chalk")[number % 3]
        source = make_source(task, prompt=f"{number}", image=picture, tags={"style": style})
        score = 0.2 if style == "chalk" else 0.9
        EvaluationPair.objects.create(
            evaluation=evaluation,
            source=source,
            seed=number,
            parent_image=picture,
            image=picture,
            scores={"new": {"structure": score}, "margin": {"structure": 1.0, "prompt": 2.0}},
        )
    return policy


def test_it_alarms_where_a_group_is_clearly_worse(measured: Policy, client: Client) -> None:
    made = governance_tags.audit(Subject(measured, None), Project.objects.all())
    assert (made.keys, made.key) == (["style"], "style")
    figures = {group.name: group.figures[USABLE] for group in made.groups}
    assert figures["chalk"].interval.value == 0
    assert figures["ink"].interval.value == 1
    # Wilson's interval of 10 of 10, by hand: 10 / (10 + 1.96²) = .7225.
    assert figures["ink"].interval.low == pytest.approx(0.7225, abs=1e-4)
    assert figures["chalk"].alert == "worse"
    alike = [group.figures[MARGIN].alert for group in made.groups]
    assert alike == ["", "", ""]
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get(f"/governance/tags/?policy={measured.pk}").content.decode()
    assert "style = chalk: Usable" in html
    assert "below the rest" in html
    rows = list(
        csv.DictReader(
            client.get(f"/governance/tags/?policy={measured.pk}&format=csv")
            .getvalue()
            .decode()
            .splitlines()
        )
    )
    chalk = next(row for row in rows if (row["group"], row["figure"]) == ("chalk", "usable"))
    assert (chalk["sources"], chalk["difference"], chalk["alert"]) == ("10", "-1.0", "worse")


def test_the_overview_leads_to_what_alarms(measured: Policy, client: Client) -> None:
    for source in Source.objects.filter(tags__style="chalk"):
        source.tags |= {"light": "dim"}
        source.save()
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get("/governance/").content.decode()
    assert '<a href="/governance/tags/?key=style">style = chalk</a>: Usable' in html
    assert "light = dim" not in html  # nothing to compare it with


def test_it_shows_only_projects_one_is_in(measured: Policy, client: Client) -> None:
    elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
    Source.objects.filter(tags__style="chalk").update(project=elsewhere)
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get(f"/governance/tags/?policy={measured.pk}").content.decode()
    assert "chalk" not in html
    assert "oil" in html


def test_a_mere_word_is_compared_with_those_that_lack_it(measured: Policy) -> None:
    for source in Source.objects.filter(tags__style="chalk"):
        source.tags = {"night": True}
        source.save()
    made = governance_tags.audit(Subject(measured, None), Project.objects.all(), "night")
    assert [(group.name, group.sources) for group in made.groups] == [("no", 20), ("yes", 10)]
    ps = [group.figures[USABLE].p for group in made.groups]
    # One comparison seen from both sides is corrected for once.
    assert all(a == b for a, b in pairwise(ps))
    assert [group.figures[USABLE].alert for group in made.groups] == ["better", "worse"]


@pytest.mark.django_db
def test_it_reads_accuracy_from_the_trainings_held_out_questions(tmp_path: Path) -> None:
    model = RewardModel.objects.create(name="judge", location="x")
    TrainingRun.objects.create(kind="reward", directory=str(tmp_path), reward_model=model)
    source = make_source(tags={"region": ["north", "coast"]})
    other = make_set(make_source(source.task, tags={"region": "south"}))
    lines = [
        {"key": f"{made.pk}:a:b:{n}", "relation": relation, "winner_first": first}
        for made, n, relation, first in [
            (make_set(source), 1, "direct", 0.5),
            (other, 1, "direct", -0.5),
            (other, 2, "direct", 0.5),
            (other, 3, "implied", -0.5),
        ]
    ]
    rows = [json.dumps({**one, "task": "t", "dimension": "d", "winner_second": 0}) for one in lines]
    (tmp_path / "holdout.jsonl").write_text("\n".join(rows))
    made = governance_tags.audit(Subject(None, model), Project.objects.all())
    found = {group.name: group.figures[ACCURACY].interval.value for group in made.groups}
    assert found == {"coast": 1.0, "north": 1.0, "south": 0.5}


@pytest.mark.django_db
def test_people_say_what_is_usable_where_no_ground_truth_does(client: Client) -> None:
    policy, anna, task = make_policy(), make_user("anna"), make_judged_task(1)
    asked = task.dimensions.get().slug
    sets = [make_set(make_source(task, tags={"age": "old"}), policy=policy, size=1) for _ in "ab"]
    campaign = make_campaign(task=task, sets=sets, purpose="rating")
    for usable in (True, False):
        turn = queue.claim(user=anna, campaign=campaign)
        assert turn is not None
        ratings.rate(assignment=turn, user=anna, scores=Scores(usable, {asked: 3}))
    made = governance_tags.audit(Subject(policy, None), Project.objects.all())
    assert made.groups[0].figures[USABLE].interval.value == 0.5
    assert "people's ratings" in made.bases[USABLE]
    client.force_login(make_user(role=Role.VIEWER))
    assert "too few" in client.get(f"/governance/tags/?policy={policy.pk}").content.decode()


@pytest.mark.django_db
def test_it_says_what_to_do_where_nothing_is_tagged(client: Client) -> None:
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get("/governance/tags/?policy=99&key=nothing").content.decode()
    assert "No measured source carries a tag." in html
