"""Strengths against choix, statsmodels and scipy, and their intervals on random data."""

from __future__ import annotations

from math import log, log10

import choix
import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize
from scipy.stats import t as student

from modeling import strengths
from modeling.clusters import Answers, difference, mean, share, t975, two_sided
from modeling.strengths import FIRST, SECOND, TIE, Comparisons

TRUE = np.array([0.9, 0.3, -0.2, -1.0])


def drawn(
    rng: np.random.Generator,
    *,
    sources: int = 80,
    each: int = 3,
    tie: float | None = None,
    spread: float = 0.5,
) -> Comparisons:
    """Comparisons under known strengths; with a spread, what is said of one source is alike."""
    rows = []
    for source in range(sources):
        shift = rng.normal(0, spread, len(TRUE))
        for _ in range(each):
            a, b = rng.choice(len(TRUE), 2, replace=False)
            weights = np.exp(
                [TRUE[a] + shift[a], (TRUE + shift)[[a, b]].mean() + (tie or 0), (TRUE + shift)[b]]
            )
            weights[1] *= tie is not None
            rows.append((a, b, rng.choice(3, p=weights / weights.sum()), source, 0))
    return Comparisons.of(rows)


def test_two_policies_have_the_odds_of_their_wins() -> None:
    """Davidson's model is saturated by one pair: θ1 - θ2 = ln(6 / 2), ν = 2 / √(6 · 2)."""
    rows = Comparisons.of(
        [(0, 1, FIRST, n, 0) for n in range(6)]
        + [(0, 1, TIE, n, 0) for n in range(6, 8)]
        + [(1, 0, FIRST, n, 0) for n in range(8, 10)]
    )

    found = strengths.fit(2, rows, prior=0.0)

    assert found.difference(0, 1)[0] == pytest.approx(log(3))
    assert found.tie == pytest.approx(log(2 / 12**0.5), abs=1e-5)
    assert found.interval(0).value - found.interval(1).value == pytest.approx(400 * log10(3))


def test_it_agrees_with_choix_where_nothing_is_tied() -> None:
    rows = drawn(np.random.default_rng(1))
    won = [
        (a, b) if outcome == FIRST else (b, a)
        for a, b, outcome in zip(rows.first, rows.second, rows.outcome, strict=True)
    ]

    found = strengths.fit(4, rows, prior=0.0)

    assert found.theta == pytest.approx(choix.ilsr_pairwise(4, won), abs=1e-4)
    assert found.tie is None


def test_its_errors_are_those_of_a_clustered_logistic_regression() -> None:
    rows = drawn(np.random.default_rng(2))
    design = np.zeros((len(rows), 4))
    design[np.arange(len(rows)), rows.first] = 1
    design[np.arange(len(rows)), rows.second] = -1
    model = sm.Logit((rows.outcome == FIRST).astype(float), design[:, 1:])
    reference = model.fit(
        disp=False, cov_type="cluster", cov_kwds={"groups": rows.source, "use_correction": False}
    )

    found = strengths.fit(4, rows, prior=0.0)

    few = (80 / 79) ** 0.5  # theirs goes without the correction for few clusters
    for policy in (1, 2, 3):
        value, error = found.difference(policy, 0)
        assert value == pytest.approx(reference.params[policy - 1], abs=1e-5)
        assert error == pytest.approx(few * reference.bse[policy - 1], rel=1e-4)


def test_it_finds_the_likeliest_strengths_with_ties() -> None:
    rows = drawn(np.random.default_rng(3), tie=-0.3)

    def surprise(at: np.ndarray) -> float:
        theta, tie = np.append(at[:3], -at[:3].sum()), at[3]
        a, b = theta[rows.first], theta[rows.second]
        weights = np.stack([a, tie + (a + b) / 2, b], 1)
        total = np.logaddexp.reduce(weights, 1)
        return float((total - weights[np.arange(len(rows)), rows.outcome]).sum())

    reference = optimize.minimize(surprise, np.zeros(4), method="BFGS")
    found = strengths.fit(4, rows, prior=0.0)

    assert found.theta[:3] == pytest.approx(reference.x[:3], abs=1e-3)
    assert found.tie == pytest.approx(reference.x[3], abs=1e-3)


def held(found: strengths.Strengths, truth: np.ndarray) -> list[bool]:
    """Whether the intervals of the six differences hold the truth."""
    return [
        bool(abs(value - (truth[a] - truth[b])) < t975(found.df) * error)
        for a in range(4)
        for b in range(a)
        for value, error in [found.difference(a, b)]
    ]


def test_its_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(6)
    found = [held(strengths.fit(4, drawn(rng, tie=-0.3, spread=0)), TRUE) for _ in range(100)]
    assert 0.90 < np.mean(found) < 0.99


@pytest.mark.long
def test_its_intervals_hold_the_truth_where_answers_hang_together() -> None:
    """The truth is what very many comparisons come to: the shifts pull strengths together."""
    rng = np.random.default_rng(5)
    truth = strengths.fit(4, drawn(rng, sources=20_000, tie=-0.3), prior=0.0).theta
    found = [held(strengths.fit(4, drawn(rng, tie=-0.3)), truth) for _ in range(400)]
    assert 0.93 < np.mean(found) < 0.97


def test_equal_policies_are_rarely_called_different() -> None:
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(100):
        pairs = np.array([rng.choice(4, 2, replace=False) for _ in range(120)])
        rows = [
            (a, b, rng.choice(3, p=[0.35, 0.3, 0.35]), n % 60, 0) for n, (a, b) in enumerate(pairs)
        ]
        found = strengths.fit(4, Comparisons.of(rows))
        alarms += min(found.p_values().values()) < 0.05
    # Holm keeps the chance of any false alarm at 5 %: 11 of 100 is beyond 99 % of such samples.
    assert alarms <= 11


def test_who_won_everything_stays_finite() -> None:
    found = strengths.fit(2, Comparisons.of([(0, 1, FIRST, n, 0) for n in range(30)]))
    assert 2 < found.difference(0, 1)[0] < 8


def test_it_tells_groups_apart_that_never_met() -> None:
    rows = Comparisons.of([(0, 1, FIRST, 0, 0), (1, 2, TIE, 1, 0), (3, 4, SECOND, 2, 0)])
    assert strengths.connected(6, rows) == [[0, 1, 2], [3, 4], [5]]


@pytest.mark.parametrize("df", [1, 2, 4, 5, 7, 12, 30, 200])
def test_it_knows_students_t(df: int) -> None:
    assert t975(df) == pytest.approx(student.ppf(0.975, df), rel=2e-3)
    for value in (0.7, 2.2, 4.0):
        wanted = 2 * student.sf(value, df)
        assert two_sided(value, df) == pytest.approx(wanted, abs=0.02 / df + 1e-3)


class TestClusters:
    def test_its_errors_are_those_of_a_regression_clustered_twice(self) -> None:
        rng = np.random.default_rng(8)
        source, person = np.repeat(np.arange(40), 6), np.tile(np.arange(12), 20)
        value = rng.normal(size=40)[source] + rng.normal(size=12)[person] + rng.normal(size=240)
        reference = sm.OLS(value, np.ones(240)).fit(
            cov_type="cluster",
            cov_kwds={"groups": np.stack([source, person], 1), "use_correction": True},
        )

        found = mean(Answers(value, source, person))

        assert found.value == pytest.approx(reference.params[0])
        # Theirs also multiplies by (n - 1) / (n - p) = 1 and corrects each direction alike.
        assert (found.high - found.low) / 2 / t975(11) == pytest.approx(reference.bse[0], rel=0.01)

    def test_one_answer_per_source_gives_the_usual_interval(self) -> None:
        value = np.random.default_rng(9).normal(3, 2, 60)
        found = mean(Answers.of(value.tolist(), list(range(60))))
        error = value.std(ddof=1) / 60**0.5
        assert found.high - found.value == pytest.approx(student.ppf(0.975, 59) * error, rel=1e-3)

    def test_its_shares_hold_the_truth_as_often_as_they_say(self) -> None:
        rng = np.random.default_rng(10)
        held = 0
        for _ in range(400):
            chance = rng.beta(4, 1, 50)  # some sources are easier than others; 0.8 on average
            source = np.repeat(np.arange(50), 4)
            value = (rng.random(200) < chance[source]).astype(float)
            found = share(Answers.of(value.tolist(), source.tolist()))
            held += found.low <= 0.8 <= found.high
        assert 0.92 < held / 400 < 0.98

    def test_agreement_of_all_is_no_certainty(self) -> None:
        found = share(Answers.of([1.0] * 40, [n // 4 for n in range(40)]))
        # Ten sources, whatever the number of answers: Wilson's interval of 10 in 10.
        assert (found.value, found.high, found.n) == (1.0, 1.0, 40)
        assert found.low == pytest.approx(0.7225, abs=1e-4)

    def test_it_compares_pairs_where_sources_are_shared(self) -> None:
        """The reference regresses on who made the picture, clustered by source."""
        rng = np.random.default_rng(11)
        hard = rng.normal(size=60)
        source = np.concatenate([np.arange(40), np.arange(20, 60)])  # half of them shared
        ours = np.repeat([1.0, 0.0], 40)
        value = hard[source] + 0.4 * ours + rng.normal(0, 0.5, 80)
        reference = sm.OLS(value, sm.add_constant(ours)).fit(
            cov_type="cluster", cov_kwds={"groups": source, "use_correction": False}
        )

        found, p = difference(
            Answers.of(value[:40].tolist(), source[:40].tolist()),
            Answers.of(value[40:].tolist(), source[40:].tolist()),
        )

        error = reference.bse[1] * (60 / 59) ** 0.5
        assert found.value == pytest.approx(reference.params[1])
        assert (found.high - found.value) / t975(59) == pytest.approx(error, rel=1e-6)
        assert p == pytest.approx(2 * student.sf(abs(found.value) / error, 59), abs=2e-3)
        assert found.n == 60
