"""The third picture, from the snapshot and from the policy's batch to the answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.policy.rollouts import score
from modeling.policy.sources import Batch, Row
from modeling.reward.data import (
    Pictures,
    Snapshot,
    Swaps,
    good_pictures,
    make_batch,
    pairs_of,
)
from modeling.reward.evaluate import outcomes
from modeling.reward.rerank import rerank
from modeling.reward.scoring import answer_logits, margins, margins_of
from modeling.reward.template import CONTEXT, prefix_ids, suffix_ids
from modeling.reward.view import reward_context
from modeling.reward.view_config import ViewConfig
from modeling.reward.vlm import RewardVLM, load_reward_vlm, write_settings
from tests.reward.test_scoring import QUERIES, pictures
from tests.reward.worlds import snapshot


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("labels"))


@pytest.fixture
def looking(vlm: RewardVLM) -> RewardVLM:
    vlm.view = ViewConfig(context=2.0)
    return vlm


def test_it_stands_before_the_two_that_are_compared(vlm: RewardVLM) -> None:
    grid = torch.tensor([[1, 4, 4]])
    query = suffix_ids(vlm, "Is it?")
    plain = vlm.tokenizer.decode(prefix_ids(vlm, grid.expand(2, 3)))
    vlm.view = ViewConfig(context=2.0)
    shown = vlm.tokenizer.decode(prefix_ids(vlm, grid.expand(3, 3)))
    picture = "<|vision_start|>" + 4 * "<|image_pad|>" + "<|vision_end|>"
    assert plain.endswith("user\n" + picture + picture)
    assert shown.endswith("user\n" + picture + CONTEXT + picture + picture)
    assert suffix_ids(vlm, "Is it?") == query


def test_it_makes_a_difference_and_equals_separate_questions(looking: RewardVLM) -> None:
    first, second = pictures(0), pictures(1)
    with torch.no_grad():
        packed = margins(looking, first, second, QUERIES, pictures(2))
        other = margins(looking, first, second, QUERIES, pictures(3))
        columns = [
            margins(looking, first, second, [[row[d]] for row in QUERIES], pictures(2))
            for d in range(3)
        ]
    torch.testing.assert_close(packed, torch.cat(columns, 1), atol=1e-6, rtol=1e-6)
    assert (packed - other).abs().max() > 1e-3


def test_a_training_batch_shows_it_in_both_orders(labels: Path, looking: RewardVLM) -> None:
    data = Snapshot(labels)
    pairs = pairs_of(data, "train")[:3]
    found = Pictures(data, looking.view)
    batch = make_batch(pairs, found)
    for row in range(3):
        (context, *shown), (same, *turned) = batch.orders[2 * row : 2 * row + 2]
        assert context == same
        assert shown == turned[::-1]
    with torch.no_grad():
        logits = answer_logits(looking, batch.images.double(), batch.orders, batch.queries)
        a, b = batch.orders[0][1:]
        views, contexts = batch.images.double(), found.contexts(pairs[:1], pairs[0].size)
        assert contexts is not None
        expected = margins(
            looking, views[a : a + 1], views[b : b + 1], batch.queries[:1], contexts.double()
        )
    torch.testing.assert_close(margins_of(looking, logits)[:1], expected, atol=1e-6, rtol=1e-6)
    assert len(outcomes(looking, pairs, found)) == 3


def test_a_pair_of_two_sources_has_none_to_show(labels: Path, looking: RewardVLM) -> None:
    data = Snapshot(labels)
    swap = Swaps(data, good_pictures(data, "holdout"))
    (pair,) = swap.draw(np.random.default_rng(0), 1)
    shown = Pictures(data, looking.view).contexts([pair, pairs_of(data, "train")[0]], pair.size)
    assert shown is not None
    assert shown[0].unique().tolist() == [0.5]
    assert shown[1].unique().numel() > 1


def test_pictures_are_ranked_with_it(looking: RewardVLM) -> None:
    views, context = pictures(0, count=3), pictures(2)[:1]
    found = rerank(looking, views, QUERIES[0], context)
    order, scores = found.order, found.scores
    with torch.no_grad():
        one, other = views[order[0]][None], views[order[1]][None]
        forth = margins(looking, one, other, QUERIES[:1], context)
        back = margins(looking, other, one, QUERIES[:1], context)
        third = views[order[2]][None]
        rest = margins(looking, one, third, QUERIES[:1], context) - margins(
            looking, third, one, QUERIES[:1], context
        )
    expected = (forth - back + rest)[0] / 4
    torch.testing.assert_close(scores[order[0]].double(), expected, atol=1e-5, rtol=1e-5)


def test_it_is_part_of_a_models_settings(tiny_dir: Path, tmp_path: Path) -> None:
    vlm = load_reward_vlm(tiny_dir)
    assert vlm.view.context == 0
    vlm.view = dataclasses.replace(vlm.view, context=1.5)
    vlm.model.save_pretrained(tmp_path)
    vlm.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        (tiny_dir / "preprocessor_config.json").read_text()
    )
    write_settings(tmp_path, vlm)
    assert load_reward_vlm(tmp_path).view.context == 1.5
    with pytest.raises(ValueError, match="context"):
        ViewConfig(context=0.5)


def test_the_policy_is_scored_with_it(looking: RewardVLM) -> None:
    """Its batch's sources and masks make the same context as the function that training uses."""
    sources, masks = pictures(4), torch.zeros(2, 1, 64, 64)
    masks[:, :, 16:40, 8:32] = 1
    rows = [
        Row("a", "fill", 1.0, Path(), Path(), "", "train", dict(zip("xyz", row, strict=True)))
        for row in QUERIES
    ]
    batch = Batch(rows, sources, masks, conditions=None)  # type: ignore[arg-type]
    policy_first = torch.ones(1, 2, dtype=torch.bool)
    with torch.no_grad():
        found = score(looking, pictures(0), pictures(1), batch, policy_first)
        context = reward_context(sources, masks, looking.view)
        first, second = (p * masks + sources * (1 - masks) for p in (pictures(0), pictures(1)))
        expected = margins(looking, first, second, QUERIES, context)
    torch.testing.assert_close(found.margins[0], expected, atol=1e-9, rtol=0)
