import pytest

from generation.images import open_image
from generation.models import Candidate
from tests.factories import make_set

pytestmark = pytest.mark.django_db


def test_it_makes_a_ready_set_whose_pictures_are_in_the_store() -> None:
    candidate_set = make_set(size=3)

    candidates = list(Candidate.objects.filter(set=candidate_set).order_by("index"))
    assert [candidate.index for candidate in candidates] == [0, 1, 2]
    assert len({candidate.image_id for candidate in candidates}) == 3
    for candidate in candidates:
        assert candidate.image is not None
        assert open_image(candidate.image).size == (64, 64)
