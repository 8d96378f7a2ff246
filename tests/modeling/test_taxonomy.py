import pytest

from annotation.models import Criterion, Dimension
from generation.models import SamplingPlan, Task
from modeling.starter import world
from modeling.starter.taxonomy import CRITERIA
from modeling.taxonomy import seed

pytestmark = pytest.mark.django_db


def test_it_is_seeded_by_migrating() -> None:
    active = set(Task.objects.active().values_list("slug", flat=True))
    assert active == set(world.TASKS)
    assert set(Task.objects.filter(active=False).values_list("slug", flat=True)) == {
        "background_replacement",
        "text_to_image",
    }
    assert Criterion.objects.count() == len(CRITERIA)


def test_it_asks_of_each_task_what_the_starter_world_can_judge() -> None:
    for slug, dimensions in world.DIMENSIONS.items():
        asked = Criterion.objects.filter(task__slug=slug, dimension__active=True)
        assert set(asked.values_list("dimension__slug", flat=True)) == set(dimensions)


def test_it_puts_the_prompt_exactly_into_the_queries_that_use_it() -> None:
    for dimension in Dimension.objects.prefetch_related("wordings"):
        assert ("{prompt}" in dimension.wording.query) == dimension.uses_prompt


def test_it_keeps_an_admins_edits_when_seeding_again() -> None:
    Task.objects.filter(slug="fill").update(name="Inpainting")
    Dimension.objects.get(slug="structure").wordings.create(version=2, question="q", query="Q?")
    Criterion.objects.filter(task__slug="removal").delete()
    assert seed() == 1  # only the criterion that is missing
    assert Task.objects.get(slug="fill").name == "Inpainting"
    assert Dimension.objects.get(slug="structure").wording.version == 2
    assert SamplingPlan.objects.filter(task__slug="fill", current=True).count() == 1
