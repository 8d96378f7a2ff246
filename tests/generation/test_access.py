from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.http import Http404
from django.test import Client

from annotation.errors import Refused
from annotation.models import Campaign, Example
from generation import access
from generation.models import Membership, Project, Role, Source
from tests.annotation.factories import make_campaign, make_dimension, make_judged_task
from tests.factories import (
    make_image,
    make_mask_picture,
    make_picture,
    make_set,
    make_source,
    make_task,
    make_user,
)
from tests.generation.test_views import upload

pytestmark = pytest.mark.django_db


@pytest.fixture
def elsewhere() -> Project:
    return Project.objects.create(slug="elsewhere", name="Elsewhere")


def main() -> Project:
    return Project.objects.get(slug="main")


def browser_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


class TestRoles:
    def test_it_lets_each_role_do_what_those_before_it_may(self) -> None:
        for held in Role:
            user = make_user(role=held)
            allowed = [role for role in Role if access.may(user, main(), role)]
            assert allowed == access.LADDER[: access.LADDER.index(held) + 1]

    def test_it_makes_staff_managers_and_superusers_admins_everywhere(
        self, elsewhere: Project
    ) -> None:
        staff = make_user(role=None, is_staff=True)
        chief = make_user(role=None, is_superuser=True)
        assert access.role_in(staff, elsewhere) == Role.MANAGER
        assert access.role_in(chief, elsewhere) == Role.ADMIN
        Membership.objects.create(project=elsewhere, user=staff, role=Role.ADMIN)
        assert access.role_in(staff, elsewhere) == Role.ADMIN
        assert access.roles_of(staff)[elsewhere] == Role.ADMIN
        assert not access.projects_of(make_user(role=None)).exists()

    def test_it_tells_strangers_nothing_and_members_why_not(self, elsewhere: Project) -> None:
        viewer = make_user(role=Role.VIEWER)
        with pytest.raises(Http404):
            access.require(viewer, elsewhere, Role.VIEWER)
        with pytest.raises(PermissionDenied, match="needs the role manager .* yours is viewer"):
            access.require(viewer, main(), Role.MANAGER)

    def test_it_says_why_where_no_project_is_meant(self) -> None:
        with pytest.raises(Http404, match="You are in no project yet"):
            access.require_anywhere(make_user(role=None), Role.VIEWER)
        with pytest.raises(PermissionDenied, match="needs the role manager in a project"):
            access.require_anywhere(make_user(role=Role.VIEWER), Role.MANAGER)

    def test_it_lets_staff_begin_where_there_is_no_project_yet(self) -> None:
        task = make_judged_task()
        Project.objects.all().delete()
        client = browser_of(make_user("chief", role=None, is_staff=True))
        for url in ("/sources/", "/campaigns/", "/campaigns/new/", "/loop/", "/projects/"):
            assert client.get(url).status_code == 200
        picture = {
            "task": task.pk,
            "image": upload("cat.png", make_picture(1)),
            "mask": upload("cat_mask.png", make_mask_picture()),
            "prompt": "a hat",
        }
        client.post("/sources/new/", picture)
        assert Source.objects.get().project == main()


class TestPictures:
    def test_it_shows_pictures_to_members_of_a_project_that_uses_them(
        self, elsewhere: Project
    ) -> None:
        source = make_source()
        made = make_set(source)
        member = browser_of(make_user(role=Role.VIEWER))
        outsider = make_user(role=None)
        Membership.objects.create(project=elsewhere, user=outsider, role=Role.ADMIN)
        stranger = browser_of(outsider)
        used = [source.image, source.mask, *(c.image for c in made.candidates.all())]
        for image in used:
            assert image is not None
            url = f"/images/{image.sha256}.png"
            assert member.get(url).status_code == 200
            assert stranger.get(url).status_code == 404
            assert Client().get(url).status_code == 302
        shared = Source.objects.create(
            project=elsewhere,
            task=source.task,
            image=source.image,
            mask=make_image(),
            split="train",
        )
        assert stranger.get(f"/images/{shared.image.sha256}.png").status_code == 200

    def test_it_shows_examples_to_every_member_and_loose_pictures_to_none(
        self, elsewhere: Project
    ) -> None:
        example = Example.objects.create(dimension=make_dimension(), image=make_image())
        loose = make_image()
        member = make_user(role=None)
        Membership.objects.create(project=elsewhere, user=member, role=Role.VIEWER)
        url = f"/images/{example.image.sha256}.png"
        assert browser_of(member).get(url).status_code == 200
        assert browser_of(make_user(role=None)).get(url).status_code == 404
        assert browser_of(member).get(f"/images/{loose.sha256}.png").status_code == 404

    def test_it_does_not_say_not_modified_to_whoever_was_removed(self) -> None:
        source = make_source()
        user = make_user()
        client = browser_of(user)
        url = f"/images/{source.image.sha256}.png"
        kept = client.get(url)
        assert kept["Cache-Control"].startswith("private")
        assert "Cookie" in kept["Vary"]
        again = {"if-none-match": kept["ETag"]}
        assert client.get(url, headers=again).status_code == 304
        Membership.objects.all().delete()
        assert client.get(url, headers=again).status_code == 404

    def test_it_asks_the_database_once(self, django_assert_num_queries: Any) -> None:
        source = make_source()
        client = browser_of(make_user())
        with django_assert_num_queries(3):  # session, person, picture
            client.get(f"/images/{source.image.sha256}.png")

    def test_it_hides_masks_drawn_as_outlines(self) -> None:
        source = make_source()
        url = f"/label/outline/{source.mask.sha256}.svg"
        assert browser_of(make_user()).get(url).status_code == 200
        assert browser_of(make_user(role=None)).get(url).status_code == 404


class TestProjectsApart:
    def test_it_lists_only_what_is_of_ones_projects(self, elsewhere: Project) -> None:
        make_campaign(name="Ours")
        theirs = make_source(project=elsewhere, prompt="their lantern")
        Campaign.objects.create(project=elsewhere, name="Theirs", state="open")
        client = browser_of(make_user(role=Role.MANAGER))
        campaigns = client.get("/campaigns/").content.decode()
        assert "Ours" in campaigns
        assert "Theirs" not in campaigns
        sources = client.get("/sources/").content.decode()
        assert "their lantern" not in sources
        assert theirs.image.sha256 not in sources

    def test_it_counts_and_takes_only_the_projects_sets(self, elsewhere: Project) -> None:
        task = make_judged_task()
        campaign = make_campaign(task=task, sets=1)
        make_set(make_source(task, project=elsewhere))
        client = browser_of(make_user(role=Role.MANAGER))
        form = client.get("/campaigns/new/").content.decode()
        assert f"{task.name} (1 ready)" in form
        page = client.get(f"/campaigns/{campaign.pk}/").content.decode()
        assert "not in this campaign yet" not in page
        client.post(f"/campaigns/{campaign.pk}/sets/")
        assert campaign.items.count() == 1

    def test_it_makes_nothing_in_a_project_one_does_not_manage(self, elsewhere: Project) -> None:
        task = make_judged_task()
        make_set(make_source(task, project=elsewhere))
        user = make_user(role=Role.MANAGER)
        Membership.objects.create(project=elsewhere, user=user, role=Role.VIEWER)
        client = browser_of(user)
        sent = {"name": "X", "tasks": [task.pk], "overlap": 1, "project": elsewhere.pk}
        assert client.post("/campaigns/new/", sent).status_code == 422
        assert not Campaign.objects.exists()
        before = Source.objects.count()
        client.post(
            "/sources/new/",
            {
                "project": elsewhere.pk,
                "task": task.pk,
                "image": upload("cat.png", make_picture(1)),
                "mask": upload("cat_mask.png", make_mask_picture()),
                "prompt": "a hat",
            },
        )
        assert Source.objects.filter(project=elsewhere).count() == before

    def test_it_lets_choose_the_project_where_there_are_several(self, elsewhere: Project) -> None:
        user = make_user(role=Role.MANAGER)
        client = browser_of(user)
        assert '<select name="project"' not in client.get("/sources/new/").content.decode()
        Membership.objects.create(project=elsewhere, user=user, role=Role.MANAGER)
        for page in ("/sources/new/", "/sources/", "/campaigns/new/"):
            assert '<select name="project"' in client.get(page).content.decode()

        task = make_judged_task()
        picture = {
            "project": elsewhere.pk,
            "task": task.pk,
            "image": upload("cat.png", make_picture(1)),
            "mask": upload("cat_mask.png", make_mask_picture()),
            "prompt": "a hat",
        }
        assert client.post("/sources/new/", picture).status_code == 302
        source = Source.objects.get()
        assert source.project == elsewhere
        make_set(source)
        sent = {"name": "There", "tasks": [task.pk], "overlap": 1, "project": elsewhere.pk}
        assert client.post("/campaigns/new/", sent).status_code == 302
        assert Campaign.objects.get().project == elsewhere
        page = client.get("/sources/?project=elsewhere").content.decode()
        assert "a hat" in page
        assert "No source fits" in client.get("/sources/?project=main").content.decode()

    def test_it_imports_into_the_named_project(self, elsewhere: Project, tmp_path: Path) -> None:
        task = make_task()
        make_picture(1).save(tmp_path / "cat.png")
        make_mask_picture().save(tmp_path / "cat_mask.png")
        said = ["import_sources", str(tmp_path), "--task", task.slug, "--prompt", "a hat"]
        call_command(*said, "--project", "elsewhere")
        call_command(*said, "--project", "elsewhere", "--dry-run")
        assert [source.project for source in Source.objects.all()] == [elsewhere]
        call_command(*said)
        assert Source.objects.filter(project=main()).count() == 1
        with pytest.raises(CommandError, match="no project “nowhere”. Known projects: main, else"):
            call_command(*said, "--project", "nowhere")

    def test_it_refuses_a_set_of_another_project_in_a_campaign(self, elsewhere: Project) -> None:
        task = make_judged_task()
        foreign = make_set(make_source(task, project=elsewhere))
        with pytest.raises(Refused, match="belongs to another project"):
            make_campaign(task=task, sets=[foreign])
