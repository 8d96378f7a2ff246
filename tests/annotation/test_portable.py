import uuid

import pytest
from django.db import IntegrityError, transaction

from annotation.portable import set_uid, turn_uid
from generation.installation import installation
from generation.models import Installation
from tests.factories import make_set

ELSEWHERE = uuid.UUID("00000000-0000-4000-8000-000000000001")


def test_it_names_rows_after_the_installation_and_their_number(db: None) -> None:
    here = installation()
    assert set_uid(7, None) == str(uuid.uuid5(here, "set/7")) == set_uid(7, None, of=here)
    assert turn_uid(7, None) == str(uuid.uuid5(here, "turn/7"))
    assert set_uid(7, None, of=ELSEWHERE) == str(uuid.uuid5(ELSEWHERE, "set/7"))


def test_it_keeps_the_name_that_a_row_came_with(db: None) -> None:
    assert set_uid(7, ELSEWHERE) == turn_uid(8, ELSEWHERE) == str(ELSEWHERE)
    assert not Installation.objects.exists()


def test_a_name_is_given_once(db: None) -> None:
    make_set(uid=ELSEWHERE)
    with pytest.raises(IntegrityError, match="set_uid_once"), transaction.atomic():
        make_set(uid=ELSEWHERE)


def test_there_is_one_installation(db: None) -> None:
    assert installation() == installation()
    with pytest.raises(IntegrityError, match="installation_only_one"), transaction.atomic():
        Installation.objects.create(pk=2)
