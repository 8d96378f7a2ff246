import pytest

from annotation.checks import taxonomy_can_be_asked
from annotation.models import Dimension
from tests.annotation.factories import make_dimension, make_judged_task
from tests.factories import make_task

pytestmark = pytest.mark.django_db


def said() -> str:
    return " ".join(message.msg for message in taxonomy_can_be_asked(databases=["default"]))


def test_it_names_a_dimension_without_wording() -> None:
    make_dimension("worded")
    Dimension.objects.create(slug="mute", name="Mute")
    assert "“Mute” has no wording" in said()
    assert "Worded" not in said()


def test_it_names_an_active_task_without_dimensions() -> None:
    make_task(name="Lonely")
    make_task(name="Sleeping", active=False)
    make_judged_task(name="Judged")
    assert "“Lonely” has no active dimension" in said()
    assert "Sleeping" not in said()
    assert "Judged" not in said()
