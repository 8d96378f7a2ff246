"""Agreement against Krippendorff's published example, hand counts, nltk and scipy."""

from __future__ import annotations

from itertools import combinations
from math import isnan

import numpy as np
import pytest
from nltk.metrics.agreement import AnnotationTask
from nltk.metrics.distance import binary_distance, interval_distance
from scipy import stats

from annotation import agreement
from annotation.agreement import Floats, Ints

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): 4 observers, 12 units.
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]


def table(observers: list[str]) -> Ints:
    units, values = [], []
    for observer in observers:
        for unit, value in enumerate(observer.split()):
            if value != ".":
                units.append(unit)
                values.append(int(value) - 1)
    return agreement.count(np.array(units), np.array(values), 5)[1]


def random_answers(seed: int, people: int = 5, units: int = 60, values: int = 5) -> list[list[int]]:
    """What each person said of each unit, -1 where nothing; people lean towards a truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, values, units)
    said = np.where(
        rng.random((people, units)) < 0.6, truth, rng.integers(0, values, (people, units))
    )
    return np.where(rng.random((people, units)) < 0.3, -1, said).tolist()


def counts_of(said: list[list[int]], values: int = 5) -> Ints:
    answers = np.array(said)
    _, units = np.nonzero(answers >= 0)
    return agreement.count(units, answers[answers >= 0], values)[1]


def nltk_alpha(said: list[list[int]], distance: object) -> float:
    # nltk counts units with a single answer, which Krippendorff leaves out.
    answers = np.array(said)
    kept = (answers >= 0).sum(0) > 1
    data = [
        (str(person), str(unit), int(answers[person, unit]))
        for person, unit in zip(*np.nonzero((answers >= 0) & kept), strict=True)
    ]
    return float(AnnotationTask(data, distance=distance).alpha())


class TestAlpha:
    @pytest.mark.parametrize(
        ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
    )
    def test_it_gives_krippendorff_s_published_values(
        self, level: agreement.Level, published: float
    ) -> None:
        assert round(agreement.alpha(table(OBSERVERS), level), 3) == published

    def test_it_gives_the_published_coincidences(self) -> None:
        pairs = agreement.coincidences(table(OBSERVERS)).sum(0)
        assert pairs.sum(1) == pytest.approx([9, 13, 10, 5, 3])
        assert np.trace(pairs) == pytest.approx(32)
        assert pairs[0] == pytest.approx([7, 4 / 3, 1 / 3, 1 / 3, 0])

    def test_it_gives_the_value_worked_out_by_hand(self) -> None:
        """Two people, four units: aa, ab, bb, bb. Each unit counts its pair both ways.

        o_aa = 2, o_ab = o_ba = 1, o_bb = 4; n_a = 3, n_b = 5, n = 8. Observed 2/8, expected
        2·3·5 / (8·7) = 30/56; alpha = 1 - (2/8) / (30/56) = 1 - 7/15 = 8/15. With two values
        ordinal and interval are the same.
        """
        counts = np.array([[2, 0], [1, 1], [0, 2], [0, 2]])
        for level in ("nominal", "ordinal", "interval"):
            assert agreement.alpha(counts, level) == pytest.approx(8 / 15)

    def test_it_is_one_where_all_agree_and_undefined_without_variation(self) -> None:
        assert agreement.alpha(np.array([[3, 0], [0, 2]]), "nominal") == 1
        assert isnan(agreement.alpha(np.array([[3, 0], [2, 0]]), "nominal"))
        assert isnan(agreement.alpha(np.array([[1, 0], [0, 1]]), "nominal"))

    def test_it_is_about_zero_for_random_clicks_and_negative_for_opposites(self) -> None:
        rng = np.random.default_rng(3)
        counts = rng.multinomial(3, [0.25] * 4, size=20_000)
        assert agreement.alpha(counts, "nominal") == pytest.approx(0, abs=0.01)
        assert agreement.alpha(np.full((10, 2), 1), "nominal") < 0

    @pytest.mark.parametrize("seed", range(8))
    def test_it_agrees_with_nltk_on_random_data_with_gaps(self, seed: int) -> None:
        said = random_answers(seed)
        counts = counts_of(said)
        assert agreement.alpha(counts, "nominal") == pytest.approx(
            nltk_alpha(said, binary_distance), abs=1e-9
        )
        assert agreement.alpha(counts, "interval") == pytest.approx(
            nltk_alpha(said, interval_distance), abs=1e-9
        )
        # nltk takes any distance: the ordinal one, from how often each value was given.
        totals = counts[counts.sum(1) > 1].sum(0)

        def ordinal(a: int, b: int) -> float:
            low, high = min(a, b), max(a, b)
            between = totals[low : high + 1].sum() - (totals[low] + totals[high]) / 2
            return float(between**2) if low != high else 0.0

        assert agreement.alpha(counts, "ordinal") == pytest.approx(
            nltk_alpha(said, ordinal), abs=1e-9
        )


class TestIntervals:
    def test_it_is_a_bootstrap_over_units(self) -> None:
        """Against resampling the units themselves, one by one."""
        counts = counts_of(random_answers(1))
        counts = counts[counts.sum(1) > 1]
        found = agreement.alpha_interval(counts, "ordinal", resamples=4000)
        rng = np.random.default_rng(9)
        plain = [
            agreement.alpha(counts[rng.integers(0, len(counts), len(counts))], "ordinal")
            for _ in range(2000)
        ]
        low, high = np.quantile(plain, [0.025, 0.975])
        assert found.value == pytest.approx(agreement.alpha(counts, "ordinal"))
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
        assert found.n == len(counts)

    def test_it_covers_the_truth_about_95_times_in_100(self) -> None:
        rng = np.random.default_rng(5)

        def sample(size: int) -> Ints:
            sharp = np.where(rng.random(size)[:, None] < 0.5, [0.9, 0.1], [0.1, 0.9])
            ones = rng.binomial(3, sharp[:, 0])
            return np.stack([ones, 3 - ones], 1)

        truth = agreement.alpha(sample(400_000), "nominal")
        inside = 0
        for seed in range(200):
            found = agreement.alpha_interval(sample(120), "nominal", seed=seed, resamples=300)
            inside += found.low <= truth <= found.high
        assert 180 <= inside <= 199

    def test_it_widens_when_units_hang_together(self) -> None:
        counts = np.repeat(counts_of(random_answers(2)), 4, axis=0)
        apart = agreement.alpha_interval(counts, "nominal")
        clusters = np.repeat(np.arange(len(counts) // 4), 4)
        together = agreement.alpha_interval(counts, "nominal", clusters=clusters)
        assert together.value == pytest.approx(apart.value)
        assert together.high - together.low > 1.5 * (apart.high - apart.low)

    def test_it_is_the_same_for_crowds_too_large_for_one_number(self) -> None:
        """Counts times 300 leave shares as they are; ten values to base 901 overflow a number."""
        rng = np.random.default_rng(6)
        counts = rng.multinomial(3, [0.1] * 10, size=40) * 300
        found = agreement.alpha_interval(counts, "nominal")
        assert found.value == pytest.approx(agreement.alpha(counts, "nominal"))
        assert agreement.pairwise_interval(counts).value == pytest.approx(
            agreement.pairwise(counts)
        )

    def test_it_says_that_there_is_nothing_to_say(self) -> None:
        alone = np.array([[1, 0], [0, 1]])
        assert not agreement.alpha_interval(alone, "nominal").known
        assert agreement.pairwise_interval(alone) == agreement.NOTHING
        assert agreement.alpha_interval(np.zeros((0, 3), np.int64), "ordinal").n == 0


class TestPairwise:
    def test_it_counts_pairs_of_people(self) -> None:
        """a a b: one pair of three agrees; b b: one of one; together 2 of 4."""
        counts = np.array([[2, 1], [0, 2], [1, 0]])
        assert agreement.pairwise(counts) == 0.5
        assert agreement.pairwise_interval(counts).n == 2

    @pytest.mark.parametrize("seed", range(4))
    def test_it_counts_every_pair_once_on_random_data(self, seed: int) -> None:
        said = random_answers(seed)
        same = [
            one[unit] == two[unit]
            for one, two in combinations(said, 2)
            for unit in range(len(one))
            if one[unit] >= 0 and two[unit] >= 0
        ]
        assert agreement.pairwise(counts_of(said)) == pytest.approx(np.mean(same))

    def test_it_agrees_with_nltk_s_observed_agreement(self) -> None:
        rng = np.random.default_rng(4)
        said = rng.integers(0, 3, (4, 50)).tolist()
        data = [(str(p), str(u), v) for p, row in enumerate(said) for u, v in enumerate(row)]
        assert agreement.pairwise(counts_of(said, 3)) == pytest.approx(
            AnnotationTask(data).avg_Ao()
        )


class TestPositionBias:
    def test_it_is_pearson_s_chi_square_for_one_pick_a_turn(self) -> None:
        """30, 20, 10, 20 of 80: expected 20 each, (100 + 0 + 100 + 0) / 20 = 10."""
        places = np.repeat(np.arange(4), [30, 20, 10, 20])
        found = agreement.position_bias(np.arange(80), places, np.full(80, 4))
        assert found.picks == [30, 20, 10, 20]
        assert found.expected == [20, 20, 20, 20]
        assert found.shares == [0.375, 0.25, 0.125, 0.25]
        reference = stats.chisquare(found.picks)
        assert found.statistic == pytest.approx(10)
        assert found.freedom == 3
        assert found.p_value == pytest.approx(reference.pvalue)
        assert reference.statistic == pytest.approx(10)

    def test_it_adds_up_sets_of_different_sizes(self) -> None:
        two, three = np.repeat([0, 1], [15, 5]), np.repeat([0, 1, 2], [20, 10, 0])
        places = np.concatenate([two, three])
        sizes = np.repeat([2, 3], [20, 30])
        found = agreement.position_bias(np.arange(50), places, sizes)
        assert found.picks == [35, 15, 0]
        assert found.expected == [20, 20, 10]
        assert found.statistic == pytest.approx(
            stats.chisquare([15, 5]).statistic + stats.chisquare([20, 10, 0]).statistic
        )
        assert found.freedom == 3

    @pytest.mark.parametrize("together", [True, False])
    def test_it_raises_a_false_alarm_in_5_of_100_though_dimensions_hang_together(
        self, together: bool
    ) -> None:
        rng = np.random.default_rng(11)
        alarms = 0
        for _ in range(400):
            turns = np.repeat(np.arange(60), 4)
            each = rng.integers(0, 4, 60)
            places = np.repeat(each, 4) if together else rng.integers(0, 4, 240)
            found = agreement.position_bias(turns, places, np.full(240, 4))
            alarms += found.p_value < 0.05
        assert 8 <= alarms <= 36

    def test_it_finds_a_person_who_prefers_the_left(self) -> None:
        rng = np.random.default_rng(12)
        places = np.where(rng.random(200) < 0.3, 0, rng.integers(0, 4, 200))
        found = agreement.position_bias(np.arange(200), places, np.full(200, 4))
        assert found.p_value < 0.001

    def test_it_says_nothing_of_nothing(self) -> None:
        none = np.zeros(0, np.int64)
        found = agreement.position_bias(none, none, none)
        assert (found.n, found.shares) == (0, [])
        assert isnan(found.p_value)

    def test_its_tail_is_scipy_s(self) -> None:
        for freedom in range(1, 15):
            for statistic in (0.0, 0.3, 2.0, 9.5, 40.0):
                assert agreement.chi_square_tail(statistic, freedom) == pytest.approx(
                    stats.chi2.sf(statistic, freedom), rel=1e-10
                )
        with pytest.raises(ValueError, match="no chi-square tail"):
            agreement.chi_square_tail(1.0, 0)


class TestRobustZ:
    def test_it_measures_from_the_median_in_median_deviations(self) -> None:
        """1 2 3 4 100: median 3, deviations 2 1 0 1 97, their median 1."""
        values: Floats = np.array([1.0, 2, 3, 4, 100])
        assert agreement.robust_z(values) == pytest.approx(0.6745 * np.array([-2, -1, 0, 1, 97]))

    def test_it_knows_no_distance_where_all_are_the_same(self) -> None:
        found = agreement.robust_z(np.array([2.0, 2, 2, 9]))
        assert found[:3].tolist() == [0, 0, 0]
        assert isnan(found[3])
