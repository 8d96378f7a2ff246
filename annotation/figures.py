"""How well a campaign's people agree: per task and dimension, over time, and on which items least.

Everything is worked out from the columns of `annotation.judged`; only ratings are asked for here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import numpy as np

from annotation import agreement
from annotation.agreement import Estimate, Floats, Ints
from annotation.judged import (
    CANNOT_JUDGE,
    EVERYTHING,
    MOST,
    NO_DIFFERENCE,
    PICKED,
    WORK,
    Filters,
    Judged,
    submitted,
)
from annotation.models import Assignment, Campaign, Rating

VALUES = MOST + 1  # a candidate's index, or "no difference" as the last
DIMENSIONS = 1_000_000  # keys of (item, dimension) are item * DIMENSIONS + dimension


# Agreement --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How well people agree about one dimension of one task (None: of all that were asked)."""

    task: int | None
    dimension: int | None
    judgments: int
    pairwise: Estimate  # share of pairs of people with the same best
    picks: Estimate  # nominal alpha of the best pick
    labels: Estimate  # ordinal alpha of worst < neither < best


def agreements(judged: Judged) -> list[Agreement]:
    """One row per task × dimension, after a first one about all of them together."""
    work = judged.only(judged.kind[judged.row] == WORK)
    task = work.task[work.row]
    picks, labels, sets, found = [], [], [], []
    for key in np.unique(np.stack([task, work.dimension], 1), axis=0):
        part = work.only((task == key[0]) & (work.dimension == key[1]))
        picks.append(pick_counts(part)[1])
        parts = label_counts(part)
        labels.append(parts[0])
        sets.append(parts[1])
        found.append(
            _agreement(int(key[0]), int(key[1]), len(part.row), picks[-1], labels[-1], sets[-1])
        )
    if not found:
        return []
    # No unit belongs to two dimensions, so that all together are the parts one after another.
    whole = [np.concatenate(parts) for parts in (picks, labels, sets)]
    return [_agreement(None, None, len(work.row), *whole), *found]


def _agreement(
    task: int | None, dimension: int | None, n: int, picks: Ints, labels: Ints, sets: Ints
) -> Agreement:
    return Agreement(
        task,
        dimension,
        n,
        agreement.pairwise_interval(picks),
        agreement.alpha_interval(picks, "nominal"),
        agreement.alpha_interval(labels, "ordinal", clusters=sets),
    )


def item_keys(judged: Judged) -> Ints:
    """(J,) one number per item × dimension."""
    return np.asarray(judged.item[judged.row] * DIMENSIONS + judged.dimension)


def pick_values(judged: Judged) -> Ints:
    """(J,) the nominal value of a judgment; -1 where it is missing."""
    without = np.where(judged.outcome == NO_DIFFERENCE, MOST, -1)
    return np.where(judged.outcome == PICKED, judged.best, without)


def pick_counts(judged: Judged) -> tuple[Ints, Ints]:
    """Item × dimension keys and their counts per best pick."""
    values = pick_values(judged)
    said = values >= 0
    return agreement.count(item_keys(judged)[said], values[said], VALUES)


def label_counts(judged: Judged) -> tuple[Ints, Ints]:
    """Counts of (worst, neither, best) per item × dimension × candidate, and each row's item."""
    said = judged.only(judged.outcome != CANNOT_JUDGE)
    candidates = said.order[said.row]  # (J, 8)
    labels = (
        1 + (candidates == said.best[:, None]).astype(int) - (candidates == said.worst[:, None])
    )
    units = item_keys(said)[:, None] * MOST + candidates
    shown = candidates >= 0
    names, counts = agreement.count(units[shown], labels[shown], 3)
    return counts, names // MOST // DIMENSIONS


@dataclass(frozen=True)
class Rated:
    """How well ratings agree: 1–5 on a dimension, or usable yes/no where it is None."""

    task: int
    dimension: int | None
    pairwise: Estimate
    alpha: Estimate


def rating_agreements(campaign: Campaign, filters: Filters = EVERYTHING) -> list[Rated]:
    turns = submitted(campaign, filters).filter(kind=Assignment.Kind.WORK)
    rows = (
        Rating.objects.current()
        .filter(assignment__in=turns)
        .values_list(
            "assignment__set__source__task_id",
            "dimension_id",
            "assignment__item_id",
            "candidate_id",
            "value",
        )
    )
    groups: dict[tuple[int, int | None], list[tuple[int, int, int]]] = {}
    for task, dimension, item, candidate, value in rows.iterator():
        if filters.dimension is None or filters.dimension == dimension:
            groups.setdefault((task, dimension), []).append((item, candidate, value))
    found = []
    for key in sorted(groups, key=str):
        table = np.array(groups[key], np.int64)
        _, names = np.unique(table[:, :2], axis=0, return_inverse=True)
        usable = key[1] is None
        _, counts = agreement.count(
            names.reshape(-1), table[:, 2] - (0 if usable else 1), 2 if usable else 5
        )
        level: agreement.Level = "nominal" if usable else "ordinal"
        found.append(
            Rated(
                *key,
                agreement.pairwise_interval(counts),
                agreement.alpha_interval(counts, level),
            )
        )
    return found


# Time and items ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spell:
    """A stretch of time, from `start` in seconds since 1970."""

    start: float
    turns: int
    judgments: int
    pairwise: Estimate


HOUR, DAY, WEEK = 3600.0, 86400.0, 7 * 86400.0


def over_time(judged: Judged, width: float, offset: float = 0.0) -> Iterator[Spell]:
    """Agreement per stretch; an item × dimension belongs to the one of its last answer."""
    work = judged.only(judged.kind[judged.row] == WORK)
    values = pick_values(work)
    said = work.only(values >= 0)
    if not len(said.row):
        return
    keys = item_keys(said)
    names, rows = np.unique(keys, return_inverse=True)
    last = np.zeros(len(names))
    np.maximum.at(last, rows, said.at[said.row])
    _, counts = pick_counts(said)
    buckets = np.floor((last + offset) / width).astype(np.int64)
    turn_buckets = np.floor((work.at + offset) / width).astype(np.int64)
    for bucket in np.unique(buckets):
        here = buckets == bucket
        yield Spell(
            start=float(bucket * width - offset),
            turns=int(((turn_buckets == bucket) & (work.kind == WORK)).sum()),
            judgments=int(counts[here].sum()),
            pairwise=agreement.pairwise_interval(counts[here]),
        )


def hourly(judged: Judged, offset: float = 0.0) -> list[tuple[float, int]]:
    """Judgments of all kinds per hour that had any: the hour's start and the number."""
    hours = np.floor((judged.at[judged.row] + offset) / HOUR).astype(np.int64)
    found, numbers = np.unique(hours, return_counts=True)
    return [(float(h * HOUR - offset), int(n)) for h, n in zip(found, numbers, strict=True)]


@dataclass(frozen=True)
class Hard:
    """An item people found hard."""

    item: int
    people: int
    disagreement: float  # share of pairs of people whose best differs, NaN for a single person
    no_difference: float  # share of judgments
    seconds: float  # median


def hardest(judged: Judged, by: str, most: int) -> list[Hard]:
    """The items with the largest disagreement, share of "no difference", or time."""
    work = judged.only(judged.kind[judged.row] == WORK)
    items, rows = np.unique(work.item[work.row], return_inverse=True)
    if not len(items):
        return []
    names, counts = pick_counts(work)
    said = counts.astype(float)
    agreeing, people_ = (said * (said - 1)).sum(1), said.sum(1)
    where = np.searchsorted(items, names // DIMENSIONS)
    pairs = np.bincount(where, people_ * (people_ - 1), len(items))
    same = np.bincount(where, agreeing, len(items))
    with np.errstate(invalid="ignore", divide="ignore"):
        disagreement = 1 - same / pairs
    judgments = np.bincount(rows, minlength=len(items))
    none = np.bincount(rows, work.outcome == NO_DIFFERENCE, len(items)) / judgments
    seconds = _median_seconds(work, items)
    figure = {"same": none, "slow": seconds}.get(by, disagreement)
    ranked = np.argsort(-np.nan_to_num(figure, nan=-1.0), kind="stable")[:most]
    crowd = np.bincount(np.searchsorted(items, work.item[_work_turns(work)]), minlength=len(items))
    return [
        Hard(
            int(items[i]), int(crowd[i]), float(disagreement[i]), float(none[i]), float(seconds[i])
        )
        for i in ranked
        if np.nan_to_num(figure[i]) > 0
    ]


def _work_turns(work: Judged) -> Ints:
    return np.unique(work.row)


def _median_seconds(work: Judged, items: Ints) -> Floats:
    turns = _work_turns(work)
    turns = turns[~np.isnan(work.seconds[turns])]
    order = turns[np.lexsort((work.seconds[turns], work.item[turns]))]
    at = np.searchsorted(items, work.item[order])
    counts = np.bincount(at, minlength=len(items))
    starts = np.cumsum(counts) - counts
    found = np.full(len(items), nan)
    some = counts > 0
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    seconds = work.seconds[order]
    found[some] = (seconds[low[some]] + seconds[high[some]]) / 2
    return found
