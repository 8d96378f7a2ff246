"""Which pairs to compare so that the best of N pictures is found without comparing all of them.

All pairs in both orders are N (N - 1) comparisons (56 for eight pictures). Margins are close to
differences of strengths plus what standing first is worth, so that far fewer tell most of it:

1. A ring in one order: picture i against i + 1, i + 3, i + 7, … Each stands first as often as
   second. Strengths are fitted to it by least squares.
2. Those near the lead meet whomever they have not met yet.
3. Those still close to it get all their comparisons, in both orders: the best of them is then
   decided by the same numbers as with all pairs.

A comparison is one forward of the reward model that answers all D questions. With the shipped
reward model it takes 28 of 56 comparisons for eight candidates of the shipped policy (179 forwards
if every dimension were asked alone) and names the best picture of all pairs in 99.0 % of 300 fresh
starter sets (97.1 … 99.7; the gaps below were chosen on 240 others): `python -m
modeling.starter.rerank_agreement`.

The procedure is a generator: it yields lists of ordered pairs (first, second) and is sent their
margins, (pairs, D); so one loop can ask the pairs of several tournaments together.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pair = tuple[int, int]
Margins = dict[Pair, Floats]  # of ordered pairs, (D,) each

# Up to here all pairs are few.
EVERY_PAIR = 4
# In standard deviations of the strengths: who may still be the best after the ring, and who after
# the second stage.
NEAR, CLOSE = 0.6, 0.3
CONTENDERS = 3


def tournament(count: int, *, every_pair: bool = False) -> Generator[list[Pair], Floats, Margins]:
    """Yields the pairs to compare, stage by stage; returns all margins that were asked for."""
    known: Margins = {}
    if every_pair or count <= EVERY_PAIR:
        yield from _ask(known, ((i, j) for i in range(count) for j in range(count) if i != j))
        return known
    yield from _ask(known, ((i, (i + o) % count) for o in _offsets(count) for i in range(count)))
    contenders = _contenders(strengths(known, count), NEAR)
    if len(contenders) > 1:
        yield from _ask(known, _unmet(known, count, contenders))
    contenders = _contenders(strengths(known, count), CLOSE)
    if len(contenders) > 1:
        yield from _ask(known, _all_of(count, contenders))
    return known


def _ask(known: Margins, pairs: Iterable[Pair]) -> Generator[list[Pair], Floats, None]:
    wanted = [pair for pair in dict.fromkeys(pairs) if pair not in known]
    if wanted:
        margins = yield wanted
        known.update(zip(wanted, margins, strict=True))


def _offsets(count: int) -> list[int]:
    """1, 3, 7, … up to half the ring: two for 8 pictures, three for 16."""
    return [2**k - 1 for k in range(1, count.bit_length()) if 2 * (2**k - 1) <= count]


def _contenders(found: Floats, gap: float) -> list[int]:
    mean = found.mean(1)
    leading = np.argsort(-mean, kind="stable")[:CONTENDERS]
    reach = mean.max() - gap * mean.std()
    return [int(i) for i in leading if mean[i] >= reach]


def _unmet(known: Margins, count: int, contenders: list[int]) -> Iterable[Pair]:
    """Pairs that met in neither order, so that each stands first about as often as second."""
    first = {i: sum(pair[0] == i for pair in known) for i in contenders}
    second = {i: sum(pair[1] == i for pair in known) for i in contenders}
    asked = set(known)
    for i in contenders:
        for j in range(count):
            if i == j or (i, j) in asked or (j, i) in asked:
                continue
            pair = (i, j) if first[i] <= second[i] else (j, i)
            first[i] += pair[0] == i
            second[i] += pair[1] == i
            asked.add(pair)
            yield pair


def _all_of(count: int, contenders: list[int]) -> Iterable[Pair]:
    return (pair for i in contenders for j in range(count) if j != i for pair in ((i, j), (j, i)))


def strengths(known: Margins, count: int) -> Floats:
    """(N, D), summing to zero: each picture's mean margin over all others, as far as is known.

    Whoever met everybody in both orders has it exactly; the others have a least-squares estimate
    from margin(i first, j) = strength i - strength j + what standing first is worth.
    """
    pairs = list(known)
    design = np.zeros((len(pairs) + 1, count + 1))
    for row, (i, j) in enumerate(pairs):
        design[row, [i, j, count]] = 1, -1, 1
    design[-1, :count] = 1  # the strengths' sum
    values = np.stack([*known.values(), np.zeros_like(known[pairs[0]])])
    fitted = np.linalg.lstsq(design, values, rcond=None)[0][:count] * (count / (count - 1))
    for i in range(count):
        others = [j for j in range(count) if j != i]
        if all((i, j) in known and (j, i) in known for j in others):
            fitted[i] = np.mean([(known[i, j] - known[j, i]) / 2 for j in others], axis=0)
    return np.asarray(fitted, np.float64)


def flipped(known: Margins, count: int) -> Floats:
    """(N, D) share of a picture's opponents, met in both orders, whose winner the order changes."""
    questions = len(next(iter(known.values())))
    changed, met = np.zeros((count, questions)), np.zeros((count, 1))
    for (i, j), margin in known.items():
        if (j, i) in known:
            met[i] += 1
            changed[i] += np.abs(margin + known[j, i]) > np.abs(margin - known[j, i])
    return np.asarray(changed / np.maximum(met, 1), np.float64)
