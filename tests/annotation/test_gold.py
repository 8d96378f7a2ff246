from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from PIL import Image as Pillow

from annotation import gold, judgments, review
from annotation.errors import Refused
from annotation.models import Campaign, Dimension, Gold
from generation.models import Task
from modeling.known_answers import from_truth
from modeling.starter import world
from modeling.starter.truth import score
from tests.annotation.factories import make_campaign, make_gold, make_judged_task, make_turn
from tests.factories import make_set, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def task() -> Task:
    return make_judged_task(1)


@pytest.fixture
def dimension(task: Task) -> Dimension:
    return task.dimensions.get()


@pytest.fixture
def people() -> list[User]:
    return [make_user() for _ in range(3)]


@pytest.fixture
def campaign(task: Task) -> Campaign:
    return make_campaign(task=task, sets=5, overlap=3)


class TestSetGold:
    def test_it_keeps_an_answer_in_place_of_the_earlier_one(
        self, task: Task, dimension: Dimension
    ) -> None:
        made = make_set(make_source(task))
        gold.set_gold(set=made, dimension=dimension, best=0, worst=1)
        gold.set_gold(
            set=made.pk, dimension=dimension.pk, best=2, worst=3, explanation="See the edge."
        )
        kept = Gold.objects.get()
        assert (kept.best.index, kept.worst.index, kept.origin) == (2, 3, "hand")
        assert kept.explanation == "See the edge."

    def test_it_refuses_what_is_no_answer(self, task: Task, dimension: Dimension) -> None:
        made = make_set(make_source(task))
        with pytest.raises(Refused, match="best and worst"):
            gold.set_gold(set=made, dimension=dimension, best=1, worst=1)
        with pytest.raises(Refused, match="no candidate 9"):
            gold.set_gold(set=made, dimension=dimension, best=9, worst=1)
        assert not Gold.objects.exists()
        with pytest.raises(IntegrityError):
            make_gold(made, dimension, 2, 2)


class TestUnanimous:
    def test_it_takes_only_picks_without_a_dissenting_voice(
        self, campaign: Campaign, dimension: Dimension, people: list[User]
    ) -> None:
        agreed, split, same, few, known = campaign.items.order_by("pk")
        for k, user in enumerate(people):
            make_turn(agreed, user, {dimension: (1, 2)})
            make_turn(split, user, {dimension: (1, 2 + k % 2)})
            make_turn(same, user, {dimension: "no_difference"})
            make_turn(known, user, {dimension: (1, 2)})
        for user in people[:2]:
            make_turn(few, user, {dimension: (0, 3)})
        make_gold(known.set, dimension, 0, 1)
        found = gold.unanimous(campaign)
        assert found == [gold.Known(agreed.set_id, dimension.pk, 1, 2)]
        both = gold.unanimous(campaign, min_annotators=2)
        assert [k.set for k in both] == [agreed.set_id, few.set_id]
        assert len(gold.unanimous(campaign, min_annotators=2, limit=1)) == 1
        with pytest.raises(Refused, match="two annotators or more"):
            gold.unanimous(campaign, min_annotators=1)

    def test_it_never_overwrites_what_is_known(
        self, campaign: Campaign, dimension: Dimension
    ) -> None:
        first, second, *_ = campaign.items.order_by("pk")
        make_gold(first.set, dimension, 0, 1)
        found = [gold.Known(item.set_id, dimension.pk, 2, 3, True) for item in (first, second)]
        assert gold.keep(found, origin=Gold.Origin.CONSENSUS, practice=True) == 1
        kept = Gold.objects.get(set=second.set)
        assert (kept.best.index, kept.origin, kept.attention, kept.practice) == (
            2,
            "consensus",
            True,
            True,
        )
        assert Gold.objects.get(set=first.set).best.index == 0


class TestDecision:
    def test_it_makes_a_decision_known(self, campaign: Campaign, dimension: Dimension) -> None:
        item = campaign.items.order_by("pk")[0]
        answers = {dimension.slug: judgments.Answer("picked", 3, 0)}
        turn = review.decide(item=item, user=make_user(), answers=answers, comment="Blurred.")
        gold.from_decision(turn)
        kept = Gold.objects.get()
        assert (kept.best.index, kept.worst.index, kept.explanation) == (3, 0, "Blurred.")

    def test_it_refuses_what_decides_nothing(
        self, campaign: Campaign, dimension: Dimension, people: list[User]
    ) -> None:
        item = campaign.items.order_by("pk")[0]
        with pytest.raises(Refused, match="Only a reviewer"):
            gold.from_decision(make_turn(item, people[0], {dimension: (0, 1)}))
        answers = {dimension.slug: judgments.Answer("no_difference")}
        with pytest.raises(Refused, match="picks no best"):
            gold.from_decision(review.decide(item=item, user=people[0], answers=answers))
        assert not Gold.objects.exists()


class TestTruth:
    @pytest.fixture
    def starter(self) -> Campaign:
        """Two sets of a starter scene: as it should be, and three shades of wrong."""
        task = Task.objects.get(slug="fill")
        sets = []
        for seed in (1, 2):
            scene = world.sample_scene(np.random.default_rng(seed), "fill")
            right = world.target_picture(scene)
            pictures = [self.spoilt(right, scene, amount) for amount in (40, 0, 120, 60)]
            source = make_source(task, scene=scene.to_dict())
            sets.append(make_set(source, pictures=pictures))
        return make_campaign(task=task, sets=sets, name="Starter")

    @staticmethod
    def spoilt(picture: np.ndarray, scene: world.Scene, amount: int) -> Pillow.Image:
        rng = np.random.default_rng(amount)
        noise = rng.normal(0, amount, picture.shape) * (
            world.mask_picture(scene.box)[..., None] > 0
        )
        return Pillow.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))

    def test_it_knows_what_is_plainly_best_and_worst(self, starter: Campaign) -> None:
        found = from_truth(starter)
        assert found
        for known in found:
            made = starter.sets.get(pk=known.set)
            scene = world.Scene.from_dict(made.source.scene or {})
            slug = Dimension.objects.get(pk=known.dimension).slug
            from generation import images

            values = [
                score(np.asarray(images.open_image(c.image)), scene)[slug]
                for c in made.candidates.order_by("index")
                if c.image
            ]
            ranked = sorted(values)
            assert values[known.best] == ranked[-1] >= ranked[-2] + 0.15
            assert values[known.worst] == ranked[0] <= ranked[1] - 0.15
        assert len({known.set for known in from_truth(starter, limit=1)}) <= 1

    def test_its_command_says_makes_and_writes(self, starter: Campaign, tmp_path: Path) -> None:
        out, target = io.StringIO(), tmp_path / "gold.json"
        options = {"campaign": "Starter", "origin": "truth", "stdout": out}
        call_command("make_gold", **options, dry_run=True)
        assert "Would make" in out.getvalue()
        assert not Gold.objects.exists()
        call_command("make_gold", **options, json=str(target))
        said = json.loads(target.read_text())
        assert said["answers"] == Gold.objects.filter(origin="truth").count() > 0
        call_command("make_gold", **options)
        assert "Made 0 known answers" in out.getvalue()

    def test_its_command_takes_consensus(
        self, campaign: Campaign, dimension: Dimension, people: list[User]
    ) -> None:
        for user in people:
            make_turn(campaign.items.order_by("pk")[0], user, {dimension: (1, 2)})
        out = io.StringIO()
        options = {"campaign": str(campaign.pk), "origin": "consensus", "stdout": out}
        call_command("make_gold", **options, practice=True)
        kept = Gold.objects.get()
        assert (kept.origin, kept.practice) == ("consensus", True)
        with pytest.raises(CommandError, match="two annotators"):
            call_command("make_gold", **options, min_annotators=1)
        with pytest.raises(CommandError, match="ground truth is not known"):
            call_command("make_gold", campaign=campaign.name, origin="truth")
