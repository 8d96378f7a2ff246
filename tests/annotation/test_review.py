from __future__ import annotations

import csv
import io
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation import judgments, review
from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Assignment, Campaign, Dimension, Flag, Gold, Item, Judgment
from generation.models import Role, Task
from tests.annotation.factories import make_campaign, make_judged_task, make_turn
from tests.factories import make_user

pytestmark = pytest.mark.django_db
State = Assignment.State
Kind = Assignment.Kind


@pytest.fixture
def task() -> Task:
    return make_judged_task(2)


@pytest.fixture
def dimensions(task: Task) -> list[Dimension]:
    return list(task.dimensions.order_by("pk"))


@pytest.fixture
def people() -> list[User]:
    return [make_user(name) for name in ("ann", "bob", "cem")]


@pytest.fixture
def judge() -> User:
    return make_user("judge", role=Role.REVIEWER)


@pytest.fixture
def campaign(task: Task, dimensions: list[Dimension], people: list[User]) -> Campaign:
    """Four sets: agreed, one of three differs in one dimension, all differ, judged once."""
    campaign = make_campaign(task=task, sets=4, overlap=3)
    agreed, slight, wild, alone = campaign.items.order_by("pk")
    one, two = dimensions
    for k, user in enumerate(people):
        make_turn(agreed, user, {one: (0, 1), two: "no_difference"})
        make_turn(slight, user, {one: (0, 1 if k else 2), two: (0, 1)})
        make_turn(wild, user, {one: (k, 3), two: (k, 3) if k else "no_difference"})
    make_turn(alone, people[0], {one: (0, 1), two: (2, 3)})
    return campaign


def items(campaign: Campaign) -> list[Item]:
    return list(campaign.items.order_by("pk"))


def picks(dimension: Dimension, best: int = 2, worst: int = 3) -> dict[str, Answer]:
    return {dimension.slug: Answer("picked", best, worst)}


class TestDisputed:
    def test_it_ranks_by_the_share_of_pairs_that_differ(self, campaign: Campaign) -> None:
        """Slight: one pair of three agrees in one dimension, all in the other: (2/3 + 0) / 2."""
        _, slight, wild, _ = items(campaign)
        found = review.disputed(campaign)
        assert [(d.item, d.people, d.dimensions) for d in found] == [
            (wild.pk, 3, 2),
            (slight.pk, 3, 1),
        ]
        assert [d.disagreement for d in found] == [pytest.approx(1), pytest.approx(1 / 3)]

    def test_it_looks_at_one_task_or_dimension(
        self, campaign: Campaign, dimensions: list[Dimension], task: Task
    ) -> None:
        _, _, wild, _ = items(campaign)
        found = review.disputed(campaign, task=task.pk, dimension=dimensions[1].pk)
        assert [d.item for d in found] == [wild.pk]
        assert review.disputed(campaign, task=task.pk + 1) == []

    def test_it_ignores_what_does_not_count(
        self, campaign: Campaign, dimensions: list[Dimension], people: list[User]
    ) -> None:
        agreed = items(campaign)[0]
        make_turn(agreed, people[0], {dimensions[0]: (3, 2)}, kind=Kind.GOLD)
        make_turn(agreed, people[0], {dimensions[0]: (3, 2)}, kind=Kind.REPEAT)
        turn = Assignment.objects.get(item=agreed, annotator=people[0], kind=Kind.WORK)
        turn.judgments.filter(dimension=dimensions[0]).update(
            outcome="cannot_judge", best=None, worst=None
        )
        assert agreed.pk not in {d.item for d in review.disputed(campaign)}

    def test_it_moves_decided_items_apart(
        self, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        _, slight, wild, _ = items(campaign)
        review.decide(item=wild, user=judge, answers=picks(dimensions[0]))
        assert [d.item for d in review.disputed(campaign)] == [slight.pk]
        assert [d.item for d in review.disputed(campaign, decided=True)] == [wild.pk]


class TestDecide:
    def test_it_stands_in_the_annotators_place(
        self, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        one, two = dimensions
        wild = items(campaign)[2]
        turn = review.decide(item=wild, user=judge, answers=picks(one), comment=" Clear. ")
        assert (turn.kind, turn.state, turn.comment) == ("review", "submitted", "Clear.")
        counted = Judgment.objects.counted().filter(assignment__item=wild)
        assert counted.get(dimension=one).assignment == turn
        # What was left out stays as the annotators said it.
        assert counted.filter(dimension=two, assignment__kind=Kind.WORK).count() == 3
        wild.refresh_from_db()
        assert wild.full

    def test_a_later_decision_supersedes_and_nothing_is_lost(
        self, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        one, two = dimensions
        wild = items(campaign)[2]
        first = review.decide(item=wild, user=judge, answers=picks(one, 0, 1), comment="First.")
        other = make_user("chief", role=Role.REVIEWER)
        second = review.decide(item=wild, user=other, answers=picks(one, 3, 2))
        third = review.decide(item=wild, user=judge, answers=picks(two, 3, 2))
        history = list(review.decisions(wild))
        assert history == [third, second, first]
        assert [turn.state for turn in history] == ["submitted", "expired", "expired"]
        assert history[2].comment == "First."
        current = Judgment.objects.current().filter(assignment__kind=Kind.REVIEW)
        assert current.get().dimension == two
        gone = Judgment.objects.filter(assignment__in=[first, second])
        assert gone.filter(withdrawn_at__isnull=False).count() == 2
        assert review.standing(wild) == third

    def test_it_is_stored_once_and_in_closed_campaigns_too(
        self, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        Campaign.objects.update(state=Campaign.State.CLOSED)
        wild, once = items(campaign)[2], uuid.uuid4()
        for _ in range(3):
            review.decide(item=wild, user=judge, answers=picks(dimensions[0]), submission=once)
        assert Assignment.objects.filter(kind=Kind.REVIEW).count() == 1

    def test_it_refuses_and_stores_nothing(
        self, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        wild = items(campaign)[2]
        kept = review.decide(item=wild, user=judge, answers=picks(dimensions[0]))
        for answers, says in (
            ({}, "No dimension was decided"),
            (picks(dimensions[0], 1, 1), "best and worst"),
            ({"nonsense": Answer("no_difference")}, "is not asked"),
        ):
            with pytest.raises(Refused, match=says):
                review.decide(item=wild, user=judge, answers=answers)
        assert review.standing(wild) == kept
        assert Assignment.objects.filter(kind=Kind.REVIEW).count() == 1

    def test_undoing_one_s_own_labels_leaves_decisions_alone(
        self, campaign: Campaign, dimensions: list[Dimension], people: list[User]
    ) -> None:
        wild = items(campaign)[2]
        decision = review.decide(item=wild, user=people[0], answers=picks(dimensions[0]))
        reopened = judgments.undo(user=people[0], campaign=campaign)
        assert reopened.kind == Kind.WORK
        assert review.standing(wild) == decision

    def test_it_can_be_withdrawn(
        self, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        wild = items(campaign)[2]
        review.decide(item=wild, user=judge, answers=picks(dimensions[0]))
        assert review.withdraw(item=wild) == 1
        assert review.withdraw(item=wild) == 0
        counted = Judgment.objects.counted().filter(assignment__item=wild)
        assert counted.count() == 6
        assert review.decisions(wild).count() == 1


class TestPages:
    def test_it_lists_shows_and_decides(
        self, client: Client, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        client.force_login(judge)
        _, slight, wild, _ = items(campaign)
        base = f"/campaigns/{campaign.pk}/review/"
        text = client.get(base).content.decode()
        assert text.index(f"{base}{wild.pk}/") < text.index(f"{base}{slight.pk}/")
        page = client.get(f"{base}{wild.pk}/").content.decode()
        assert "2 of 3 say the same" not in page
        assert 'name="best-' in page
        one = dimensions[0]
        data = {
            "submission": str(uuid.uuid4()),
            f"best-{one.slug}": "3",
            f"worst-{one.slug}": "4",
            f"best-{dimensions[1].slug}": "",
            "comment": "The third joins best.",
        }
        response = client.post(f"{base}{wild.pk}/", data)
        # On to the next one in dispute.
        assert response.headers["Location"] == f"{base}{slight.pk}/"
        stored = Judgment.objects.current().get(assignment__kind=Kind.REVIEW)
        assert stored.best is not None
        assert stored.worst is not None
        assert (stored.best.index, stored.worst.index, stored.assignment.annotator) == (2, 3, judge)
        page = client.get(f"{base}{wild.pk}/").content.decode()
        assert "The third joins best." in page
        assert "<strong>You</strong>" in page
        # The same form cannot be meant for two sets.
        assert client.post(f"{base}{slight.pk}/", data).status_code == 422
        data["submission"] = str(uuid.uuid4())
        assert client.post(f"{base}{slight.pk}/", data).headers["Location"] == base

    def test_it_says_what_is_wrong_and_keeps_what_was_typed(
        self, client: Client, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        client.force_login(judge)
        wild = items(campaign)[2]
        data = {f"best-{dimensions[0].slug}": "3", "comment": "Half done."}
        response = client.post(f"/campaigns/{campaign.pk}/review/{wild.pk}/", data)
        text = response.content.decode()
        assert response.status_code == 422
        assert "the worst is missing" in text
        assert "Half done." in text
        assert not Assignment.objects.filter(kind=Kind.REVIEW).exists()

    def test_reviewers_see_pseudonyms_and_managers_names(
        self, client: Client, campaign: Campaign, judge: User
    ) -> None:
        url = f"/campaigns/{campaign.pk}/review/{items(campaign)[2].pk}/"
        client.force_login(judge)
        text = client.get(url).content.decode()
        assert ">ann<" not in text
        assert text.count("Annotator ") >= 3
        client.force_login(make_user(role=Role.MANAGER))
        assert ">ann<" in client.get(url).content.decode()

    def test_only_reviewers_get_in(
        self, client: Client, campaign: Campaign, people: list[User], judge: User
    ) -> None:
        item = items(campaign)[2]
        flag = Flag.objects.create(assignment=item.assignments.all()[0], reason="broken")
        pages = ["review/", f"review/{item.pk}/"]
        posts = [
            f"review/{item.pk}/",
            f"review/{item.pk}/withdraw/",
            f"review/{item.pk}/gold/",
            f"flags/{flag.pk}/",
        ]
        for user, code in ((make_user(role=None), 404), (people[0], 403)):
            client.force_login(user)
            for page in pages:
                assert client.get(f"/campaigns/{campaign.pk}/{page}").status_code == code
            for page in posts:
                assert client.post(f"/campaigns/{campaign.pk}/{page}").status_code == code
        client.force_login(judge)
        other = make_campaign()
        assert client.get(f"/campaigns/{other.pk}/review/{item.pk}/").status_code == 404
        assert client.post(f"/campaigns/{other.pk}/flags/{flag.pk}/").status_code == 404
        flag.refresh_from_db()
        assert flag.resolved_at is None
        assert not Assignment.objects.filter(kind=Kind.REVIEW).exists()

    def test_a_flag_is_resolved_once_with_a_note(
        self, client: Client, campaign: Campaign, judge: User
    ) -> None:
        item = items(campaign)[0]
        flag = Flag.objects.create(assignment=item.assignments.all()[0], reason="Mask is empty")
        client.force_login(judge)
        base = f"/campaigns/{campaign.pk}/review/"
        assert "Mask is empty" in client.get(base).content.decode()
        url = f"/campaigns/{campaign.pk}/flags/{flag.pk}/"
        client.post(url, {"note": "Left out"})
        text = client.post(url, {"note": "Again", "back": "item"}, follow=True).content.decode()
        flag.refresh_from_db()
        assert (flag.note, flag.resolved_by) == ("Left out", judge)
        assert "Somebody resolved this flag before" in text
        assert "Left out" in text
        assert "Mask is empty" not in client.get(base).content.decode()

    def test_a_decision_becomes_a_known_answer_or_is_withdrawn(
        self, client: Client, campaign: Campaign, dimensions: list[Dimension], judge: User
    ) -> None:
        wild = items(campaign)[2]
        client.force_login(judge)
        base = f"/campaigns/{campaign.pk}/review/{wild.pk}/"
        assert "no decision" in client.post(f"{base}gold/", follow=True).content.decode()
        review.decide(item=wild, user=judge, answers=picks(dimensions[0]))
        client.post(f"{base}gold/")
        assert Gold.objects.get().best.index == 2
        text = client.post(f"{base}withdraw/", follow=True).content.decode()
        assert "no longer stands" in text
        assert review.standing(wild) is None
        client.post(f"{base}withdraw/")
        assert review.decisions(wild).count() == 1

    def test_it_downloads_and_says_what_to_do_when_empty(
        self, client: Client, campaign: Campaign, judge: User
    ) -> None:
        client.force_login(judge)
        url = f"/campaigns/{campaign.pk}/review/"
        response: Any = client.get(url, {"format": "csv"})
        text = b"".join(response.streaming_content).decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["dimensions_in_dispute"] for row in rows] == ["2", "1"]
        assert "Nothing was decided yet" in client.get(url, {"decided": "1"}).content.decode()
        single = make_campaign(overlap=1)
        text = client.get(f"/campaigns/{single.pk}/review/").content.decode()
        assert "Raise the overlap" in text
