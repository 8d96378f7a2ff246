"""Intervals and tests for figures on held-out sources; numpy alone.

Everything here is about *paired* comparisons where it can be: the same source and the same noise
under two policies, or the same pair of pictures under two reward models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
RESAMPLES = 2000
FLIPS = 20_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def percent(self) -> str:
        return f"{100 * self.value:.1f}"

    @property
    def bounds(self) -> str:
        """The interval in per cent; empty where it is not known."""
        if self.low != self.low:
            return ""
        return f"{100 * self.low:.1f} … {100 * self.high:.1f}"


@dataclass(frozen=True)
class Difference:
    """The mean of two paired samples and the 95 % interval of `new - parent`."""

    parent: float
    new: float
    difference: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); half successes are allowed."""
    if n <= 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} are impossible")
    share = successes / n
    low, high = score_interval(share, n)
    return Interval(share, low, high, n)


def score_interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's bounds of a share of n answers; an effective n need not be whole."""
    square = Z95 * Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    reach = Z95 / (1 + square / n) * sqrt(share * (1 - share) / n + square / (4 * n * n))
    low = 0.0 if share <= 0 else max(0.0, centre - reach)
    high = 1.0 if share >= 1 else min(1.0, centre + reach)
    return low, high


def bootstrap(
    values: Sequence[float] | NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The mean with its percentile bootstrap interval."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    # In blocks, so that a large sample does not make a huge index matrix.
    block = max(1, 2_000_000 // sample.size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        picks = rng.integers(0, sample.size, (rows, sample.size))
        means[start : start + rows] = sample[picks].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sample.mean()), float(low), float(high), int(sample.size))


def paired_difference(
    parent: Sequence[float], new: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Means of two samples over the same units, and the paired interval of their difference."""
    if len(parent) != len(new):
        raise ValueError(f"paired samples need one length, not {len(parent)} and {len(new)}")
    before, after = np.asarray(parent, np.float64), np.asarray(new, np.float64)
    spread = bootstrap(after - before, seed=seed, resamples=resamples)
    if spread.n == 0:
        return Difference(spread.value, spread.value, spread.value, spread.low, spread.high, 0)
    return Difference(
        float(before.mean()), float(after.mean()), spread.value, spread.low, spread.high, spread.n
    )


def binomial_tail(at_most: int, n: int) -> float:
    """P(X <= at_most) for X ~ Binomial(n, 1/2), exactly."""
    if n == 0:
        return 1.0
    # Python's integers are exact; 2**n is divided only once.
    return min(1.0, sum(comb(n, k) for k in range(at_most + 1)) / 2**n)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: gained and lost are the discordant pairs."""
    return min(1.0, 2 * binomial_tail(min(gained, lost), gained + lost))


def sign_test(differences: Sequence[float]) -> float:
    """Exact two-sided p of the sign test; zeros are left out."""
    values = np.asarray(differences, np.float64)
    return mcnemar(int((values > 0).sum()), int((values < 0).sum()))


def p_worse(parent: Sequence[float], new: Sequence[float], *, seed: int = 0) -> float:
    """One-sided p of "new is not worse than parent", small when new is worse.

    A randomisation test of the mean paired difference: without a difference every sign is as likely
    as its opposite. Exact (all sign patterns) up to 14 differing pairs, sampled beyond.
    """
    differences = np.asarray(new, np.float64) - np.asarray(parent, np.float64)
    differences = differences[differences != 0]
    if differences.size == 0:
        return 1.0
    observed = differences.sum()
    if differences.size <= 14:
        patterns = np.arange(2**differences.size)[:, None] >> np.arange(differences.size)[None]
        totals = np.where(patterns & 1, -1.0, 1.0) @ differences
        return float((totals <= observed + 1e-12).mean())
    rng = np.random.default_rng(seed)
    hits, block = 0, max(1, 2_000_000 // differences.size)
    for start in range(0, FLIPS, block):
        rows = min(block, FLIPS - start)
        signs = rng.integers(0, 2, (rows, differences.size)) * 2.0 - 1.0
        hits += int((signs @ differences <= observed + 1e-12).sum())
    return (hits + 1) / (FLIPS + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) adjusted p values, so that many comparisons do not raise a false alarm."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        running = max(running, min(1.0, p * (len(p_values) - place)))
        adjusted[name] = running
    return adjusted


def win_tie_lose(
    parent: Sequence[float], new: Sequence[float], *, tie: float
) -> tuple[float, float, float]:
    """Shares of pairs in which new is better, within `tie`, or worse."""
    differences = np.asarray(new, np.float64) - np.asarray(parent, np.float64)
    if differences.size == 0:
        return (0.0, 0.0, 0.0)
    win = float((differences > tie).mean())
    lose = float((differences < -tie).mean())
    return (win, 1.0 - win - lose, lose)
