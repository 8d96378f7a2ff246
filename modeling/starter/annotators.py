"""Simulated annotators: noisy best/worst judgements from the starter world's ground truth."""

from collections.abc import Sequence

import numpy as np

# Differences of ground truth that a person does not see: the set has "no difference" then.
JUST_NOTICEABLE = 0.15


def best_worst(
    scores: Sequence[float],
    rng: np.random.Generator,
    *,
    noise: float = 0.05,
    tie: float = 0.05,
) -> tuple[int, int] | None:
    """The indices of the best and the worst candidate, or None for "no difference".

    With probability `noise` the annotator slips and names a random pair. Scores that lie within
    `tie` of the best (or worst) look the same to them: one of those is named at random.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"best and worst need at least two scores, not {values.size}")
    if not np.isfinite(values).all():
        raise ValueError(f"scores must be finite numbers, not {list(scores)}")
    slips = rng.random() < noise
    order = rng.permutation(values.size)
    if slips:
        return int(order[0]), int(order[1])
    if values.max() - values.min() <= tie:
        return None
    # The middle decides when a narrow range would let one candidate be both.
    reach = min(tie, (values.max() - values.min()) / 2.0001)
    best = next(int(i) for i in order if values[i] >= values.max() - reach)
    worst = next(int(i) for i in order if values[i] <= values.min() + reach)
    return best, worst
