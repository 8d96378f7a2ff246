"""Preferences: what a judgment says about pairs of candidates. Derived whenever they are read.

A best and a worst of N say that the best beats the worst (direct), that the best beats each of the
others, and that each of the others beats the worst (implied): for N = 4 five of the six relations.
"No difference" says that every pair is a tie; "can't judge" says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Literal

from django.db.models import QuerySet

from annotation.models import Judgment
from generation.models import Candidate

DIRECT_WEIGHT = 1.0
IMPLIED_WEIGHT = 0.5
# All pairs of four candidates then weigh 3, as a best and a worst of four do.
TIED_WEIGHT = 0.5
CHUNK = 2000


@dataclass(frozen=True)
class Preference:
    """`source`, `mask`, `chosen` and `rejected` are sha256 of pictures."""

    set: int
    task: str
    dimension: str
    prompt: str
    source: str
    mask: str
    chosen: str
    rejected: str
    relation: Literal["direct", "implied"]
    weight: float
    split: str
    annotator: int


@dataclass(frozen=True)
class Tie:
    """Two candidates between which somebody found no difference; see `Preference`."""

    set: int
    task: str
    dimension: str
    prompt: str
    source: str
    mask: str
    first: str
    second: str
    weight: float
    split: str
    annotator: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A candidate as preferences need it."""

    pk: int
    index: int
    image: str


def derive(judgments: QuerySet[Judgment]) -> Iterator[Preference]:
    """The preferences in these judgments, whether current or not, in the order of their ids."""
    rows = iter(with_context(judgments).order_by("pk").iterator(chunk_size=CHUNK))
    while chunk := list(islice(rows, CHUNK)):
        shown = candidates_of({row.set_id for row in chunk})
        for row in chunk:
            yield from of_judgment(row, shown.get(row.set_id, []))


def with_context(judgments: QuerySet[Judgment]) -> QuerySet[Judgment]:
    return judgments.select_related(
        "assignment",
        "dimension",
        "set__source__task",
        "set__source__image",
        "set__source__mask",
    )


def candidates_of(sets: Iterable[int]) -> Mapping[int, list[Shown]]:
    rows = (
        Candidate.objects.filter(set_id__in=sets, image__isnull=False)
        .order_by("set_id", "index")
        .values_list("set_id", "pk", "index", "image__sha256")
    )
    found: dict[int, list[Shown]] = {}
    for set_id, pk, index, image in rows:
        found.setdefault(set_id, []).append(Shown(pk, index, image or ""))
    return found


def of_judgment(judgment: Judgment, shown: list[Shown]) -> Iterator[Preference]:
    if judgment.outcome != Judgment.Outcome.PICKED:
        return
    shown = _seen(judgment, shown)
    images = {candidate.pk: candidate.image for candidate in shown}
    best, worst = images.get(judgment.best_id or 0), images.get(judgment.worst_id or 0)
    if best is None or worst is None:
        return
    ends = (judgment.best_id, judgment.worst_id)
    pairs: list[tuple[str, str, Literal["direct", "implied"]]] = [(best, worst, "direct")]
    for candidate in shown:
        if candidate.pk not in ends:
            pairs += [(best, candidate.image, "implied"), (candidate.image, worst, "implied")]
    source = judgment.set.source
    for chosen, rejected, relation in pairs:
        # Two draws may come out pixel for pixel the same; nothing can be learned from that pair.
        if chosen == rejected:
            continue
        yield Preference(
            set=judgment.set_id,
            task=source.task.slug,
            dimension=judgment.dimension.slug,
            prompt=source.effective_prompt,
            source=source.image.sha256,
            mask=source.mask.sha256,
            chosen=chosen,
            rejected=rejected,
            relation=relation,
            weight=DIRECT_WEIGHT if relation == "direct" else IMPLIED_WEIGHT,
            split=source.split,
            annotator=judgment.assignment.annotator_id,
        )


def _seen(judgment: Judgment, candidates: list[Shown]) -> list[Shown]:
    """A comparison may show two of many: nothing was said about the others."""
    order = judgment.assignment.order
    return [candidate for candidate in candidates if candidate.index in order]


def ties_of(judgment: Judgment, shown: list[Shown]) -> Iterator[Tie]:
    if judgment.outcome != Judgment.Outcome.NO_DIFFERENCE:
        return
    source = judgment.set.source
    for first, second in combinations(_seen(judgment, shown), 2):
        if first.image == second.image:
            continue
        yield Tie(
            set=judgment.set_id,
            task=source.task.slug,
            dimension=judgment.dimension.slug,
            prompt=source.effective_prompt,
            source=source.image.sha256,
            mask=source.mask.sha256,
            first=first.image,
            second=second.image,
            weight=TIED_WEIGHT,
            split=source.split,
            annotator=judgment.assignment.annotator_id,
        )
