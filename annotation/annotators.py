"""How each person judges: on known answers, against themselves, against others, and by place.

Everything is worked out from the columns of `annotation.judged`; only known answers are asked for
here.

Points: a picked best and a picked worst earn half a point each where they are right. On two
candidates one follows from the other, so both are right or neither is. "No difference" earns a
point where it repeats "no difference" and none against a known answer; "can't judge" earns none
against a known answer and is left out of repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

from annotation import agreement
from annotation.agreement import Bias, Floats, Ints
from annotation.figures import DIMENSIONS, VALUES, item_keys, pick_values
from annotation.judged import (
    CANNOT_JUDGE,
    GOLD,
    NO_DIFFERENCE,
    PICKED,
    REPEAT,
    WORK,
    Bools,
    Judged,
)
from annotation.models import Campaign, Gold

OUTLIER = 3.5  # robust z of log seconds
NONE: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Share:
    """Points out of `n` answers."""

    points: float = 0.0
    n: int = 0

    @property
    def value(self) -> float:
        return self.points / self.n if self.n else nan

    @property
    def known(self) -> bool:
        return self.n > 0

    @property
    def percent(self) -> int:
        return round(100 * self.value)


@dataclass(frozen=True)
class Person:
    user: int
    turns: int  # work turns
    judgments: int
    gold: Share  # points on known answers
    attention: Share  # attention checks passed
    repeats: Share  # points against their own earlier answers
    others: Share  # share of other people's picks on the same items that were the same
    bias: Bias
    seconds: float  # median of a turn
    speed_z: float  # of their median log seconds among all turns
    outliers: Share  # turns far faster or slower than the campaign's
    no_difference: Share
    cannot_judge: Share

    @property
    def failed_attention(self) -> int:
        return round(self.attention.n - self.attention.points)


def people(judged: Judged, campaign: Campaign) -> list[Person]:
    gold, attention = gold_points(judged, campaign)
    repeats = repeat_points(judged)
    others = other_points(judged)
    logs = np.log(np.maximum(judged.seconds, 0.1))
    speed = np.full(len(logs), nan)
    timed = ~np.isnan(logs)
    speed[timed] = agreement.robust_z(logs[timed])
    place, shown = judged.place, judged.shown
    turns = _by_person(judged.person)
    judgments = _by_person(judged.person[judged.row])
    found = []
    for user, my_turns in turns.items():
        mine = judgments.get(user, NONE)
        picked = mine[place[mine] >= 0]
        seconds = judged.seconds[my_turns]
        my_speed = speed[my_turns]
        my_speed = my_speed[~np.isnan(my_speed)]
        found.append(
            Person(
                user=user,
                turns=int((judged.kind[my_turns] == WORK).sum()),
                judgments=len(mine),
                gold=_share(gold[mine]),
                attention=_share(attention[mine]),
                repeats=_share(repeats[mine]),
                others=Share(float(others[0][mine].sum()), int(others[1][mine].sum())),
                bias=agreement.position_bias(
                    judged.row[picked], place[picked], shown[judged.row[picked]]
                ),
                seconds=_median(seconds[~np.isnan(seconds)]),
                speed_z=_median(my_speed),
                outliers=Share(float((np.abs(my_speed) > OUTLIER).sum()), len(my_speed)),
                no_difference=_of(judged.outcome[mine] == NO_DIFFERENCE),
                cannot_judge=_of(judged.outcome[mine] == CANNOT_JUDGE),
            )
        )
    return found


def _by_person(person: Ints) -> dict[int, Ints]:
    """The rows of each person."""
    order = np.argsort(person, kind="stable")
    names, starts = np.unique(person[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True)) if len(names) else {}


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else nan


def _of(flags: Bools) -> Share:
    return Share(float(flags.sum()), len(flags))


def _share(points: Floats) -> Share:
    counted = points[~np.isnan(points)]
    return Share(float(counted.sum()), len(counted))


def points(judged: Judged, best: Ints, worst: Ints) -> Floats:
    """(J,) half a point each for a best and a worst that are these."""
    picked = judged.outcome == PICKED
    return np.asarray(
        0.5 * (picked & (judged.best == best)) + 0.5 * (picked & (judged.worst == worst))
    )


def gold_points(judged: Judged, campaign: Campaign) -> tuple[Floats, Floats]:
    """(J,) points on known answers, and 1 or 0 where an attention check was passed or failed.

    NaN where the judgment is no answer of a gold turn. An attention check is passed by both picks.
    """
    rows = Gold.objects.filter(set__items__campaign=campaign, practice=False).values_list(
        "set_id", "dimension_id", "best__index", "worst__index", "attention"
    )
    known = np.array(sorted(set(rows)), np.int64).reshape(-1, 5)
    found, attention = np.full(len(judged.row), nan), np.full(len(judged.row), nan)
    if not len(known) or not len(judged.row):
        return found, attention
    keys = known[:, 0] * DIMENSIONS + known[:, 1]
    mine = judged.set[judged.row] * DIMENSIONS + judged.dimension
    at = np.minimum(np.searchsorted(keys, mine), len(keys) - 1)
    asked = (keys[at] == mine) & (judged.kind[judged.row] == GOLD)
    # A known answer about a candidate that was not shown cannot be given.
    for column in (2, 3):
        asked &= (judged.order[judged.row] == known[at, column][:, None]).any(1)
    earned = points(judged, known[at, 2], known[at, 3])
    found[asked] = earned[asked]
    checked = asked & (known[at, 4] == 1)
    attention[checked] = earned[checked] == 1
    return found, attention


def repeat_points(judged: Judged) -> Floats:
    """(J,) points of hidden repeats against the same person's first answer; NaN elsewhere."""
    found = np.full(len(judged.row), nan)
    kind = judged.kind[judged.row]
    person = judged.person[judged.row]
    _, keys = np.unique(
        np.stack([judged.item[judged.row], judged.dimension, person], 1),
        axis=0,
        return_inverse=True,
    )
    keys = keys.reshape(-1)
    first, again = np.flatnonzero(kind == WORK), np.flatnonzero(kind == REPEAT)
    if not len(first) or not len(again):
        return found
    first = first[np.argsort(keys[first], kind="stable")]
    at = np.minimum(np.searchsorted(keys[first], keys[again]), len(first) - 1)
    both = keys[first[at]] == keys[again]
    again, before = again[both], first[at[both]]
    best, worst = np.full(len(judged.row), -2), np.full(len(judged.row), -2)
    best[again], worst[again] = judged.best[before], judged.worst[before]
    earned = points(judged, best, worst)
    same = np.full(len(judged.row), False)
    same[again] = (judged.outcome[again] == NO_DIFFERENCE) & (
        judged.outcome[before] == NO_DIFFERENCE
    )
    counts = (judged.outcome[again] != CANNOT_JUDGE) & (judged.outcome[before] != CANNOT_JUDGE)
    found[again[counts]] = np.where(same, 1.0, earned)[again[counts]]
    return found


def other_points(judged: Judged) -> tuple[Floats, Ints]:
    """(J,) how many other people gave the same item the same best, and how many judged it."""
    same = np.zeros(len(judged.row))
    others = np.zeros(len(judged.row), np.int64)
    values = pick_values(judged)
    said = (judged.kind[judged.row] == WORK) & (values >= 0)
    if said.any():
        names, counts = agreement.count(item_keys(judged)[said], values[said], VALUES)
        at = np.searchsorted(names, item_keys(judged)[said])
        same[said] = counts[at, values[said]] - 1
        others[said] = counts.sum(1)[at] - 1
    return same, others
