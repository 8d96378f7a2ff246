"""Campaigns and what people said in them, over the API."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from annotation import preferences
from annotation.models import Addition, Campaign, Judgment, Rating
from annotation.pseudonyms import pseudonym
from annotation.ratings import Scores, rate
from generation.models import AuditEntry, Project, Role, Verb
from tests.annotation.factories import claim, make_campaign, make_judged_task, slugs, submit
from tests.factories import make_run, make_set, make_source, make_user
from tests.generation.test_api import caller, numbers, post

pytestmark = pytest.mark.django_db
URL = "/api/v1/"


@pytest.fixture
def manager(db: None) -> Client:
    return caller(make_user("max", role=Role.MANAGER))


class TestJudgments:
    def test_annotators_have_names_for_those_who_manage_alone(self, manager: Client) -> None:
        anna = make_user("anna")
        campaign = make_campaign()
        stored = submit(claim(anna, campaign))
        reviewer = caller(make_user("rita", role=Role.REVIEWER))
        for client, name in ((manager, "anna"), (reviewer, None)):
            rows = client.get(f"{URL}judgments").json()["results"]
            assert [row["id"] for row in rows] == [one.pk for one in reversed(stored)]
            assert {row["annotator"] for row in rows} == {pseudonym(anna.pk)}
            assert {row["annotator_name"] for row in rows} == {name}
            assert {(row["best"], row["worst"]) for row in rows} == {(0, 1)}
            assert client.get(f"{URL}judgments/{stored[0].pk}").json()["campaign"] == campaign.pk
        assert caller(make_user()).get(f"{URL}judgments").status_code == 403

    def test_they_are_chosen_by_what_they_are_about(self, manager: Client) -> None:
        first, second = make_campaign(), make_campaign()
        one = submit(claim(make_user("anna"), first))[0]
        other = submit(claim(make_user("ben"), second))[0]
        assert one.pk not in numbers(manager, f"{URL}judgments?campaign={second.pk}")
        dimension = one.dimension.slug
        assert numbers(manager, f"{URL}judgments?dimension={dimension}") == [one.pk]
        Judgment.objects.filter(pk=one.pk).update(current=False)
        assert one.pk not in numbers(manager, f"{URL}judgments?counted=true")
        assert other.pk in numbers(manager, f"{URL}judgments?counted=true")
        assert one.pk in numbers(manager, f"{URL}judgments?counted=false")

    def test_preferences_are_those_that_are_learnt_from(self, manager: Client) -> None:
        submit(claim(make_user("anna"), make_campaign()))
        found = manager.get(f"{URL}preferences?page_size=1&order=oldest").json()
        assert {row["judgment"] for row in found["results"]} == {Judgment.objects.earliest("pk").pk}
        derived = list(preferences.derive(Judgment.objects.filter(dimension__slug=dimension_of())))
        assert [(row["chosen"], row["rejected"]) for row in found["results"]] == [
            (one.chosen, one.rejected) for one in derived
        ]
        assert len(manager.get(found["next"]).json()["results"]) == 5

    def test_ratings_say_which_picture(self, manager: Client) -> None:
        campaign = rating_campaign()
        turn = claim(make_user("anna"), campaign)
        scores = Scores(usable=True, of=dict.fromkeys(slugs(turn), 4))
        rate(assignment=turn, user=turn.annotator, scores=scores)
        found = manager.get(f"{URL}ratings?campaign={campaign.pk}").json()["results"]
        assert {row["candidate"] for row in found} == {2}
        usable = Rating.objects.get(dimension=None)
        assert [row["value"] for row in found if row["dimension"] is None] == [1]
        assert manager.get(f"{URL}ratings/{usable.pk}").json()["wording"] is None


def dimension_of() -> str:
    return Judgment.objects.earliest("pk").dimension.slug


def rating_campaign() -> Campaign:
    from annotation.campaigns import Entry

    task = make_judged_task()
    return make_campaign(
        task=task, sets=[Entry(make_set(make_source(task)), (2,))], purpose="rating"
    )


class TestCampaigns:
    def test_it_is_made_as_on_the_page(self, manager: Client) -> None:
        task = make_judged_task()
        made = make_set(make_source(task))
        body = {"name": "Spring", "tasks": [task.slug], "overlap": 3, "gold_rate": 0.1}
        response = post(manager, "campaigns", body)
        assert response.status_code == 201, response.content
        stored = Campaign.objects.get(name="Spring")
        assert (stored.overlap, stored.gold_rate, stored.state) == (3, 0.1, "open")
        assert (stored.editable, stored.lease_seconds) == (True, 1800)
        assert [item.set for item in stored.items.all()] == [made]
        assert AuditEntry.objects.get(verb=Verb.CAMPAIGN_MADE).actor_name == "max"
        assert manager.get(response["Location"]).json()["tasks"] == [task.slug]

    def test_it_says_field_by_field_what_is_wrong(self, manager: Client) -> None:
        task = make_judged_task()
        make_set(make_source(task))
        good = {"name": "Spring", "tasks": [task.slug]}
        for more, field, says in (
            ({"tasks": ["none-such"]}, "tasks.0", "There is no “none-such”"),
            ({"members": ["nobody"]}, "members.0", "There is no “nobody”"),
            ({"gold_rate": 0.6, "repeat_rate": 0.5}, "repeat_rate", "leave no turn"),
            ({"deadline": "2001-01-01T00:00:00Z"}, "deadline", "in the past"),
            ({"overlap": "3"}, "overlap", "valid integer"),
            ({"purpose": "comparison"}, "a", "required"),
            ({"overlaps": 3}, "overlaps", "is not known here"),
        ):
            response = post(manager, "campaigns", good | more)
            assert response.status_code == 422, more
            assert says in response.json()["errors"][field][0]
        assert (
            "there is no 999" in post(manager, "campaigns", good | {"sets": [999]}).content.decode()
        )
        assert not Campaign.objects.exists()

    def test_sets_may_come_later_and_by_hand(self, manager: Client) -> None:
        task = make_judged_task()
        one, other = (make_set(make_source(task)) for _ in range(2))
        body = {"name": "Spring", "tasks": [task.slug], "sets": [], "state": "draft"}
        number = post(manager, "campaigns", body).json()["id"]
        assert AuditEntry.objects.get(verb=Verb.CAMPAIGN_MADE).detail["after"]["sets"] == 0
        address = f"campaigns/{number}/sets"
        assert post(manager, address, {"sets": [one.pk]}).json() == {"added": 1, "adding": None}
        assert post(manager, address, {"sets": [one.pk]}).json()["added"] == 0
        assert post(manager, address, {}).json()["added"] == 1
        sets = [
            row["set"] for row in manager.get(f"{URL}campaigns/{number}/items").json()["results"]
        ]
        assert sorted(sets) == [one.pk, other.pk]
        assert AuditEntry.objects.filter(verb=Verb.SETS_ADDED).count() == 2

    def test_many_sets_are_added_by_a_worker(self, manager: Client, monkeypatch: Any) -> None:
        task = make_judged_task()
        run = make_run()
        made = [make_set(make_source(task), run=run) for _ in range(2)]
        campaign = make_campaign(task=task, sets=made[:1])
        monkeypatch.setattr("annotation.additions.AT_ONCE", 1)
        response = post(manager, f"campaigns/{campaign.pk}/sets", {"run": run.pk})
        assert response.status_code == 202, response.content
        assert Addition.objects.get().about["run"] == [str(run.pk)]
        found = manager.get(f"{URL}campaigns/{campaign.pk}/progress").json()
        assert found["adding"]["state"] == "queued"
        assert post(manager, f"campaigns/{campaign.pk}/sets", {}).status_code == 409

    def test_it_is_opened_paused_and_closed(self, manager: Client) -> None:
        campaign = make_campaign()
        address = f"campaigns/{campaign.pk}/state"
        for state in ("paused", "open", "closed"):
            assert post(manager, address, {"state": state}).json()["state"] == state
        conflict = post(manager, address, {"state": "paused"})
        assert (conflict.status_code, "cannot become" in conflict.json()["detail"]) == (409, True)
        assert AuditEntry.objects.filter(verb=Verb.CAMPAIGN_STATE).count() == 3

    def test_its_progress_is_that_of_its_page(self, manager: Client) -> None:
        anna = make_user("anna")
        campaign = make_campaign(sets=2, overlap=2)
        submit(claim(anna, campaign))
        found = manager.get(f"{URL}campaigns/{campaign.pk}/progress").json()
        assert (found["judged"], found["wanted"], found["share"]) == (1, 4, 0.25)
        cell = found["coverage"][0]["dimensions"][0]
        assert (cell["wanted"], cell["judged"], cell["picked"]) == (4, 1, 1)
        assert found["people"] == [
            {
                "annotator": pseudonym(anna.pk),
                "annotator_name": "anna",
                "submitted": 1,
                "skipped": 0,
            }
        ]
        viewer = caller(make_user(role=Role.VIEWER))
        assert (
            viewer.get(f"{URL}campaigns/{campaign.pk}/progress").json()["people"][0][
                "annotator_name"
            ]
            is None
        )
        items = manager.get(f"{URL}campaigns/{campaign.pk}/items?full=false").json()["results"]
        assert sorted(row["judged"] for row in items) == [0, 1]
        assert {row["wanted"] for row in items} == {2}

    def test_another_projects_campaign_is_not_there(self, manager: Client) -> None:
        elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
        campaign = make_campaign()
        Campaign.objects.update(project=elsewhere)
        assert numbers(manager, f"{URL}campaigns") == []
        for path in ("", "/progress", "/items"):
            assert manager.get(f"{URL}campaigns/{campaign.pk}{path}").status_code == 404
        assert (
            post(manager, f"campaigns/{campaign.pk}/state", {"state": "closed"}).status_code == 404
        )


def test_feedback_is_read_again_event_by_event(manager: Client) -> None:
    row = make_set().candidates.select_related("policy")[0]
    shop = caller(make_user("shop"), "feedback")
    event = {"candidate": row.pk, "event": "published", "id": "9", "user": "u", "value": 2.5}
    assert post(shop, "feedback", event).status_code == 201
    (found,) = manager.get(f"{URL}feedback?event=published&policy={row.policy}").json()["results"]
    assert (found["id"], found["candidate"], found["value"]) == ("9", row.pk, 2.5)
    assert found["user"] != "u"
    report = manager.get(f"{URL}feedback/report").json()
    assert (report["events"], report["policies"][0]["accepted"]["value"]) == (1, 1.0)


def test_dimensions_come_with_their_wordings(manager: Client) -> None:
    found = manager.get(f"{URL}dimensions/structure").json()
    assert "fill" in found["tasks"]
    assert found["wordings"][0]["version"] == 1
    listed = manager.get(f"{URL}dimensions?task=text_rendering").json()["results"]
    assert "text_rendering" in {one["slug"] for one in listed}
