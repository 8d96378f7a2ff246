"""How well people agree, and whether a place on the screen draws their picks: numpy alone.

Data are counts: one row per unit, one column per value, and in each cell how many people gave the
unit that value. Who gave it plays no part in these figures, and a missing answer is a count less.

What the units and values of this project are (`annotation.quality` makes the counts):

best picks    nominal; unit = item × dimension, value = the index of the best candidate. "No
              difference" is a value of its own, "can't judge" is missing. Indexes are drawn at
              random, so chance agreement is about 1 in N.
labels        ordinal; unit = item × dimension × candidate, value = worst < neither < best. "No
              difference" makes every candidate "neither". The candidates of one set depend on each
              other, so intervals resample whole sets.
ratings       ordinal 1–5 (unit = item × candidate × dimension), and nominal for usable yes/no.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erfc, exp, isnan, nan, pi, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Level = Literal["nominal", "ordinal", "interval"]

RESAMPLES = 1000
BLOCK = 500_000
TINY = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval and the number of units behind it.

    The value is NaN where the figure does not exist: nobody judged a unit twice, or (for alpha)
    everybody always gave one and the same value.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        return not isnan(self.value)


NOTHING = Estimate(nan, nan, nan, 0)


def count(units: Ints, values: Ints, n_values: int) -> tuple[Ints, Ints]:
    """The distinct units (U,) and the counts (U, n_values) of a long table of answers."""
    names, rows = np.unique(units, return_inverse=True)
    counts = np.bincount(rows * n_values + values, minlength=len(names) * n_values)
    return names, counts.reshape(len(names), n_values)


def coincidences(counts: Ints) -> Floats:
    """Krippendorff's coincidences per unit, (U, V, V): each pair of answers, weighted 1/(m - 1)."""
    n = counts.astype(np.float64)  # (U, V)
    answers = n.sum(1)
    weight = np.where(answers > 1, 1 / np.maximum(answers - 1, 1), 0.0)
    pairs = n[:, :, None] * n[:, None, :]
    pairs -= n[:, :, None] * np.eye(n.shape[1])  # nobody is paired with their own answer
    return np.asarray(pairs * weight[:, None, None])


def differences(totals: Floats, level: Level, scores: Sequence[float] | None = None) -> Floats:
    """Squared differences between values, (…, V, V), given how often each occurs, (…, V)."""
    size = totals.shape[-1]
    if level == "nominal":
        return np.broadcast_to(1 - np.eye(size), (*totals.shape[:-1], size, size))
    if level == "interval":
        points = np.asarray(range(size) if scores is None else scores, np.float64)
        apart = (points[:, None] - points[None, :]) ** 2
        return np.broadcast_to(apart, (*totals.shape[:-1], size, size))
    # Ordinal: how many answers lie between two values, counting half of those at both ends.
    middle = np.cumsum(totals, axis=-1) - totals / 2
    return np.asarray((middle[..., :, None] - middle[..., None, :]) ** 2)


def alpha(counts: Ints, level: Level, scores: Sequence[float] | None = None) -> float:
    """Krippendorff's alpha = 1 - observed / expected disagreement (Krippendorff 2011).

    Krippendorff's own example, 4 observers and 12 units with missing answers (values 1 to 5):

        A  1 2 3 3 2 1 4 1 2 . . .
        B  1 2 3 3 2 2 4 1 2 5 . 3
        C  . 3 3 3 2 3 4 2 2 5 1 .
        D  1 2 3 3 2 4 4 1 2 5 1 .

    Unit 12 has a single answer and drops out; 40 are left, 32 of them on the diagonal of the
    coincidences. The values occur 9, 13, 10, 5 and 3 times, Σ n(n - 1) = 72 + 156 + 90 + 20 + 6 =
    344, so nominal alpha = (39·32 - 344) / (40·39 - 344) = 904 / 1216 = .743. Ordinal it is .815,
    interval .849.
    """
    return alpha_of(coincidences(counts).sum(0), level, scores)


def alpha_of(pairs: Floats, level: Level, scores: Sequence[float] | None = None) -> float:
    """`alpha` of coincidences (V, V) that were summed over units, batch by batch for example."""
    return float(_alphas(pairs, level, scores))


def _alphas(pairs: Floats, level: Level, scores: Sequence[float] | None = None) -> Floats:
    """Alpha of summed coincidences (…, V, V); NaN where no disagreement is to be expected."""
    totals = pairs.sum(-1)  # (…, V)
    n = totals.sum(-1)
    apart = differences(totals, level, scores)
    observed = (pairs * apart).sum((-1, -2))
    expected = (totals[..., :, None] * totals[..., None, :] * apart).sum((-1, -2))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 1 - (n - 1) * observed / expected
    return np.asarray(np.where(expected > TINY, found, nan))


def alpha_interval(
    counts: Ints,
    level: Level,
    *,
    clusters: Ints | None = None,
    scores: Sequence[float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Alpha with its percentile bootstrap interval over units.

    `clusters` (U,) names units that belong together; they are resampled together.
    """
    kept = counts.sum(1) > 1
    if not kept.any():
        return NOTHING
    size = counts.shape[1]
    patterns, which, times = _patterns(counts[kept])
    rows = coincidences(patterns).reshape(len(patterns), size * size)
    if clusters is not None:
        names, places = np.unique(clusters[kept], return_inverse=True)
        sums = [np.bincount(places, rows[which, column], len(names)) for column in range(size**2)]
        rows, times = _distinct(np.stack(sums, 1))

    def figure(sums: Floats) -> Floats:
        return _alphas(sums.reshape(-1, size, size), level, scores)

    return _bootstrap(rows, times, figure, int(kept.sum()), seed, resamples)


def pairwise(counts: Ints) -> float:
    """The share of pairs of people, over all units, who gave the same value.

    Three people who say a, a, b are three pairs of which one agrees.
    """
    agreeing, pairs = _pairs(counts)
    return float(agreeing.sum() / pairs.sum()) if pairs.sum() else nan


def pairwise_interval(counts: Ints, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The share of agreeing pairs with its percentile bootstrap interval over units."""
    kept = counts.sum(1) > 1
    if not kept.any():
        return NOTHING
    patterns, _, times = _patterns(counts[kept])
    rows = np.stack(_pairs(patterns), 1)

    def figure(sums: Floats) -> Floats:
        return np.asarray(sums[:, 0] / sums[:, 1])

    return _bootstrap(rows, times, figure, int(kept.sum()), seed, resamples)


def _pairs(counts: Ints) -> tuple[Floats, Floats]:
    n = counts.astype(np.float64)
    people = n.sum(1)
    return (n * (n - 1)).sum(1) / 2, people * (people - 1) / 2


def _patterns(counts: Ints) -> tuple[Ints, Ints, Ints]:
    """The distinct rows of counts, which of them each row is, and how often each occurs.

    Of a hundred thousand units there are some dozens; a row is told by one number to base (most
    people + 1) where that fits.
    """
    base, values = int(counts.max()) + 1, counts.shape[1]
    if base**values < 2**62:
        keys = counts @ (base ** np.arange(values, dtype=np.int64))
        _, first, which, times = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        return counts[first], which, times
    patterns, which, times = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    return patterns, which.reshape(-1), times


def _distinct(rows: Floats) -> tuple[Floats, Ints]:
    """The distinct rows and how often each occurs; sums of thirds count as equal."""
    _, first, times = np.unique(rows.round(9), axis=0, return_index=True, return_counts=True)
    return rows[first], times


def _bootstrap(
    rows: Floats,
    times: Ints,
    figure: Callable[[Floats], Floats],
    n: int,
    seed: int,
    resamples: int,
) -> Estimate:
    """`figure` of the rows' sum, and its interval when whole rows are drawn again.

    Rows that are the same are drawn together, as a multinomial over the distinct ones: the same
    distribution, at a cost that does not grow with the number of units.
    """
    value = float(figure((times @ rows)[None])[0])
    if isnan(value):
        return Estimate(nan, nan, nan, n)
    rng = np.random.default_rng(seed)
    chances = times / times.sum()
    found = np.empty(resamples)
    # In blocks, so that many distinct rows do not make a huge matrix of draws.
    block = max(1, BLOCK // len(rows))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.multinomial(times.sum(), chances, size=size)  # (R, rows)
        found[start : start + size] = figure(drawn.astype(np.float64) @ rows)
    found = found[~np.isnan(found)]
    if not len(found):
        return Estimate(value, nan, nan, n)
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


# Position bias ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bias:
    """Best picks by place from the left, what an even hand would give, and the test of that."""

    picks: list[int]
    expected: list[float]
    statistic: float
    freedom: int
    p_value: float

    @property
    def n(self) -> int:
        return sum(self.picks)

    @property
    def shares(self) -> list[float]:
        return [picked / self.n for picked in self.picks] if self.n else []


def position_bias(turns: Ints, places: Ints, sizes: Ints) -> Bias:
    """Whether best picks fall on some places more often than a random order of candidates allows.

    One row per best pick: its turn, the place it fell on (from 0), and how many were shown.

    The order of candidates is drawn anew for each turn, so without a preference for places every
    place of N is as likely as another. With one pick a turn this is Pearson's chi-square test
    against equal shares. Several dimensions of one turn often name the same candidate, and are one
    draw rather than many: a turn whose N places got the counts m has the exact covariance
    S² (I - 1/N) under a random order, S² = Σ (m - mean m)² / (N - 1), and the statistic divides
    by the sum of those S². Sets of different sizes are tested apart and added up.
    """
    size = int(sizes.max()) if len(sizes) else 0
    picks = np.bincount(places, minlength=size) if size else np.zeros(0, np.int64)
    expected = np.zeros(size)
    statistic, freedom = 0.0, 0
    for shown in np.unique(sizes):
        here = sizes == shown
        _, counts = count(turns[here], places[here], int(shown))  # (turns, N)
        even = counts.sum() / shown
        expected[:shown] += even
        spread = float(counts.var(axis=1, ddof=1).sum())
        if spread > TINY:
            statistic += float(((counts.sum(0) - even) ** 2).sum() / spread)
            freedom += int(shown) - 1
    p_value = chi_square_tail(statistic, freedom) if freedom else nan
    return Bias(picks.tolist(), expected.tolist(), statistic, freedom, p_value)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) of a chi-square variable with a whole number of degrees of freedom.

    A finite sum for each parity (Abramowitz and Stegun 26.4.4 and 26.4.5), so that a page needs no
    scipy: for 2 degrees e^(-x/2), for 1 erfc(√(x/2)).
    """
    if freedom < 1 or statistic < 0:
        raise ValueError(f"no chi-square tail of {statistic} with {freedom} degrees of freedom")
    half = statistic / 2
    if freedom % 2:
        total, term = erfc(sqrt(half)), 2 * sqrt(half / pi) * exp(-half)
        steps = [k + 1.5 for k in range(freedom // 2)]
    else:
        total, term = 0.0, exp(-half)
        steps = [k + 1.0 for k in range(freedom // 2)]
    for step in steps:
        total += term
        term *= half / step
    return min(1.0, total)


# Speed ------------------------------------------------------------------------------------------


def robust_z(values: Floats, among: Floats | None = None) -> Floats:
    """How far values lie from the median, in units of the median absolute deviation (0.6745 of it
    stands for one standard deviation; Iglewicz and Hoaglin 1993 call beyond 3.5 an outlier)."""
    reference = values if among is None else among
    if not len(reference):
        return np.full(len(values), nan)
    middle = np.median(reference)
    spread = np.median(np.abs(reference - middle))
    if spread < TINY:
        return np.where(np.abs(values - middle) < TINY, 0.0, nan)
    return np.asarray(0.6745 * (values - middle) / spread)
