import pytest
from django.test import Client

from generation.models import Membership
from modeling import starter_project


@pytest.mark.django_db
def test_it_adds_one_person_per_role_once(client: Client) -> None:
    for _ in range(2):
        starter_project._add_people()
    held = dict(Membership.objects.values_list("user__username", "role"))
    assert held == {
        "admin": "admin",
        "max": "manager",
        "rita": "reviewer",
        "anna": "annotator",
        "ben": "annotator",
        "vera": "viewer",
    }
    for name in held:
        assert client.login(username=name, password=starter_project.PASSWORD)
