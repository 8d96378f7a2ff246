"""Means and shares of answers that hang together: several per source, many per person.

Answers about one source are alike, and so are one person's; counted as independent they promise
too much. The variance is the cluster-robust one, in two directions where there are people enough
(Cameron, Gelbach and Miller 2011): of sources, plus of people, less of what one person said of one
source. Means get a t interval; shares Wilson's, at the effective number of answers (Dean and Pagano
2015), which stays inside 0 to 1 and does not collapse where everybody agrees.

R answers   p parameters   G clusters
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from modeling.statistics import Z95, Interval, score_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# With fewer people their share of the variance cannot be estimated, and only sources count.
FEWEST_PEOPLE = 5


@dataclass(frozen=True)
class Answers:
    """What was said, of which source and by whom; `person` stays empty where nobody is named."""

    value: Floats  # (R,)
    source: Ints  # (R,)
    person: Ints  # (R,) or (0,)

    @classmethod
    def of(
        cls, value: Sequence[float], source: Sequence[int], person: Sequence[int] = ()
    ) -> Answers:
        return cls(
            np.asarray(value, np.float64),
            np.asarray(source, np.int64),
            np.asarray(person, np.int64),
        )

    @property
    def sources(self) -> int:
        return len(np.unique(self.source))


def groupings(source: Ints, person: Ints) -> list[Ints]:
    """The directions in which answers hang together: sources, and people where they are enough."""
    found = [np.unique(source, return_inverse=True)[1]]
    if len(person) and len(np.unique(person)) >= FEWEST_PEOPLE:
        found.append(np.unique(person, return_inverse=True)[1])
    return found


def robust_variance(scores: Floats, groups: Sequence[Ints]) -> Floats:
    """(p, p) from the answers' contributions (R, p), each group numbered from 0."""
    parts = [_one_way(scores, group) for group in groups]
    if len(groups) == 1:
        return parts[0]
    both = np.unique(groups[0] * (groups[1].max(initial=0) + 1) + groups[1], return_inverse=True)[1]
    total = parts[0] + parts[1] - _one_way(scores, both)
    # The difference may come out negative in some direction; it never is.
    values, vectors = np.linalg.eigh(total)
    total = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return total if (np.diag(total) >= np.diag(parts[0])).all() else parts[0]


def _one_way(scores: Floats, group: Ints) -> Floats:
    count = int(group.max(initial=-1)) + 1
    sums = np.zeros((count, scores.shape[1]))
    np.add.at(sums, group, scores)
    correction = count / (count - 1) if count > 1 else 1.0
    return np.asarray(correction * sums.T @ sums)


def mean(answers: Answers) -> Interval:
    """The mean with its 95 % interval; without one where all answers or sources are the same."""
    n = len(answers.value)
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    value = float(answers.value.mean())
    error, df = _error(answers, value)
    if df < 1 or error == 0:
        return Interval(value, float("nan"), float("nan"), n)
    reach = t975(df) * error
    return Interval(value, value - reach, value + reach, n)


def share(answers: Answers) -> Interval:
    """The share of ones (halves allowed) with Wilson's interval at the effective number."""
    n = len(answers.value)
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    value = float(answers.value.mean())
    error, df = _error(answers, value)
    # All alike: as many independent answers as there are sources, at the least.
    effective = float(answers.sources)
    if error > 0 and df >= 1:
        effective = value * (1 - value) / error**2 * (Z95 / t975(df)) ** 2
    if not (answers.value == 0.5).any():
        effective = min(effective, float(n))
    low, high = score_interval(value, effective)
    return Interval(value, low, high, n)


def difference(first: Answers, second: Answers) -> tuple[Interval, float]:
    """Mean of the first less that of the second, with its interval and two-sided p.

    Answers of both about one source stand in one cluster, so sources that both were asked about
    are compared as pairs and the others are not.
    """
    pair = (first, second)
    if not all(len(one.value) for one in pair):
        return Interval(float("nan"), float("nan"), float("nan"), 0), 1.0
    means = [float(one.value.mean()) for one in pair]
    scores = np.concatenate(
        [
            sign * (one.value - mean) / len(one.value)
            for one, mean, sign in zip(pair, means, (1, -1), strict=True)
        ]
    )
    source, person = (
        np.concatenate([getattr(one, name) for one in pair]) for name in ("source", "person")
    )
    groups = groupings(source, person if len(person) == len(source) else person[:0])
    error = float(np.sqrt(robust_variance(scores[:, None], groups)[0, 0]))
    df = min(int(group.max()) for group in groups)
    value, n = means[0] - means[1], len(np.unique(source))
    if df < 1 or error == 0:
        return Interval(value, float("nan"), float("nan"), n), 1.0
    reach = t975(df) * error
    return Interval(value, value - reach, value + reach, n), two_sided(value / error, df)


def two_sided(t: float, df: int) -> float:
    """P(|T| > |t|): the normal's, at the z that Student's t of df corresponds to (Wallace 1959)."""
    z = sqrt(df * np.log1p(t * t / df)) * (8 * df + 1) / (8 * df + 3)
    return erfc(abs(z) / sqrt(2))


def _error(answers: Answers, value: float) -> tuple[float, int]:
    """Standard error of the mean, and degrees of freedom."""
    groups = groupings(answers.source, answers.person)
    scores = (answers.value - value)[:, None] / len(answers.value)
    variance = robust_variance(scores, groups)
    return float(np.sqrt(variance[0, 0])), min(int(group.max()) for group in groups)


def t975(df: float) -> float:
    """The 97.5 % point of Student's t; Cornish and Fisher's expansion beyond 4 degrees."""
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
    if int(df) in exact:
        return exact[int(df)]
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df ** (place + 1) for place, term in enumerate(terms))
