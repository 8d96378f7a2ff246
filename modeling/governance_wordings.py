"""What a dimension asked over time: each version's words, their changes, and how well people agreed
on what they were shown under it.

Agreement is that of best picks ("no difference" is a value, "can't judge" is missing), within one
version: answers to different words are never compared with each other.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import isnan, sqrt

import numpy as np
from django.db.models import QuerySet
from django.db.models.functions import Coalesce

from annotation import agreement
from annotation.agreement import NOTHING, Estimate
from annotation.figures import VALUES
from annotation.judged import MOST
from annotation.models import ASKED_HERE, Assignment, Dimension, Judgment, Rating, Wording
from generation.models import Project
from modeling.statistics import Interval

SAME, ADDED, REMOVED = "same", "added", "removed"
# Words, single Chinese and Japanese characters, blanks, signs.
TOKENS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|\s+|[^\w\s]")
Piece = tuple[str, str]  # SAME, ADDED or REMOVED, and the text


@dataclass(frozen=True)
class Version:
    wording: Wording
    question: list[Piece]
    query: list[Piece]
    guideline: list[Piece]
    judgments: int
    ratings: int
    pairwise: Estimate
    alpha: Estimate
    change: Interval | None  # of pairwise agreement from the version before


def versions(
    dimension: Dimension, projects: QuerySet[Project], *, simulated: bool = False
) -> list[Version]:
    """Oldest first; figures are of the judgments in these projects."""
    counts, units = _answers(dimension, projects, simulated)
    rated = Counter(
        Rating.objects.counted()
        .filter(
            dimension=dimension,
            set__source__project__in=projects,
            assignment__item__campaign__simulated=simulated,
        )
        .values_list("wording", flat=True)
    )
    found: list[Version] = []
    for wording in dimension.wordings.order_by("version"):
        last = found[-1] if found else None
        before = last.wording if last else wording
        pairwise, alpha = _agreement(units.get(wording.pk, []))
        found.append(
            Version(
                wording,
                diff(before.question, wording.question),
                diff(before.query, wording.query),
                diff(before.guideline, wording.guideline),
                counts[wording.pk],
                rated[wording.pk],
                pairwise,
                alpha,
                difference(last.pairwise, pairwise) if last else None,
            )
        )
    return found


def _answers(
    dimension: Dimension, projects: QuerySet[Project], simulated: bool
) -> tuple[Counter[int], dict[int, list[tuple[int, int]]]]:
    rows = Judgment.objects.current().filter(
        dimension=dimension,
        set__source__project__in=projects,
        assignment__kind=Assignment.Kind.WORK,
        assignment__state=Assignment.State.SUBMITTED,
        assignment__item__campaign__simulated=simulated,
        **ASKED_HERE,
    )
    counts: Counter[int] = Counter()
    units: dict[int, list[tuple[int, int]]] = defaultdict(list)
    names = ("wording_id", "assignment__item_id", "outcome", Coalesce("best__index", MOST))
    for wording, item, outcome, best in rows.values_list(*names).iterator(chunk_size=5000):
        counts[wording] += 1
        if outcome != Judgment.Outcome.CANNOT_JUDGE:
            units[wording].append((item, best))
    return counts, units


def _agreement(answers: list[tuple[int, int]]) -> tuple[Estimate, Estimate]:
    if not answers:
        return NOTHING, NOTHING
    items, values = np.array(answers, np.int64).T
    _names, counts = agreement.count(items, values, VALUES)
    return agreement.pairwise_interval(counts), agreement.alpha_interval(counts, "nominal")


def difference(before: Estimate, after: Estimate) -> Interval | None:
    """Of two independent estimates, from their own intervals (MOVER, Zou and Donner 2008)."""
    ends = (before.low, before.high, after.low, after.high)
    if not (before.known and after.known) or any(isnan(end) for end in ends):
        return None
    step = after.value - before.value
    down = sqrt((after.value - after.low) ** 2 + (before.high - before.value) ** 2)
    up = sqrt((after.high - after.value) ** 2 + (before.value - before.low) ** 2)
    return Interval(step, step - down, step + up, min(before.n, after.n))


def diff(before: str, after: str) -> list[Piece]:
    """Word by word: what stayed, what was taken out and what was put in."""
    old, new = TOKENS.findall(before), TOKENS.findall(after)
    pieces: list[Piece] = []
    for kind, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append((SAME, "".join(new[k:m])))
            continue
        if j > i:
            pieces.append((REMOVED, "".join(old[i:j])))
        if m > k:
            pieces.append((ADDED, "".join(new[k:m])))
    return pieces
