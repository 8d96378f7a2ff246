"""Known answers: set by hand, taken from what people agree on, or from a reviewer's decision.

The ground truth of the starter world is learned from `modeling.known_answers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext as _

from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Dimension, Gold, Judgment
from generation.models import Candidate, CandidateSet

Origin = Gold.Origin
Outcome = Judgment.Outcome
BATCH = 2000


@dataclass(frozen=True)
class Known:
    """An answer to be kept; `best` and `worst` are candidate indexes of the set."""

    set: int
    dimension: int
    best: int
    worst: int
    attention: bool = False


def set_gold(
    *,
    set: CandidateSet | int,
    dimension: Dimension | int,
    best: int,
    worst: int,
    origin: str = Origin.HAND,
    explanation: str = "",
    attention: bool = False,
    practice: bool = False,
) -> Gold:
    """Keep what is best and worst of a set on a dimension, in place of what was known before."""
    key = set if isinstance(set, int) else set.pk
    candidates = CandidateSet.objects.get(pk=key).candidates.all()
    by_index = {candidate.index: candidate for candidate in candidates}
    if best == worst:
        raise Refused(
            _("The same candidate is best and worst. Choose two different ones; nothing was kept.")
        )
    for index in (best, worst):
        if index not in by_index:
            raise Refused(
                _("Set %(set)d has no candidate %(index)d. Choose among 0 to %(last)d.")
                % {"set": key, "index": index, "last": len(by_index) - 1}
            )
    gold, _made = Gold.objects.update_or_create(
        set_id=key,
        dimension_id=dimension if isinstance(dimension, int) else dimension.pk,
        defaults={
            "best": by_index[best],
            "worst": by_index[worst],
            "origin": origin,
            "explanation": explanation,
            "attention": attention,
            "practice": practice,
        },
    )
    return gold


def keep(found: Sequence[Known], *, origin: str, practice: bool = False) -> int:
    """Keep many at once; a dimension whose answer is known already keeps it. Returns how many."""
    sets = {known.set for known in found}
    rows = Candidate.objects.filter(set__in=sets).values_list("set_id", "index", "pk")
    candidates = {(set_id, index): pk for set_id, index, pk in rows}
    with transaction.atomic():
        golds = Gold.objects.filter(set__in=sets)
        before = golds.count()
        Gold.objects.bulk_create(
            (
                Gold(
                    set_id=known.set,
                    dimension_id=known.dimension,
                    best_id=candidates[known.set, known.best],
                    worst_id=candidates[known.set, known.worst],
                    origin=origin,
                    attention=known.attention,
                    practice=practice,
                )
                for known in found
            ),
            ignore_conflicts=True,
            batch_size=BATCH,
        )
        return golds.count() - before


def unanimous(
    campaign: Campaign, *, min_annotators: int = 3, limit: int | None = None
) -> list[Known]:
    """What so many people picked without a dissenting voice, and is not known yet.

    "No difference" and "can't judge" are dissent here. `limit` is a number of sets.
    """
    if min_annotators < 2:
        raise Refused(_("One person’s answer is no consensus: ask for two annotators or more."))
    answers: dict[tuple[int, int], list[tuple[str, int | None, int | None]]] = {}
    rows = (
        Judgment.objects.current()
        .filter(
            assignment__item__campaign=campaign,
            assignment__kind=Assignment.Kind.WORK,
            assignment__state=Assignment.State.SUBMITTED,
        )
        .order_by("set_id", "dimension_id")
        .values_list("set_id", "dimension_id", "outcome", "best__index", "worst__index")
    )
    for set_id, dimension, outcome, best, worst in rows.iterator():
        answers.setdefault((set_id, dimension), []).append((outcome, best, worst))
    known = set(
        Gold.objects.filter(set__items__campaign=campaign).values_list("set_id", "dimension_id")
    )
    found = []
    for key, said in answers.items():
        picked, best_index, worst_index = said[0]
        agreed = len(said) >= min_annotators and len(set(said)) == 1
        if agreed and picked == Outcome.PICKED and key not in known:
            assert best_index is not None
            assert worst_index is not None
            found.append(Known(*key, best_index, worst_index))
    return first_sets(found, limit)


def first_sets(found: Iterable[Known], limit: int | None) -> list[Known]:
    """The answers about the first so many sets."""
    chosen: dict[int, list[Known]] = {}
    for known in found:
        if known.set in chosen or limit is None or len(chosen) < limit:
            chosen.setdefault(known.set, []).append(known)
    return [known for answers in chosen.values() for known in answers]


def from_decision(decision: Assignment, *, practice: bool = False) -> list[Gold]:
    """A reviewer's picks as known answers, explained by the reviewer's comment."""
    if decision.kind != Assignment.Kind.REVIEW:
        raise Refused(_("Only a reviewer’s decision can be made a known answer here."))
    picked = decision.judgments.current().filter(outcome=Outcome.PICKED)
    with transaction.atomic():
        golds = []
        for judgment in picked.select_related("best", "worst"):
            assert judgment.best is not None
            assert judgment.worst is not None
            golds.append(
                set_gold(
                    set=judgment.set_id,
                    dimension=judgment.dimension_id,
                    best=judgment.best.index,
                    worst=judgment.worst.index,
                    explanation=decision.comment,
                    practice=practice,
                )
            )
    if not golds:
        raise Refused(
            _(
                "The decision picks no best and worst, so there is no answer to be known. "
                "Decide first."
            )
        )
    return golds
