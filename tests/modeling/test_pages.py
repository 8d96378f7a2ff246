import json
from pathlib import Path

import pytest
from django.test import Client

from annotation.models import Campaign
from generation.models import Policy, Project, Role, Source
from generation.ownership import JobState
from modeling import pages
from modeling.models import Evaluation, EvaluationPair, RewardModel, Round, RoundStep, TrainingRun
from tests.factories import make_image, make_policy, make_source, make_user

pytestmark = pytest.mark.django_db


def make_round(**fields: object) -> Round:
    policy = Policy.objects.filter(name="parent").first() or make_policy("parent")
    reward, _ = RewardModel.objects.get_or_create(name="reward", defaults={"location": "x"})
    number = Round.objects.count() + 1
    values = {"parent_policy": policy, "parent_reward": reward, "number": number} | fields
    round_ = Round.objects.create(**values)
    for position, name in enumerate(RoundStep.Name.values):
        RoundStep.objects.create(round=round_, name=name, position=position)
    return round_


def make_evaluation(policy: Policy, scores: list[tuple[float, float]]) -> Evaluation:
    evaluation = Evaluation.objects.create(
        kind=Evaluation.Kind.POLICY,
        policy=policy,
        parent_policy=policy.parent,
        figures={
            "usable": {
                "all": {
                    "parent": 0.6,
                    "new": 0.75,
                    "difference": 0.15,
                    "low": 0.1,
                    "high": 0.2,
                    "n": 300,
                }
            },
            "dimensions": {
                "fill": {"structure": {"parent": 0.8, "new": 0.7, "low": -0.15, "high": -0.05}}
            },
        },
    )
    for number, (before, after) in enumerate(scores):
        EvaluationPair.objects.create(
            evaluation=evaluation,
            source=make_source(),
            seed=number,
            parent_image=make_image(),
            image=make_image(),
            scores={"parent": {"structure": before}, "new": {"structure": after}},
        )
    return evaluation


def make_child(parent: Policy, name: str) -> Policy:
    return make_policy(name, kind=Policy.Kind.TRAINED, parent=parent)


def test_it_puts_the_worst_regression_first() -> None:
    child = make_child(make_policy("parent"), "child")
    make_evaluation(child, [(0.5, 0.9), (0.9, 0.2), (0.6, 0.6)])
    strip = pages.filmstrip(child)
    assert strip.columns == ["parent", "child"]
    assert [round(row.change, 3) for row in strip.strips] == [-0.7, 0.0, 0.4]


def test_it_shows_the_same_source_and_seed_across_the_lineage() -> None:
    child = make_child(make_policy("parent"), "child")
    grandchild = make_child(child, "grandchild")
    first = make_evaluation(child, [(0.5, 0.6)])
    pair = first.pairs.get()
    second = make_evaluation(grandchild, [])
    newest = make_image()
    EvaluationPair.objects.create(
        evaluation=second,
        source=pair.source,
        seed=pair.seed,
        parent_image=pair.image,
        image=newest,
        scores={"parent": {"structure": 0.6}, "new": {"structure": 0.8}},
    )
    strip = pages.filmstrip(grandchild)
    assert strip.columns == ["parent", "child", "grandchild"]
    assert [frame.image for frame in strip.strips[0].frames] == [
        pair.parent_image,
        pair.image,
        newest,
    ]


def test_it_reads_metrics_up_to_the_line_being_written(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": 1 / (step + 1)}) for step in range(5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')
    run = TrainingRun(kind=TrainingRun.Kind.REWARD, directory=str(tmp_path))
    assert [row["step"] for row in pages.metrics(run)] == [0, 1, 2, 3, 4]
    assert pages.curves(run)[0].title == "Loss: 1 → 0.2"


def test_it_shows_a_gate_that_did_not_pass_as_failed() -> None:
    round_ = make_round()
    gate = round_.steps.get(name=RoundStep.Name.GATE_REWARD)
    gate.state = JobState.SUCCEEDED
    gate.result = {"passed": False, "reason": "not better on 120 pairs"}
    gate.save()
    card = next(card for card in pages.step_cards(round_) if card.step == gate)
    assert (card.state, card.reason) == ("failed", "not better on 120 pairs")


def test_it_shows_no_buttons_to_those_who_may_only_look(client: Client) -> None:
    policy = make_policy()
    for role, shown in ((Role.VIEWER, False), (Role.MANAGER, True)):
        client.force_login(make_user(role=role))
        assert ("Start a round" in client.get("/loop/").content.decode()) is shown
        assert ("Make active" in client.get("/policies/").content.decode()) is shown
    assert client.get(f"/policies/{policy.pk}/").status_code == 200


def test_it_leaves_out_pictures_of_projects_one_is_not_in(client: Client) -> None:
    child = make_child(make_policy("parent"), "child")
    make_evaluation(child, [(0.5, 0.9), (0.4, 0.9)])
    hidden = EvaluationPair.objects.all()[0]
    elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
    Source.objects.filter(pk=hidden.source_id).update(project=elsewhere, prompt="a secret lamp")
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get(f"/policies/{child.pk}/").content.decode()
    assert hidden.image.sha256 not in html
    assert "a secret lamp" not in html
    assert EvaluationPair.objects.all()[1].image.sha256 in html
    assert client.get(f"/images/{hidden.image.sha256}.png").status_code == 404
    shown = EvaluationPair.objects.all()[1]
    for image in (shown.image, shown.parent_image):
        assert client.get(f"/images/{image.sha256}.png").status_code == 200


def test_it_shows_a_rounds_steps_figures_and_pictures(client: Client) -> None:
    child = make_child(make_policy("parent"), "child")
    make_evaluation(child, [(0.5, 0.9)])
    round_ = make_round(
        policy=child, campaign=Campaign.objects.create(name="round 1", state="open")
    )
    client.force_login(make_user(is_staff=True))
    response = client.get("/loop/", follow=True)
    assert response.redirect_chain == [(f"/loop/{round_.number}/", 302)]
    html = response.content.decode()
    assert "Train policy" in html
    assert "0.750" in html
    assert "structure" in html
    fragment = client.get(f"/loop/{round_.number}/", headers={"HX-Request": "true"})
    assert "<html" not in fragment.content.decode()
    assert 'hx-trigger="every 2s"' in fragment.content.decode()


def test_it_makes_a_policy_active_and_retires_the_other(client: Client) -> None:
    old = make_policy("old", state=Policy.State.ACTIVE)
    new = make_policy("new")
    client.force_login(make_user(is_staff=True))
    client.post(f"/policies/{new.pk}/activate/")
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.state, new.state) == ("retired", "active")
