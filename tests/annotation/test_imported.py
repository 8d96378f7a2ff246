"""What others' people said elsewhere stands apart from what people were asked here."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction
from django.test import Client

from annotation import campaigns, contents, datasets
from annotation.campaigns import for_annotator
from annotation.errors import Refused
from annotation.models import Campaign, Criterion, Dimension, Judgment
from config.home import numbers
from generation import shared
from generation.models import Candidate, CandidateSet, Project, Role, Source, Task
from modeling import governance_wordings, leaderboard, snapshots
from modeling.leaderboard import Scope
from modeling.reward.data import Snapshot
from modeling.snapshots import SnapshotError
from tests.annotation.factories import make_campaign, make_judged_task, make_turn
from tests.factories import make_policy, make_set, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def task() -> Task:
    return make_judged_task(1)


@pytest.fixture
def dimension(task: Task) -> Dimension:
    return Criterion.objects.get(task=task).dimension


def judged(task: Task, dimension: Dimension, split: str = "train") -> Judgment:
    """One judgment of two policies' pictures."""
    made = make_set(make_source(task, split=split), size=2)
    Candidate.objects.filter(set=made, index=1).update(policy=make_policy())
    campaign = make_campaign(task=task, sets=[made])
    turn = make_turn(campaign.items.get(), make_user(role=None), {dimension: (0, 1)})
    return turn.judgments.get()


def imported(judgment: Judgment) -> Campaign:
    campaign = judgment.assignment.item.campaign
    campaign.state, campaign.origin = Campaign.State.CLOSED, Campaign.Origin.IMPORTED
    campaign.save()
    return campaign


def test_it_counts_only_where_it_is_asked_for(task: Task, dimension: Dimension) -> None:
    here, there = judged(task, dimension), judged(task, dimension)
    imported(there)
    assert list(Judgment.objects.counted()) == [here]
    assert set(Judgment.objects.counted(imported=True)) == {here, there}


def test_a_reward_model_learns_from_it_only_at_a_weight(task: Task, dimension: Dimension) -> None:
    here = judged(task, dimension)
    there, held_out, odd = (
        judged(task, dimension, split) for split in ("train", "holdout", "train")
    )
    for one in (there, held_out, odd):
        imported(one)
    # Pictures of two sizes are no pair to learn from.
    Candidate.objects.filter(set=odd.set, index=1).update(width=32)
    everything = Judgment.objects.current()
    assert list(snapshots.take(everything).judgments.all()) == [here]
    taken = snapshots.take(everything, imported_weight=0.25)
    assert set(taken.judgments.all()) == {here, there}
    assert snapshots.left_out(everything) == 2
    directory = shared.local(taken.directory)
    weights = {row["source"]: row["weight"] for row in Snapshot(directory).rows}
    assert weights == {here.set.source.image.sha256: 1.0, there.set.source.image.sha256: 0.25}
    assert datasets.verify(directory)["counts"]["judgments"] == 2
    imported(here)
    with pytest.raises(SnapshotError, match="no label to learn from"):
        snapshots.take(everything)


def test_boards_show_it_where_its_campaign_is_named(task: Task, dimension: Dimension) -> None:
    there = judged(task, dimension)
    campaign = imported(there)
    project = Project.objects.get()
    assert leaderboard.comparisons(Scope(project))[0] == []
    assert len(leaderboard.comparisons(Scope(project, campaigns=(campaign,)))[0]) == 2


def test_figures_of_people_here_leave_it_out(task: Task, dimension: Dimension) -> None:
    judged(task, dimension)
    imported(judged(task, dimension))
    [version] = governance_wordings.versions(dimension, Project.objects.all())
    assert version.judgments == 1
    shown = {one.name: one.value for one in numbers(make_user(is_superuser=True))}
    assert shown["judgments by people"] == 1


def test_nobody_is_asked_in_it(task: Task, dimension: Dimension) -> None:
    campaign = imported(judged(task, dimension))
    with pytest.raises(Refused, match="stays closed"):
        campaigns.change_state(campaign, Campaign.State.OPEN)
    assert campaign not in for_annotator(make_user())
    with pytest.raises(IntegrityError, match="campaign_imported_is_closed"), transaction.atomic():
        Campaign.objects.update(state=Campaign.State.OPEN)


def test_its_clone_asks_people_here(task: Task, dimension: Dimension) -> None:
    campaign = imported(judged(task, dimension))
    made = contents.clone(campaign=campaign, by=make_user(), with_items=True)
    assert (made.origin, made.state) == (Campaign.Origin.PEOPLE, Campaign.State.DRAFT)
    assert made.items.get().set == campaign.items.get().set


def test_nothing_draws_from_its_sources(task: Task) -> None:
    source = make_source(task, origin=Source.Origin.IMPORTED)
    made = make_set(source)
    assert not Source.objects.usable().exists()
    assert made not in campaigns.ready_sets([task])
    assert CandidateSet.objects.ready().exists()


def test_its_pages_say_so(client: Client, task: Task, dimension: Dimension) -> None:
    campaign = imported(judged(task, dimension))
    client.force_login(make_user(role=Role.MANAGER))
    for address in ("/campaigns/", f"/campaigns/{campaign.pk}/"):
        page = client.get(address).content.decode()
        assert '<span class="badge">imported</span>' in page
    assert '<button name="state"' not in page
