from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from django.test import Client

from annotation import comparisons as pairing
from annotation import ratings as rating
from annotation.campaigns import Entry
from annotation.models import Campaign, Dimension, Judgment, Rating
from annotation.ratings import Scores
from generation.models import AuditEntry, CandidateSet, Policy, Project, Task, default_project
from modeling import kept_boards, leaderboard
from modeling.leaderboard import Scope
from modeling.models import LeaderboardLink
from modeling.strengths import FIRST, TIE
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_judged_task,
    make_turn,
)
from tests.factories import make_policy, make_set, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def task() -> Task:
    return make_judged_task(1, name="Fill")


@pytest.fixture
def dimension(task: Task) -> Dimension:
    return task.dimensions.get()


@pytest.fixture
def policies() -> list[Policy]:
    theirs = Policy.objects.create(name="Ideogram", kind=Policy.Kind.EXTERNAL)
    return [make_policy("old"), make_policy("new"), theirs]


def scope(**fields: object) -> Scope:
    return Scope(Project.objects.get(pk=default_project()), **fields)  # type: ignore[arg-type]


def mixed_set(task: Task, *policies: Policy) -> CandidateSet:
    """A set with a candidate of each policy."""
    made = make_set(make_source(task), size=len(policies), policy=policies[0])
    for candidate, policy in zip(made.candidates.order_by("index"), policies, strict=True):
        candidate.policy = policy
        candidate.save()
    return made


def judged(
    task: Task, dimension: Dimension, *said: tuple[CandidateSet, tuple[int, int] | str]
) -> Campaign:
    campaign = make_campaign(task=task, sets=[one for one, _ in said])
    user = make_user()
    for one, answer in said:
        make_turn(campaign.items.get(set=one), user, {dimension: answer})
    return campaign


class TestComparisons:
    def test_a_best_and_a_worst_of_mixed_policies_are_pairs_of_them(
        self, task: Task, dimension: Dimension, policies: list[Policy]
    ) -> None:
        old, new, theirs = policies
        # 0 old, 1 new, 2 old again, 3 Ideogram: the best is 1, the worst 3.
        one = mixed_set(task, old, new, old, theirs)
        judged(task, dimension, (one, (1, 3)))

        met, found = leaderboard.comparisons(scope())

        rows = [
            (met[a], met[b], end)
            for a, b, end in zip(found.first, found.second, found.outcome, strict=True)
        ]
        # Twice old against new, twice old against Ideogram, once new against Ideogram.
        wins = sorted((a, b) if end == FIRST else (b, a) for a, b, end in rows)
        assert wins == sorted(
            [(new.pk, old.pk)] * 2 + [(old.pk, theirs.pk)] * 2 + [(new.pk, theirs.pk)]
        )

    def test_no_difference_is_a_tie_and_one_policy_alone_says_nothing(
        self, task: Task, dimension: Dimension, policies: list[Policy]
    ) -> None:
        old, new, _ = policies
        judged(
            task,
            dimension,
            (mixed_set(task, old, new), "no_difference"),
            (mixed_set(task, old, new), "cannot_judge"),
            (make_set(make_source(task), policy=old), (0, 1)),
        )
        _, found = leaderboard.comparisons(scope())
        assert found.outcome.tolist() == [TIE]

    def test_what_was_not_shown_does_not_count(
        self, task: Task, dimension: Dimension, policies: list[Policy]
    ) -> None:
        one = mixed_set(task, *policies)
        campaign = make_campaign(task=task, sets=[Entry(one, (0, 1))], purpose="comparison")
        make_turn(campaign.items.get(), make_user(), {dimension: (1, 0)}, order=[1, 0])
        met, found = leaderboard.comparisons(scope())
        assert (len(found), set(met)) == (1, {policies[0].pk, policies[1].pk})

    def test_simulated_annotators_never_stand_beside_people(
        self, task: Task, dimension: Dimension, policies: list[Policy]
    ) -> None:
        campaign = judged(task, dimension, (mixed_set(task, *policies[:2]), (0, 1)))
        Campaign.objects.filter(pk=campaign.pk).update(simulated=True)
        assert len(leaderboard.comparisons(scope())[1]) == 0
        assert len(leaderboard.comparisons(scope(simulated=True))[1]) == 1


class TestBoard:
    def test_it_ranks_by_strength_and_counts_what_ended_how(
        self, task: Task, dimension: Dimension, policies: list[Policy]
    ) -> None:
        old, new, theirs = policies
        said: list[tuple[CandidateSet, tuple[int, int] | str]] = [
            (mixed_set(task, old, new), (1, 0)) for _ in range(5)
        ]
        said += [(mixed_set(task, old, new), "no_difference"), (mixed_set(task, old, new), (0, 1))]
        said += [(mixed_set(task, new, theirs), (1, 0)) for _ in range(4)]
        judged(task, dimension, *said)

        board = leaderboard.board(scope(task=task))

        assert [row.policy for row in board.rows] == [theirs, new, old]
        assert [(row.won, row.tied, row.lost) for row in board.rows] == [
            (4, 0, 0),
            (5, 1, 5),
            (1, 1, 5),
        ]
        assert (board.comparisons, board.groups) == (11, 1)
        duel = board.duels[new.pk, old.pk]
        assert duel.share.value == pytest.approx(5.5 / 7)
        assert duel.share.low < 5.5 / 7 < duel.share.high
        assert (new.pk, theirs.pk) in board.duels
        assert (old.pk, theirs.pk) not in board.duels

    def test_usable_rates_and_costs_stand_beside(
        self, task: Task, dimension: Dimension, policies: list[Policy]
    ) -> None:
        sets = [make_set(make_source(task), policy=policies[0], size=2) for _ in range(4)]
        for one in sets:
            one.candidates.update(latency_ms=1500, device="cuda H100")
        campaign = make_campaign(task=task, sets=(), purpose="rating", may_be_empty=True)
        campaign.items.all().delete()
        from annotation.campaigns import add_sets

        add_sets(campaign, [Entry(one, (0,)) for one in sets])
        user = make_user()
        for number in range(4):
            turn = claim(user, campaign)
            rating.rate(
                assignment=turn,
                user=user,
                scores=Scores(usable=number > 0, of={dimension.slug: number + 1}),
            )

        row = leaderboard.board(scope(dimension=dimension)).rows[0]

        assert row.strength is None
        assert row.usable is not None
        assert (row.usable.value, row.usable.n) == (0.75, 4)
        assert row.score is not None
        assert row.score.value == 2.5
        assert row.cost is not None
        assert (row.cost.seconds, row.cost.images, row.cost.processor) == (1.5, 8, "GPU")
        assert Rating.objects.count() == 8

    def test_a_batch_is_paid_once(self, task: Task, policies: list[Policy]) -> None:
        import uuid

        one = make_set(make_source(task), policy=policies[0], size=4)
        batch = uuid.uuid4()
        for candidate in one.candidates.all():
            candidate.batch, candidate.batch_index = batch, candidate.index
            candidate.latency_ms = 2000
            candidate.save()
        cost = leaderboard.cost_per_image(scope(), [policies[0].pk])[policies[0].pk]
        assert (cost.seconds, cost.images) == (0.5, 4)

    def test_pairs_that_were_put_together_count_with_their_policies(
        self, task: Task, dimension: Dimension, policies: list[Policy]
    ) -> None:
        source = make_source(task)
        make_set(source, policy=policies[0], size=2)
        make_set(source, policy=policies[2], size=1)
        campaign = pairing.open_comparison(
            a=policies[0],
            b=policies[2],
            name="blind",
            tasks=[task],
            project=Project.objects.get(pk=default_project()),
        )
        make_turn(campaign.items.get(), make_user(), {dimension: (1, 0)})
        board = leaderboard.board(scope(campaigns=(campaign,)))
        assert [row.policy for row in board.rows] == [policies[2], policies[0]]


class TestPages:
    @pytest.fixture(autouse=True)
    def _compared(self, task: Task, dimension: Dimension, policies: list[Policy]) -> None:
        judged(task, dimension, *((mixed_set(task, *policies[:2]), (1, 0)) for _ in range(3)))

    def test_the_page_the_table_and_the_data_say_the_same(self, client: Client) -> None:
        client.force_login(make_user(role="viewer"))
        page = client.get("/leaderboard/").content.decode()
        data = client.get("/leaderboard/?format=json").json()
        table = client.get("/leaderboard/?format=csv").getvalue().decode()
        assert [row["policy"] for row in data["policies"]] == ["new", "old"]
        assert data["head_to_head"][0]["n"] == 3
        assert f"<strong>{data['policies'][0]['strength']:,.0f}</strong>".replace(",", "") in page
        assert table.splitlines()[1].startswith("new,base,1,1,")
        assert "Public links" not in page

    def test_a_large_board_is_counted_once_in_a_while(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client.force_login(make_user(role="viewer"))
        monkeypatch.setattr(kept_boards, "LARGE", 2)
        monkeypatch.setattr(kept_boards, "_kept", {})
        monkeypatch.setattr(kept_boards, "SHARE", 10_000)
        assert "counted at" not in client.get("/leaderboard/").content.decode()
        Judgment.objects.all().delete()
        again = client.get("/leaderboard/")
        assert "3 comparisons" in again.content.decode()
        assert "counted at" in again.content.decode()
        # A narrower one is another board.
        other = client.get(f"/leaderboard/?task={Task.objects.latest('pk').pk}")
        assert "counted at" not in other.content.decode()
        (kept,) = kept_boards._kept.values()
        over = dict.fromkeys(kept_boards._kept, replace(kept, until=0.0))
        monkeypatch.setattr(kept_boards, "_kept", over)
        assert "No policy has been compared" in client.get("/leaderboard/").content.decode()

    def test_nothing_compared_says_what_to_do(self, client: Client) -> None:
        client.force_login(make_user(role="viewer"))
        page = client.get("/leaderboard/?annotators=simulated").content.decode()
        assert "No policy has been compared" in page
        assert "Show what people said" in page

    def test_a_link_shows_figures_to_anybody_until_it_is_taken_back(self, client: Client) -> None:
        client.force_login(make_user("chief", role="manager"))
        page = client.post("/leaderboard/share/").content.decode()
        found = re.search(r'value="http://testserver(/leaderboard/[^"]+/)"', page)
        assert found is not None
        stored = LeaderboardLink.objects.get()
        assert stored.digest not in found[1]

        stranger = Client()
        response = stranger.get(found[1])
        shown = response.content.decode()
        assert response.status_code == 200
        assert "<strong>" in shown
        assert "new" in shown
        assert "/images/" not in shown
        assert "chief" not in shown
        assert "/policies/" not in shown
        assert response["X-Robots-Tag"] == "noindex"
        assert json.loads(stranger.get(f"{found[1]}?format=json").content)["comparisons"] == 3

        client.post(f"/leaderboard/links/{stored.pk}/hide/")
        assert stranger.get(found[1]).status_code == 404
        assert AuditEntry.objects.filter(name=str(stored)).count() == 2

    def test_only_managers_share(self, client: Client) -> None:
        client.force_login(make_user(role="viewer"))
        assert client.post("/leaderboard/share/").status_code == 403
        assert not LeaderboardLink.objects.exists()
