"""Comparisons of two policies or external systems: blind pairs of candidates for the same source.

A pair is a candidate of A and one of B. Where one set holds candidates of both, it is used as it
is and `Item.shown` names the two. Otherwise a set of two is made whose candidates are copies of
the logged rows, index 0 from A and 1 from B; making it again finds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils.translation import gettext as _

from annotation.campaigns import COPY, Entry, open_campaign
from annotation.errors import Refused
from annotation.models import Campaign, Dimension
from generation.models import Candidate, CandidateSet, Policy, Project, Task

if TYPE_CHECKING:
    from django.contrib.auth.models import User

BATCH = 500
# Everything but the batch: a batch is run again as a whole, and a copy was never part of it.
COPIED = [
    "policy_id",
    "image_id",
    "seed",
    "num_inference_steps",
    "strength",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompt",
    "prompt",
    "width",
    "height",
    "latency_ms",
    "device",
]


@dataclass(frozen=True)
class Pair:
    """Two candidates of one source; `set` is there when one set holds them both."""

    source_id: int
    a: Candidate
    b: Candidate

    @property
    def together(self) -> bool:
        return self.a.set_id == self.b.set_id


def find_pairs(
    *, a: Policy, b: Policy, tasks: Iterable[Task], project: Project | int
) -> list[Pair]:
    """A pair for every source of which both have a finished candidate, in the sources' order."""
    if a == b:
        raise Refused(
            _("“%(a)s” cannot be compared with itself: choose two different policies.") % {"a": a}
        )
    rows = (
        Candidate.objects.filter(
            policy__in=[a, b],
            image__isnull=False,
            set__state=CandidateSet.State.READY,
            set__source__project=project,
            set__source__task__in=list(tasks),
        )
        .select_related("set")
        .order_by("set_id", "index")
    )
    by_source: dict[int, dict[int, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for candidate in rows.iterator(chunk_size=BATCH):
        by_source[candidate.set.source_id][candidate.policy_id].append(candidate)
    return [
        Pair(source_id, *_choose(found[a.pk], found[b.pk]))
        for source_id, found in sorted(by_source.items())
        if found[a.pk] and found[b.pk]
    ]


def _choose(ours: Sequence[Candidate], theirs: Sequence[Candidate]) -> tuple[Candidate, Candidate]:
    """Two of one set if there is one; else two made with the same noise; else the first of each.

    A copy in a pair with a third policy comes after its original, so it is never chosen.
    """
    sets = {candidate.set_id for candidate in ours} & {candidate.set_id for candidate in theirs}
    if sets:
        ours = [candidate for candidate in ours if candidate.set_id == min(sets)]
        theirs = [candidate for candidate in theirs if candidate.set_id == min(sets)]
    by_noise = {_noise(candidate): candidate for candidate in reversed(theirs)}
    for candidate in ours:
        if (other := by_noise.get(_noise(candidate))) is not None:
            return candidate, other
    return ours[0], theirs[0]


def _noise(candidate: Candidate) -> tuple[int | None, int, int]:
    return candidate.seed, candidate.width, candidate.height


def pair_up(*, a: Policy, b: Policy, tasks: Iterable[Task], project: Project | int) -> list[Entry]:
    """The pairs of A and B as entries for a campaign; sets are made for those that have none."""
    with transaction.atomic():
        # Two people who compare the same policies at one moment make each pair once.
        policies = Policy.objects.filter(pk__in=[a.pk, b.pk]).order_by("pk")
        list(policies.select_for_update(no_key=True))
        pairs = find_pairs(a=a, b=b, tasks=tasks, project=project)
        made: dict[int, CandidateSet] = {}
        missing = [pair for pair in pairs if not pair.together]
        for start in range(0, len(missing), BATCH):
            made |= _make_sets(missing[start : start + BATCH])
        keys = [pair.a.set_id for pair in pairs if pair.together]
        found = CandidateSet.objects.select_related("source__task").in_bulk(keys)
    return [
        _entry(found[pair.a.set_id], pair) if pair.together else Entry(made[pair.source_id])
        for pair in pairs
    ]


def _entry(one: CandidateSet, pair: Pair) -> Entry:
    return Entry(one) if one.size == 2 else Entry(one, (pair.a.index, pair.b.index))


def _make_sets(pairs: Sequence[Pair]) -> dict[int, CandidateSet]:
    sets = CandidateSet.objects.bulk_create(
        CandidateSet(source_id=pair.source_id, size=2, state=CandidateSet.State.READY)
        for pair in pairs
    )
    Candidate.objects.bulk_create(
        _copy(candidate, one, index)
        for one, pair in zip(sets, pairs, strict=True)
        for index, candidate in enumerate((pair.a, pair.b))
    )
    loaded = CandidateSet.objects.select_related("source__task").in_bulk([one.pk for one in sets])
    return {one.source_id: one for one in loaded.values()}


def _copy(candidate: Candidate, into: CandidateSet, index: int) -> Candidate:
    values = {name: getattr(candidate, name) for name in COPIED}
    versions = candidate.versions | {COPY: candidate.pk}
    return Candidate(set=into, index=index, versions=versions, **values)


def compared(campaign: Campaign) -> tuple[Policy, Policy] | None:
    """A and B of the campaign's first pair."""
    item = campaign.items.order_by("pk").first()
    if item is None:
        return None
    shown = Candidate.objects.filter(set=item.set_id).select_related("policy").order_by("index")
    by_index = {candidate.index: candidate.policy for candidate in shown}
    first = [by_index[index] for index in item.shown or sorted(by_index)][:2]
    return (first[0], first[1]) if len(first) == 2 else None


def open_comparison(
    *,
    a: Policy,
    b: Policy,
    name: str,
    tasks: Sequence[Task],
    project: Project,
    dimensions: Sequence[Dimension] = (),
    overlap: int = 1,
    created_by: User | None = None,
    **settings: Any,
) -> Campaign:
    """A campaign that asks which of A's and B's pictures is better, source by source."""
    with transaction.atomic():
        entries = pair_up(a=a, b=b, tasks=tasks, project=project)
        if not entries:
            raise Refused(nothing_in_common(a, b))
        return open_campaign(
            name=name,
            sets=entries,
            # Only what is compared: a task without pairs would be asked about nothing.
            tasks=sorted({entry.set.source.task for entry in entries}, key=lambda task: task.pk),
            dimensions=dimensions,
            overlap=overlap,
            purpose=Campaign.Purpose.COMPARISON,
            created_by=created_by,
            project=project,
            **settings,
        )


def nothing_in_common(a: Policy, b: Policy) -> str:
    return _(
        "“%(a)s” and “%(b)s” have no source of these tasks in common, so there is nothing to "
        "compare. Generate or import candidates of both for the same sources, or choose other "
        "tasks."
    ) % {"a": a, "b": b}
