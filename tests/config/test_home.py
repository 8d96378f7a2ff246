from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from annotation.models import Assignment, Campaign, Item
from config.home import sets_waiting_for
from generation.models import CandidateSet, GenerationRun, Image, Policy, Source, Task
from modeling.models import RewardModel, Round, RoundStep
from tests.factories import make_user

pytestmark = pytest.mark.django_db


def make_set(number: int, campaign: Campaign) -> Item:
    image = Image.objects.create(
        sha256=f"{number:064x}", width=64, height=64, format="png", byte_size=1, storage_key="k"
    )
    task = Task.objects.get(slug="fill")
    source = Source.objects.create(task=task, image=image, mask=image, split="train")
    candidate_set = CandidateSet.objects.create(source=source, state="ready", size=4)
    return Item.objects.create(campaign=campaign, set=candidate_set, position=0.5)


def make_round() -> Round:
    policy = Policy.objects.create(name="base", kind="base", location="somewhere", state="active")
    reward = RewardModel.objects.create(name="reward", location="somewhere", state="active")
    return Round.objects.create(number=1, parent_policy=policy, parent_reward=reward)


def text_of(client: Client) -> str:
    response = client.get("/")
    assert response.status_code == 200
    return response.content.decode()


def test_it_counts_the_sets_that_wait_for_a_person() -> None:
    anna, ben = make_user("anna"), make_user("ben")
    campaign = Campaign.objects.create(name="c", state="open", overlap=1)
    items = [make_set(number, campaign) for number in range(3)]
    CandidateSet.objects.filter(pk=items[2].set_id).update(state="drawn")
    assert sets_waiting_for(anna, campaign) == 2

    Assignment.objects.create(
        item=items[0],
        set_id=items[0].set_id,
        annotator=anna,
        slot=0,
        order=[0, 1, 2, 3],
        state="submitted",
        lease_until=timezone.now(),
        submitted_at=timezone.now(),
    )
    assert sets_waiting_for(anna, campaign) == 1
    assert sets_waiting_for(ben, campaign) == 1


def test_it_sends_an_annotator_to_the_labels_and_hides_the_loop(client: Client) -> None:
    campaign = Campaign.objects.create(name="Lanterns", state="open")
    make_set(1, campaign)
    client.force_login(make_user("anna"))
    page = text_of(client)
    assert "1 set waits for your judgment" in page
    assert f"/label/?campaign={campaign.pk}" in page
    assert 'href="/loop/"' not in page


def test_it_says_that_nothing_waits(client: Client) -> None:
    client.force_login(make_user("anna"))
    assert "When sets wait for your judgment" in text_of(client)


def test_it_shows_staff_where_a_round_failed_before_all_else(client: Client) -> None:
    round_ = make_round()
    RoundStep.objects.create(
        round=round_, name="generate", position=0, state="failed", error="The disk is full."
    )
    campaign = Campaign.objects.create(name="Lanterns", state="open")
    make_set(1, campaign)
    client.force_login(make_user("admin", is_staff=True, is_superuser=True))
    page = text_of(client)
    assert "Round 1 stopped at “Generate”" in page
    assert "The disk is full." in page
    assert page.index("The disk is full.") < page.index("waits for your judgment")


def test_it_warns_when_no_worker_takes_the_work(client: Client) -> None:
    policy = Policy.objects.create(name="base", kind="base", location="somewhere")
    run = GenerationRun.objects.create(policy=policy)
    client.force_login(make_user("admin", is_staff=True, is_superuser=True))
    assert "no worker takes it" not in text_of(client)

    long_ago = timezone.now() - timedelta(minutes=5)
    GenerationRun.objects.filter(pk=run.pk).update(created_at=long_ago)
    assert "no worker takes it" in text_of(client)


def test_it_offers_the_next_round_when_none_is_open(client: Client) -> None:
    round_ = make_round()
    client.force_login(make_user("admin", is_staff=True, is_superuser=True))
    assert "free for its next round" not in text_of(client)

    Round.objects.filter(pk=round_.pk).update(finished_at=timezone.now(), outcome="Promoted.")
    page = text_of(client)
    assert "free for its next round" in page
    assert "Round 1: Promoted." in page


def test_it_asks_a_stranger_to_log_in(client: Client) -> None:
    response = client.get("/")
    assert response.status_code == 302
    assert response.headers["Location"] == "/login/?next=/"
