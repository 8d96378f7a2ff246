"""Fewer comparisons than all pairs, the same best picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling.reward.rerank import Contest, rerank, rerank_all
from modeling.reward.tournament import Floats, Pair, strengths, tournament
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.starter import rerank_agreement
from tests.reward import parity


def play(margins: Floats, *, every_pair: bool = False) -> dict[Pair, Floats]:
    """A tournament whose comparisons (N, N, D) are known."""
    stages = tournament(len(margins), every_pair=every_pair)
    wanted = next(stages)
    while True:
        try:
            wanted = stages.send(np.stack([margins[pair] for pair in wanted]))
        except StopIteration as ended:
            known: dict[Pair, Floats] = ended.value
            return known


def margins_of(values: Floats, bias: float = 0.0) -> Floats:
    """(N, N, D): differences of strengths, plus what standing first is worth."""
    return values[:, None] - values[None, :] + bias


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8, 12, 16])
def test_it_finds_strengths_behind_an_order_bias_from_few_pairs(count: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, 3))
    known = play(margins_of(values, bias=0.7))
    # Each one's mean over the others of the difference: (v - mean of all) * N / (N - 1).
    expected = (values - values.mean(0)) * count / (count - 1)
    np.testing.assert_allclose(strengths(known, count), expected, atol=1e-9)
    everything = count * (count - 1)
    assert len(known) <= everything if count <= 6 else len(known) < everything


def test_with_all_pairs_a_strength_is_the_mean_over_both_orders() -> None:
    margins = np.random.default_rng(0).normal(size=(5, 5, 2))
    known = play(margins, every_pair=True)
    assert len(known) == 20
    by_hand = np.mean([(margins[1, j] - margins[j, 1]) / 2 for j in (0, 2, 3, 4)], axis=0)
    np.testing.assert_allclose(strengths(known, 5)[1], by_hand)


def test_who_is_far_ahead_is_found_by_the_ring_alone() -> None:
    values = np.array([[20.0], *[[float(n)] for n in range(7)]])
    assert len(play(margins_of(values))) == 16
    close = np.array([[5.0], [4.99], *[[0.0]] * 6])
    known = play(margins_of(close))
    assert all((i, j) in known for i in (0, 1) for j in range(8) if i != j)


@pytest.fixture(scope="module")
def vlm() -> RewardVLM:
    return load_reward_vlm(parity.STARTER)


def test_the_order_in_which_pictures_are_given_changes_nothing(vlm: RewardVLM) -> None:
    rng = torch.Generator().manual_seed(0)
    base = parity.pictures().float()
    views = (base[:1] + torch.rand(6, 1, *base.shape[2:], generator=rng) * 0.3).clamp(0, 1)
    views = torch.cat([views, views[2:3]])  # one of them twice
    before = rerank(vlm, views, parity.QUERIES)
    turn = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    after = rerank(vlm, views[turn], parity.QUERIES)
    torch.testing.assert_close(after.scores, before.scores[turn], rtol=0, atol=0)
    same = {2: 2, 6: 2}  # the two that look alike are one
    one = [same.get(index, index) for index in before.order]
    other = [same.get(int(turn[index]), int(turn[index])) for index in after.order]
    assert one == other
    assert torch.equal(before.scores[2], before.scores[6])


def test_contests_that_are_asked_together_end_as_alone(vlm: RewardVLM) -> None:
    base = parity.pictures().float()
    first = Contest(base, parity.QUERIES)
    second = Contest(base.flip(-1)[:3], parity.QUERIES[:1])
    together = rerank_all(vlm, [first, second])
    for contest, found in zip((first, second), together, strict=True):
        alone = rerank(vlm, contest.views, list(contest.queries))
        assert found.order == alone.order
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-5)


def test_eight_candidates_need_fewer_forwards_than_all_pairs() -> None:
    found = rerank_agreement.measure(2, seed=2)
    assert found["forwards_all_pairs"] == 56
    assert found["forwards"] < 56 < found["forwards_all_pairs_by_dimension"]
    assert found["same_best"] == 1


@pytest.mark.long
def test_the_best_is_that_of_all_pairs_on_95_percent_of_the_starter_sets() -> None:
    assert rerank_agreement.measure(60, seed=3)["same_best"] >= 0.95
