"""How strong each policy is, from who was preferred to whom: Bradley and Terry with ties.

Davidson's (1970) model: with strengths θ, the first of a pair is better with a probability that is
proportional to exp(θ_i), the second to exp(θ_j), and they are alike with ν·exp((θ_i + θ_j) / 2).
Without ties it is Bradley and Terry's. Fitted by Newton's method to the counts of each pair; the
likelihood is concave, so there is one answer.

Intervals come from the cluster-robust covariance (`clusters`), since a best and a worst of four say
five things at once and people judge one source several times. A weak prior on θ (a standard
deviation of 3, a factor of 20 in the odds) keeps whoever won every comparison finite.

K policies   P pairs that met   R comparisons
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log, sqrt

import numpy as np

from modeling.clusters import Floats, Ints, groupings, robust_variance, t975, two_sided
from modeling.statistics import Interval, holm

PRIOR = 1 / 9
# Elo's scale: 400 points are odds of ten to one.
ELO, ELO_MEAN = 400 / log(10), 1000.0
STEPS = 100
FIRST, TIE, SECOND = 0, 1, 2


@dataclass(frozen=True)
class Comparisons:
    """One row per comparison; policies are numbered from 0."""

    first: Ints  # (R,)
    second: Ints  # (R,)
    outcome: Ints  # (R,) FIRST, TIE or SECOND
    source: Ints  # (R,)
    person: Ints  # (R,)

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, int, int]]) -> Comparisons:
        table = np.asarray(rows, np.int64).reshape(-1, 5)
        return cls(*(table[:, column] for column in range(5)))

    def __len__(self) -> int:
        return len(self.first)

    def only(self, rows: Ints) -> Comparisons:
        return Comparisons(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def from_low_to_high(self) -> Comparisons:
        """The same with the lower number first."""
        turn = self.first > self.second
        return Comparisons(
            np.where(turn, self.second, self.first),
            np.where(turn, self.first, self.second),
            np.where(turn, 2 - self.outcome, self.outcome),
            self.source,
            self.person,
        )


@dataclass(frozen=True)
class Strengths:
    """θ of each policy, their mean 0, with the covariance; `tie` is log ν, or None without ties."""

    theta: Floats  # (K,)
    covariance: Floats  # (K, K)
    tie: float | None
    df: int  # degrees of freedom behind the covariance

    def interval(self, policy: int) -> Interval:
        """The policy's strength on Elo's scale; n is left to the caller."""
        return self._elo(float(self.theta[policy]), float(self.covariance[policy, policy]))

    def _elo(self, theta: float, variance: float) -> Interval:
        value = ELO_MEAN + ELO * theta
        if self.df < 1:
            return Interval(value, float("nan"), float("nan"), 0)
        reach = ELO * t975(self.df) * sqrt(max(0.0, variance))
        return Interval(value, value - reach, value + reach, 0)

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """θ_a - θ_b and its standard error."""
        covariance = self.covariance
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        return float(self.theta[a] - self.theta[b]), sqrt(max(0.0, float(variance)))

    def p_values(self) -> dict[tuple[int, int], float]:
        """Two-sided p of equal strength for every two policies, corrected after Holm."""
        found = {}
        for a, b in combinations(range(len(self.theta)), 2):
            value, error = self.difference(a, b)
            # Below three sources nothing can be said of how much they differ.
            known = error > 0 and self.df >= 2
            found[f"{a}/{b}"] = two_sided(value / error, self.df) if known else 1.0
        adjusted = holm(found)
        return {(int(key.split("/")[0]), int(key.split("/")[1])): p for key, p in adjusted.items()}


def counts(policies: int, rows: Comparisons) -> Floats:
    """(K, K, 3): how often a pair, lower number first, ended each way."""
    low = rows.from_low_to_high()
    cells = (low.first * policies + low.second) * 3 + low.outcome
    found = np.bincount(cells, minlength=policies * policies * 3)
    return found.reshape(policies, policies, 3).astype(np.float64)


def fit(policies: int, rows: Comparisons, *, prior: float = PRIOR) -> Strengths:
    """Strengths of policies that were all compared with one another, by whatever way round."""
    rows = rows.from_low_to_high()
    table = counts(policies, rows)
    pairs = np.argwhere(table.sum(2) > 0)  # (P, 2)
    ended = table[pairs[:, 0], pairs[:, 1]]  # (P, 3)
    design = _design(policies, pairs, ties=bool(ended[:, TIE].sum()))  # (P, 3, K + 1)
    ridge = np.diag([prior] * policies + [1e-6])
    at = np.zeros(policies + 1)
    for _ in range(STEPS):
        gradient, curvature, _ = _slopes(at, design, ended)
        step = np.linalg.pinv(curvature + ridge) @ (gradient - ridge @ at)
        # A step that is too long overshoots where everybody says the same.
        at = at + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10:
            break
    _, curvature, surprise = _slopes(at, design, ended)
    which = np.zeros((policies, policies), np.int64)
    which[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
    scores = surprise[which[rows.first, rows.second], rows.outcome]  # (R, K + 1)
    inverse = np.linalg.pinv(curvature + ridge)
    groups = groupings(rows.source, rows.person)
    covariance = inverse @ robust_variance(scores, groups) @ inverse
    theta = at[:policies] - at[:policies].mean()
    tied = bool(ended[:, TIE].sum())
    df = min(int(group.max(initial=0)) for group in groups)
    return Strengths(
        theta, covariance[:policies, :policies], float(at[policies]) if tied else None, df
    )


def _design(policies: int, pairs: Ints, *, ties: bool) -> Floats:
    """(P, 3, K + 1): what each outcome's log weight is made of; the last column is log ν."""
    design = np.zeros((len(pairs), 3, policies + 1))
    place = np.arange(len(pairs))
    design[place, FIRST, pairs[:, 0]] = 1
    design[place, SECOND, pairs[:, 1]] = 1
    for end in (0, 1):
        design[place, TIE, pairs[:, end]] = 0.5
    design[:, TIE, policies] = 1
    # Nobody found two alike: the outcome does not exist.
    return design if ties else design[:, [FIRST, TIE, SECOND]] * np.array([1, np.nan, 1])[:, None]


def _slopes(at: Floats, design: Floats, ended: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient and curvature of the log likelihood; (P, 3, K + 1) each outcome's contribution."""
    weights = design @ at
    weights = np.where(np.isnan(weights), -np.inf, weights)
    chance = np.exp(weights - weights.max(1, keepdims=True))
    chance /= chance.sum(1, keepdims=True)  # (P, 3)
    known = np.nan_to_num(design)
    expected = (chance[:, :, None] * known).sum(1, keepdims=True)  # (P, 1, K + 1)
    surprise = known - expected
    gradient = (ended[:, :, None] * surprise).sum((0, 1))
    met = ended.sum(1)
    curvature = np.einsum("p,po,poi,poj->ij", met, chance, surprise, surprise)
    return gradient, curvature, surprise


def connected(policies: int, rows: Comparisons) -> list[list[int]]:
    """Groups of policies that were compared with one another, the largest first.

    Between two groups nothing can be said: nobody compared any of one with any of the other.
    """
    leader = list(range(policies))

    def find(one: int) -> int:
        while leader[one] != one:
            one = leader[one]
        return one

    for a, b in np.unique(np.stack([rows.first, rows.second], 1), axis=0).tolist():
        leader[find(a)] = find(b)
    groups: dict[int, list[int]] = {}
    for one in range(policies):
        groups.setdefault(find(one), []).append(one)
    return sorted(groups.values(), key=lambda group: (-len(group), group))
