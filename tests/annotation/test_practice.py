from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation import practice
from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Assignment, Campaign, Gold, Judgment, Seat
from annotation.preferences import derive
from generation.models import Role, Task
from tests.annotation.factories import claim, make_campaign, make_dimension, picks, slugs, submit
from tests.factories import make_task, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def task() -> Task:
    task = make_task("paint")
    for slug in ("join", "shape"):
        make_dimension(slug, task=task)
    return task


@pytest.fixture
def campaign(task: Task) -> Campaign:
    return make_campaign(task=task, sets=5, practice_sets=2, practice_share=0.75)


@pytest.fixture
def ann() -> User:
    return make_user("ann")


def know(campaign: Campaign, sets: int = 3, **fields: Any) -> None:
    """The answer of so many sets: 0 is best and 1 worst on every dimension."""
    for item in campaign.items.order_by("pk")[:sets]:
        candidates = {c.index: c for c in item.set.candidates.all()}
        for criterion in item.set.source.task.criteria.all():
            Gold.objects.create(
                set=item.set,
                dimension=criterion.dimension,
                best=candidates[0],
                worst=candidates[1],
                **({"practice": True, "explanation": "Look at the edge."} | fields),
            )


def take(user: User, campaign: Campaign) -> Assignment:
    turn = practice.next_practice(user=user, campaign=campaign)
    assert turn is not None
    return turn


class TestTurns:
    def test_it_never_gives_the_same_set_twice_in_a_row(
        self, campaign: Campaign, ann: User
    ) -> None:
        know(campaign, 2)
        taken = []
        for _ in range(6):
            turn = take(ann, campaign)
            taken.append(turn.set_id)
            submit(turn)
        assert all(a != b for a, b in zip(taken, taken[1:], strict=False))
        assert {turn.kind for turn in Assignment.objects.all()} == {"practice"}

    def test_it_gives_back_an_unfinished_turn(self, campaign: Campaign, ann: User) -> None:
        know(campaign)
        assert take(ann, campaign) == take(ann, campaign)
        assert take(make_user(), campaign).annotator != ann
        assert Assignment.objects.count() == 2

    def test_it_takes_only_sets_that_are_known_for_practice(
        self, campaign: Campaign, ann: User
    ) -> None:
        know(campaign, practice=False)
        assert practice.next_practice(user=ann, campaign=campaign) is None
        assert practice.missing(campaign) == 2
        Gold.objects.filter(set=campaign.items.order_by("pk")[0].set).update(practice=True)
        assert practice.missing(campaign) == 1
        submit(take(ann, campaign))
        # With one set alone it would be the same again.
        assert practice.next_practice(user=ann, campaign=campaign) is None

    def test_it_is_only_for_those_who_may_judge(self, campaign: Campaign, ann: User) -> None:
        know(campaign)
        campaign.members.add(make_user())
        assert practice.next_practice(user=ann, campaign=campaign) is None
        campaign.members.clear()
        Campaign.objects.filter(pk=campaign.pk).update(state="paused")
        campaign.refresh_from_db()
        assert practice.next_practice(user=ann, campaign=campaign) is None
        assert not Assignment.objects.exists()

    def test_its_judgments_are_stored_and_count_for_nothing(
        self, campaign: Campaign, ann: User
    ) -> None:
        know(campaign)
        submit(take(ann, campaign))
        assert Judgment.objects.current().count() == 2
        assert not Judgment.objects.counted().exists()
        assert list(derive(Judgment.objects.counted())) == []


class TestFeedback:
    def test_it_says_what_is_right_by_place(self, campaign: Campaign, ann: User) -> None:
        know(campaign)
        turn = take(ann, campaign)
        place = {index: number for number, index in enumerate(turn.order, start=1)}
        answers = {
            "join": Answer("picked", 0, 2),
            "shape": Answer("no_difference"),
        }
        submit(turn, answers)
        join, shape = practice.feedback(turn)
        assert (join.verdict, join.chosen_best, join.chosen_worst) == ("half", place[0], place[2])
        assert (join.right_best, join.right_worst) == (place[0], place[1])
        assert join.explanation == "Look at the edge."
        assert (shape.verdict, shape.outcome, shape.chosen_best) == ("wrong", "no_difference", None)

    def test_it_takes_no_correction_after_the_answer_was_seen(
        self, campaign: Campaign, ann: User
    ) -> None:
        know(campaign)
        turn = take(ann, campaign)
        submit(turn, picks(turn, best=1, worst=0))
        with pytest.raises(Refused, match="seen the answers"):
            submit(turn, picks(turn, best=0, worst=1))
        assert [row.verdict for row in practice.feedback(turn)] == ["wrong", "wrong"]


class TestStanding:
    def run(self, user: User, campaign: Campaign, *right: bool) -> practice.Standing:
        for good in right:
            turn = take(user, campaign)
            submit(turn, picks(turn, *((0, 1) if good else (1, 0))))
        return practice.standing(user=user, campaign=campaign)

    def test_it_is_passed_when_the_latest_turns_reach_the_share(
        self, campaign: Campaign, ann: User
    ) -> None:
        know(campaign)
        assert practice.needed(user=ann, campaign=campaign)
        standing = self.run(ann, campaign, False)
        assert (standing.done, standing.share, standing.passed) == (1, 0.0, False)
        standing = self.run(ann, campaign, True)
        assert (standing.share, standing.passed) == (0.5, False)
        assert practice.needed(user=ann, campaign=campaign)
        standing = self.run(ann, campaign, True)
        assert (standing.done, standing.share, standing.passed) == (3, 1.0, True)
        passed = Seat.objects.get(user=ann).practice_passed_at
        assert passed is not None
        assert not practice.needed(user=ann, campaign=campaign)
        # Practising on badly takes nothing back.
        assert self.run(ann, campaign, False, False).passed
        assert Seat.objects.get(user=ann).practice_passed_at == passed

    def test_one_good_turn_is_not_enough(self, campaign: Campaign, ann: User) -> None:
        know(campaign)
        assert not self.run(ann, campaign, True).passed

    def test_half_right_answers_count_half(self, campaign: Campaign, ann: User) -> None:
        know(campaign)
        for _ in range(2):
            turn = take(ann, campaign)
            submit(turn, {slug: Answer("picked", 0, 2) for slug in slugs(turn)})
        standing = practice.standing(user=ann, campaign=campaign)
        assert (standing.share, standing.passed) == (0.5, False)

    def test_it_is_needed_only_where_the_campaign_says_so(self, ann: User) -> None:
        assert not practice.needed(user=ann, campaign=make_campaign())
        assert not practice.needed(
            user=ann, campaign=make_campaign(practice_sets=2, purpose="rating")
        )


class TestPages:
    @pytest.fixture
    def own(self, client: Client, ann: User) -> Client:
        client.force_login(ann)
        return client

    def post(self, client: Client, turn: Assignment, best: int = 0, worst: int = 1) -> Any:
        place = {index: number for number, index in enumerate(turn.order, start=1)}
        data: dict[str, int] = {}
        for slug in slugs(turn):
            data |= {f"best-{slug}": place[best], f"worst-{slug}": place[worst]}
        return client.post(f"/label/{turn.pk}/", data)

    def test_it_leads_from_turn_to_feedback_to_work(self, own: Client, campaign: Campaign) -> None:
        know(campaign)
        url = f"/label/campaign/{campaign.pk}/practice/"
        for n, button in ((1, "Next practice set"), (2, "Start working")):
            page = own.get(url, follow=True)
            assert "Practice: the right answers are shown" in page.content.decode()
            turn = Assignment.objects.latest("pk")
            response = self.post(own, turn)
            assert response.headers["Location"] == f"/label/{turn.pk}/feedback/"
            text = own.get(response.headers["Location"]).content.decode()
            assert f"Practice {n} of 2" in text
            assert button in text
            assert "Look at the edge." in text
        text = own.get(url).content.decode()
        assert "You have passed the practice." in text
        assert own.get(f"{url}?more=1").status_code == 302

    def test_it_tells_nothing_before_the_answer(self, own: Client, campaign: Campaign) -> None:
        know(campaign)
        page = own.get(f"/label/campaign/{campaign.pk}/practice/", follow=True)
        assert "Look at the edge." not in page.content.decode()
        turn = Assignment.objects.get()
        response = own.get(f"/label/{turn.pk}/feedback/")
        assert response.headers["Location"] == f"/label/{turn.pk}/"

    def test_nobody_sees_another_s_feedback(
        self, own: Client, client: Client, campaign: Campaign
    ) -> None:
        know(campaign)
        own.get(f"/label/campaign/{campaign.pk}/practice/")
        turn = Assignment.objects.get()
        self.post(own, turn)
        for user in (make_user(), make_user(is_staff=True), make_user(role=None)):
            client.force_login(user)
            assert client.get(f"/label/{turn.pk}/feedback/").status_code == 404
        url = f"/label/campaign/{campaign.pk}/practice/"
        assert client.get(url).status_code == 404  # a stranger to the project

    def test_it_says_when_practice_sets_are_missing(
        self, own: Client, client: Client, campaign: Campaign
    ) -> None:
        text = own.get(f"/label/campaign/{campaign.pk}/practice/").content.decode()
        assert "There is no further practice set now." in text
        client.force_login(make_user(role=Role.MANAGER))
        for page in ("", "gold/"):
            text = client.get(f"/campaigns/{campaign.pk}/{page}").content.decode()
            assert "2 practice sets are missing" in text
            assert "make_gold" in text


class TestGoldPages:
    @pytest.fixture
    def manager(self, client: Client) -> Client:
        client.force_login(make_user(role=Role.MANAGER))
        return client

    def test_a_manager_sets_an_answer_by_hand(self, manager: Client, campaign: Campaign) -> None:
        item = campaign.items.order_by("pk")[0]
        url = f"/campaigns/{campaign.pk}/gold/{item.pk}/"
        assert manager.get(url).status_code == 200
        data = {"join-best": 2, "join-worst": 0, "join-explanation": "No seam.", "practice": "on"}
        assert manager.post(url, data).status_code == 302
        gold = Gold.objects.get()
        assert (gold.set, gold.dimension.slug) == (item.set, "join")
        assert (gold.best.index, gold.worst.index, gold.explanation) == (2, 0, "No seam.")
        assert (gold.origin, gold.practice, gold.attention) == ("hand", True, False)
        # Set again, it is the same row.
        manager.post(url, data | {"join-best": 3, "attention": "on"})
        again = Gold.objects.get()
        assert (again.pk, again.best.index, again.attention) == (gold.pk, 3, True)
        assert "No seam." in manager.get(f"/campaigns/{campaign.pk}/gold/").content.decode()

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ({"join-best": "1", "join-worst": "1"}, "the same picture"),
            ({"join-best": "1"}, "both a best and a worst"),
            ({"join-best": "9", "join-worst": "1"}, "Select a valid choice"),
            ({}, "Nothing was chosen"),
        ],
    )
    def test_it_says_what_is_wrong(
        self, manager: Client, campaign: Campaign, data: dict[str, str], says: str
    ) -> None:
        item = campaign.items.order_by("pk")[0]
        response = manager.post(f"/campaigns/{campaign.pk}/gold/{item.pk}/", data | {"x": "1"})
        assert says in response.content.decode()
        assert not Gold.objects.exists()

    def test_it_toggles_and_deletes(self, manager: Client, campaign: Campaign) -> None:
        know(campaign, 1)
        url = f"/campaigns/{campaign.pk}/gold/"
        gold = Gold.objects.order_by("pk")[0]
        manager.post(url, {"gold": gold.pk, "do": "attention"})
        manager.post(url, {"gold": gold.pk, "do": "practice"})
        gold.refresh_from_db()
        assert (gold.attention, gold.practice) == (True, False)
        manager.post(url, {"gold": gold.pk, "do": "delete"})
        assert not Gold.objects.filter(pk=gold.pk).exists()

    def test_it_touches_no_other_campaign_s_answers(
        self, manager: Client, campaign: Campaign
    ) -> None:
        other = make_campaign()
        know(other, 1)
        gold = Gold.objects.order_by("pk")[0]
        url = f"/campaigns/{campaign.pk}/gold/"
        page = manager.post(url, {"gold": gold.pk, "do": "delete"}, follow=True)
        assert "no such known answer" in page.content.decode()
        assert manager.get(f"{url}{other.items.get().pk}/").status_code == 404
        assert Gold.objects.filter(pk=gold.pk).exists()

    def test_a_work_turn_has_no_feedback_page(self, client: Client, campaign: Campaign) -> None:
        ann = make_user()
        Campaign.objects.update(practice_sets=0)
        turn = claim(ann, campaign)
        submit(turn)
        client.force_login(ann)
        assert client.get(f"/label/{turn.pk}/feedback/").status_code == 404
