"""The labelling pages as plain forms: stored row, then response, then permission."""

import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from annotation.models import Assignment, Campaign, Judgment
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_golds,
    make_judged_task,
    picks,
    slugs,
    submit,
)
from tests.factories import make_policy, make_set, make_source, make_user

pytestmark = pytest.mark.django_db
State = Assignment.State
JSON = {"Accept": "application/json"}


@pytest.fixture(autouse=True)
def fresh_shares() -> None:
    cache.clear()


@pytest.fixture
def user() -> User:
    return make_user()


@pytest.fixture
def own(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def form(turn: Assignment, best: str = "1", worst: str = "2", **fields: str) -> dict[str, str]:
    """What the page's form sends; places count from the left."""
    data = {"submission": str(uuid.uuid4()), "seconds": "4.5"}
    for slug in slugs(turn):
        data |= {f"best-{slug}": best, f"worst-{slug}": worst}
    return data | fields


def page(turn: Assignment) -> str:
    return f"/label/{turn.pk}/"


class TestQueue:
    def test_it_asks_for_a_login(self, client: Client) -> None:
        assert client.get("/label/").headers["Location"].startswith("/login/")

    def test_it_goes_straight_into_the_only_open_campaign(self, own: Client, user: User) -> None:
        make_campaign()
        make_campaign(state=Campaign.State.DRAFT)
        make_campaign(simulated=True)
        response = own.get("/label/", follow=True)
        turn = Assignment.objects.get()
        assert turn.annotator == user
        assert response.redirect_chain[-1][0] == page(turn)

    def test_it_offers_the_choice_between_several_campaigns(self, own: Client) -> None:
        first, second = make_campaign(name="First"), make_campaign(name="Second")
        make_campaign(name="Private", members=[make_user()])
        text = own.get("/label/").content.decode()
        assert f"/label/campaign/{first.pk}/" in text
        assert f"/label/campaign/{second.pk}/" in text
        assert "Private" not in text
        assert not Assignment.objects.exists()

    def test_it_says_why_the_queue_is_empty(self, own: Client, user: User) -> None:
        campaign = make_campaign()
        submit(claim(user, campaign))
        response = own.get(f"/label/campaign/{campaign.pk}/")
        assert "Every set has all its judgments." in response.content.decode()

    def test_it_says_that_no_campaign_is_open(self, own: Client) -> None:
        assert "No campaign is open for you" in own.get("/label/").content.decode()


class TestPage:
    def test_it_shows_the_candidates_in_the_stored_order(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        text = own.get(page(turn)).content.decode()
        shown = re.findall(r'images/([0-9a-f]{64})\.png"[^>]*alt="Candidate', text)
        by_index = {c.index: c.image.sha256 for c in turn.set.candidates.all() if c.image}
        assert shown == [by_index[index] for index in turn.order]

    def test_it_hides_which_model_made_what_and_how(self, own: Client, user: User) -> None:
        task = make_judged_task()
        policy = make_policy("secret-model", location="owner/secret-weights")
        made = make_set(make_source(task), policy=policy)
        made.candidates.update(seed=987654321, negative_prompt="ugly", guidance_scale=23.5)
        turn = claim(user, make_campaign(task=task, sets=[made]))
        text = own.get(page(turn)).content.decode()
        for hidden in ("secret", "987654321", "ugly", "23.5", "policy", "guidance"):
            assert hidden not in text
        assert "a red circle" in text

    def test_it_stores_what_was_answered_by_place(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        Assignment.objects.update(order=[2, 0, 3, 1])
        response = own.post(page(turn), form(turn, "1", "4"))
        stored = Judgment.objects.values_list("outcome", "best__index", "worst__index")
        assert list(stored) == [("picked", 2, 1)] * 2
        turn.refresh_from_db()
        assert turn.seconds_spent == 4.5
        assert response.headers["Location"] == f"/label/campaign/{turn.item.campaign_id}/"

    def test_it_takes_no_difference_whatever_worst_is_left_checked(
        self, own: Client, user: User
    ) -> None:
        turn = claim(user, make_campaign())
        own.post(page(turn), form(turn, "no_difference", "3"))
        assert [(row.outcome, row.worst) for row in Judgment.objects.all()] == [
            ("no_difference", None)
        ] * 2

    def test_it_answers_a_script_with_the_sets_that_come_next(
        self, own: Client, user: User
    ) -> None:
        campaign = make_campaign(sets=3)
        turn = claim(user, campaign)
        response = own.post(page(turn), form(turn), headers=JSON)
        first, second = Assignment.objects.exclude(pk=turn.pk).order_by("pk")
        data = response.json()
        assert [one["turn"] for one in data["sets"]] == [first.pk, second.pk]
        assert f'data-turn="{first.pk}"' in data["sets"][0]["html"]
        assert "<html" not in data["sets"][0]["html"]
        have = {"have": [first.pk, second.pk, 999999]}
        again = own.post(f"/label/campaign/{campaign.pk}/ahead/", have, headers=JSON).json()
        assert again == {"sets": [], "gone": [999999], "empty": None}

    def test_it_tells_a_script_that_the_queue_is_empty(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        data = own.post(page(turn), form(turn), headers=JSON).json()
        assert data["sets"] == []
        assert "Every set has all its judgments." in data["empty"]

    def test_it_tells_a_script_what_was_wrong(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        response = own.post(page(turn), form(turn, "2", "2"), headers=JSON)
        assert response.status_code == 422
        assert response.json()["code"] == "invalid"
        foreign = claim(make_user(), make_campaign())
        response = own.post(page(foreign), form(foreign), headers=JSON)
        assert (response.status_code, response.json()["code"]) == (403, "foreign")
        assert not Judgment.objects.exists()

    def test_it_keeps_few_sets_ready_where_several_people_share_the_rest(
        self, own: Client, user: User
    ) -> None:
        campaign = make_campaign(sets=12)
        for _ in range(2):
            claim(make_user(), campaign)
        own.post(f"/label/campaign/{campaign.pk}/ahead/", headers=JSON)
        assert Assignment.objects.filter(annotator=user).count() == 3  # 12 / (2 × 2 people)

    def test_it_stores_a_double_click_once(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        data = form(turn)
        own.post(page(turn), data)
        assert own.post(page(turn), data).status_code == 302
        assert Judgment.objects.count() == 2

    @pytest.mark.parametrize(
        ("best", "worst", "says"),
        [
            ("2", "2", "the same candidate is best and worst"),
            ("2", "", "the worst is missing"),
            ("", "", "still needs an answer"),
            ("9", "1", "Choose among 1 to 4"),
            ("x", "1", "There is no candidate “x”"),
        ],
    )
    def test_it_says_what_to_do_and_keeps_the_answers(
        self, own: Client, user: User, best: str, worst: str, says: str
    ) -> None:
        turn = claim(user, make_campaign())
        first, second = slugs(turn)
        data = form(turn, best, worst) | {f"best-{first}": "3", f"worst-{first}": "4"}
        response = own.post(page(turn), data)
        assert not Judgment.objects.exists()
        assert response.status_code == 422
        text = response.content.decode()
        assert says in text
        assert re.search(rf'name="best-{first}" value="3" checked', text)
        assert data["submission"] in text

    def test_it_renders_a_submitted_turn_for_correction(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        submit(turn)
        text = own.get(page(turn)).content.decode()
        assert "Save correction" in text
        place = turn.order.index(0) + 1
        assert f'name="best-{slugs(turn)[0]}" value="{place}" checked' in text
        assert 'name="correction" value="yes"' in text
        own.post(page(turn), form(turn, "no_difference", "", correction="yes"))
        current = Judgment.objects.current().values_list("revision", "outcome")
        assert set(current) == {(2, "no_difference")}

    def test_it_asks_before_an_old_window_replaces_what_was_submitted(
        self, own: Client, user: User
    ) -> None:
        turn = claim(user, make_campaign())
        submit(turn)
        response = own.post(page(turn), form(turn, "no_difference", ""))
        assert response.status_code == 409
        text = response.content.decode()
        assert "submitted this set already" in text
        assert 'name="correction" value="yes"' in text
        assert set(Judgment.objects.values_list("revision", "outcome")) == {(1, "picked")}

    def test_it_takes_no_corrections_where_the_campaign_allows_none(
        self, own: Client, user: User
    ) -> None:
        turn = claim(user, make_campaign(editable=False))
        submit(turn)
        response = own.post(page(turn), form(turn, "no_difference", "", correction="yes"))
        assert response.status_code == 409
        assert "takes no corrections" in response.content.decode()
        assert Judgment.objects.count() == 2

    def test_it_keeps_foreign_turns_shut(self, own: Client, user: User) -> None:
        turn = claim(make_user(), make_campaign())
        for response in (own.get(page(turn)), own.post(page(turn), form(turn))):
            assert response.status_code == 403
            assert "belongs to somebody else" in response.content.decode()
        assert own.post(f"{page(turn)}skip/").status_code == 403
        assert own.post(f"{page(turn)}flag/", {"reason": "broken"}).status_code == 403
        turn.refresh_from_db()
        assert (turn.state, Judgment.objects.count()) == (State.OPEN, 0)

    def test_it_says_when_the_turn_went_to_somebody_else(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
        claim(make_user(), turn.item.campaign)
        assert "it went to somebody else" in own.get(page(turn)).content.decode()
        # Answers that were given all the same are kept, beside the overlap.
        assert own.post(page(turn), form(turn)).status_code == 302
        turn.refresh_from_db()
        assert turn.state == State.LATE
        assert (Judgment.objects.current().count(), Judgment.objects.counted().count()) == (2, 0)

    def test_it_gives_a_turn_back_that_ran_out_and_nobody_took(
        self, own: Client, user: User
    ) -> None:
        turn = claim(user, make_campaign())
        Assignment.objects.update(state=State.EXPIRED)
        assert own.get(page(turn)).status_code == 200
        turn.refresh_from_db()
        assert (turn.state, turn.slot) == (State.OPEN, 0)

    def test_it_keeps_the_answers_when_the_campaign_was_paused(
        self, own: Client, user: User
    ) -> None:
        turn = claim(user, make_campaign())
        Campaign.objects.update(state=Campaign.State.PAUSED)
        response = own.post(page(turn), form(turn, "3", "1"))
        text = response.content.decode()
        assert response.status_code == 409
        assert "was paused" in text
        assert f'name="best-{slugs(turn)[0]}" value="3" checked' in text
        assert not Judgment.objects.exists()

    def test_it_knows_no_turn_of_that_number(self, own: Client) -> None:
        assert own.get("/label/999999/").status_code == 404


class TestSkipAndUndo:
    def test_it_stores_why_a_set_was_skipped(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        own.post(f"{page(turn)}skip/", {"reason": "Something else", "detail": "too dark"})
        turn.refresh_from_db()
        assert (turn.state, turn.skip_reason) == (State.SKIPPED, "Something else: too dark")

    def test_it_brings_the_last_set_back_with_its_answers(self, own: Client, user: User) -> None:
        campaign = make_campaign(sets=2)
        turn = claim(user, campaign)
        own.post(page(turn), form(turn, "3", "1"))
        response = own.post(f"/label/campaign/{campaign.pk}/undo/", follow=True)
        assert not Judgment.objects.current().exists()
        assert response.redirect_chain[-1][0] == page(turn)
        assert f'name="best-{slugs(turn)[0]}" value="3" checked' in response.content.decode()

    def test_it_says_when_there_is_nothing_to_undo(self, own: Client) -> None:
        response = own.post(f"/label/campaign/{make_campaign().pk}/undo/")
        assert response.status_code == 409
        assert "nothing of yours to undo" in response.content.decode()

    def test_it_withdraws_only_by_post(self, own: Client, user: User) -> None:
        campaign = make_campaign()
        submit(claim(user, campaign))
        assert own.get(f"/label/campaign/{campaign.pk}/undo/").status_code == 405
        assert Judgment.objects.current().count() == 2


class TestOutline:
    def test_it_draws_the_border_of_a_mask(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        sha256 = turn.set.source.mask.sha256
        response = own.get(f"/label/outline/{sha256}.svg")
        assert response.headers["Content-Type"] == "image/svg+xml"
        assert "immutable" in response.headers["Cache-Control"]
        # White in the middle half of 64 × 64 pixels.
        assert "M16 16H48V48H16Z" in response.content.decode()
        assert "M0 0H64V64H0Z" in own.get(f"/label/shade/{sha256}.svg").content.decode()
        assert own.get(f"/label/outline/{'0' * 64}.svg").status_code == 404


def test_it_counts_today_and_the_campaign(own: Client, user: User) -> None:
    campaign = make_campaign(sets=3, overlap=2)
    submit(claim(user, campaign))
    submit(claim(make_user(), campaign))
    yesterday = claim(user, campaign)
    submit(yesterday)
    Assignment.objects.filter(pk=yesterday.pk).update(
        submitted_at=timezone.now() - timedelta(days=1)
    )
    text = own.get(page(claim(user, campaign))).content.decode()
    assert '<strong id="today">1</strong> today' in text
    assert "3 / 6" in text


class TestFlag:
    def test_it_stores_a_report_once_and_leaves_the_turn_open(
        self, own: Client, user: User
    ) -> None:
        turn = claim(user, make_campaign())
        for _ in range(2):
            own.post(f"{page(turn)}flag/", {"reason": " The mask is empty "})
        assert [flag.reason for flag in turn.flags.all()] == ["The mask is empty"]
        turn.refresh_from_db()
        assert turn.state == State.OPEN

    def test_it_wants_a_reason(self, own: Client, user: User) -> None:
        turn = claim(user, make_campaign())
        response = own.post(f"{page(turn)}flag/", {"reason": " "}, headers=JSON)
        assert response.status_code == 422
        assert not turn.flags.exists()


class TestHistory:
    def test_it_lists_own_sets_only(self, own: Client, user: User) -> None:
        campaign = make_campaign(sets=3, overlap=2)
        mine, other = claim(user, campaign), claim(make_user(), campaign)
        submit(mine, seconds_spent=8.0)
        submit(other)
        skipped = claim(user, campaign)
        own.post(f"{page(skipped)}skip/", {"reason": "Something else"})
        text = own.get("/label/history/").content.decode()
        assert page(mine) in text
        assert page(skipped) in text
        assert page(other) not in text
        assert "8.0 s" in text

    def test_it_shows_own_agreement_with_gold_where_the_campaign_says_so(
        self, own: Client, user: User
    ) -> None:
        campaign = make_campaign(gold_rate=1.0, show_gold=True)
        make_golds(campaign.items.get().set, best=0, worst=1)
        submit(turn := claim(user, campaign), picks(turn, 0, 2))
        assert "50 %" in own.get("/label/history/").content.decode()
        Campaign.objects.update(show_gold=False)
        assert "50 %" not in own.get("/label/history/").content.decode()

    def test_it_says_how_to_start(self, own: Client) -> None:
        assert "You have not judged anything yet." in own.get("/label/history/").content.decode()


class TestRatings:
    def rating_turn(self, user: User) -> Assignment:
        campaign = make_campaign(purpose="rating")
        campaign.items.update(shown=[2])
        return claim(user, campaign)

    def test_it_stores_usable_and_scores(self, own: Client, user: User) -> None:
        turn = self.rating_turn(user)
        assert turn.order == [2]
        text = own.get(page(turn)).content.decode()
        assert text.count('alt="Candidate') == 1
        first, second = slugs(turn)
        data = {"form": "rating", "usable": "no", f"score-{first}": "4", f"score-{second}": "1"}
        own.post(page(turn), data)
        stored = turn.ratings.values_list("dimension__slug", "value", "candidate__index")
        assert set(stored) == {(None, 0, 2), (first, 4, 2), (second, 1, 2)}
        text = own.get(page(turn)).content.decode()
        assert f'name="score-{first}" value="4" checked' in text
        own.post(page(turn), data | {"usable": "yes", "correction": "yes"})
        assert set(turn.ratings.current().values_list("revision", flat=True)) == {2}

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"usable": ""}, "Usable still needs an answer"),
            ({"score": "6"}, "is no score. Choose 1 to 5"),
            ({"score": "x"}, "is no score. Choose 1 to 5"),
            ({"score": ""}, "still needs an answer"),
        ],
    )
    def test_it_refuses_half_and_wrong_ratings(
        self, own: Client, user: User, changes: dict[str, str], says: str
    ) -> None:
        turn = self.rating_turn(user)
        first, second = slugs(turn)
        data = {"form": "rating", "usable": changes.get("usable", "yes"), f"score-{first}": "3"}
        response = own.post(page(turn), data | {f"score-{second}": changes.get("score", "2")})
        assert response.status_code == 422
        assert says in response.content.decode()
        assert not turn.ratings.exists()


class TestPairs:
    def test_it_takes_the_better_one_as_the_whole_answer(self, own: Client, user: User) -> None:
        task = make_judged_task()
        campaign = make_campaign(
            task=task, sets=[make_set(make_source(task), size=2)], purpose="comparison"
        )
        turn = claim(user, campaign)
        text = own.get(page(turn)).content.decode()
        assert "better" in text
        assert 'name="worst-' not in text
        own.post(page(turn), {f"best-{slug}": "2" for slug in slugs(turn)})
        better, worse = turn.order[1], turn.order[0]
        stored = Judgment.objects.values_list("best__index", "worst__index")
        assert set(stored) == {(better, worse)}
