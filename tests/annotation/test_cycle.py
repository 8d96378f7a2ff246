"""What one cycle, from a submission to the next set, asks of the database."""

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event, Thread

import pytest
from django.core.cache import cache
from django.db import connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation import contents, counts, prepared, queue, views
from annotation.models import Assignment, Item, Seat
from tests.annotation.factories import claim, make_campaign, make_judged_task, slugs, submit
from tests.factories import make_set, make_source, make_user

pytestmark = pytest.mark.django_db
TRANSACTION = re.compile(r"(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b")
JSON = {"Accept": "application/json"}
STATEMENTS = 8


@pytest.mark.parametrize("purpose", ["preference", "comparison", "rating"])
def test_it_takes_few_statements(client: Client, purpose: str) -> None:
    cache.clear()
    task, user = make_judged_task(dimensions=4), make_user()
    size = 2 if purpose == "comparison" else 4
    sets = [make_set(make_source(task), size=size) for _ in range(12)]
    campaign = make_campaign(task=task, sets=sets, purpose=purpose)
    if purpose == "rating":
        campaign.items.update(shown=[1])
    client.force_login(user)
    counts = []
    first = client.post(f"/label/campaign/{campaign.pk}/ahead/", {"ahead": "1"}, headers=JSON)
    (turn,) = (one["turn"] for one in first.json()["sets"])
    for _cycle in range(4):
        said = {"submission": str(uuid.uuid4()), "ahead": "1"}
        if purpose == "rating":
            said |= {"form": "rating", "usable": "yes"}
        for slug in slugs(Assignment.objects.get(pk=turn)):
            said |= {f"best-{slug}": "1", f"worst-{slug}": "2"}
            said |= {f"score-{slug}": "3"} if purpose == "rating" else {}
        with CaptureQueriesContext(connection) as captured:
            answer = client.post(f"/label/{turn}/", said, headers=JSON)
        (turn,) = (one["turn"] for one in answer.json()["sets"])
        counts.append(sum(not TRANSACTION.match(query["sql"]) for query in captured))
    assert Assignment.objects.filter(state="submitted").count() == 4
    # The first ones let the connection plan its statements and count the campaign.
    assert counts[-1] <= STATEMENTS, captured.captured_queries


class TestToppingUp:
    """Of six sets two may be missing before new ones come."""

    @pytest.fixture
    def turns(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        cache.clear()
        monkeypatch.setattr(views, "SPARED", 3)
        client.force_login(make_user())
        campaign = make_campaign(sets=16)
        first = client.post(f"/label/campaign/{campaign.pk}/ahead/", {"ahead": "6"}, headers=JSON)
        return [one["turn"] for one in first.json()["sets"]]

    def send(self, client: Client, turn: int, have: list[int]) -> tuple[list[int], list[int]]:
        """What is new, and what the browser holds no more."""
        said = {"submission": str(uuid.uuid4()), "ahead": "6", "have": have}
        for slug in slugs(Assignment.objects.get(pk=turn)):
            said |= {f"best-{slug}": "1", f"worst-{slug}": "2"}
        answer = client.post(f"/label/{turn}/", said, headers=JSON).json()
        assert answer["empty"] is None
        return [one["turn"] for one in answer["sets"]], answer["gone"]

    def test_several_sets_come_at_once(self, client: Client, turns: list[int]) -> None:
        assert len(turns) == 6
        assert self.send(client, turns[0], turns[1:]) == ([], [])
        assert self.send(client, turns[1], turns[2:]) == ([], [])
        new, gone = self.send(client, turns[2], turns[3:])
        assert (len(new), gone) == (3, [])
        assert self.send(client, turns[3], [*turns[4:], *new]) == ([], [])
        assert Assignment.objects.filter(state="open").count() == 5

    def test_a_browser_that_was_loaded_anew_gets_what_it_lacks(
        self, client: Client, turns: list[int]
    ) -> None:
        assert self.send(client, turns[0], []) == (turns[1:], [])

    def test_another_window_learns_what_is_done(self, client: Client, turns: list[int]) -> None:
        self.send(client, turns[0], turns[1:])
        assert self.send(client, turns[1], [turns[0], *turns[2:]]) == ([], [turns[0]])

    def test_leases_are_renewed_all_the_same(self, client: Client, turns: list[int]) -> None:
        soon = timezone.now() + timedelta(seconds=5)
        Assignment.objects.filter(pk=turns[3]).update(lease_until=soon)
        assert self.send(client, turns[0], turns[1:]) == ([], [])
        assert Assignment.objects.get(pk=turns[3]).lease_until > soon + timedelta(minutes=1)

    def test_whoever_is_paused_keeps_none(self, client: Client, turns: list[int]) -> None:
        Seat.objects.update(paused_at=timezone.now())
        said = {"submission": str(uuid.uuid4()), "ahead": "6", "have": turns[1:]}
        for slug in slugs(Assignment.objects.get(pk=turns[0])):
            said |= {f"best-{slug}": "1", f"worst-{slug}": "2"}
        answer = client.post(f"/label/{turns[0]}/", said, headers=JSON).json()
        assert (answer["sets"], answer["gone"]) == ([], turns[1:])
        assert answer["empty"]


def test_it_looks_from_the_start_after_priorities_have_changed() -> None:
    campaign, user = make_campaign(sets=4), make_user()
    submit(claim(user, campaign))
    *_others, last = campaign.items.order_by("position")
    assert Seat.objects.get().position >= 0
    contents.set_priority(
        campaign=campaign, items=Item.objects.filter(pk=last.pk), priority=contents.MOST
    )
    assert claim(user, campaign).item_id == last.pk


def test_it_hands_out_by_priority_and_what_was_given_back_before_that() -> None:
    campaign, user = make_campaign(sets=4), make_user()
    low, plain, high, given_back = campaign.items.order_by("?")
    for item, priority in ((low, -contents.MOST), (high, 2), (given_back, -1)):
        items = Item.objects.filter(pk=item.pk)
        contents.set_priority(campaign=campaign, items=items, priority=priority)
    queue.to_the_front([given_back.pk])
    got = queue.claim_ahead(user=user, campaign=campaign, wanted=4)
    handed = Assignment.objects.filter(pk__in=got).order_by("pk").values_list("item", flat=True)
    assert list(handed) == [given_back.pk, high.pk, plain.pk, low.pk]


def test_it_plans_a_statement_once_for_each_connection() -> None:
    statement = "SELECT %(word)s::text, %(number)s::int + 1, %(word)s::text"
    with CaptureQueriesContext(connection) as captured, connection.cursor() as cursor:
        for number in range(3):
            prepared.execute(cursor, statement, {"word": "it's", "number": number})
            assert cursor.fetchone() == ("it's", number + 1, "it's")
    said = [query["sql"].split()[0] for query in captured]
    assert said == ["PREPARE", "EXECUTE", "EXECUTE", "EXECUTE"]


def test_it_counts_a_large_campaign_beside_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.clear()
    campaign = make_campaign(sets=2)
    started: list[object] = []
    monkeypatch.setattr(Thread, "start", lambda self: started.append(self))
    assert counts.recent_share(campaign).done == 0
    submit(claim(make_user(), campaign))
    assert counts.recent_share(campaign).done == 0  # a moment ago is good enough
    monkeypatch.setattr(counts, "SHARE_SECONDS", 0)
    share, at, _took = cache.get(counts._share_key(campaign))
    cache.set(counts._share_key(campaign), (share, at - 1000, 1.0))
    assert [counts.recent_share(campaign).done for _ in range(2)] == [0, 0]
    assert len(started) == 1
    cache.set(counts._share_key(campaign), (share, at - 1000, 0.001))
    assert counts.recent_share(campaign).done == 1


def test_it_renews_the_leases_that_have_run() -> None:
    campaign, user = make_campaign(sets=6), make_user()
    held = queue.claim_ahead(user=user, campaign=campaign, wanted=3)
    old, new, _third = (Assignment.objects.get(pk=pk) for pk in held)
    lease = timedelta(seconds=campaign.lease_seconds)
    Assignment.objects.filter(pk=old.pk).update(lease_until=timezone.now() + 0.9 * lease)
    assert queue.claim_ahead(user=user, campaign=campaign, wanted=4)[:3] == held
    assert Assignment.objects.get(pk=old.pk).lease_until > new.lease_until
    assert Assignment.objects.get(pk=new.pk).lease_until == new.lease_until


@pytest.mark.django_db(transaction=True)
def test_a_judgment_counts_though_nothing_can_be_claimed(client: Client) -> None:
    cache.clear()
    campaign, user = make_campaign(sets=3), make_user()
    client.force_login(user)
    client.raise_request_exception = False
    turn = claim(user, campaign)
    said = {"submission": str(uuid.uuid4())}
    for slug in slugs(turn):
        said |= {f"best-{slug}": "1", f"worst-{slug}": "2"}
    with ThreadPoolExecutor(1) as threads, connection.cursor() as cursor:
        locked, answered = Event(), Event()

        def hold_the_seat() -> None:
            try:
                with transaction.atomic():
                    Seat.objects.select_for_update().get()
                    locked.set()
                    answered.wait(30)
            finally:
                connections.close_all()

        holding = threads.submit(hold_the_seat)
        assert locked.wait(30)
        cursor.execute("SET lock_timeout = '100ms'")
        try:
            assert client.post(f"/label/{turn.pk}/", said, headers=JSON).status_code == 503
        finally:
            answered.set()
            holding.result()
            cursor.execute("RESET lock_timeout")
    turn.refresh_from_db()
    assert turn.state == "submitted"
    # What the page's script does with an answer that failed: it sends the same again.
    again = client.post(f"/label/{turn.pk}/", said, headers=JSON)
    assert len(again.json()["sets"]) == 2
    assert turn.judgments.count() == len(slugs(turn))
