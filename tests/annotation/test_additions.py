"""Adding many sets to a campaign."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import QuerySet
from django.http import QueryDict
from django.test import Client
from django.utils import timezone

from annotation import additions, campaigns
from annotation.errors import Refused
from annotation.models import Addition, Campaign, Item
from generation.models import AuditEntry, Policy, Role, Verb
from tests.annotation.factories import make_campaign, make_judged_task
from tests.factories import make_set, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def campaign(monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """Seven ready sets, one of them in the queue; more than two take a while, two at a time."""
    monkeypatch.setattr(additions, "AT_ONCE", 2)
    monkeypatch.setattr(campaigns, "BATCH", 2)
    task = make_judged_task()
    made = make_campaign(task=task, sets=1)
    for _ in range(6):
        make_set(make_source(task))
    return made


@pytest.fixture
def manager(client: Client) -> Client:
    client.force_login(make_user(role=Role.MANAGER))
    return client


def order(campaign: Campaign, said: str = "do=add") -> Addition:
    return additions.order(campaign=campaign, about=QueryDict(said), by=make_user())


def sets_of(campaign: Campaign) -> QuerySet[Item, int]:
    return campaign.items.values_list("set", flat=True)


def test_it_adds_in_the_background_and_says_how_far_it_is(
    campaign: Campaign, manager: Client
) -> None:
    url = f"/campaigns/{campaign.pk}/sets/"
    before = campaign.items.get().pk
    assert manager.post(url, {"do": "add"}).headers["Location"] == url
    assert campaign.items.count() == 1
    assert "Adding: waiting for a worker." in manager.get(url).content.decode()
    row = Addition.objects.get()
    assert row.claim()
    row.renew(total=7, progress=4, added=3)
    text = manager.get(f"{url}adding/").content.decode()
    assert "Adding: 4 of about 7 looked at, 3 added." in text
    assert 'hx-trigger="every 1s"' in text
    manager.post(url, {"do": "add"})  # once more, while it goes on
    Addition.objects.update(state="queued", lease_until=None, added=0)
    assert Addition.objects.get() == row

    additions.run(row)
    row.refresh_from_db()
    assert (row.state, row.progress, row.total, row.added) == ("succeeded", 7, 7, 6)
    assert campaign.items.count() == 7
    entry = AuditEntry.objects.get(verb=Verb.SETS_ADDED)
    assert (entry.actor, entry.detail["after"]) == (row.ordered_by, {"sets": 6})
    address = manager.get(f"{url}adding/").headers["HX-Redirect"]
    assert address == f"{url}?after={before}"
    assert "Undo: take out these 6" in manager.get(address).content.decode()


def test_it_goes_on_where_a_killed_worker_stopped(campaign: Campaign) -> None:
    row = order(campaign)
    killed = Addition.objects.get()
    assert killed.claim()
    found = campaigns.ready_sets(campaigns.tasks_of(campaign), project=campaign.project)
    campaigns.add_sets(campaign, found[:3])
    additions.run(row)  # its lease still runs
    assert campaign.items.count() == 3
    Addition.objects.update(lease_until=timezone.now() - timedelta(seconds=1), added=2)

    additions.run(row)
    row.refresh_from_db()
    assert (row.state, row.added) == ("succeeded", 6)
    assert len(set(sets_of(campaign))) == campaign.items.count() == 7


def test_it_adds_nothing_more_once_it_is_cancelled(campaign: Campaign, manager: Client) -> None:
    row = order(campaign)
    url = f"/campaigns/{campaign.pk}/sets/"
    manager.post(url, {"do": "cancel"})
    additions.run(row)
    row.refresh_from_db()
    assert (row.state, campaign.items.count()) == ("cancelled", 1)
    assert "Adding:" not in manager.get(url).content.decode()


def test_it_says_what_is_wrong(campaign: Campaign, manager: Client) -> None:
    row = order(campaign, "do=add&run=12345")
    additions.run(row)
    assert row.state == "failed"
    assert "no longer there" in manager.get(f"/campaigns/{campaign.pk}/sets/").content.decode()

    unasked = make_set(make_source(make_judged_task()))
    with pytest.raises(Refused):
        campaigns.add_sets(campaign, [unasked])


def test_it_adds_single_candidates_to_a_rating(campaign: Campaign) -> None:
    rating = campaigns.open_campaign(
        name="Ratings",
        sets=(),
        may_be_empty=True,
        purpose=Campaign.Purpose.RATING,
        tasks=campaigns.tasks_of(campaign),
    )
    policy = Policy.objects.filter(candidates__isnull=False).first()
    assert policy is not None
    row = order(rating, f"do=add&per_set=all&policies={policy.pk}")
    additions.run(row)
    row.refresh_from_db()
    made = policy.candidates.filter(set__source__task__in=rating.tasks.all()).count()
    assert (row.state, row.total, row.added) == ("succeeded", made, made)
    assert all(len(shown) == 1 for shown in rating.items.values_list("shown", flat=True))
