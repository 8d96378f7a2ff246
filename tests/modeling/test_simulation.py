import numpy as np
import pytest
from PIL import Image

from annotation.campaigns import open_campaign
from annotation.models import Assignment, Campaign, Judgment
from generation import images
from generation.models import CandidateSet, Task
from modeling.simulation import NAMES, NotSimulable, simulate
from modeling.starter import world
from tests.factories import make_set, make_source

pytestmark = pytest.mark.django_db


def make_scene_set(seed: int, task: str = "fill") -> CandidateSet:
    """A perfect answer at index 2 and three that are blank under the mask."""
    rng = np.random.default_rng(seed)
    example = world.sample_example(rng, task)
    blank = np.where(example.mask[..., None] > 0, 128, example.target).astype(np.uint8)
    pictures = [Image.fromarray(blank)] * 4
    pictures[2] = Image.fromarray(example.target)
    source = make_source(
        Task.objects.get(slug=task),
        image=images.store(Image.fromarray(example.image)),
        mask=images.store(Image.fromarray(example.mask)),
        prompt=example.prompt,
        scene=example.scene.to_dict(),
    )
    return make_set(source, pictures=pictures)


def make_campaign(count: int = 3) -> Campaign:
    sets = [make_scene_set(seed) for seed in range(count)]
    return open_campaign(name="simulated", sets=sets, simulated=True)


def test_it_prefers_the_perfect_answer_when_it_never_slips() -> None:
    campaign = make_campaign(3)
    assert simulate(campaign=campaign, noise=0.0) == 3
    picked = Judgment.objects.filter(dimension__slug="text_alignment")
    assert {judgment.best.index for judgment in picked if judgment.best} == {2}
    assert picked.count() == 3


def test_it_labels_every_dimension_through_the_queue() -> None:
    campaign = make_campaign(2)
    simulate(campaign=campaign)
    turns = Assignment.objects.filter(item__campaign=campaign)
    assert {turn.state for turn in turns} == {"submitted"}
    assert {turn.annotator.username for turn in turns} <= set(NAMES)
    assert Judgment.objects.count() == 2 * len(world.DIMENSIONS["fill"])


def test_it_stops_at_the_limit_and_goes_on_later() -> None:
    campaign = make_campaign(3)
    assert simulate(campaign=campaign, limit=1) == 1
    assert simulate(campaign=campaign) == 2
    assert simulate(campaign=campaign) == 0


def test_it_slips_as_often_as_it_is_told() -> None:
    campaign = make_campaign(12)
    simulate(campaign=campaign, noise=1.0, seed=1)
    best = [j.best.index for j in Judgment.objects.all() if j.best]
    assert len(set(best)) > 1


def test_it_refuses_pictures_without_ground_truth() -> None:
    campaign = open_campaign(
        name="photos", sets=[make_set(make_source(Task.objects.get(slug="fill")))]
    )
    with pytest.raises(NotSimulable, match="1 sets of campaign 'photos'"):
        simulate(campaign=campaign)
    assert not Judgment.objects.exists()


def test_it_refuses_an_impossible_noise() -> None:
    with pytest.raises(NotSimulable, match="between 0 and 1"):
        simulate(campaign=make_campaign(1), noise=1.5)
