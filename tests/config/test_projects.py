import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from generation import members
from generation.members import MemberError
from generation.models import Membership, Project, Role
from tests.annotation.factories import claim, make_campaign, submit
from tests.factories import make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(client: Client) -> User:
    user = make_user("ada", role=Role.ADMIN)
    client.force_login(user)
    return user


def roles() -> dict[str, str]:
    rows = Membership.objects.filter(project__slug="main")
    return dict(rows.values_list("user__username", "role"))


def text(response: Any) -> str:
    return str(response.content.decode())


class TestProjects:
    def test_it_lets_staff_make_one_and_makes_them_its_admin(self, client: Client) -> None:
        maker = make_user("max", role=None, is_staff=True)
        client.force_login(maker)
        made = client.post("/projects/", {"name": "Night scenes", "slug": "night"})
        assert made["Location"] == "/projects/night/"
        project = Project.objects.get(slug="night")
        assert project.name == "Night scenes"
        assert project.memberships.get().user == maker
        assert project.memberships.get().role == Role.ADMIN
        twice = client.post("/projects/", {"name": "Other", "slug": "night"})
        assert twice.status_code == 422
        assert "already a project at “night”" in text(twice)

    def test_it_lets_nobody_else_make_one(self, client: Client, admin: User) -> None:
        assert "Make a project" not in text(client.get("/projects/"))
        assert client.post("/projects/", {"name": "N", "slug": "n"}).status_code == 403
        assert Project.objects.count() == 1

    def test_it_lists_ones_own(self, client: Client, admin: User) -> None:
        Project.objects.create(slug="hidden", name="Hidden")
        page = text(client.get("/projects/"))
        assert "Main" in page
        assert "Hidden" not in page
        client.force_login(make_user(role=None))
        assert "You are in no project yet" in text(client.get("/projects/"))


class TestMembers:
    def test_it_adds_by_username_or_e_mail(self, client: Client, admin: User) -> None:
        make_user("anna", role=None)
        make_user("ben", role=None, email="ben@example.org")
        client.post("/projects/main/", {"who": "anna", "role": "annotator"})
        done = client.post(
            "/projects/main/", {"who": "Ben@Example.org", "role": "reviewer"}, follow=True
        )
        assert roles() == {"ada": "admin", "anna": "annotator", "ben": "reviewer"}
        assert "ben is in the project now, as reviewer" in text(done)

    def test_it_explains_whom_it_cannot_add(self, client: Client, admin: User) -> None:
        make_user("anna")
        make_user("ben", role=None, email="same@example.org")
        make_user("bea", role=None, email="same@example.org")
        make_user("gone", role=None, is_active=False)
        for who, says in (
            ("nobody", "Nobody here is called “nobody”"),
            ("gone", "Nobody here is called “gone”"),
            ("anna", "anna is in the project already, as annotator"),
            ("same@example.org", "say the username instead"),
        ):
            response = client.post("/projects/main/", {"who": who, "role": "viewer"})
            assert response.status_code == 422
            assert says in text(response)
        assert client.post("/projects/main/", {"who": "ben", "role": "boss"}).status_code == 422
        assert roles() == {"ada": "admin", "anna": "annotator"}

    def test_it_changes_a_role(self, client: Client, admin: User) -> None:
        anna = make_user("anna")
        url = f"/projects/main/members/{anna.pk}/"
        done = client.post(url, {"role": "manager"}, follow=True)
        assert roles()["anna"] == "manager"
        assert "anna is manager now" in text(done)
        assert "no such role" in text(client.post(url, {"role": "boss"}, follow=True))
        assert roles()["anna"] == "manager"

    def test_it_says_what_removing_does_before_it_is_done(
        self, client: Client, admin: User
    ) -> None:
        anna = make_user("anna")
        campaign = make_campaign()
        [judgment, _] = submit(claim(anna, campaign))
        make_source()
        url = f"/projects/main/members/{anna.pk}/remove/"
        asked = text(client.get(url))
        assert "no longer see its 2 sources" in asked
        assert "What they judged stays" in asked
        assert "anna" in roles()
        client.post(url)
        assert roles() == {"ada": "admin"}
        judgment.refresh_from_db()
        assert judgment.current
        client.force_login(anna)
        assert client.get(f"/campaigns/{campaign.pk}/").status_code == 404
        assert client.get(f"/label/campaign/{campaign.pk}/").status_code == 404
        assert client.get(f"/label/{judgment.assignment_id}/").status_code == 404

    def test_it_keeps_the_last_admin(self, client: Client, admin: User) -> None:
        closed = make_user("closed", role=Role.ADMIN, is_active=False)
        url = f"/projects/main/members/{admin.pk}/"
        for response in (
            client.post(url, {"role": "manager"}, follow=True),
            client.post(f"{url}remove/", follow=True),
        ):
            assert "ada is the only admin of “Main”" in text(response)
        assert roles() == {"ada": "admin", "closed": "admin"}

        closed.is_active = True
        closed.save()
        left = client.post(url, {"role": "manager"})
        assert left["Location"] == "/projects/"
        assert roles()["ada"] == "manager"
        assert client.get("/projects/main/").status_code == 403

    def test_it_finds_no_member_of_another_project(self, client: Client, admin: User) -> None:
        other = Project.objects.create(slug="other", name="Other")
        ben = make_user("ben", role=None)
        Membership.objects.create(project=other, user=ben, role=Role.ADMIN)
        for slug in ("main", "other"):
            url = f"/projects/{slug}/members/{ben.pk}/"
            assert client.post(url, {"role": "viewer"}).status_code == 404
            assert client.post(f"{url}remove/").status_code == 404
        assert Membership.objects.get(user=ben).role == Role.ADMIN


@pytest.mark.django_db(transaction=True)
def test_it_keeps_one_of_two_admins_who_remove_each_other_at_once() -> None:
    people = [make_user(role=Role.ADMIN) for _ in range(2)]
    both = list(Membership.objects.order_by("pk"))
    start = threading.Barrier(2)
    refused: list[str] = []

    def remove(membership: Membership, actor: User) -> None:
        try:
            start.wait(10)
            members.remove(membership, actor=actor)
        except MemberError as error:
            refused.append(str(error))
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=remove, args=pair) for pair in zip(both, people[::-1], strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert Membership.objects.count() == 1
    assert len(refused) == 1


class TestAccount:
    def test_it_saves_the_profile(self, client: Client) -> None:
        user = make_user("anna", email="old@example.org")
        make_user("ben", email="ben@example.org")
        client.force_login(user)
        sent = {"first_name": "Anna", "last_name": "Ito", "email": "anna@example.org"}
        assert client.post("/account/", sent).status_code == 302
        user.refresh_from_db()
        assert (user.get_full_name(), user.email) == ("Anna Ito", "anna@example.org")
        taken = client.post("/account/", sent | {"email": "BEN@example.org"})
        assert taken.status_code == 422
        assert "Somebody else here has this e-mail" in text(taken)
        user.refresh_from_db()
        assert user.email == "anna@example.org"

    def test_it_changes_the_password_and_ends_other_sessions(self, client: Client) -> None:
        user = make_user("anna")
        other = Client()
        other.force_login(user)
        client.force_login(user)
        new = "a quiet lantern 7"
        sent = {"old_password": "wrong", "new_password1": new, "new_password2": new}
        assert client.post("/account/password/", sent).status_code == 200
        done = client.post("/account/password/", sent | {"old_password": "secret"})
        assert done["Location"] == "/account/"
        assert client.get("/account/").status_code == 200
        assert other.get("/account/").status_code == 302
        user.refresh_from_db()
        assert user.check_password(new)

    def test_it_is_linked_from_every_page(self, client: Client) -> None:
        client.force_login(make_user("anna"))
        assert 'href="/account/"' in text(client.get("/"))
