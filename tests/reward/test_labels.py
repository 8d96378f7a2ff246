"""What answers weigh: ties, relations, annotators, age."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modeling.reward.config import RewardConfig
from modeling.reward.data import (
    Pictures,
    Question,
    Snapshot,
    good_pictures,
    make_batch,
    pairs_of,
    tied_pairs,
    turned,
)
from modeling.reward.labels import weigh
from modeling.reward.schedule import decided, share_of_ties
from modeling.reward.view_config import ViewConfig
from modeling.rundir import RunError
from tests.reward.worlds import rows_of, snapshot, tie, write, write_ties

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("labels"), sources=6, holdout=2)


@pytest.fixture
def place(tmp_path: Path, labels: Path) -> Path:
    (tmp_path / "images").symlink_to(labels / "images")
    return tmp_path


def one_row(labels: Path, relation: str = "direct", split: str = "train") -> dict[str, Any]:
    return next(
        row
        for row in rows_of(labels)
        if row["split"] == split and row["relation"] == relation and row["dimension"] == "structure"
    )


def config(**values: Any) -> RewardConfig:
    return RewardConfig(snapshot="s", base="b", **values)


def only_question(data: Snapshot, *, ties: bool = False) -> Question:
    ((question,),) = [pair.questions for pair in pairs_of(data, "train", ties=ties)]
    return question


def test_it_shares_out_answers_with_ties_among_them(place: Path, labels: Path) -> None:
    """Weights 1 for chosen, 0.5 for no difference: a third of the answers is a tie."""
    row = one_row(labels)
    write(place, [row])
    write_ties(place, [tie(row, row["rejected"], row["chosen"])])
    data = Snapshot(place)
    question = only_question(data, ties=True)
    assert question.tie == pytest.approx(1 / 3)
    assert question.target == float(row["chosen"] < row["rejected"])
    assert question.weight == pytest.approx(0.75)
    assert question.relation == "direct"
    plain = only_question(data)
    assert (plain.tie, plain.weight) == (0.0, 1.0)
    assert tied_pairs(data, "train") == []
    assert share_of_ties(pairs_of(data, "train", ties=True)) == pytest.approx(1 / 3)


def test_it_keeps_what_everybody_found_equal_for_whom_wants_it(place: Path, labels: Path) -> None:
    row = one_row(labels)
    write(place, [one_row(labels, split="holdout")])
    write_ties(place, [tie(row, row["chosen"], row["rejected"])])
    data = Snapshot(place)
    assert pairs_of(data, "train") == []
    question = only_question(data, ties=True)
    assert (question.relation, question.tie, question.target) == ("tied", 1.0, 0.5)
    (pair,) = tied_pairs(data, "train")
    assert pair.key.startswith("tied:")
    assert decided([pair]) == []
    assert good_pictures(data, "train") == []
    batch = make_batch([pair], Pictures(data, ViewConfig()))
    assert batch.tie.tolist() == [[1.0], [1.0]]
    assert batch.judged.all()


def test_it_turns_a_pair_round(labels: Path) -> None:
    data = Snapshot(labels)
    pair = pairs_of(data, "train")[0]
    again = turned(pair)
    assert (again.first, again.second) == (pair.second, pair.first)
    assert again.questions[0].target == 1 - pair.questions[0].target
    assert turned(again) == pair
    batch = make_batch([pair, again], Pictures(data, ViewConfig()), both=False)
    assert batch.orders == [(0, 1), (1, 0)]
    assert (batch.target[0] + batch.target[1]).tolist() == [1.0]
    assert batch.weight.flatten().tolist() == [pair.questions[0].weight] * 2


def test_it_scales_implied_relations(place: Path, labels: Path) -> None:
    rows = [r for r in rows_of(labels) if r["dimension"] == "structure"]
    write(place, rows)
    data = Snapshot(place)
    weigh(data, config(implied_weight=0.5))
    assert {(r["split"], r["relation"], r["weight"]) for r in data.rows} == {
        ("train", "direct", 1.0),
        ("train", "implied", 0.25),
        ("holdout", "direct", 1.0),
        ("holdout", "implied", 0.5),
    }
    data = Snapshot(place)
    weigh(data, config(implied_weight=0.0))
    assert {(r["split"], r["relation"]) for r in data.rows} == {
        ("train", "direct"),
        ("holdout", "direct"),
        ("holdout", "implied"),
    }


def test_it_trusts_reliable_annotators_more(place: Path, labels: Path) -> None:
    """0.9 says yes, 0.3 says no, an unknown one counts as their mean 0.6 and says yes:
    1.5 of 1.8 for yes, and three answers of a mean weight of 0.6."""
    row = one_row(labels)
    other = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    write(
        place,
        [
            {**row, "reliability": 0.9, "annotator": "a"},
            {**other, "reliability": 0.3, "annotator": "b"},
            {**row, "reliability": None, "annotator": "c"},
        ],
    )
    data = Snapshot(place)
    assert only_question(data).weight == 1.0
    weigh(data, config(reliability=True))
    question = only_question(data)
    share = question.target if row["chosen"] < row["rejected"] else 1 - question.target
    assert share == pytest.approx(1.5 / 1.8)
    assert question.weight == pytest.approx(0.6)


def test_it_forgets_with_time(place: Path, labels: Path) -> None:
    """A half-life of ten days: today 1, ten days ago 1/2, thirty days ago 1/8."""
    row = one_row(labels)
    other = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    old = NOW - timedelta(days=30)
    write(
        place,
        [
            {**row, "judged_at": NOW - timedelta(days=10)},
            {**other, "judged_at": old},
            {**one_row(labels, split="holdout"), "judged_at": old},
        ],
    )
    write_ties(place, [{**tie(row, row["chosen"], row["rejected"]), "judged_at": NOW}])
    data = Snapshot(place)
    weigh(data, config(half_life_days=10.0))
    assert [r["weight"] for r in data.rows] == pytest.approx([0.5, 0.125, 1.0])
    assert [r["weight"] for r in data.ties] == pytest.approx([0.5])


def test_it_says_what_the_snapshot_does_not_know(labels: Path) -> None:
    with pytest.raises(RunError, match="does not say when people judged"):
        weigh(Snapshot(labels), config(half_life_days=1.0))
    with pytest.raises(RunError, match="Run `manage.py aggregate`"):
        weigh(Snapshot(labels), config(reliability=True))
    data = Snapshot(labels)
    before = list(data.rows)
    weigh(data, config())
    assert data.rows == before
