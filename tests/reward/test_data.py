from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.reward.data import (
    Pictures,
    Snapshot,
    Swaps,
    batches_of_epoch,
    calibration_split,
    good_pictures,
    make_batch,
    pairs_of,
    steps_for,
)
from modeling.reward.view_config import ViewConfig
from modeling.rundir import RunError
from tests.reward.worlds import rows_of, snapshot, write


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("labels"))


def test_it_asks_every_pair_its_dimensions(labels: Path) -> None:
    data = Snapshot(labels)
    pairs = pairs_of(data, "train")
    assert len(pairs) == 8 * 6  # eight sources, three pairs on each of two dimensions
    assert {q.relation: q.weight for p in pairs for q in p.questions} == {
        "direct": 1.0,
        "implied": 0.5,
    }
    queries = {q.query for p in pairs if p.key.startswith("set-4:") for q in p.questions}
    assert queries == {
        "Task: image fill. Is the first image brighter? Answer Yes or No.",
        "Task: image fill. Does the first image show a red square? Answer Yes or No.",
    }


def test_it_makes_contradicting_annotators_a_soft_target(tmp_path: Path, labels: Path) -> None:
    row = next(r for r in rows_of(labels) if r["split"] == "train")
    other = {**row, "chosen": row["rejected"], "rejected": row["chosen"], "annotator": "a2"}
    (tmp_path / "images").symlink_to(labels / "images")
    write(tmp_path, [row, row, other])
    ((pair,),) = [pairs_of(Snapshot(tmp_path), "train")]
    (question,) = pair.questions
    assert question.weight == 1.0
    assert question.target == pytest.approx(2 / 3 if pair.first.image == row["chosen"] else 1 / 3)
    write(tmp_path, [row, other])
    assert pairs_of(Snapshot(tmp_path), "train") == []  # a draw teaches nothing


def test_it_shows_both_orders_with_opposite_targets(labels: Path) -> None:
    data = Snapshot(labels)
    pairs = pairs_of(data, "train")[:3]
    batch = make_batch(pairs, Pictures(data, ViewConfig()))
    assert batch.images.shape[1:] == (3, 32, 32)
    assert len(batch.images) < 2 * len(pairs)  # a picture of several pairs is encoded once
    for first, second in zip(batch.orders[0::2], batch.orders[1::2], strict=True):
        assert first == second[::-1]
    torch.testing.assert_close(batch.target[0::2] + batch.target[1::2], torch.ones(3, 1))
    assert batch.weight.sum() == sum(q.weight for p in pairs for q in p.questions)


def test_it_shows_the_source_outside_the_mask(labels: Path) -> None:
    data = Snapshot(labels)
    pair = pairs_of(data, "train")[0]
    views = Pictures(data, ViewConfig()).views([pair.first, pair.second], pair.size)
    torch.testing.assert_close(views[0, :, :8], views[1, :, :8])
    assert not torch.equal(views[0, :, 8:24, 8:24], views[1, :, 8:24, 8:24])


def test_it_swaps_prompts_over_the_chosen_pictures_of_two_sources(labels: Path) -> None:
    data = Snapshot(labels)
    swaps = Swaps(data, good_pictures(data, "holdout"))
    pairs = swaps.spread(np.random.default_rng(0), 50)
    # Four sources with two prompts: 2 x 2 combinations, each in either order.
    assert {pair.task for pair in pairs} == {"fill"}
    assert 4 <= len(pairs) <= 6
    for pair in pairs:
        own, other = pair.questions
        assert (own.target, other.target) == (1.0, 0.0)
        assert own.query != other.query
        assert pair.first.source != pair.second.source
    assert swaps.draw(np.random.default_rng(0), 3, (64, 64)) == []


def test_it_keeps_sources_out_of_two_splits(tmp_path: Path, labels: Path) -> None:
    rows = rows_of(labels)
    rows[0]["split"] = "train"
    (tmp_path / "images").symlink_to(labels / "images")
    write(tmp_path, rows)
    with pytest.raises(RunError, match="1 source pictures are in more than one split"):
        Snapshot(tmp_path)
    train, calibration = calibration_split(pairs_of(Snapshot(labels), "train"), 0.25, seed=0)
    assert {p.source for p in train} & {p.source for p in calibration} == set()
    assert len({p.source for p in calibration}) == 2


def test_it_visits_every_pair_once_an_epoch_in_a_new_order(labels: Path) -> None:
    pairs = pairs_of(Snapshot(labels), "train")
    epochs = [batches_of_epoch(pairs, batch_size=5, seed=0, epoch=e) for e in (0, 1, 0)]
    flat = [[pair.key for batch in epoch for pair in batch] for epoch in epochs]
    assert sorted(flat[0]) == sorted(pair.key for pair in pairs) == sorted(flat[1])
    assert flat[0] != flat[1]
    assert flat[0] == flat[2]
    assert steps_for(pairs, steps=0, epochs=2.0, batch_size=5) == 2 * len(epochs[0])


def test_it_names_what_is_missing(tmp_path: Path, labels: Path) -> None:
    with pytest.raises(RunError, match="is not a snapshot: it has no card.json"):
        Snapshot(tmp_path)
    write(tmp_path, rows_of(labels))
    with pytest.raises(RunError, match="The snapshot's picture [0-9a-f]+ is missing"):
        pairs_of(Snapshot(tmp_path), "train")
    write(tmp_path, [{**rows_of(labels)[0], "dimension": "charm"}])
    with pytest.raises(RunError, match="does not describe the dimension 'charm'"):
        Snapshot(tmp_path)
