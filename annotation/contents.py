"""What is in a campaign's queue: counting before adding, taking out again, and priorities."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, QuerySet
from django.db.models.functions import Floor
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.campaigns import (
    NOTHING,
    Entry,
    add_sets,
    askable,
    judgeable,
    note_made,
    open_campaign,
)
from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Item, Judgment
from generation.models import Candidate, CandidateSet, GenerationRun, Policy, Task

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PerSet = Literal["all", "one"]
# A priority of more than this would reach into the place of returned work.
MOST = 9
CHUNK = 2000


@dataclass(frozen=True)
class WouldAdd:
    """What adding would do: `new` items, and those that are in the queue already."""

    new: int
    present: int


def entries_for(
    campaign: Campaign,
    *,
    run: GenerationRun | None = None,
    policies: Iterable[Policy] = (),
    per_set: PerSet = "all",
) -> Iterable[CandidateSet | Entry]:
    """What a preference or rating campaign asks about: all ready sets of its tasks, or one run's.

    A rating campaign asks about single candidates, of these policies where any are given. Pairs
    for a comparison are made by `annotation.comparisons`.
    """
    sets = askable(campaign, run)
    if campaign.purpose != Campaign.Purpose.RATING:
        return sets.iterator(chunk_size=CHUNK)
    return _single_candidates(campaign, sets, list(policies), per_set)


def count_entries(
    campaign: Campaign,
    *,
    run: GenerationRun | None = None,
    policies: Iterable[Policy] = (),
    per_set: PerSet = "all",
) -> int:
    """About how many `entries_for` gives, without making them."""
    sets = askable(campaign, run)
    if campaign.purpose != Campaign.Purpose.RATING or per_set == "one":
        return sets.count()
    return _candidates(sets, list(policies)).count()


def _candidates(sets: QuerySet[CandidateSet], policies: list[Policy]) -> QuerySet[Candidate]:
    found = Candidate.objects.filter(set__in=sets.order_by().values("pk"))
    return found.filter(policy__in=policies) if policies else found


def _single_candidates(
    campaign: Campaign, sets: QuerySet[CandidateSet], policies: list[Policy], per_set: PerSet
) -> Iterator[Entry]:
    candidates = _candidates(sets, policies)
    by_set: dict[int, list[int]] = {}
    for set_id, index in candidates.order_by("set_id", "index").values_list("set_id", "index"):
        by_set.setdefault(set_id, []).append(index)
    drawn = set(campaign.items.values_list("set_id", flat=True)) if per_set == "one" else set()
    draw = random.SystemRandom()
    for one in sets.iterator(chunk_size=CHUNK):
        indexes = by_set.get(one.pk, [])
        if per_set == "one":
            # A set that has its candidate already is not drawn from again.
            indexes = [] if one.pk in drawn or not indexes else [draw.choice(indexes)]
        for index in indexes:
            yield Entry(one, (index,))


def would_add(
    campaign: Campaign, entries: Callable[[Campaign], Iterable[CandidateSet | Entry]]
) -> WouldAdd:
    """What adding these would do; whatever has to be made to know it is taken back."""
    new = present = 0
    with transaction.atomic():
        found = judgeable(campaign, entries(campaign))
        while batch := list(islice(found, CHUNK)):
            items = campaign.items.filter(set__in={entry.set.pk for entry in batch})
            there = {(key, tuple(shown)) for key, shown in items.values_list("set", "shown")}
            known = sum((entry.set.pk, tuple(entry.shown)) in there for entry in batch)
            new, present = new + len(batch) - known, present + known
        transaction.set_rollback(True)
    return WouldAdd(new, present)


# Making ---------------------------------------------------------------------------------------


def create(
    *,
    entries: Callable[[Campaign], Iterable[CandidateSet | Entry]],
    dry_run: bool = False,
    **settings: Any,
) -> tuple[Campaign, int]:
    """A campaign about what `entries` gives for it, and how many items it has.

    With `dry_run` everything is taken back, so the number is what would be; nothing is kept.
    """
    with transaction.atomic():
        made = open_campaign(sets=(), may_be_empty=True, **settings)
        added = add_sets(made, entries(made))
        if not added:
            raise Refused(str(NOTHING))
        note_made(made, made.created_by)
        transaction.set_rollback(dry_run)
    return made, added


def clone(*, campaign: Campaign, by: User, with_items: bool) -> Campaign:
    """A draft with the same settings and, if wished, the same items in a new order."""
    with transaction.atomic():
        made = Campaign.objects.get(pk=campaign.pk)
        made.pk = None
        made._state.adding = True
        made.name = _free_name(campaign.name)
        made.state, made.completed_at = Campaign.State.DRAFT, None
        made.origin = Campaign.Origin.PEOPLE
        made.created_by = by
        if made.deadline and made.deadline <= timezone.now():
            made.deadline = None
        made.save()
        for field in ("tasks", "dimensions", "members", "groups"):
            getattr(made, field).set(getattr(campaign, field).all())
        if with_items:
            _copy_items(campaign, made)
        note_made(made, by)
    return made


def _free_name(name: str) -> str:
    longest = Campaign._meta.get_field("name").max_length or 120
    for number in count(2):
        mark = f" ({number})"
        wished = name[: longest - len(mark)] + mark
        if not Campaign.objects.filter(name=wished).exists():
            return wished
    raise AssertionError("unreachable")


def _copy_items(campaign: Campaign, into: Campaign) -> None:
    draw = random.SystemRandom()
    rows = campaign.items.exclude(set__state=CandidateSet.State.FAILED).order_by("pk")
    items = rows.values_list("set_id", "shown").iterator(chunk_size=CHUNK)
    while batch := list(islice(items, CHUNK)):
        Item.objects.bulk_create(
            Item(campaign=into, set_id=set_id, shown=shown, position=draw.random())
            for set_id, shown in batch
        )


# Taking out ----------------------------------------------------------------------------------


def untouched(campaign: Campaign, *, task: Task | None = None, after: int = 0) -> QuerySet[Item]:
    """Items that nobody was ever given; `after`: only those added after the item of this id."""
    turns = Assignment.objects.filter(item=OuterRef("pk"))
    items = campaign.items.filter(~Exists(turns), pk__gt=after)
    return items.filter(set__source__task=task) if task else items


def take_out(*, campaign: Campaign, task: Task | None = None, after: int = 0) -> int:
    """Remove the items that nobody was ever given; how many there were. The sets stay."""
    taken = 0
    with transaction.atomic():
        # Whoever claims one of them at this moment keeps it: the lock is asked for, not waited
        # for, and turns are looked for once more under it.
        found = untouched(campaign, task=task, after=after).select_for_update(
            skip_locked=True, of=("self",)
        )
        keys = list(found.values_list("pk", flat=True))
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            taken += untouched(campaign).filter(pk__in=chunk).delete()[0]
    return taken


# Priorities ----------------------------------------------------------------------------------


def set_priority(*, campaign: Campaign, items: QuerySet[Item], priority: int) -> int:
    """Hand these items out sooner (above 0) or later (below 0) than the rest; how many there are.

    An item's position is its draw from [0, 1) less its priority. Priorities are whole, so the draw
    is the position's fraction and survives every change: within one priority the order stays
    random. Items that were given back stay in front. Everybody looks from the start again.
    """
    if not -MOST <= priority <= MOST:
        raise Refused(
            _("A priority of %(wished)s is not possible: choose −%(most)s to %(most)s.")
            % {"wished": priority, "most": MOST}
        )
    movable = items.filter(campaign=campaign, position__gte=1 - Item.RETURNED)
    with transaction.atomic():
        # Seats before items, as a claim locks them.
        campaign.seats.update(position=Item.START)
        return movable.update(position=F("position") - Floor("position") - priority)


# What stands ---------------------------------------------------------------------------------


def queued_tasks(campaign: Campaign) -> dict[int, int]:
    """How many items each task has in the queue, by the task's id."""
    rows = campaign.items.order_by().values_list("set__source__task")
    return dict(rows.annotate(Count("pk")))


def has_judgments(campaign: Campaign) -> bool:
    turns = Assignment.objects.filter(item__campaign=campaign)
    return (
        Judgment.objects.filter(assignment__in=turns).exists()
        or turns.filter(ratings__isnull=False).exists()
    )
