import numpy as np
import pytest

from modeling import statistics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, two-sided intervals for the single proportion, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_it_reproduces_published_wilson_intervals(
    successes: int, n: int, low: float, high: float
) -> None:
    interval = statistics.wilson(successes, n)

    assert interval.value == pytest.approx(successes / n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_it_knows_nothing_about_a_share_of_nothing() -> None:
    interval = statistics.wilson(0, 0)

    assert (interval.low, interval.high, interval.n) == (0.0, 1.0, 0)
    assert np.isnan(interval.value)


def test_it_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="5 successes of 4"):
        statistics.wilson(5, 4)


def test_it_bootstraps_a_mean_close_to_the_normal_interval() -> None:
    sample = np.random.default_rng(1).normal(3.0, 2.0, 400)

    interval = statistics.bootstrap(sample, seed=0)

    error = 1.96 * sample.std() / 20
    assert interval.value == pytest.approx(sample.mean())
    assert interval.low == pytest.approx(sample.mean() - error, abs=0.04)
    assert interval.high == pytest.approx(sample.mean() + error, abs=0.04)


def test_it_gives_the_same_interval_for_the_same_seed() -> None:
    values = [0.0, 1.0, 0.0, 1.0, 1.0]

    assert statistics.bootstrap(values, seed=4) == statistics.bootstrap(values, seed=4)


def test_it_pairs_before_it_takes_the_difference() -> None:
    # Both samples spread widely, their difference not at all: only a paired interval sees that.
    parent = [0.0, 10.0, 20.0, 30.0]
    new = [1.0, 11.0, 21.0, 31.0]

    difference = statistics.paired_difference(parent, new)

    assert (difference.parent, difference.new, difference.difference) == (15.0, 16.0, 1.0)
    assert (difference.low, difference.high, difference.n) == (1.0, 1.0, 4)


def test_it_refuses_samples_of_different_length() -> None:
    with pytest.raises(ValueError, match="not 2 and 1"):
        statistics.paired_difference([1.0, 2.0], [1.0])


def test_it_computes_mcnemars_exact_p() -> None:
    # Two-sided binomial p of 2 in 12 is 2 * (1 + 12 + 66) / 4096.
    assert statistics.mcnemar(2, 10) == pytest.approx(158 / 4096)
    assert statistics.mcnemar(10, 2) == statistics.mcnemar(2, 10)
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(5, 5) == 1.0


def test_it_leaves_ties_out_of_the_sign_test() -> None:
    # Five of five in one direction: 2 / 32.
    assert statistics.sign_test([0.1, 0.2, 0.3, 0.1, 0.5, 0.0, 0.0]) == pytest.approx(2 / 32)


def test_it_calls_a_policy_worse_when_every_pair_is_worse() -> None:
    # Five equal losses: only the observed pattern is as low, 1 of 32.
    assert statistics.p_worse([1.0] * 5, [0.5] * 5) == pytest.approx(1 / 32)
    assert statistics.p_worse([0.5] * 5, [1.0] * 5) == 1.0
    assert statistics.p_worse([0.5] * 5, [0.5] * 5) == 1.0


def test_it_agrees_with_the_exact_binomial_on_many_pairs() -> None:
    # 30 lost, 10 gained, one step each: P(X <= 10), X ~ Binomial(40, 1/2).
    parent = [1.0] * 30 + [0.0] * 10
    new = [0.0] * 30 + [1.0] * 10

    assert statistics.p_worse(parent, new) == pytest.approx(
        statistics.binomial_tail(10, 40), abs=5e-4
    )


def test_it_adjusts_p_values_as_holm_does() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 raised to the one before it.
    adjusted = statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})

    assert adjusted["d"] == pytest.approx(0.02)
    assert adjusted["a"] == pytest.approx(0.03)
    assert adjusted["c"] == pytest.approx(0.06)
    assert adjusted["b"] == pytest.approx(0.06)


def test_it_counts_small_differences_as_ties() -> None:
    shares = statistics.win_tie_lose([0.5, 0.5, 0.5, 0.5], [0.9, 0.51, 0.5, 0.1], tie=0.05)

    assert shares == pytest.approx((0.25, 0.5, 0.25))
