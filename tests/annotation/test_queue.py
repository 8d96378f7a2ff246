from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, connections
from django.utils import timezone

from annotation import campaigns, counts, judgments, queue
from annotation.empty import why_empty
from annotation.models import Assignment, Campaign, Judgment, Seat
from generation.models import CandidateSet
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_golds,
    make_judged_task,
    submit,
)
from tests.factories import make_set, make_source, make_user

State = Assignment.State
Kind = Assignment.Kind


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
        assert why_empty(user=user, campaign=campaign).code == "pending"
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

    def test_it_hands_out_what_was_given_back_first(self) -> None:
        campaign, user = make_campaign(sets=4), make_user()
        first, second = (claim(make_user(), campaign) for _ in range(2))
        judgments.skip(assignment=second, user=second.annotator)
        let_lease_run_out(first)
        queue.expire_leases()
        got = queue.claim_ahead(user=user, campaign=campaign, wanted=3)
        items = [Assignment.objects.get(pk=pk).item_id for pk in got]
        assert set(items[:2]) == {first.item_id, second.item_id}
        assert items[2] not in items[:2]

    def test_it_goes_on_behind_the_last_item_and_then_from_the_start(self) -> None:
        campaign, user = make_campaign(sets=3), make_user()
        items = list(campaign.items.order_by("position"))
        Seat.objects.create(campaign=campaign, user=user, position=items[0].position)
        got = queue.claim_ahead(user=user, campaign=campaign, wanted=3)
        handed = list(Assignment.objects.filter(pk__in=got).order_by("pk"))
        assert [turn.item_id for turn in handed] == [items[1].pk, items[2].pk, items[0].pk]

    def test_it_keeps_the_same_turns_ready_and_fills_them_up(self) -> None:
        campaign, user = make_campaign(sets=5), make_user()
        first = queue.claim_ahead(user=user, campaign=campaign, wanted=3)
        assert queue.claim_ahead(user=user, campaign=campaign, wanted=3) == first
        submit(Assignment.objects.get(pk=first[0]))
        again = queue.claim_ahead(user=user, campaign=campaign, wanted=3)
        assert again[:2] == first[1:]
        assert len(set(again)) == 3

    def test_it_gives_a_turn_back_to_the_same_person_only_when_nothing_else_is_left(self) -> None:
        campaign, user = make_campaign(sets=2), make_user()
        left = claim(user, campaign)
        let_lease_run_out(left)
        queue.expire_leases()
        other = claim(user, campaign)
        assert other.item_id != left.item_id
        submit(other)
        assert claim(user, campaign).pk == left.pk

    def test_it_stops_at_the_daily_limit(self) -> None:
        campaign, user = make_campaign(sets=5, daily_limit=2), make_user()
        assert len(queue.claim_ahead(user=user, campaign=campaign, wanted=4)) == 2
        submit(claim(user, campaign))
        submit(claim(user, campaign))
        assert queue.claim(user=user, campaign=campaign) is None
        assert why_empty(user=user, campaign=campaign).code == "today"
        assert claim(make_user(), campaign)
        Assignment.objects.update(submitted_at=timezone.now() - timedelta(days=1))
        assert claim(user, campaign)

    def test_it_hands_out_nothing_after_the_deadline_but_takes_what_was_handed_out(self) -> None:
        campaign, user = make_campaign(sets=2), make_user()
        turn = claim(user, campaign)
        Campaign.objects.update(deadline=timezone.now() - timedelta(minutes=1))
        campaign.refresh_from_db()
        assert queue.claim(user=make_user(), campaign=campaign) is None
        assert why_empty(user=user, campaign=campaign).code == "deadline"
        submit(turn)
        assert counts.judged_share(campaign)[0] == 1

    def test_it_hands_out_nothing_to_a_paused_person(self) -> None:
        campaign, user = make_campaign(), make_user()
        Seat.objects.create(
            campaign=campaign, user=user, paused_at=timezone.now(), paused_reason="Read the guide."
        )
        assert queue.claim(user=user, campaign=campaign) is None
        empty = why_empty(user=user, campaign=campaign)
        assert (empty.code, empty.remedy) == ("seat", "Read the guide.")

    def test_it_asks_for_practice_first(self) -> None:
        campaign, user = make_campaign(practice_sets=2), make_user()
        assert queue.claim(user=user, campaign=campaign) is None
        assert why_empty(user=user, campaign=campaign).code == "practice"
        Seat.objects.update(practice_passed_at=timezone.now())
        assert claim(user, campaign)

    def test_it_shows_only_the_candidates_an_item_names(self) -> None:
        campaign = make_campaign()
        campaign.items.update(shown=[3, 1])
        assert sorted(claim(make_user(), campaign).order) == [1, 3]

    def test_it_balances_the_sides_of_a_comparison_for_each_person(self) -> None:
        task = make_judged_task()
        sets = [make_set(make_source(task), size=2) for _ in range(8)]
        campaign = make_campaign(task=task, sets=sets, overlap=2, purpose="comparison")
        for _ in range(2):
            user = make_user()
            for _turn in range(8):
                submit(claim(user, campaign))
            orders = [turn.order for turn in Assignment.objects.filter(annotator=user)]
            assert Counter(map(tuple, orders)) == {(0, 1): 4, (1, 0): 4}


@pytest.mark.django_db
def test_it_admits_whom_the_campaign_admits() -> None:
    """The claim's own statement says the same as `campaigns.admits`, for every sort of person."""
    club, others = Group.objects.create(name="club"), Group.objects.create(name="others")
    people = {
        "member": make_user(),
        "viewer": make_user(role="viewer"),
        "reviewer": make_user(role="reviewer"),
        "stranger": make_user(role=None),
        "staff": make_user(role=None, is_staff=True),
        "superuser": make_user(role=None, is_superuser=True),
        "in the club": make_user(),
        "listed": make_user(),
    }
    people["in the club"].groups.add(club)
    open_to_all, listed, grouped = (make_campaign(overlap=20) for _ in range(3))
    listed.members.add(people["listed"])
    grouped.groups.add(club, others)
    for campaign in (open_to_all, listed, grouped):
        for user in people.values():
            Seat.objects.create(campaign=campaign, user=user)
    expected = {
        open_to_all.pk: set(people) - {"viewer", "stranger"},
        listed.pk: {"listed"},
        grouped.pk: {"in the club"},
    }
    for campaign in (open_to_all, listed, grouped):
        admitted = {name for name, user in people.items() if campaigns.admits(campaign, user)}
        claimed = {
            name
            for name, user in people.items()
            if queue.claim(user=user, campaign=campaign) is not None
        }
        assert admitted == claimed == expected[campaign.pk]


@pytest.mark.django_db
class TestKnownAnswers:
    def test_it_mixes_in_gold_beside_the_overlap(self) -> None:
        campaign, user = make_campaign(sets=2, gold_rate=1.0), make_user()
        gold = campaign.items.all()[0]
        make_golds(gold.set)
        submit(claim(make_user(), campaign))  # somebody has seen it already
        turn = claim(user, campaign)
        assert (turn.item_id, turn.kind) == (gold.pk, Kind.GOLD)
        submit(turn)
        assert not Judgment.objects.counted().filter(assignment=turn).exists()
        following = claim(user, campaign)
        assert (following.kind, following.item_id == gold.pk) == (Kind.WORK, False)
        gold.refresh_from_db()
        assert not gold.full or gold.assignments.filter(kind=Kind.WORK).exists()

    def test_it_keeps_practice_sets_out_of_the_work(self) -> None:
        campaign = make_campaign(sets=2, gold_rate=1.0)
        practised, other = campaign.items.order_by("position")
        make_golds(practised.set, practice=True)
        turn = claim(user := make_user(), campaign)
        assert (turn.item_id, turn.kind) == (other.pk, Kind.WORK)
        submit(turn)
        assert queue.claim(user=user, campaign=campaign) is None
        assert counts.judged_share(campaign) == (1, 1)
        assert why_empty(user=user, campaign=campaign).code == "done"

    def test_it_repeats_a_set_once_after_a_while(self) -> None:
        count = queue.REPEAT_AFTER + 2
        campaign, user = make_campaign(sets=count + 3), make_user()
        done = []
        for _ in range(count):
            done.append(turn := claim(user, campaign))
            submit(turn)
        Campaign.objects.update(repeat_rate=1.0)
        repeats = []
        for _ in range(2):
            repeats.append(turn := claim(user, campaign))
            submit(turn)
        assert {turn.kind for turn in repeats} == {Kind.REPEAT}
        assert {turn.item_id for turn in repeats} == {turn.item_id for turn in done[:2]}
        assert claim(user, campaign).kind == Kind.WORK
        assert counts.judged_share(campaign)[0] == count


@pytest.mark.django_db
class TestFull:
    """The database keeps `Item.full`."""

    def full(self, campaign: Campaign) -> bool:
        return campaign.items.get().full

    def test_it_follows_turns_that_are_taken_given_back_and_deleted(self) -> None:
        campaign = make_campaign(overlap=2)
        first, second = claim(make_user(), campaign), claim(make_user(), campaign)
        assert self.full(campaign)
        judgments.skip(assignment=first, user=first.annotator)
        assert not self.full(campaign)
        third = claim(make_user(), campaign)
        submit(third)
        assert self.full(campaign)
        Assignment.objects.filter(pk=second.pk).delete()
        assert not self.full(campaign)

    def test_it_follows_the_campaigns_overlap(self) -> None:
        campaign = make_campaign()
        submit(claim(make_user(), campaign))
        for overlap, full in ((2, False), (1, True)):
            Campaign.objects.update(overlap=overlap)
            assert self.full(campaign) is full

    def test_it_stores_no_turn_where_no_slot_is_free(self) -> None:
        campaign = make_campaign()
        turn = claim(make_user(), campaign)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO annotation_assignment (item_id, set_id, annotator_id, kind, "
                '"order", state, lease_until, skip_reason, comment, created_at) '
                "VALUES (%s, %s, %s, 'work', '[]', 'open', now(), '', '', now())",
                [turn.item_id, turn.set_id, make_user().pk],
            )
            assert cursor.rowcount == 0


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
        assert why_empty(user=user, campaign=campaign).code == "done"

    def test_it_says_until_when_others_hold_the_rest(self) -> None:
        campaign = make_campaign()
        held = claim(make_user(), campaign)
        empty = why_empty(user=make_user(), campaign=campaign)
        assert empty.code == "held"
        assert f"{timezone.localtime(held.lease_until):%H:%M}" in empty.reason

    def test_it_says_that_the_rest_needs_other_people(self) -> None:
        campaign, user = make_campaign(overlap=2), make_user()
        submit(claim(user, campaign))
        empty = why_empty(user=user, campaign=campaign)
        assert empty.code == "limit"
        assert "1 set still needs" in empty.reason

    def test_it_says_that_the_campaign_is_paused_or_for_others(self) -> None:
        campaign = make_campaign(members=[make_user()])
        user = make_user()
        assert why_empty(user=user, campaign=campaign).code == "member"
        campaigns.change_state(campaign, Campaign.State.PAUSED)
        assert why_empty(user=user, campaign=campaign).code == "paused"
