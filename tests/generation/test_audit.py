import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone

from annotation import campaigns
from annotation.models import Campaign
from generation import audit, members, policies, tokens
from generation.models import AuditEntry, GenerationRun, Membership, Policy, Project, Role, Verb
from generation.ownership import JobState
from modeling.models import RewardModel, Round, RoundStep
from modeling.round_steps import activate_reward
from tests.annotation.factories import make_campaign, make_judged_task
from tests.factories import (
    make_mask_picture,
    make_picture,
    make_policy,
    make_run,
    make_set,
    make_source,
    make_task,
    make_user,
)
from tests.generation.test_views import upload
from tests.modeling.test_pages import make_round

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss(client: Client) -> User:
    user = make_user("boss", role=Role.ADMIN, is_staff=True, is_superuser=True)
    client.force_login(user)
    return user


def last(verb: str) -> AuditEntry:
    """The only entry of the verb."""
    return AuditEntry.objects.get(verb=verb)


def count() -> int:
    return AuditEntry.objects.count()


class TestTheTable:
    @pytest.mark.parametrize("act", ["update", "delete", "update nothing"])
    def test_it_refuses_every_change(self, act: str) -> None:
        entry = audit.record(actor=make_user(), verb=Verb.LOGIN, thing=None)
        rows = AuditEntry.objects.filter(pk=entry.pk if act != "update nothing" else 0)
        with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
            rows.delete() if act == "delete" else rows.update(verb="nothing happened")
        with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
            entry.delete()
        entry.verb = "x"
        with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
            entry.save()
        entry.refresh_from_db()
        assert entry.verb == Verb.LOGIN

    def test_it_refuses_plain_sql_too(self) -> None:
        audit.record(actor=None, verb=Verb.LOGIN, thing=None)
        for sql in (
            "DELETE FROM generation_auditentry",
            "UPDATE generation_auditentry SET name=''",
        ):
            with (
                pytest.raises(DatabaseError, match="only added to"),
                transaction.atomic(),
                connection.cursor() as cursor,
            ):
                cursor.execute(sql)

    def test_it_outlives_whoever_and_whatever_it_names(self) -> None:
        user, project = make_user("gone"), Project.objects.create(slug="gone", name="Gone")
        audit.record(actor=user, verb=Verb.PROJECT_MADE, thing=project)
        Membership.objects.all().delete()
        user.delete()
        project.delete()
        entry = AuditEntry.objects.get()
        assert (entry.actor_name, entry.name, entry.kind) == ("gone", "Gone", "project")

    def test_it_goes_with_the_act_it_is_about(self) -> None:
        project = Project.objects.create(slug="p", name="P")
        with transaction.atomic():
            members.add(project=project, user=make_user(), role="viewer", actor=None)
            transaction.set_rollback(True)
        assert not AuditEntry.objects.exists()


class TestLogins:
    def test_it_writes_down_logins_and_failures(self, client: Client) -> None:
        anna = make_user("anna")
        client.post("/login/", {"username": "anna", "password": "wrong"})
        client.post("/login/", {"username": "my secret pw", "password": ""})
        client.post("/login/", {"username": "my secret pw", "password": "x"})
        client.post("/login/", {"username": "anna", "password": "secret"})
        client.post("/logout/")
        rows = list(
            AuditEntry.objects.order_by("pk").values_list("verb", "actor_name", "name", "address")
        )
        assert rows == [
            (Verb.LOGIN_FAILED, "", "anna", "127.0.0.1"),
            (Verb.LOGIN_FAILED, "", "", "127.0.0.1"),  # never what was typed there
            (Verb.LOGIN, "anna", "anna", "127.0.0.1"),
            (Verb.LOGOUT, "anna", "anna", "127.0.0.1"),
        ]
        assert AuditEntry.objects.filter(actor=anna).count() == 2

    @pytest.mark.parametrize(
        ("behind", "forwarded", "address"),
        [
            (False, "6.6.6.6", "127.0.0.1"),
            (True, "6.6.6.6, 10.0.0.9", "10.0.0.9"),
            (True, "nonsense", None),
            (True, "", "127.0.0.1"),
        ],
    )
    def test_it_believes_a_proxy_only_where_there_is_one(
        self, client: Client, settings: Any, behind: bool, forwarded: str, address: str | None
    ) -> None:
        settings.BEHIND_PROXY = behind
        make_user("anna")
        client.post(
            "/login/",
            {"username": "anna", "password": "secret"},
            headers={"X-Forwarded-For": forwarded} if forwarded else {},
        )
        assert last(Verb.LOGIN).address == address


class TestActs:
    """Each administrative act writes one entry."""

    def test_projects_and_members(self) -> None:
        actor, anna = make_user("ada", role=None, is_staff=True), make_user("anna", role=None)
        project = members.make_project(name="Night", slug="night", actor=actor)
        assert count() == 2
        assert last(Verb.PROJECT_MADE).project == project
        assert last(Verb.MEMBER_ADDED).detail == {"after": {"role": "admin"}}
        membership = members.add(project=project, user=anna, role="viewer", actor=actor)
        members.change_role(membership, role="manager", actor=actor)
        members.change_role(membership, role="manager", actor=actor)
        changed = last(Verb.ROLE_CHANGED)
        assert changed.detail == {"before": {"role": "viewer"}, "after": {"role": "manager"}}
        assert (changed.actor, changed.name, changed.project) == (actor, "anna", project)
        members.remove(membership, actor=actor)
        assert last(Verb.MEMBER_REMOVED).detail == {"before": {"role": "manager"}}
        assert count() == 5

    def test_tokens(self) -> None:
        user = make_user()
        token, _ = tokens.make(user=user, name="script", scopes=["read"])
        assert last(Verb.TOKEN_MADE).detail["after"]["scopes"] == ["read"]
        tokens.revoke(token, actor=user)
        assert last(Verb.TOKEN_REVOKED).object_id == str(token.pk)
        assert count() == 2

    def test_the_account(self, client: Client) -> None:
        client.force_login(make_user("anna", email="a@example.org"))
        client.post("/account/", {"first_name": "Anna", "email": "a@example.org"})
        client.post("/account/", {"first_name": "Anna", "email": "a@example.org"})
        assert last(Verb.PROFILE).detail == {
            "before": {"first_name": ""},
            "after": {"first_name": "Anna"},
        }
        new = "a quiet lantern 7"
        sent = {"old_password": "secret", "new_password1": new, "new_password2": new}
        client.post("/account/password/", sent)
        assert last(Verb.PASSWORD).detail == {}

    def test_a_source(self, client: Client, boss: User) -> None:
        task = make_task("mend")
        for _ in range(2):  # the second time it is there already
            client.post(
                "/sources/new/",
                {
                    "task": task.pk,
                    "image": upload("cat.png", make_picture(1)),
                    "mask": upload("cat_mask.png", make_mask_picture()),
                    "prompt": "a hat",
                },
            )
        entry = last(Verb.SOURCE_ADDED)
        assert (entry.actor, entry.kind) == (boss, "source")
        assert entry.project is not None

    def test_campaigns(self, client: Client, boss: User) -> None:
        task = make_judged_task()
        make_set(make_source(task))
        client.post("/campaigns/new/", {"name": "Spring", "tasks": [task.pk], "overlap": 2})
        campaign = Campaign.objects.get()
        made = last(Verb.CAMPAIGN_MADE)
        assert (made.actor, made.name, made.project) == (boss, "Spring", campaign.project)
        assert made.detail == {"after": {"state": "open", "overlap": 2, "sets": 1}}
        make_set(make_source(task))
        client.post(f"/campaigns/{campaign.pk}/sets/")
        assert last(Verb.SETS_ADDED).detail == {"after": {"sets": 1}}
        client.post(f"/campaigns/{campaign.pk}/state/", {"state": "paused"})
        client.post(f"/campaigns/{campaign.pk}/state/", {"state": "paused"})
        client.post(f"/campaigns/{campaign.pk}/state/", {"state": "draft"})
        state = last(Verb.CAMPAIGN_STATE)
        assert state.detail == {"before": {"state": "open"}, "after": {"state": "paused"}}
        assert (state.actor, state.address) == (boss, "127.0.0.1")
        assert count() == 4  # and the login

    def test_what_the_program_does_has_no_actor(self) -> None:
        campaigns.change_state(make_campaign(), "closed")
        assert [(e.actor, e.actor_name) for e in AuditEntry.objects.all()] == [(None, "")] * 2

    def test_policies_and_reward_models(self, client: Client, boss: User) -> None:
        old = make_policy("old", state=Policy.State.ACTIVE)
        new = make_policy("new")
        client.post(f"/policies/{new.pk}/activate/")
        entry = last(Verb.POLICY_ACTIVE)
        assert entry.detail == {"before": {"active": ["old"]}, "after": {"active": ["new"]}}
        policies.activate(new, actor=boss)  # it is already
        assert AuditEntry.objects.filter(verb=Verb.POLICY_ACTIVE).count() == 1
        sent = {"action": "make_active", "_selected_action": [old.pk]}
        client.post("/admin/generation/policy/", sent)
        assert AuditEntry.objects.filter(verb=Verb.POLICY_ACTIVE, actor=boss).count() == 2
        model = RewardModel.objects.create(name="judge", location="x")
        sent = {"action": "make_active", "_selected_action": [model.pk]}
        client.post("/admin/modeling/rewardmodel/", sent)
        assert last(Verb.REWARD_ACTIVE).actor == boss
        activate_reward(model)
        assert AuditEntry.objects.filter(verb=Verb.REWARD_ACTIVE).count() == 2

    def test_rounds(self, client: Client, boss: User) -> None:
        round_ = make_round()
        step = round_.steps.get(name=RoundStep.Name.GENERATE)
        RoundStep.objects.filter(pk=step.pk).update(state=JobState.FAILED)
        client.post(f"/loop/steps/{step.pk}/retry/")
        assert last(Verb.STEP_RETRIED).object_id == str(step.pk)
        client.post(f"/loop/steps/{step.pk}/retry/")  # refused: it is queued
        client.post(f"/loop/{round_.number}/cancel/")
        client.post(f"/loop/{round_.number}/cancel/")
        assert last(Verb.ROUND_CANCELLED).actor == boss
        client.post("/loop/start/", {"annotators": "human", "seed": 0})  # refused: no weights
        assert Round.objects.count() == 1
        assert not AuditEntry.objects.filter(verb=Verb.ROUND_STARTED).exists()

    def test_generation_runs(self, client: Client, boss: User) -> None:
        run = make_run()
        for action in ("cancel", "retry"):
            sent = {"action": action, "_selected_action": [run.pk]}
            client.post("/admin/generation/generationrun/", sent)
        assert last(Verb.RUN_CANCELLED).object_id == str(run.pk)
        assert last(Verb.RUN_RETRIED).object_id == str(run.pk)
        assert GenerationRun.objects.get().state == JobState.QUEUED


class TestAdmin:
    def test_it_writes_down_additions_changes_and_deletions(
        self, client: Client, boss: User
    ) -> None:
        client.post("/admin/auth/group/add/", {"name": "night shift"})
        added = last(Verb.ADMIN_ADDED)
        assert (added.actor, added.kind, added.name) == (boss, "group", "night shift")
        assert added.detail["after"]["name"] == "night shift"
        url = f"/admin/auth/group/{added.object_id}/"
        client.post(f"{url}change/", {"name": "day shift"})
        assert last(Verb.ADMIN_CHANGED).detail == {
            "before": {"name": "night shift"},
            "after": {"name": "day shift"},
        }
        client.post(f"{url}delete/", {"post": "yes"})
        assert last(Verb.ADMIN_DELETED).name == "day shift"

    def test_it_writes_down_each_of_many_that_are_deleted(self, client: Client, boss: User) -> None:
        for name in "ab":
            client.post("/admin/auth/group/add/", {"name": name})
        ids = list(AuditEntry.objects.filter(kind="group").values_list("object_id", flat=True))
        sent = {"action": "delete_selected", "_selected_action": ids, "post": "yes"}
        client.post("/admin/auth/group/", sent)
        gone = AuditEntry.objects.filter(verb=Verb.ADMIN_DELETED)
        assert sorted(gone.values_list("name", flat=True)) == ["a", "b"]

    def test_it_writes_down_no_password(self, client: Client, boss: User) -> None:
        anna = make_user("anna")
        new = "a quiet lantern 7"
        url = f"/admin/auth/user/{anna.pk}/password/"
        client.post(url, {"password1": new, "password2": new, "usable_password": "true"})
        anna.refresh_from_db()
        assert anna.check_password(new)
        entry = last(Verb.ADMIN_CHANGED)
        assert entry.name == "anna"
        assert new not in str(entry.detail)
        assert anna.password not in str(entry.detail)


class TestPage:
    def test_it_shows_admins_what_was_done_in_their_projects(
        self, client: Client, boss: User
    ) -> None:
        night = members.make_project(name="Night", slug="night", actor=boss)
        ada = make_user("ada", role=None)
        members.add(project=night, user=ada, role="admin", actor=boss)
        make_campaign(name="Ours")
        everything = client.get("/audit/").content.decode()
        for name in ("Ours", "Night", "logged in"):
            assert name in everything
        client.force_login(ada)
        page = client.get("/audit/").content.decode()
        assert "added a member" in page
        assert "Ours" not in page
        assert "<td>logged in</td>" not in page
        assert "Ours" not in b"".join(client.get("/audit/entries.csv")).decode()

    def test_it_filters_by_the_address(self, client: Client, boss: User) -> None:
        anna = make_user("anna")
        tokens.make(user=anna, name="first", scopes=["read"])
        tokens.make(user=boss, name="second", scopes=["read"])
        today = timezone.localdate()

        def names(**asked: Any) -> list[str]:
            page = client.get("/audit/", {"verb": Verb.TOKEN_MADE, **asked}).context["page"]
            return [entry.name for entry in page]

        assert names() == ["second", "first"]
        assert "scopes: read" in client.get("/audit/").content.decode()
        assert names(actor="anna") == ["first"]
        assert names(since=today, until=today) == ["second", "first"]
        assert names(since=today + timedelta(days=1)) == []
        assert names(until=today - timedelta(days=1)) == []
        assert "is not understood" in client.get("/audit/?since=x").content.decode()
        assert "No entry fits" in client.get("/audit/?actor=nobody").content.decode()

    def test_it_downloads_what_is_filtered_and_nothing_that_runs(
        self, client: Client, boss: User
    ) -> None:
        tokens.make(user=boss, name='=HYPERLINK("x")', scopes=["read"])
        response = client.get("/audit/entries.csv", {"verb": Verb.TOKEN_MADE})
        lines = list(csv.DictReader(io.StringIO(b"".join(response).decode())))
        assert [line["name"] for line in lines] == ['\'=HYPERLINK("x")']
        assert lines[0]["actor"] == "boss"
        assert response["Content-Type"].startswith("text/csv")

    def test_it_pages_without_a_query_per_entry(
        self, client: Client, boss: User, django_assert_max_num_queries: Any
    ) -> None:
        project = Project.objects.get(slug="main")
        for _ in range(120):
            audit.record(actor=boss, verb=Verb.SETS_ADDED, thing=None, project=project)
        with django_assert_max_num_queries(6):
            page = client.get("/audit/?page=2")
        assert len(page.context["page"].object_list) == 21  # and the login
