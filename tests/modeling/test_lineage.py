"""Where models come from, what a source went into, and what a withdrawal marks."""

from __future__ import annotations

from hashlib import sha256

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation import queue, withdrawals
from annotation.counts import judged_share
from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Judgment
from annotation.pseudonyms import pseudonym
from generation import candidates
from generation.models import (
    AuditEntry,
    CandidateSet,
    Policy,
    Role,
    Source,
    Verb,
    Withdrawal,
)
from modeling import lineage, policy_inputs
from modeling.lineage import POLICY, REWARD, SNAPSHOT
from modeling.lineage_drawing import draw
from modeling.models import RewardModel, Snapshot, TrainingRun
from tests.annotation.factories import claim, make_campaign
from tests.factories import make_policy, make_user
from tests.modeling.test_rounds import label_one

pytestmark = pytest.mark.django_db


def make_learnt_policy(parent: Policy, name: str, judged: list[Judgment]) -> Policy:
    """A policy whose reward model learnt from these judgments, after the newest one there is."""
    snapshot = Snapshot.objects.create(
        content_hash=sha256(name.encode()).hexdigest(),
        directory="-",
        counts={"judgments": len(judged)},
    )
    snapshot.judgments.add(*judged)
    reward = RewardModel.objects.create(
        name=f"reward of {name}",
        location="-",
        parent=RewardModel.objects.order_by("pk").last(),
        snapshot=snapshot,
    )
    policy = make_policy(name, kind=Policy.Kind.TRAINED, parent=parent)
    TrainingRun.objects.create(
        kind=TrainingRun.Kind.POLICY,
        directory="-",
        parent_policy=parent,
        parent_reward=reward,
        policy=policy,
    )
    return policy


@pytest.fixture
def anna() -> User:
    return make_user("anna")


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign(sets=4)


@pytest.fixture
def chain(anna: User, campaign: Campaign) -> list[Policy]:
    """base → first (anna's first set) → second (ben's set)."""
    base = make_policy("base")
    label_one(anna, campaign)
    first = make_learnt_policy(base, "first", list(Judgment.objects.all()))
    seen = list(Judgment.objects.values_list("pk", flat=True))
    label_one(make_user("ben"), campaign)
    second = make_learnt_policy(first, "second", list(Judgment.objects.exclude(pk__in=seen)))
    return [base, first, second]


def source_of(user: str) -> Source:
    judged = Judgment.objects.filter(assignment__annotator__username=user)
    return judged.select_related("set__source")[0].set.source


def test_it_finds_everything_a_policy_comes_from_and_what_descends(chain: list[Policy]) -> None:
    base, first, second = chain
    graph = lineage.whole()
    of_first = graph.ancestors([(POLICY, first.pk)])
    assert {kind: len([1 for k, _ in of_first if k == kind]) for kind in lineage.KINDS} == {
        SNAPSHOT: 1,
        REWARD: 1,
        POLICY: 2,
    }
    assert (POLICY, second.pk) not in of_first
    assert graph.descendants([(POLICY, base.pk)]) == {(POLICY, one.pk) for one in chain}
    # The second reward model started from the first.
    assert len(graph.ancestors([(POLICY, second.pk)])) == 7


def test_it_says_which_models_learnt_from_a_source_a_person_and_a_judgment(
    chain: list[Policy], anna: User
) -> None:
    first, second = Snapshot.objects.order_by("pk")
    assert lineage.learnt_from(source=source_of("anna")) >= {(SNAPSHOT, first.pk)}
    assert lineage.learnt_from(person=anna) == {(SNAPSHOT, first.pk)}
    of_ben = Judgment.objects.filter(assignment__annotator__username="ben")[0]
    assert lineage.learnt_from(judgment=of_ben) == {(SNAPSHOT, second.pk)}
    reached = lineage.whole().descendants(lineage.learnt_from(judgment=of_ben))
    assert [pk for kind, pk in reached if kind == POLICY] == [chain[2].pk]


def test_a_policy_that_was_trained_on_a_source_learnt_from_it(chain: list[Policy]) -> None:
    untouched = make_campaign(sets=1).items.get().set.source
    assert lineage.learnt_from(source=untouched) == set()
    chain[2].run.sources.add(untouched)
    assert lineage.learnt_from(source=untouched) == {(POLICY, chain[2].pk)}


def test_withdrawing_a_person_marks_their_models_and_counts_them_nowhere(
    chain: list[Policy], anna: User
) -> None:
    base, first, second = chain
    root = make_user("root", is_staff=True)
    before = Judgment.objects.counted().count()
    theirs = Judgment.objects.filter(assignment__annotator=anna).count()
    withdrawals.withdraw(user=root, person=anna, reason="clicked at random")
    assert Judgment.objects.counted().count() == before - theirs
    assert Judgment.objects.current().count() == before  # nothing is deleted
    found = lineage.taints(lineage.whole())
    assert (POLICY, base.pk) not in found
    assert found[POLICY, first.pk] == ["an annotator was withdrawn: clicked at random"]
    assert (POLICY, second.pk) in found  # it descends from the first
    snapshot = Snapshot.objects.order_by("pk")[0]
    assert lineage.contents(snapshot).withdrawn == theirs
    assert AuditEntry.objects.get(verb=Verb.WITHDRAWN).actor == root

    withdrawals.lift(user=root, person=anna)
    assert lineage.taints(lineage.whole()) == {}
    assert Judgment.objects.counted().count() == before


def test_a_withdrawn_source_leaves_all_work_and_comes_back_when_lifted(
    anna: User, campaign: Campaign
) -> None:
    max_ = make_user("max", role=Role.MANAGER)
    turn = claim(anna, campaign)
    source = turn.set.source
    wanted = judged_share(campaign)[1]
    withdrawals.withdraw(user=max_, source=source, reason="the licence ended")
    turn.refresh_from_db()
    assert turn.state == Assignment.State.EXPIRED
    others = {queue.claim(user=make_user(), campaign=campaign) for _ in range(9)} - {None}
    assert source.pk not in {one.set.source_id for one in others if one is not None}
    assert judged_share(campaign)[1] < wanted
    assert source not in candidates.pick_sources(source.task, 99, None, 0)
    assert source not in Source.objects.usable()
    with pytest.raises(Refused, match="withdrawn already: the licence ended"):
        withdrawals.withdraw(user=max_, source=source, reason="again")

    withdrawals.lift(user=max_, source=source)
    assert judged_share(campaign)[1] == wanted
    assert source.sets.get().state == CandidateSet.State.READY
    with pytest.raises(Refused, match="not withdrawn"):
        withdrawals.lift(user=max_, source=source)


def test_a_set_that_was_never_made_stays_unmade(campaign: Campaign) -> None:
    max_ = make_user("max", role=Role.MANAGER)
    made = campaign.items.all()[0].set
    CandidateSet.objects.filter(pk=made.pk).update(state=CandidateSet.State.DRAWN)
    made.candidates.filter(index=0).update(image=None)
    withdrawals.withdraw(user=max_, source=made.source, reason="x")
    withdrawals.lift(user=max_, source=made.source)
    made.refresh_from_db()
    assert made.state == CandidateSet.State.FAILED
    assert "withdrawn before" in made.error


def test_a_policy_does_not_train_on_what_is_withdrawn(campaign: Campaign) -> None:
    source = campaign.items.all()[0].set.source
    reward = RewardModel.objects.create(name="r", location="-")
    rows = policy_inputs.collect(reward=reward).rows
    assert str(source.pk) in {row["id"] for row in rows}
    withdrawals.withdraw(user=make_user(), source=source, reason="x")
    rows = policy_inputs.collect(reward=reward).rows
    assert str(source.pk) not in {row["id"] for row in rows}


def test_it_asks_for_a_reason(client: Client, campaign: Campaign) -> None:
    client.force_login(make_user(role=Role.MANAGER))
    source = campaign.items.all()[0].set.source
    address = f"/lineage/sources/{source.pk}/withdraw/"
    answer = client.post(address, {"reason": " "}, follow=True)
    assert "Say why" in answer.content.decode()
    assert not Withdrawal.objects.exists()
    answer = client.post(address, {"reason": "the licence ended"}, follow=True)
    assert "the licence ended" in answer.content.decode()
    answer = client.post(address, {"lift": "yes"}, follow=True)
    assert "This counts again" in answer.content.decode()
    assert Withdrawal.objects.get().lifted_at is not None


def test_it_draws_every_model_once_and_beside_nothing_else(chain: list[Policy]) -> None:
    graph = lineage.whole()
    drawing = draw(graph, (POLICY, chain[2].pk), {})
    assert len(drawing.boxes) == len(graph.nodes)
    assert len({(box.x, box.y) for box in drawing.boxes}) == len(drawing.boxes)
    assert [box.node.name for box in drawing.boxes if box.focus] == ["second"]
    assert max(box.y for box in drawing.boxes) + drawing.box_height < drawing.height
    for older, newer in zip(chain, chain[1:], strict=False):
        at = {box.node.key: box.y for box in drawing.boxes}
        assert at[POLICY, older.pk] < at[POLICY, newer.pk]


def test_the_api_walks_both_ways(client: Client, chain: list[Policy], anna: User) -> None:
    client.force_login(make_user(role=Role.REVIEWER))
    found = client.get(f"/api/v1/lineage/policies/{chain[1].pk}").json()
    assert (found["ancestors"], found["descendants"]) == (3, 1)
    first = Snapshot.objects.order_by("pk")[0]
    assert {
        "from": f"snapshot/{first.pk}",
        "to": f"reward_model/{first.rewardmodel_set.get().pk}",
        "how": "learnt from",
    } in found["edges"]
    back = client.get(f"/api/v1/lineage/sources/{source_of('anna').pk}").json()
    assert f"policy/{chain[2].pk}" in {node["id"] for node in back["nodes"]}
    rows = client.get(f"/api/v1/lineage/snapshots/{first.pk}/judgments").json()["results"]
    assert {row["annotator"] for row in rows} == {pseudonym(anna.pk)}
    assert {row["judgment"] for row in rows} == set(first.judgments.values_list("pk", flat=True))
    one = client.get(f"/api/v1/lineage/judgments/{rows[0]['judgment']}").json()
    assert one["direct"] == [f"snapshot/{first.pk}"]
    assert client.get("/api/v1/lineage/rounds/1").status_code == 404
