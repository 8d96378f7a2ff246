"""Aggregation by hand, against crowd-kit, and where one person clicks at random."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import MajorityVote, OneCoinDawidSkene
from django.core.management import CommandError, call_command
from scipy.optimize import check_grad

from annotation import aggregation, jobs
from annotation.aggregation import Pairs, Votes
from annotation.judged import load
from annotation.models import Aggregation, Campaign, Consensus, Dimension
from tests.annotation.factories import make_campaign, make_judged_task, make_turn
from tests.factories import make_user

NO_DIFFERENCE = 8
REPOSITORY = Path(__file__).resolve().parents[2]


def votes(rows: list[tuple[int, int, int]]) -> Votes:
    table = np.array(rows, np.int64)
    return Votes(table[:, 0], table[:, 1], table[:, 2])


def crowd(
    seed: int, skills: list[float], units: int = 150, values: int = 4
) -> tuple[Votes, np.ndarray]:
    """Answers of people who are right with these chances and click anywhere otherwise."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, values, units)
    rows = []
    for person, skill in enumerate(skills):
        looked = rng.random(units) < skill
        said = np.where(looked, truth, rng.integers(0, values, units))
        rows += [(unit, person, int(said[unit])) for unit in range(units)]
    return votes(rows), truth


class TestMajority:
    def test_it_counts_hands(self) -> None:
        found = aggregation.majority(
            votes([(7, 1, 0), (7, 2, 3), (7, 3, 3), (9, 1, NO_DIFFERENCE), (9, 2, 2)])
        )
        assert found.units.tolist() == [7, 9]
        # A tie goes to the lowest; its share tells.
        assert found.values.tolist() == [3, 2]
        assert found.confidence.tolist() == [pytest.approx(2 / 3), 0.5]
        assert found.people.tolist() == [3, 2]

    def test_it_agrees_with_crowd_kit(self) -> None:
        said, _ = crowd(1, [0.7, 0.6, 0.5, 0.4, 0.9])
        data = pd.DataFrame({"task": said.unit, "worker": said.person, "label": said.value})
        shares = MajorityVote().fit_predict_proba(data)
        found = aggregation.majority(said)
        assert found.confidence == pytest.approx(shares.max(axis=1).to_numpy())
        own = shares.reindex(columns=range(4)).to_numpy()[np.arange(len(found.units)), found.values]
        assert found.confidence == pytest.approx(own)


class TestWeighted:
    def test_it_agrees_with_crowd_kit_on_random_data(self) -> None:
        said, _ = crowd(2, [0.9, 0.7, 0.5, 0.1])
        data = pd.DataFrame({"task": said.unit, "worker": said.person, "label": said.value})
        model = OneCoinDawidSkene(n_iter=100).fit(data)
        found = aggregation.weighted(said)
        assert model.labels_ is not None
        assert model.probas_ is not None
        assert found.values.tolist() == model.labels_.reindex(found.units).tolist()
        assert found.confidence == pytest.approx(
            model.probas_.reindex(found.units).max(axis=1).to_numpy()
        )
        assert found.accuracy == {
            person: pytest.approx(skill) for person, skill in model.skills_.items()
        }

    def test_its_first_step_is_the_one_worked_out_by_hand(self) -> None:
        """Three people; on eight units all agree, on the last the third stands alone.

        Whoever always sides with the majority has an accuracy near 1, the third 8/9 or less, and
        so two against one is surer than 2/3.
        """
        rows = [(unit, person, unit % 2) for unit in range(8) for person in range(3)]
        rows += [(8, 0, 0), (8, 1, 0), (8, 2, 1)]
        found = aggregation.weighted(votes(rows))
        assert found.values[8] == 0
        assert found.confidence[8] > 0.99
        assert found.accuracy[0] > 0.99
        assert found.accuracy[2] == pytest.approx(8 / 9, abs=0.01)

    @pytest.mark.parametrize("seed", range(5))
    def test_it_beats_majority_where_some_click_at_random(self, seed: int) -> None:
        said, truth = crowd(seed, [0.9, 0.85, 0.0, 0.0], units=300)
        plain, sure = aggregation.majority(said), aggregation.weighted(said)
        right_plain = (plain.values == truth[plain.units]).mean()
        right = (sure.values == truth[sure.units]).mean()
        assert right > right_plain + 0.03
        # A random click hits one in four.
        assert sure.accuracy[2] == pytest.approx(0.25, abs=0.1)
        assert sure.accuracy[0] > 0.8

    def test_it_names_only_what_somebody_named(self) -> None:
        said, _ = crowd(3, [0.9, 0.9, 0.9])
        alone = Votes(
            np.append(said.unit, 999), np.append(said.person, 3), np.append(said.value, 2)
        )
        found = aggregation.weighted(alone)
        assert found.values[found.units == 999].tolist() == [2]

    def test_it_has_no_doubt_where_nothing_is_in_dispute(self) -> None:
        found = aggregation.weighted(votes([(1, 1, 2), (1, 2, 2), (2, 1, 2)]))
        assert found.confidence.tolist() == [1, 1]
        assert found.accuracy == {1: 1.0, 2: 1.0}


class TestRank:
    def test_its_gradient_is_that_of_its_likelihood(self) -> None:
        model = aggregation.noisy_bradley_terry()
        rng = np.random.default_rng(0)
        rows = np.stack([rng.integers(1, 6, 40), rng.integers(1, 6, 40)], 1)
        rows = rows[rows[:, 0] != rows[:, 1]]
        rows = np.column_stack([rows, rows[np.arange(len(rows)), rng.integers(0, 2, len(rows))]])
        workers = rng.integers(0, 3, len(rows))
        args = (rows, workers, 5, 3, 0.1)
        for _ in range(5):
            x = rng.normal(size=1 + 5 + 2 * 3)
            off = check_grad(model._compute_log_likelihood, model._compute_gradient, x, *args)
            assert off < 1e-4

    def test_it_agrees_with_crowd_kit_s_likelihood(self) -> None:
        from crowdkit.aggregation import NoisyBradleyTerry

        rng = np.random.default_rng(1)
        rows = np.array([[1, 2, 1], [2, 3, 3], [1, 3, 1], [3, 1, 3]])
        workers = np.array([0, 0, 1, 1])
        x = rng.normal(size=1 + 3 + 2 * 2)
        mine = aggregation.noisy_bradley_terry()._compute_log_likelihood(x, rows, workers, 3, 2, 0)
        theirs = NoisyBradleyTerry._compute_log_likelihood(x, rows, workers, 3, 2, 0)
        assert mine == pytest.approx(theirs)

    def test_it_orders_candidates_and_knows_who_looks(self) -> None:
        """Two sets of four in the order 0 > 1 > 2 > 3; the third person always takes the left."""
        rng = np.random.default_rng(2)
        rows = []
        for unit in range(40):
            for person in range(3):
                for one in range(4):
                    for two in range(one + 1, 4):
                        left, right = (one, two) if rng.random() < 0.5 else (two, one)
                        better = one if rng.random() < 0.9 else two
                        chosen = left if person == 2 else better
                        key = unit * 8
                        rows.append((person, key + left, key + right, key + chosen))
        table = np.array(rows)
        found = aggregation.rank(Pairs(*table.T))
        ordered = sum(found.scores[unit * 8] > found.scores[unit * 8 + 3] for unit in range(40))
        assert ordered >= 38
        assert min(found.attentive[0], found.attentive[1]) > 0.7
        assert found.attentive[2] < 0.3

    def test_it_ranks_nothing_without_comparisons(self) -> None:
        none = np.zeros(0, np.int64)
        assert aggregation.rank(Pairs(none, none, none, none)).scores == {}


def test_it_keeps_its_library_out_of_the_web_process() -> None:
    program = """
import sys
from config.wsgi import application
from django.urls import get_resolver
assert get_resolver().url_patterns
import annotation.quality_views, annotation.review_views, annotation.jobs
print(sorted({"crowdkit", "scipy", "sklearn", "nltk", "torch"} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.django_db
class TestCampaign:
    @pytest.fixture
    def campaign(self) -> Campaign:
        """Three items by three people: agreed, two to one, and no difference."""
        task = make_judged_task(1)
        campaign = make_campaign(task=task, sets=3, overlap=3)
        dimension = task.dimensions.get()
        said: list[list[tuple[int, int] | str]] = [
            [(0, 3), (0, 3), (0, 3)],
            [(1, 2), (1, 3), (2, 1)],
            ["no_difference", "no_difference", "cannot_judge"],
        ]
        people = [make_user(f"p{n}") for n in range(3)]
        for item, answers in zip(campaign.items.order_by("pk"), said, strict=True):
            for person, answer in zip(people, answers, strict=True):
                make_turn(item, person, {dimension: answer}, order=[2, 0, 3, 1])
        return campaign

    def test_it_derives_each_pair_once_with_the_left_first(self, campaign: Campaign) -> None:
        """Best 0 and worst 3 of 2 0 3 1 from the left: 0 over 2, 3 and 1; 2 and 1 over 3."""
        first = campaign.items.order_by("pk")[0]
        judged = load(campaign)
        pairs = aggregation.pairs_of(judged.only(judged.row == 0))
        base = first.pk * 8
        rows = sorted(zip(pairs.left - base, pairs.right - base, pairs.chosen - base, strict=True))
        assert rows == [(0, 1, 0), (0, 3, 0), (2, 0, 0), (2, 3, 2), (3, 1, 1)]

    def test_it_stores_a_consensus_per_item_and_dimension(self, campaign: Campaign) -> None:
        made = aggregation.aggregate(campaign)
        rows = list(Consensus.objects.filter(item__campaign=campaign).order_by("item"))
        agreed, split, same = rows
        assert agreed.best is not None
        assert agreed.worst is not None
        assert (agreed.best.index, agreed.worst.index) == (0, 3)
        assert agreed.majority_share == 1
        assert agreed.confidence > 0.95
        assert split.best is not None
        assert split.best.index == 1
        assert split.majority_share == pytest.approx(2 / 3)
        assert list(split.scores) == ["0", "1", "2", "3"]
        assert (same.best, same.worst, same.people) == (None, None, 2)
        assert (made.judgments, {row["n"] for row in made.reliability}) == (9, {3})
        assert aggregation.newer(made) == 0

    def test_it_replaces_what_it_stored_before(self, campaign: Campaign) -> None:
        aggregation.aggregate(campaign)
        jobs.aggregate_campaign(campaign.pk)
        jobs.aggregate_campaign(campaign.pk + 1)
        assert Consensus.objects.count() == 3
        assert Aggregation.objects.count() == 1

    def test_it_weighs_a_person_s_dimensions_by_their_number(self, campaign: Campaign) -> None:
        dimension = Dimension.objects.first()
        assert dimension is not None
        row = Aggregation(
            campaign=campaign,
            reliability=[
                {"user": 1, "dimension": 1, "n": 30, "accuracy": 0.9},
                {"user": 1, "dimension": 2, "n": 10, "accuracy": 0.5},
            ],
        )
        assert aggregation.reliability_by_person(row) == {1: pytest.approx(0.8)}
        assert aggregation.reliability_by_person(None) == {}

    def test_its_command_prints_and_writes_the_figures(
        self, campaign: Campaign, tmp_path: Path
    ) -> None:
        out, target = io.StringIO(), tmp_path / "figures.json"
        call_command("aggregate", campaign=campaign.name, json=str(target), stdout=out)
        assert "9 judgments of" in out.getvalue()
        assert json.loads(target.read_text())["answers"] == 3
        with pytest.raises(CommandError, match="no campaign “none”"):
            call_command("aggregate", campaign="none")
