from __future__ import annotations

import csv
import io
import uuid
from datetime import timedelta
from math import isnan
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation import (
    aggregation,
    annotators,
    figures,
    judgments,
    quality,
    quality_page,
    queue,
)
from annotation.judged import Filters, load
from annotation.models import (
    Assignment,
    Campaign,
    Dimension,
    Gold,
    Item,
    Judgment,
    Rating,
    Seat,
)
from generation.models import Role, Task
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_gold,
    make_judged_task,
    make_turn,
    picks,
    submit,
)
from tests.factories import make_set, make_source, make_user

pytestmark = pytest.mark.django_db
State = Assignment.State
Kind = Assignment.Kind


@pytest.fixture
def task() -> Task:
    return make_judged_task(1)


@pytest.fixture
def dimension(task: Task) -> Dimension:
    return task.dimensions.get()


@pytest.fixture
def people() -> list[User]:
    return [make_user(name) for name in ("ann", "bob", "cem")]


def campaign_of(task: Task, sets: int = 4, **fields: Any) -> Campaign:
    return make_campaign(task=task, sets=sets, **({"overlap": 3} | fields))


def items_of(campaign: Campaign) -> list[Item]:
    return list(campaign.items.order_by("pk"))


def person(campaign: Campaign, user: User) -> annotators.Person:
    found = annotators.people(load(campaign), campaign)
    return next(one for one in found if one.user == user.pk)


class TestLoad:
    def test_it_knows_places_and_leaves_out_what_does_not_count(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 2)
        first, second = items_of(campaign)
        ann, bob, cem = people
        make_turn(first, ann, {dimension: (2, 0)}, order=[3, 2, 1, 0], seconds_spent=4.0)
        gone = make_turn(first, bob, {dimension: (1, 0)})
        gone.judgments.update(current=False)
        make_turn(first, cem, {dimension: (1, 0)}, kind=Kind.PRACTICE)
        make_turn(second, cem, {dimension: (1, 0)}, kind=Kind.REVIEW)
        make_turn(second, ann, {dimension: "cannot_judge"}, order=[0, 1, 2, 3])
        judged = load(campaign)
        assert len(judged.turn) == 3
        assert judged.place.tolist() == [1, -1]
        assert judged.best.tolist() == [2, -1]
        assert judged.shown.tolist() == [4, 4, 4]
        assert judged.seconds[0] == 4

    def test_it_takes_a_part(self, dimension: Dimension, task: Task, people: list[User]) -> None:
        other = make_judged_task(1)
        sets = [make_set(make_source(task)), make_set(make_source(other))]
        campaign = make_campaign(task=task, sets=[sets[0]], overlap=3)
        campaign.tasks.add(other)
        from annotation.campaigns import add_sets

        add_sets(campaign, sets[1:])
        first = campaign.items.get(set=sets[0])
        second = campaign.items.get(set=sets[1])
        now = timezone.now()
        make_turn(first, people[0], {dimension: (0, 1)}, at=now - timedelta(days=3))
        make_turn(second, people[1], {other.dimensions.get(): (0, 1)}, at=now)
        today = timezone.localdate(now)
        for filters, n in (
            (Filters(), 2),
            (Filters(task=task.pk), 1),
            (Filters(dimension=dimension.pk), 1),
            (Filters(since=today), 1),
            (Filters(until=today - timedelta(days=1)), 1),
            (Filters(person=people[0].pk), 1),
            (Filters(task=task.pk, since=today), 0),
        ):
            assert len(load(campaign, filters).row) == n, filters

    def test_it_needs_few_queries_for_any_number(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 6)
        counts = []
        for part in (items_of(campaign)[:1], items_of(campaign)[1:]):
            for item in part:
                make_gold(item.set, dimension)
                for user in people:
                    make_turn(item, user, {dimension: (0, 1)})
            with CaptureQueriesContext(
                connection,
            ) as queries:
                annotators.people(load(campaign), campaign)
                quality_page.agreement_lines(load(campaign))
            counts.append(len(queries))
        assert counts[0] == counts[1]


class TestPeople:
    def test_it_gives_half_a_point_for_each_of_best_and_worst(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        """Right, best only, worst only, no difference, can't judge: 1 + ½ + ½ + 0 + 0 of 5."""
        campaign = campaign_of(task, 5)
        said: list[Any] = [(0, 1), (0, 2), (2, 1), "no_difference", "cannot_judge"]
        for item, answer in zip(items_of(campaign), said, strict=True):
            make_gold(item.set, dimension, 0, 1)
            make_turn(item, people[0], {dimension: answer}, kind=Kind.GOLD)
        found = person(campaign, people[0])
        assert (found.gold.points, found.gold.n, found.gold.value) == (2, 5, 0.4)
        assert found.turns == 0
        assert quality.gold_share(campaign, people[0].pk) == found.gold

    def test_it_gives_all_or_nothing_on_two_candidates(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        sets = [make_set(make_source(task), size=2) for _ in range(2)]
        campaign = make_campaign(task=task, sets=sets)
        for item, answer in zip(items_of(campaign), [(0, 1), (1, 0)], strict=True):
            make_gold(item.set, dimension, 0, 1)
            make_turn(item, people[0], {dimension: answer}, kind=Kind.GOLD)
        assert person(campaign, people[0]).gold == annotators.Share(1, 2)

    def test_it_checks_only_gold_turns_against_answers_that_were_shown(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 3)
        work, practice, hidden = items_of(campaign)
        make_gold(work.set, dimension)
        make_turn(work, people[0], {dimension: (2, 3)})
        make_gold(practice.set, dimension, practice=True)
        make_turn(practice, people[0], {dimension: (2, 3)}, kind=Kind.GOLD)
        make_gold(hidden.set, dimension, 0, 1)
        make_turn(hidden, people[0], {dimension: (2, 3)}, kind=Kind.GOLD, order=[2, 3])
        assert not person(campaign, people[0]).gold.known
        assert quality.gold_share(campaign, people[0].pk).n == 0

    def test_it_counts_failed_attention_checks(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 3)
        for item, answer in zip(items_of(campaign), [(0, 1), (0, 2), (3, 2)], strict=True):
            make_gold(item.set, dimension, 0, 1, attention=True)
            make_turn(item, people[0], {dimension: answer}, kind=Kind.GOLD)
        found = person(campaign, people[0])
        assert (found.attention.n, found.failed_attention) == (3, 2)

    def test_it_compares_repeats_with_the_same_person_s_first_answer(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        """Same, half, both no difference, changed to no difference, can't judge (left out)."""
        campaign = campaign_of(task, 5)
        said: list[tuple[Any, Any]] = [
            ((0, 1), (0, 1)),
            ((0, 1), (0, 2)),
            ("no_difference", "no_difference"),
            ((0, 1), "no_difference"),
            ((0, 1), "cannot_judge"),
        ]
        for item, (first, again) in zip(items_of(campaign), said, strict=True):
            make_turn(item, people[0], {dimension: first})
            make_turn(item, people[1], {dimension: (3, 2)})
            make_turn(item, people[0], {dimension: again}, kind=Kind.REPEAT)
        assert person(campaign, people[0]).repeats == annotators.Share(2.5, 4)
        assert not person(campaign, people[1]).repeats.known

    def test_it_compares_with_other_people_on_the_same_sets(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        """Item 1: ann 0, bob 0, cem 1. Item 2: ann and bob no difference. Item 3: ann alone."""
        campaign = campaign_of(task, 3)
        first, second, third = items_of(campaign)
        ann, bob, cem = people
        for user, best in ((ann, 0), (bob, 0), (cem, 1)):
            make_turn(first, user, {dimension: (best, 3)})
        make_turn(second, ann, {dimension: "no_difference"})
        make_turn(second, bob, {dimension: "no_difference"})
        make_turn(third, ann, {dimension: (0, 1)})
        assert person(campaign, ann).others == annotators.Share(2, 3)
        assert person(campaign, cem).others == annotators.Share(0, 2)
        assert person(campaign, ann).no_difference == annotators.Share(1, 3)

    def test_it_sees_a_preferred_place_whatever_the_candidates_are(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 12)
        for n, item in enumerate(items_of(campaign)):
            order = [(n + k) % 4 for k in range(4)]
            make_turn(item, people[0], {dimension: (order[0], order[1])}, order=order)
            make_turn(item, people[1], {dimension: (0, 1)}, order=order)
        lefty, even = person(campaign, people[0]).bias, person(campaign, people[1]).bias
        assert lefty.picks == [12, 0, 0, 0]
        assert lefty.p_value < 0.001
        assert even.picks == [3, 3, 3, 3]
        assert even.p_value == 1

    def test_it_measures_speed_against_the_campaign(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 9)
        for n, item in enumerate(items_of(campaign)):
            make_turn(item, people[0], {dimension: (0, 1)}, seconds_spent=8.0 + n)
            make_turn(item, people[1], {dimension: (0, 1)}, seconds_spent=9.0 + n)
        make_turn(items_of(campaign)[0], people[2], {dimension: (0, 1)}, seconds_spent=0.4)
        found = person(campaign, people[0])
        assert found.seconds == 12
        assert abs(found.speed_z) < 1
        fast = person(campaign, people[2])
        assert fast.speed_z < -3.5
        assert (fast.outliers.points, fast.outliers.n) == (1, 1)

    def test_it_says_what_to_look_at(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 24)
        for n, item in enumerate(items_of(campaign)):
            make_gold(item.set, dimension, 0, 1, attention=n == 0)
            order = [(n + k) % 4 for k in range(4)]
            make_turn(item, people[0], {dimension: (0, 1)}, order=order)
            make_turn(item, people[1], {dimension: (0, 1)}, order=order)
            answer = (order[0], order[1])
            make_turn(item, people[2], {dimension: answer}, order=order)
            lazy = {dimension: (2, 3)}
            make_turn(item, people[2], lazy, order=order, kind=Kind.GOLD)
        names = quality_page.names_for(make_user(is_staff=True), campaign, [u.pk for u in people])
        lines = {line.name: line for line in quality_page.lines(campaign, load(campaign), names)}
        assert lines["ann"].signs == []
        assert lines["cem"].signs[:2] == ["known answers", "1 failed check"]
        assert "differs from others" in lines["cem"].signs
        first = quality_page.lines(campaign, load(campaign), names)[0]
        assert first.name == "cem"


class TestAgreement:
    def test_it_counts_values_as_defined(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 2)
        first, second = items_of(campaign)
        said: list[Any] = [(0, 3), (0, 2), "no_difference"]
        for user, answer in zip(people, said, strict=True):
            make_turn(first, user, {dimension: answer})
        make_turn(second, people[0], {dimension: (1, 0)})
        make_turn(second, people[1], {dimension: "cannot_judge"})
        judged = load(campaign)
        _, picks = figures.pick_counts(judged)
        assert picks.tolist() == [[2, 0, 0, 0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0]]
        labels, sets = figures.label_counts(judged)
        # (worst, neither, best) of candidates 0 to 3 of the first item.
        assert labels[:4].tolist() == [[0, 1, 2], [0, 3, 0], [1, 2, 0], [1, 2, 0]]
        assert sets.tolist() == [first.pk] * 4 + [second.pk] * 4

    def test_it_has_a_row_for_all_and_one_per_task_and_dimension(self, people: list[User]) -> None:
        task = make_judged_task(2)
        campaign = campaign_of(task, 3)
        one, two = task.dimensions.order_by("pk")
        for item in items_of(campaign):
            for n, user in enumerate(people):
                make_turn(item, user, {one: (item.pk % 4, (item.pk + 1) % 4), two: (n, n + 1)})
        whole, same, apart = figures.agreements(load(campaign))
        assert (whole.task, whole.judgments) == (None, 18)
        assert (same.dimension, same.pairwise.value, same.picks.value) == (one.pk, 1, 1)
        assert same.labels.value == 1
        assert (apart.pairwise.value, apart.pairwise.n) == (0, 3)
        assert apart.picks.value < 0

    def test_it_measures_ratings(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 2, purpose=Campaign.Purpose.RATING)
        for item in items_of(campaign):
            candidate = item.set.candidates.order_by("index")[0]
            for user in people[:2]:
                turn = make_turn(item, user)
                value = 1 + item.pk % 5
                about: dict[str, Any] = {
                    "assignment": turn,
                    "set": item.set,
                    "candidate": candidate,
                }
                Rating.objects.create(
                    dimension=dimension, wording=dimension.wording, value=value, **about
                )
                usable = int(user == people[0])
                Rating.objects.create(value=usable, **about)
        rated = {row.dimension: row for row in figures.rating_agreements(campaign)}
        assert (rated[dimension.pk].pairwise.value, rated[dimension.pk].alpha.value) == (1, 1)
        assert rated[None].pairwise.value == 0
        assert [
            r.dimension for r in figures.rating_agreements(campaign, Filters(dimension=1))
        ] == []

    def test_it_follows_agreement_through_time(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 4)
        now = timezone.now()
        for n, item in enumerate(items_of(campaign)):
            for k, user in enumerate(people):
                best = 0 if n < 2 else k
                at = now - timedelta(days=2 if n < 2 else 0)
                make_turn(item, user, {dimension: (best, 3)}, at=at)
        found, weekly = quality_page.spells(load(campaign))
        assert not weekly
        assert [(s.pairwise.value, s.pairwise.n) for s in found] == [(1, 2), (0, 2)]
        chart = quality_page.agreement_chart(load(campaign), "")
        assert chart is not None
        assert chart.title == "Agreement fell from 100 % to 0 %"
        assert sum(n for _, n in figures.hourly(load(campaign))) == 12

    def test_it_ranks_the_hardest_sets(
        self, task: Task, dimension: Dimension, people: list[User]
    ) -> None:
        campaign = campaign_of(task, 3)
        agreed, split, same = items_of(campaign)
        for k, user in enumerate(people):
            make_turn(agreed, user, {dimension: (0, 1)}, seconds_spent=50.0)
            make_turn(split, user, {dimension: (k, 3)}, seconds_spent=5.0)
            make_turn(same, user, {dimension: "no_difference"}, seconds_spent=2.0)
        judged = load(campaign)
        hardest = figures.hardest(judged, "disagreement", 5)
        assert [(h.item, h.people, h.disagreement) for h in hardest] == [(split.pk, 3, 1.0)]
        assert figures.hardest(judged, "same", 5)[0].item == same.pk
        slow = figures.hardest(judged, "slow", 5)
        assert [(h.item, h.seconds) for h in slow][0] == (agreed.pk, 50)


class TestPausing:
    @pytest.fixture
    def campaign(self, task: Task) -> Campaign:
        return campaign_of(task, 6, pause_below=0.6, pause_after=3)

    def answer(
        self, campaign: Campaign, user: User, dimension: Dimension, right: list[bool]
    ) -> Assignment:
        last: Assignment | None = None
        done = Assignment.objects.filter(annotator=user, kind=Kind.GOLD).count()
        for item, good in zip(items_of(campaign)[done:], right, strict=False):
            if not item.set.golds.exists():
                make_gold(item.set, dimension)
            answer = (0, 1) if good else (2, 3)
            last = make_turn(item, user, {dimension: answer}, kind=Kind.GOLD)
        assert last is not None
        return last

    def test_it_pauses_after_enough_wrong_answers(
        self, campaign: Campaign, dimension: Dimension, people: list[User]
    ) -> None:
        turn = self.answer(campaign, people[0], dimension, [True, False])
        assert quality.after_gold(assignment=turn) is False
        turn = self.answer(campaign, people[0], dimension, [False])
        assert quality.after_gold(assignment=turn) is True
        seat = Seat.objects.get(campaign=campaign, user=people[0])
        assert seat.paused_at is not None
        assert seat.paused_reason == ("33 % right on 3 known answers; this campaign asks for 60 %.")
        assert quality.after_gold(assignment=turn) is False

    def test_it_leaves_good_people_and_campaigns_without_a_threshold_alone(
        self, campaign: Campaign, dimension: Dimension, people: list[User]
    ) -> None:
        turn = self.answer(campaign, people[0], dimension, [True, True, False])
        assert quality.after_gold(assignment=turn) is False
        bad = self.answer(campaign, people[1], dimension, [False] * 4)
        Campaign.objects.update(pause_below=None)
        bad = Assignment.objects.get(pk=bad.pk)
        assert quality.after_gold(assignment=bad) is False
        campaign.refresh_from_db()
        assert quality.pause_unreliable(campaign) == []
        assert not Seat.objects.exists()

    def test_it_starts_afresh_after_a_resume(
        self, campaign: Campaign, dimension: Dimension, people: list[User]
    ) -> None:
        turn = self.answer(campaign, people[0], dimension, [False] * 3)
        assert [seat.user for seat in quality.pause_unreliable(campaign)] == [people[0]]
        assert quality.resume(campaign=campaign, user_id=people[0].pk)
        assert not quality.resume(campaign=campaign, user_id=people[0].pk)
        assert quality.after_gold(assignment=turn) is False
        seat = Seat.objects.get()
        assert (seat.paused_at, seat.paused_reason) == (None, "")
        turn = self.answer(campaign, people[0], dimension, [False] * 3)
        assert quality.after_gold(assignment=turn) is True


class TestRequeue:
    @pytest.fixture
    def campaign(self, task: Task, people: list[User]) -> Campaign:
        """ann judged three of four sets with an overlap of one; the first long ago."""
        campaign = campaign_of(task, 4, overlap=1)
        for _ in range(3):
            submit(claim(people[0], campaign))
        first = Assignment.objects.order_by("pk")[0]
        Assignment.objects.filter(pk=first.pk).update(
            submitted_at=timezone.now() - timedelta(days=5)
        )
        return campaign

    def test_it_says_the_numbers_first(self, campaign: Campaign, people: list[User]) -> None:
        since = timezone.now() - timedelta(days=1)
        found = quality.requeue_recent(campaign=campaign, user=people[0], since=since, dry_run=True)
        assert (found.turns, found.judgments, found.at) == (2, 2, None)
        assert Judgment.objects.current().count() == 3
        assert Assignment.objects.filter(state=State.SUBMITTED).count() == 3

    def test_it_withdraws_and_frees_but_never_deletes(
        self, campaign: Campaign, people: list[User]
    ) -> None:
        since = timezone.now() - timedelta(days=1)
        done = quality.requeue_recent(campaign=campaign, user=people[0], since=since)
        assert (done.turns, done.judgments) == (2, 2)
        assert Judgment.objects.count() == 3
        assert Judgment.objects.filter(current=False, withdrawn_at=done.at).count() == 2
        assert Assignment.objects.filter(state=State.EXPIRED).count() == 2
        returned = campaign.items.filter(position__lt=0)
        assert returned.count() == 2
        assert not returned.filter(full=True).exists()
        # Somebody else gets the returned sets before the one nobody had.
        taken = [submit(claim(people[1], campaign))[0].assignment.item_id for _ in range(2)]
        assert set(taken) == set(returned.values_list("pk", flat=True))
        again = quality.requeue_recent(campaign=campaign, user=people[0], since=since)
        assert (again.turns, again.judgments) == (0, 0)

    def test_it_can_be_undone(self, campaign: Campaign, people: list[User]) -> None:
        before = list(campaign.items.order_by("pk").values_list("pk", "full"))
        positions = list(campaign.items.order_by("pk").values_list("position", flat=True))
        since = timezone.now() - timedelta(days=1)
        done = quality.requeue_recent(campaign=campaign, user=people[0], since=since)
        assert [(r.at, r.turns) for r in quality.requeues(campaign, people[0])] == [(done.at, 2)]
        assert done.at is not None
        assert quality.undo_requeue(campaign=campaign, user=people[0], at=done.at) == (2, 0)
        assert Judgment.objects.current().count() == 3
        assert not Judgment.objects.filter(withdrawn_at__isnull=False).exists()
        assert list(campaign.items.order_by("pk").values_list("pk", "full")) == before
        after = campaign.items.order_by("pk").values_list("position", flat=True)
        assert list(after) == pytest.approx(positions)
        assert quality.requeues(campaign, people[0]) == []

    def test_it_undoes_only_what_nobody_took(self, campaign: Campaign, people: list[User]) -> None:
        since = timezone.now() - timedelta(days=1)
        done = quality.requeue_recent(campaign=campaign, user=people[0], since=since)
        submit(claim(people[1], campaign))
        assert done.at is not None
        assert quality.undo_requeue(campaign=campaign, user=people[0], at=done.at) == (1, 1)
        live = Assignment.objects.filter(state=State.SUBMITTED)
        assert live.count() == 3
        assert live.values("item").distinct().count() == 3

    def test_it_touches_nobody_else_s_work(self, campaign: Campaign, people: list[User]) -> None:
        submit(claim(people[1], campaign))
        quality.requeue_recent(
            campaign=campaign, user=people[0], since=timezone.now() - timedelta(days=9)
        )
        assert Judgment.objects.current().get().assignment.annotator == people[1]


class TestPages:
    @pytest.fixture
    def campaign(self, task: Task, dimension: Dimension, people: list[User]) -> Campaign:
        campaign = campaign_of(task, 4, pause_below=0.6, pause_after=2, name="Spring")
        items = items_of(campaign)
        for item in items[:3]:
            for k, user in enumerate(people):
                make_turn(item, user, {dimension: (k % 2, 3)}, seconds_spent=6.0 + k)
        for item in items[2:]:
            make_gold(item.set, dimension)
            make_turn(item, people[2], {dimension: (2, 3)}, kind=Kind.GOLD)
        return campaign

    def rows(self, response: Any) -> list[dict[str, str]]:
        assert response.headers["Content-Type"].startswith("text/csv")
        assert response.streaming
        text = b"".join(response.streaming_content).decode()
        return list(csv.DictReader(io.StringIO(text)))

    def test_managers_see_names_and_reviewers_do_not(
        self, client: Client, campaign: Campaign
    ) -> None:
        url = f"/campaigns/{campaign.pk}/quality/"
        client.force_login(make_user("boss", role=Role.MANAGER))
        text = client.get(url).content.decode()
        assert ">ann</a>" in text
        assert "33 %" in text
        client.force_login(make_user("judge", role=Role.REVIEWER))
        response = client.get(url)
        text = response.content.decode()
        assert ">ann<" not in text
        assert "Annotator " in text
        assert "Pause" not in text
        labels = client.get(f"/campaigns/{campaign.pk}/labels/?format=csv")
        assert {row["annotator"] for row in self.rows(labels)}.isdisjoint({"ann", "bob", "cem"})

    def test_strangers_learn_nothing_and_annotators_are_told_why(
        self, client: Client, campaign: Campaign, people: list[User]
    ) -> None:
        pages = ["quality/", "labels/", "quality/gold/", f"quality/people/{people[0].pk}/"]
        client.force_login(make_user(role=None))
        for page in pages:
            assert client.get(f"/campaigns/{campaign.pk}/{page}").status_code == 404
        client.force_login(people[0])
        for page in pages:
            assert client.get(f"/campaigns/{campaign.pk}/{page}").status_code == 403
        client.force_login(make_user(role=Role.REVIEWER))
        codes = [client.get(f"/campaigns/{campaign.pk}/{page}").status_code for page in pages]
        assert codes == [200, 200, 403, 403]
        for post in ("quality/pause/", "quality/consensus/", "quality/gold/"):
            assert client.post(f"/campaigns/{campaign.pk}/{post}").status_code == 403
        assert not Seat.objects.exists()

    def test_it_shows_an_empty_campaign_what_to_do(self, client: Client, task: Task) -> None:
        campaign = campaign_of(task, 1)
        client.force_login(make_user(role=Role.MANAGER))
        text = client.get(f"/campaigns/{campaign.pk}/quality/").content.decode()
        assert "Nobody has submitted a set yet" in text
        assert "Label the first set" in text
        text = client.get(f"/campaigns/{campaign.pk}/quality/?since=2001-01-01").content.decode()
        assert "No judgments match" in text

    def test_it_filters_and_sorts_by_address(
        self, client: Client, campaign: Campaign, task: Task
    ) -> None:
        client.force_login(make_user(role=Role.MANAGER))
        url = f"/campaigns/{campaign.pk}/quality/"
        asked: dict[str, Any] = {"task": task.pk, "sort": "-turns", "by": "slow"}
        response = client.get(url, asked)
        assert [line.name for line in response.context["lines"]][-1] in {"ann", "bob", "cem"}
        assert response.context["judgments"] == 11
        for sort in [column["key"] for column in response.context["columns"]]:
            for sign in ("", "-"):
                assert client.get(url, {"sort": sign + sort}).status_code == 200
        response = client.get(url, {"task": "x", "since": "nonsense", "sort": "?", "by": "?"})
        assert response.status_code == 200
        assert client.get(url, {"until": "2001-01-01"}).context["judgments"] == 0

    def test_every_table_downloads(
        self, client: Client, campaign: Campaign, dimension: Dimension
    ) -> None:
        aggregation.aggregate(campaign)
        client.force_login(make_user(role=Role.MANAGER))
        url = f"/campaigns/{campaign.pk}/quality/"

        def table(name: str) -> list[dict[str, str]]:
            return self.rows(client.get(url, {"table": name, "format": "csv"}))

        people = {row["annotator"]: row for row in table("annotators")}
        assert people["cem"]["gold"] == "0.0"
        assert people["ann"]["gold"] == ""
        assert people["ann"]["agreement_with_others"] == "0.5"
        agreement = table("agreement")
        assert [row["dimension"] for row in agreement] == ["all", dimension.slug]
        assert float(agreement[0]["pairwise"]) == pytest.approx(1 / 3, abs=1e-5)
        assert sum(int(row["labels"]) for row in table("hours")) == 11
        assert table("time")[0]["pairwise_n"] == "3"
        places = table("places")
        assert sum(int(row["picks"]) for row in places if row["annotator"] == "all") == 11
        assert len(table("hardest")) == 3
        assert len(table("consensus")) == 3
        assert client.get(url, {"table": "x", "format": "csv"}).status_code == 404

    def test_a_name_cannot_be_a_formula(
        self, client: Client, campaign: Campaign, people: list[User]
    ) -> None:
        User.objects.filter(pk=people[0].pk).update(username="@SUM(1)")
        client.force_login(make_user(role=Role.MANAGER))
        rows = self.rows(client.get(f"/campaigns/{campaign.pk}/labels/?format=csv"))
        assert "'@SUM(1)" in {row["annotator"] for row in rows}

    def test_labels_are_filtered_and_pseudonyms_not_probed(
        self, client: Client, campaign: Campaign, people: list[User], dimension: Dimension
    ) -> None:
        url = f"/campaigns/{campaign.pk}/labels/"
        client.force_login(make_user(role=Role.MANAGER))
        assert client.get(url).context["page"].paginator.count == 11
        mine = client.get(url, {"person": people[0].pk})
        assert mine.context["page"].paginator.count == 3
        asked: dict[str, Any] = {"dimension": dimension.pk, "outcome": "no_difference"}
        none = client.get(url, asked)
        assert none.context["page"].paginator.count == 0
        gold = client.get(url, {"kind": "gold"})
        assert gold.context["page"].paginator.count == 2
        client.force_login(make_user(role=Role.REVIEWER))
        probed = client.get(url, {"person": people[0].pk})
        assert probed.context["page"].paginator.count == 11

    def test_a_manager_pauses_and_resumes(
        self, client: Client, campaign: Campaign, people: list[User]
    ) -> None:
        client.force_login(make_user(role=Role.MANAGER))
        response = client.post(f"/campaigns/{campaign.pk}/quality/pause/", follow=True)
        assert "Paused: cem." in response.content.decode()
        assert Seat.objects.get().user == people[2]
        url = f"/campaigns/{campaign.pk}/quality/people/{people[2].pk}/"
        assert "0 % right on 2 known answers" in client.get(url).content.decode()
        client.post(url, {"verb": "resume"})
        assert Seat.objects.get().paused_at is None
        client.post(url, {"verb": "pause", "reason": "asked to"})
        assert Seat.objects.get().paused_reason == "asked to"
        assert client.post(url, {"verb": "delete"}).status_code == 404

    def test_a_manager_requeues_after_a_preview_and_undoes_it(
        self, client: Client, campaign: Campaign, people: list[User]
    ) -> None:
        client.force_login(make_user(role=Role.MANAGER))
        url = f"/campaigns/{campaign.pk}/quality/people/{people[0].pk}/"
        since = (timezone.localtime() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
        text = client.get(url, {"since": since}).content.decode()
        assert "Withdraw 3 judgments" in text
        assert Judgment.objects.current().count() == 11
        client.post(url, {"verb": "requeue", "since": since})
        assert Judgment.objects.current().count() == 8
        assert "Work that was put back" in client.get(url).content.decode()
        at = quality.requeues(campaign, people[0])[0].at
        response = client.post(url, {"verb": "undo", "at": at.isoformat()}, follow=True)
        assert "3 sets were given back." in response.content.decode()
        assert Judgment.objects.current().count() == 11
        assert client.get(url, {"since": "soon"}).status_code == 422
        for wrong in ({"verb": "requeue", "since": "soon"}, {"verb": "undo", "at": "soon"}):
            assert client.post(url, wrong).status_code == 404

    def test_a_manager_makes_known_answers_after_a_preview(
        self, client: Client, campaign: Campaign, people: list[User], dimension: Dimension
    ) -> None:
        fresh = items_of(campaign)[3]
        for user in people:
            make_turn(fresh, user, {dimension: (1, 2)})
        Gold.objects.all().delete()
        client.force_login(make_user(role=Role.MANAGER))
        url = f"/campaigns/{campaign.pk}/quality/gold/"
        data: dict[str, Any] = {"min_annotators": 3}
        assert "Make 1 known answers" in client.get(url, data).content.decode()
        assert not Gold.objects.exists()
        client.post(url, data)
        gold = Gold.objects.get()
        assert (gold.set, gold.best.index, gold.origin) == (fresh.set, 1, "consensus")
        assert client.get(url, {"min_annotators": 1}).status_code == 422

    def test_it_shows_the_consensus_and_how_old_it_is(
        self, client: Client, campaign: Campaign, people: list[User], dimension: Dimension
    ) -> None:
        url = f"/campaigns/{campaign.pk}/quality/"
        client.force_login(make_user(role=Role.MANAGER))
        assert "not been worked out" in client.get(url).content.decode()
        aggregation.aggregate(campaign)
        text = client.get(url).content.decode()
        assert "3 answers from 9 judgments" in text
        assert "have changed since" not in text
        make_turn(items_of(campaign)[3], people[0], {dimension: (0, 1)})
        assert "1 judgments have changed since" in client.get(url).content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_worker_works_out_the_consensus(client: Client, celery_worker: Any) -> None:
    task = make_judged_task(1)
    campaign = make_campaign(task=task, sets=2, overlap=2)
    for user in (make_user(), make_user()):
        for _ in range(2):
            submit(claim(user, campaign), submission=uuid.uuid4())
    client.force_login(make_user(role=Role.MANAGER))
    celery_worker("default")
    client.post(f"/campaigns/{campaign.pk}/quality/consensus/")
    end = timezone.now() + timedelta(seconds=120)
    while not campaign.items.filter(consensus__isnull=False).exists():
        assert timezone.now() < end
    text = client.get(f"/campaigns/{campaign.pk}/quality/").content.decode()
    assert "2 answers from 4 judgments" in text


def test_it_knows_no_share_of_nothing() -> None:
    assert isnan(annotators.Share().value)


def test_a_paused_person_gives_back_what_they_hold_and_later_answers_do_not_count() -> None:
    campaign, user = make_campaign(), make_user()
    held = queue.claim(user=user, campaign=campaign)
    assert held is not None
    quality.pause(campaign=campaign, user_id=user.pk, reason="Read the guide.")
    judgments.record(assignment=held, user=user, answers=picks(held))
    held.refresh_from_db()
    assert held.state == Assignment.State.LATE
    assert not Judgment.objects.counted().exists()
    other = queue.claim(user=make_user(), campaign=campaign)
    assert other is not None
    assert other.item_id == held.item_id
