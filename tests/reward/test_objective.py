from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modeling.reward.evaluate import (
    Outcome,
    calibration_error,
    compare,
    doubts,
    figures,
    fit_temperature,
    swap_results,
    tie_figures,
)
from modeling.reward.objective import (
    answer_loss,
    batch_accuracy,
    davidson_loss,
    strength_of,
)


def test_it_averages_both_orders_of_the_yes_no_loss() -> None:
    """One pair, the first picture better, vocabulary (Yes, No, other).

    Shown first: Yes : No = 2 : 1 and Yes is right: -log 2/3 = log 3/2.
    Shown second: Yes : No = 1 : 3 and No is right: -log 3/4 = log 4/3.
    Half of each: (log 3/2 + log 4/3) / 2 = log 2 / 2, whatever the third word's logit.
    """
    logits = torch.tensor([[[2.0, 1.0, 7.0]], [[1.0, 3.0, 1.0]]]).log()
    target, weight = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [0.5]])
    loss = answer_loss(logits, 0, 1, target, weight)
    assert loss.item() == pytest.approx(math.log(2) / 2)


def test_it_weighs_questions_and_averages_annotators() -> None:
    """Two thirds of the weight say Yes at P = (3/4, 1/4), twice as important as the other.

    2 * (2/3 log 4/3 + 1/3 log 4) + 1 * log 4, the padded third question counts nothing.
    """
    logits = torch.tensor([[[3.0, 1.0], [1.0, 3.0], [1.0, 9.0]]]).log()
    target = torch.tensor([[2 / 3, 1.0, 0.0]])
    loss = answer_loss(logits, 0, 1, target, torch.tensor([[2.0, 1.0, 0.0]]))
    expected = 2 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(4)) + math.log(4)
    assert loss.item() == pytest.approx(expected)


def davidson(
    margin: list[float], target: list[float], tie: list[float], strength: float, judged: bool = True
) -> torch.Tensor:
    logits = torch.tensor([[[value, 0.0]] for value in margin])
    targets, ties = (torch.tensor(values)[:, None] for values in (target, tie))
    return davidson_loss(
        logits,
        0,
        1,
        targets,
        torch.ones_like(targets),
        ties,
        torch.full(targets.shape, judged),
        torch.tensor([math.log(strength)]),
    )


def test_it_gives_ties_a_probability_of_their_own() -> None:
    """Margin log 4, strength 1.5: first : second : tie = 2 : 1/2 : 3/2, which add up to 4.

    Of the answers a quarter found no difference, and of the others two thirds name the first:
    -[3/4 (2/3 log 1/2 + 1/3 log 1/8) + 1/4 log 3/8].
    """
    loss = davidson([math.log(4)], [2 / 3], [0.25], 1.5)
    expected = 0.75 * (2 / 3 * math.log(2) + 1 / 3 * math.log(8)) + 0.25 * math.log(8 / 3)
    assert loss.item() == pytest.approx(expected)
    # Swapping the pictures changes nothing.
    assert davidson([-math.log(4)], [1 / 3], [0.25], 1.5).item() == pytest.approx(expected)
    # Nobody was asked about a prompt swap: it has two answers, 4 : 1.
    swap = davidson([math.log(4)], [1.0], [0.0], 1.5, judged=False)
    assert swap.item() == pytest.approx(math.log(5 / 4))


def test_without_ties_it_is_the_loss_of_bradley_and_terry() -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    target, weight = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(1))
    plain = answer_loss(logits, 1, 2, target, weight)
    none, judged = torch.zeros(4, 3), torch.ones(4, 3, dtype=torch.bool)
    vanishing = davidson_loss(
        logits, 1, 2, target, weight, none, judged, torch.tensor([math.log(1e-9)])
    )
    assert vanishing.item() == pytest.approx(plain.item(), rel=1e-6)


def test_a_tie_pulls_the_margin_to_nothing_and_the_strength_up() -> None:
    margin = torch.tensor([[[0.8, 0.0]]], requires_grad=True)
    strength = torch.zeros(1, requires_grad=True)
    one, yes = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    davidson_loss(margin, 0, 1, one / 2, one, one, yes, strength).backward()
    assert margin.grad is not None
    assert strength.grad is not None
    # d/dm log(e^(m/2) + e^(-m/2) + 1) = sinh(m/2) / (2 cosh(m/2) + 1)
    expected = math.sinh(0.4) / (2 * math.cosh(0.4) + 1)
    assert margin.grad[0, 0, 0].item() == pytest.approx(expected)
    assert strength.grad.item() < 0
    # A share of one third between equal pictures is a strength of one.
    assert strength_of(1 / 3) == pytest.approx(1.0)


def test_it_says_how_well_ties_are_told_apart() -> None:
    """Margins of ties 1 and 3, of decided pairs 2, 3 and 4: of six comparisons 3 + 1.5 are right,
    3 against 3 counting half. With strength 2 and equal pictures P(tie) = 2 / (2 + 2) = 1/2."""
    found = [outcome(f"t{m}", m, -m, "tied") for m in (1.0, -3.0)]
    found += [outcome(f"d{m}", m, -m) for m in (2.0, 3.0, -4.0)]
    report = tie_figures(found, temperature=1.0, strength=None)
    assert report is not None
    assert report["auc"] == pytest.approx(4.5 / 6)
    assert (report["n_tied"], report["n_decided"]) == (2, 3)
    assert 0 <= report["low"] < 0.75 < report["high"] <= 1
    equal = [outcome("a", 0.0, 0.0, "tied"), outcome("b", 2.0, -2.0)]
    report = tie_figures(equal, temperature=0.5, strength=2.0)
    assert report is not None
    assert report["probability_tied"] == pytest.approx(0.5)
    assert report["probability_decided"] == pytest.approx(2 / (2 + 2 * math.cosh(0.5)))
    assert tie_figures(found[:2], temperature=1.0, strength=None) is None


def test_it_counts_single_orders_and_no_ties() -> None:
    margins = torch.tensor([[1.0], [-1.0], [3.0]])
    target, weight = torch.tensor([[1.0], [1.0], [0.5]]), torch.ones(3, 1)
    assert batch_accuracy(margins, target, weight, both=False).tolist() == [1, 2]


def test_it_counts_answers_by_the_mean_of_both_orders() -> None:
    # Pair 1: +1 first, +3 second: (1 - 3) / 2 = -1, so the second is named, which is right.
    # Pair 2: +1 and -1: the first, wrong. Its second question is padding.
    margins = torch.tensor([[1.0, 0.5], [3.0, -0.5], [1.0, 9.0], [-1.0, 9.0]])
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    weight = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.0], [0.5, 0.0]])
    assert batch_accuracy(margins, target, weight).tolist() == [2, 3]


def outcome(key: str, first: float, second: float, relation: str = "direct") -> Outcome:
    return Outcome(key, "fill", "structure", relation, first, second)


def test_it_reports_accuracy_consistency_and_doubts() -> None:
    """Three of four right; the winner shown second counts with the opposite sign.

    a: (2 - -2) / 2 > 0 right, consistent. b: (2 - 1) / 2 > 0 right, but No in neither order.
    c: (-1 - 1) / 2 < 0 wrong, consistent. d: right, consistent.
    """
    found = [
        outcome("a", 2.0, -2.0),
        outcome("b", 2.0, 1.0),
        outcome("c", -1.0, 1.0),
        outcome("d", 0.5, -0.1),
        outcome("e", -5.0, 5.0, "implied"),
    ]
    report = figures(found, min_test_pairs=4, temperature=1.0)
    assert report["overall"]["accuracy"] == 0.75
    assert report["implied_accuracy"]["fill"]["structure"]["accuracy"] == 0.0
    assert report["position_consistency"]["accuracy"] == 0.8
    ((task, dimension, reason),) = report["excluded"]
    assert (task, dimension) == ("fill", "structure")
    assert reason.startswith("held-out accuracy 0.75 [0.30, 0.95] on 4 pairs")
    untested = doubts(report["reward_accuracy"], 5)[1]
    assert untested == [["fill", "structure", "only 4 held-out pairs, 5 are needed to tell"]]


def test_it_reports_nothing_where_nothing_is_held_out() -> None:
    report = figures([], min_test_pairs=1, temperature=1.0)
    assert report["overall"]["accuracy"] is None
    assert report["prompt_swap_accuracy"] is None
    assert report["excluded"] == []


def test_it_calls_a_swap_right_when_the_prompt_moves_the_margin_its_way() -> None:
    """margin(a, b | A) = 1.0 > margin(a, b | B) = 0.6, although a wins under both prompts.

    Seen from B's winner b the second question's score is -0.6: 1.0 - 0.6 > 0.
    """
    found = [
        outcome("swap:x:0", 1.0, -1.0, "swap"),
        outcome("swap:x:1", -0.6, 0.6, "swap"),
        outcome("swap:y:0", 0.3, -0.3, "swap"),
        outcome("swap:y:1", -0.4, 0.4, "swap"),
    ]
    assert [result[3] for result in swap_results(found)] == [1.0, 0.0]
    report = figures(found, min_test_pairs=1, temperature=1.0)
    assert report["prompt_swap_accuracy"] == 0.5
    assert report["prompt_swap"]["questions"]["accuracy"] == 0.5


def test_it_measures_calibration() -> None:
    """Ten answers at 0.8, six of them right: |0.8 - 0.6| = 0.2, whichever answer is likelier."""
    hits = np.array([1.0] * 6 + [0.0] * 4)
    assert calibration_error(np.full(10, 0.8), hits) == pytest.approx(0.2)
    assert calibration_error(np.full(10, 0.2), 1 - hits) == pytest.approx(0.2)


def test_it_finds_the_temperature_that_fits() -> None:
    """Margins of 4 that are right 3 times of 4 deserve log 3 = 4 / T."""
    found = [outcome(str(i), 4.0 if i % 4 else -4.0, -4.0 if i % 4 else 4.0) for i in range(40)]
    assert fit_temperature(found) == pytest.approx(4 / math.log(3), rel=0.02)
    assert fit_temperature(found[:8]) == 1.0


def test_it_compares_two_models_on_the_same_pairs() -> None:
    parent = [outcome(str(i), 1.0 if i < 10 else -1.0, 0.0) for i in range(20)]
    new = [outcome(str(i), 1.0 if i < 15 else -1.0, 0.0) for i in range(20)]
    result = compare(parent, new)
    assert result["overall"]["parent"] == 0.5
    assert result["overall"]["new"] == 0.75
    assert result["overall"]["difference"] == 0.25
    assert 0 < result["overall"]["low"] < 0.25 < result["overall"]["high"] < 0.5
    assert result["reward_accuracy"]["fill"]["structure"]["n"] == 20
    with pytest.raises(ValueError, match="different pairs"):
        compare(parent, new[:-1])
