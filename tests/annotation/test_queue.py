from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone

from annotation import campaigns, judgments, queue
from annotation.models import Assignment, Campaign
from generation.models import CandidateSet
from tests.annotation.factories import claim, make_campaign, make_judged_task, submit
from tests.factories import make_set, make_source, make_user

State = Assignment.State


def let_lease_run_out(assignment: Assignment) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Assignment.objects.filter(pk=assignment.pk).update(lease_until=past)


@pytest.mark.django_db
class TestClaim:
    def test_it_stores_the_order_in_which_candidates_are_shown(self) -> None:
        campaign = make_campaign(
            sets=[make_set(make_source(task := make_judged_task()), size=8)], task=task
        )
        orders = []
        for _ in range(4):
            turn = claim(user := make_user(), campaign)
            assert sorted(turn.order) == list(range(8))
            orders.append(tuple(turn.order))
            judgments.skip(assignment=turn, user=user)
        assert len(set(orders)) > 1

    def test_it_returns_the_unfinished_turn_with_a_new_lease(self) -> None:
        campaign, user = make_campaign(sets=3), make_user()
        first = claim(user, campaign)
        let_lease_run_out(first)
        again = claim(user, campaign)
        assert again.pk == first.pk
        assert again.order == first.order
        assert again.lease_until > timezone.now()

    def test_it_hands_out_sets_in_the_drawn_order(self) -> None:
        campaign, user = make_campaign(sets=5), make_user()
        got = []
        while (turn := queue.claim(user=user, campaign=campaign)) is not None:
            got.append(turn.item_id)
            submit(turn)
        assert got == list(campaign.items.order_by("position").values_list("pk", flat=True))

    def test_it_gives_a_set_to_as_many_people_as_the_overlap_and_to_each_once(self) -> None:
        campaign = make_campaign(overlap=2)
        first, second = make_user(), make_user()
        submit(claim(first, campaign))
        assert queue.claim(user=first, campaign=campaign) is None
        assert claim(second, campaign).slot == 1
        assert queue.claim(user=make_user(), campaign=campaign) is None

    def test_it_frees_the_slot_of_an_expired_lease(self) -> None:
        campaign, late = make_campaign(), make_user()
        left = claim(late, campaign)
        assert queue.claim(user=make_user(), campaign=campaign) is None
        let_lease_run_out(left)
        taken = claim(make_user(), campaign)
        assert (taken.item_id, taken.slot) == (left.item_id, left.slot)
        left.refresh_from_db()
        assert left.state == State.EXPIRED

    def test_it_offers_a_skipped_set_to_somebody_else_only(self) -> None:
        campaign, user = make_campaign(), make_user()
        judgments.skip(assignment=claim(user, campaign), user=user, reason="broken")
        assert queue.claim(user=user, campaign=campaign) is None
        assert claim(make_user(), campaign).slot == 0

    def test_it_hands_out_sets_only_once_they_are_made(self) -> None:
        task = make_judged_task()
        drawn = make_set(make_source(task), state=CandidateSet.State.DRAWN)
        campaign, user = make_campaign(task=task, sets=[drawn]), make_user()
        assert queue.claim(user=user, campaign=campaign) is None
        assert queue.why_empty(user=user, campaign=campaign).code == "pending"
        CandidateSet.objects.update(state=CandidateSet.State.READY)
        assert claim(user, campaign).set_id == drawn.pk

    @pytest.mark.parametrize("state", ["draft", "paused", "closed"])
    def test_it_hands_out_nothing_of_a_campaign_that_is_not_open(self, state: str) -> None:
        campaign = make_campaign()
        Campaign.objects.update(state=state)
        campaign.refresh_from_db()
        assert queue.claim(user=make_user(), campaign=campaign) is None
        assert not Assignment.objects.exists()

    def test_it_hands_out_nothing_to_a_stranger_of_a_members_campaign(self) -> None:
        member = make_user()
        campaign = make_campaign(members=[member], overlap=2)
        assert queue.claim(user=make_user(), campaign=campaign) is None
        assert claim(member, campaign).annotator == member

    def test_it_names_the_next_item_without_taking_it(self) -> None:
        campaign, user = make_campaign(sets=2), make_user()
        turn = claim(user, campaign)
        following = queue.upcoming(user=user, campaign=campaign, after=turn)
        assert following is not None
        assert Assignment.objects.count() == 1
        submit(turn)
        assert claim(user, campaign).item_id == following.pk


@pytest.mark.django_db(transaction=True)
class TestClaimersAtTheSameMoment:
    def race(self, campaign: Campaign, users: list[User]) -> list[Assignment]:
        """Each user claims and submits, all at once, until there is nothing left."""
        barrier = Barrier(len(users))

        def work(user: User) -> list[Assignment]:
            try:
                barrier.wait(timeout=30)
                turns = []
                while (turn := queue.claim(user=user, campaign=campaign)) is not None:
                    turns.append(turn)
                    submit(turn)
                return turns
            finally:
                connections.close_all()

        with ThreadPoolExecutor(len(users)) as threads:
            return [turn for turns in threads.map(work, users) for turn in turns]

    def test_it_gives_no_slot_twice_and_leaves_none_over(self) -> None:
        campaign = make_campaign(sets=12, overlap=3)
        turns = self.race(campaign, [make_user() for _ in range(8)])
        assert Counter(turn.item_id for turn in turns) == {
            item.pk: 3 for item in campaign.items.all()
        }
        assert Counter((turn.item_id, turn.slot) for turn in turns).most_common(1)[0][1] == 1
        assert (
            Counter((turn.item_id, turn.annotator_id) for turn in turns).most_common(1)[0][1] == 1
        )

    def test_it_gives_the_last_slots_away_exactly_once(self) -> None:
        campaign = make_campaign(sets=1, overlap=3)
        turns = self.race(campaign, [make_user() for _ in range(8)])
        assert sorted(turn.slot for turn in turns) == [0, 1, 2]

    def test_it_gives_two_tabs_of_one_person_the_same_turn(self) -> None:
        campaign, user = make_campaign(sets=8), make_user()
        barrier = Barrier(8)

        def work(_: int) -> int:
            try:
                barrier.wait(timeout=30)
                return claim(user, campaign).pk
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(work, range(8)))) == 1


@pytest.mark.django_db
class TestWhyEmpty:
    def test_it_says_that_all_is_done(self) -> None:
        campaign, user = make_campaign(), make_user()
        submit(claim(user, campaign))
        assert queue.why_empty(user=user, campaign=campaign).code == "done"

    def test_it_says_until_when_others_hold_the_rest(self) -> None:
        campaign = make_campaign()
        held = claim(make_user(), campaign)
        empty = queue.why_empty(user=make_user(), campaign=campaign)
        assert empty.code == "held"
        assert f"{timezone.localtime(held.lease_until):%H:%M}" in empty.reason

    def test_it_says_that_the_rest_needs_other_people(self) -> None:
        campaign, user = make_campaign(overlap=2), make_user()
        submit(claim(user, campaign))
        empty = queue.why_empty(user=user, campaign=campaign)
        assert empty.code == "limit"
        assert "1 set still needs" in empty.reason

    def test_it_says_that_the_campaign_is_paused_or_for_others(self) -> None:
        campaign = make_campaign(members=[make_user()])
        user = make_user()
        assert queue.why_empty(user=user, campaign=campaign).code == "member"
        campaigns.change_state(campaign, Campaign.State.PAUSED)
        assert queue.why_empty(user=user, campaign=campaign).code == "paused"
