"""The pages of one policy and of one reward model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.test import Client

from annotation.models import Campaign, Dimension
from generation.models import CandidateSet, Policy, Project, Source, Task, default_project
from modeling import policy_pages, reward_pages
from modeling.models import Evaluation, EvaluationPair, RewardModel, TrainingRun
from modeling.reward_pages import Question
from tests.annotation.factories import make_campaign, make_judged_task, make_turn
from tests.factories import make_image, make_policy, make_set, make_source, make_user
from tests.modeling.test_leaderboard import judged, mixed_set
from tests.modeling.test_pages import make_child, make_evaluation

pytestmark = pytest.mark.django_db


class TestAcross:
    def test_the_worst_regression_comes_first_with_its_dimensions(self) -> None:
        child = make_child(make_policy("parent"), "child")
        make_evaluation(child, [(0.5, 0.9), (0.9, 0.2), (0.6, 0.6)])
        found = policy_pages.across(child, Project.objects.all())
        assert [one.name for one in found.policies] == ["parent", "child"]
        assert found.against == child.parent
        assert [round(row.change or 0, 3) for row in found.rows] == [-0.7, 0.0, 0.4]
        [(name, change)] = found.rows[0].dimensions
        assert name == "structure"
        assert change == pytest.approx(-0.7)

    def test_any_policy_of_the_same_source_and_noise_can_be_set_against_it(self) -> None:
        base = make_policy("base")
        one, other = make_child(base, "one"), make_child(base, "other")
        pair = make_evaluation(one, [(0.5, 0.6)]).pairs.get()
        second = make_evaluation(other, [])
        picture = make_image()
        EvaluationPair.objects.create(
            evaluation=second,
            source=pair.source,
            seed=pair.seed,
            parent_image=pair.parent_image,
            image=picture,
            scores={"parent": {"structure": 0.5}, "new": {"structure": 0.9}},
        )
        found = policy_pages.across(one, Project.objects.all(), against=other.pk)
        assert found.against == other
        assert [frame.policy.name for frame in found.rows[0].frames] == ["base", "one", "other"]
        assert found.rows[0].before is not None
        assert found.rows[0].before.image == picture
        assert found.rows[0].change == pytest.approx(-0.3)

    def test_without_ground_truth_the_margin_says_who_is_better(self) -> None:
        child = make_child(make_policy("parent"), "child")
        pair = make_evaluation(child, [(0.5, 0.9)]).pairs.get()
        pair.scores = {"margin": {"structure": -1.0, "consistency": 0.5}}
        pair.save()
        [row] = policy_pages.across(child, Project.objects.all()).rows
        assert row.change == pytest.approx(-0.25)

    def test_it_leaves_out_sources_of_other_projects(self) -> None:
        child = make_child(make_policy("parent"), "child")
        make_evaluation(child, [(0.5, 0.9), (0.4, 0.9)])
        elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
        Source.objects.filter(pk=EvaluationPair.objects.all()[0].source_id).update(
            project=elsewhere
        )
        mine = Project.objects.filter(pk=default_project())
        assert len(policy_pages.across(child, mine).rows) == 1


class TestCourse:
    def test_it_says_what_was_measured_of_every_policy_of_the_line(self) -> None:
        task = make_judged_task(1)
        parent = make_policy("parent")
        child = make_child(parent, "child")
        make_evaluation(child, [])
        said: list[tuple[int, int] | str] = [(1, 0), (1, 0), "no_difference", (0, 1)]
        sets = [(mixed_set(task, parent, child), answer) for answer in said]
        judged(task, task.dimensions.get(), *sets)

        first, second = policy_pages.course(child, Project.objects.all())

        assert (first.truth, second.truth) != (None, None)
        assert first.truth is not None
        assert second.truth is not None
        # The evaluation's figures: 0.6 before, 0.75 after, of 300.
        assert (first.truth.value, second.truth.value) == pytest.approx((0.6, 0.75))
        assert second.truth.low == pytest.approx(0.698, abs=1e-3)
        assert second.net is not None
        assert (second.net.value, second.net.n) == (0.25, 4)
        assert first.net is None
        assert len(policy_pages.course_charts([first, second])) == 2


class TestPolicyPage:
    def test_it_shows_filmstrip_slider_and_command(self, client: Client) -> None:
        child = make_child(make_policy("parent"), "child")
        make_evaluation(child, [(0.5, 0.9)] * 14)
        client.force_login(make_user(role="manager"))
        page = client.get(f"/policies/{child.pk}/").content.decode()
        assert page.count("data-swipe") == 12
        assert "Page 1 of 2" in page
        assert "export_policy" in page
        assert client.get(f"/policies/{child.pk}/?page=2").content.count(b"data-swipe") == 2
        nothing = client.get(f"/policies/{child.pk}/?against=oops&task=7777&page=x")
        assert nothing.status_code == 200

    def test_a_manager_downloads_the_lora(self, client: Client, tmp_path: Path) -> None:
        (tmp_path / policy_pages.LORA_FILE).write_bytes(b"weights")
        policy = make_policy("my policy", adapter=str(tmp_path))
        client.force_login(make_user(role="manager"))
        response = client.get(f"/policies/{policy.pk}/weights/")
        assert b"".join(response.streaming_content) == b"weights"  # type: ignore[attr-defined]
        assert 'filename="my-policy.safetensors"' in response["Content-Disposition"]
        without = make_policy("bare")
        page = client.get(f"/policies/{without.pk}/weights/", follow=True).content.decode()
        assert "has no LoRA on this machine" in page


def question(first: float, second: float, **fields: str) -> Question:
    values = {"key": "1:a:b:x", "task": "fill", "dimension": "structure", "relation": "direct"}
    return Question(**(values | fields), winner_first=first, winner_second=second)


def make_mistaken(
    model: RewardModel,
    directory: Path,
    one: CandidateSet,
    dimension: Dimension,
    best: int,
    worst: int,
) -> None:
    """A training whose model is sure of the opposite of what people said of this set."""
    shown = one.candidates.filter(index__in=(best, worst)).select_related("image")
    hashes = sorted(candidate.image.sha256[:16] for candidate in shown if candidate.image)
    row = question(-2.0, 1.0, key=f"{one.pk}:{':'.join(hashes)}:{dimension.slug}")
    (directory / "holdout.jsonl").write_text(json.dumps(vars(row)) + "\n")
    TrainingRun.objects.create(kind="reward", directory=str(directory), reward_model=model)


class TestReward:
    def test_calibration_counts_both_orders_by_confidence(self) -> None:
        """σ(0.2) = 0.55 and σ(3) = 0.95; the second pair is wrong in both orders."""
        bins = reward_pages.reliability([question(3.0, -3.0), question(-0.2, 0.2)])
        assert [(one.name, one.right.value, one.right.n) for one in bins] == [
            ("50–60 %", 0.0, 2),
            ("90–100 %", 1.0, 2),
        ]
        assert bins[1].said == pytest.approx(0.9526, abs=1e-4)

    def test_order_bias_is_the_share_of_firsts(self) -> None:
        """The first of both orders: always first; the other pair follows the pictures."""
        rows = reward_pages.order_bias([question(1.0, 0.5), question(1.0, -0.5)])
        assert (rows[0].first.value, rows[0].first.n) == (0.75, 2)
        assert rows[0].same.value == 0.5

    def test_accuracy_stands_model_by_model(self) -> None:
        models = [RewardModel.objects.create(name=f"r{n}", location="x") for n in range(3)]
        for model, accuracy in zip(models, (0.6, 0.7, 0.8), strict=True):
            cell = {"accuracy": accuracy, "low": 0.5, "high": 0.9, "n": 40}
            figures = {"reward_accuracy": {"fill": {"structure": cell}}}
            Evaluation.objects.create(kind="reward", reward_model=model, figures=figures)
        heat = reward_pages.history(models[1])
        assert [model.name for model in heat.models] == ["r0", "r1"]
        assert [cell.value for cell in heat.rows[0][2] if cell] == [0.6, 0.7]

    @pytest.fixture
    def task(self) -> Task:
        return make_judged_task(1)

    @pytest.fixture
    def dimension(self, task: Task) -> Dimension:
        return task.dimensions.get()

    def trained(self, directory: Path, task: Task, dimension: Dimension) -> RewardModel:
        one = make_set(make_source(task), policy=make_policy())
        campaign = make_campaign(task=task, sets=[one])
        make_turn(campaign.items.get(), make_user(), {dimension: (2, 0)})
        model = RewardModel.objects.create(name="judge", location="x")
        make_mistaken(model, directory, one, dimension, 2, 0)
        return model

    def test_a_sure_mistake_is_shown_and_judged_again(
        self, client: Client, tmp_path: Path, task: Task, dimension: Dimension
    ) -> None:
        model = self.trained(tmp_path, task, dimension)
        [dispute] = reward_pages.disputes(reward_pages.questions(model), Project.objects.all())
        assert (dispute.chosen.index, dispute.rejected.index, dispute.margin) == (2, 0, -1.5)

        client.force_login(make_user(role="manager"))
        page = client.get(f"/reward-models/{model.pk}/").content.decode()
        assert "Where it is surest against people" in page
        assert "Order bias" in page
        address = f"/reward-models/{model.pk}/again/{dispute.set.pk}/"
        for _ in range(2):
            client.post(address)
        campaign = Campaign.objects.get(name__startswith="Judge again: judge")
        assert [item.set for item in campaign.items.all()] == [dispute.set]
        assert campaign.state == "open"

    def test_strangers_see_no_dispute_and_viewers_put_nothing_back(
        self, client: Client, tmp_path: Path, task: Task, dimension: Dimension
    ) -> None:
        model = self.trained(tmp_path, task, dimension)
        found = reward_pages.questions(model)
        assert reward_pages.disputes(found, Project.objects.none()) == []
        one = reward_pages.disputes(found, Project.objects.all())[0].set
        client.force_login(make_user(role="viewer"))
        assert client.post(f"/reward-models/{model.pk}/again/{one.pk}/").status_code == 403


def test_a_policy_without_anything_still_has_a_page(client: Client) -> None:
    client.force_login(make_user(role="viewer"))
    theirs = Policy.objects.create(name="Ideogram", kind=Policy.Kind.EXTERNAL)
    page = client.get(f"/policies/{theirs.pk}/").content.decode()
    assert "Not evaluated against a parent yet." in page
    assert "export_policy" not in page
