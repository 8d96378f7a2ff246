"""Campaigns: what is asked, of whom, about which candidate sets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation.errors import Refused
from annotation.models import Campaign, Criterion, Dimension, Item, Wording
from generation import audit, webhooks
from generation.access import projects_of
from generation.models import (
    Candidate,
    CandidateSet,
    GenerationRun,
    Project,
    Role,
    Source,
    Task,
    Verb,
    default_project,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import Group, User

BATCH = 2000
# A candidate that was copied into a pair for a comparison names its original under this key.
COPY = "copied_from"
NOTHING = lazy(
    "There are no candidate sets to judge here. Generate candidates first, or choose other tasks."
)

# Which state a campaign may go to from which.
MOVES: dict[str, tuple[str, ...]] = {
    Campaign.State.DRAFT: (Campaign.State.OPEN, Campaign.State.CLOSED),
    Campaign.State.OPEN: (Campaign.State.PAUSED, Campaign.State.CLOSED),
    Campaign.State.PAUSED: (Campaign.State.OPEN, Campaign.State.CLOSED),
    Campaign.State.CLOSED: (Campaign.State.OPEN,),
}


class Entry(NamedTuple):
    """What becomes an item: a set, or those of its candidates whose indexes are given."""

    set: CandidateSet
    shown: Sequence[int] = ()


def open_campaign(
    *,
    name: str,
    sets: Iterable[CandidateSet | Entry],
    tasks: Sequence[Task] | None = None,
    dimensions: Sequence[Dimension] | None = None,
    overlap: int = 1,
    members: Sequence[User] | None = None,
    simulated: bool = False,
    lease_seconds: int = 1800,
    guideline: str = "",
    created_by: User | None = None,
    state: str = Campaign.State.OPEN,
    seed: int | None = None,
    project: Project | None = None,
    groups: Iterable[Group] | None = None,
    may_be_empty: bool = False,
    **settings: Any,
) -> Campaign:
    """Make a campaign about these sets; `seed` fixes the order in which they are handed out.

    `settings` are further fields of the campaign, e.g. `gold_rate=0.1`. With `may_be_empty` the
    sets may come later.

    Sets that are still being made may be among them: the queue hands out those that are ready.
    """
    if not 1 <= overlap <= 50:
        raise Refused(
            _("An overlap of %(overlap)s is not possible: choose 1 to 50 people per set.")
            % {"overlap": overlap}
        )
    with transaction.atomic():
        try:
            with transaction.atomic():
                campaign = Campaign.objects.create(
                    project_id=project.pk if project else default_project(),
                    name=name,
                    overlap=overlap,
                    simulated=simulated,
                    lease_seconds=lease_seconds,
                    guideline=guideline,
                    created_by=created_by,
                    state=state,
                    **settings,
                )
        except IntegrityError as error:
            if "name" not in str(error):
                raise
            raise Refused(
                _("There is already a campaign called “%(name)s”: choose another name.")
                % {"name": name}
            ) from error
        campaign.tasks.set(tasks or [])
        campaign.dimensions.set(dimensions or [])
        campaign.members.set(members or [])
        campaign.groups.set(groups or [])
        if not add_sets(campaign, sets, seed=seed) and not may_be_empty:
            raise Refused(str(NOTHING))
        if not may_be_empty:
            note_made(campaign, created_by)
    return campaign


def named(name: str) -> Campaign:
    """The campaign with this name or number."""
    campaign = Campaign.objects.filter(name=name).first()
    if campaign is None and name.isdecimal():
        campaign = Campaign.objects.filter(pk=int(name)).first()
    if campaign is None:
        names = ", ".join(f"“{one}”" for one in Campaign.objects.all()[:8]) or "none yet"
        raise Refused(f"There is no campaign “{name}”. There are: {names}.")
    return campaign


def note_made(campaign: Campaign, actor: User | None) -> None:
    sets = campaign.items.count()
    after = {"state": campaign.state, "overlap": campaign.overlap, "sets": sets}
    audit.record(actor=actor, verb=Verb.CAMPAIGN_MADE, thing=campaign, after=after)
    if campaign.state == Campaign.State.OPEN:
        tell("opened", campaign)


def tell(what: str, campaign: Campaign) -> None:
    """Tell whoever listens outside what became of the campaign."""
    payload = {
        "id": campaign.pk,
        "name": campaign.name,
        "state": campaign.state,
        "purpose": campaign.purpose,
        "sets": campaign.items.count(),
    }
    webhooks.send(f"campaign.{what}", payload, project=campaign.project_id)


def add_sets(
    campaign: Campaign, sets: Iterable[CandidateSet | Entry], *, seed: int | None = None
) -> int:
    """Put sets into the campaign's queue; those already in it stay where they are."""
    draw: random.Random = random.SystemRandom() if seed is None else random.Random(seed)
    with transaction.atomic():
        return sum(added for _seen, added in add_in_batches(campaign, sets, draw))


def add_in_batches(
    campaign: Campaign,
    sets: Iterable[CandidateSet | Entry],
    draw: random.Random,
) -> Iterator[tuple[int, int]]:
    """`add_sets` step by step: how many were looked at, and how many of them were new."""
    entries = judgeable(campaign, sets)
    while batch := list(islice(entries, BATCH)):
        about = campaign.items.filter(set__in={entry.set.pk for entry in batch})
        before = about.count()
        Item.objects.bulk_create(
            (
                Item(
                    campaign=campaign,
                    set=entry.set,
                    shown=list(entry.shown),
                    position=draw.random(),
                )
                for entry in batch
            ),
            ignore_conflicts=True,
        )
        yield len(batch), about.count() - before


def judgeable(campaign: Campaign, sets: Iterable[CandidateSet | Entry]) -> Iterator[Entry]:
    """The entries one by one, each checked; Refused at the first that cannot be judged here."""
    tasks = {task.pk: task for task in tasks_of(campaign)}
    judged: set[int] = set()
    for one in sets:
        entry = one if isinstance(one, Entry) else Entry(one)
        _require_judgeable(campaign, entry.set, tasks, judged)
        yield entry


def _require_judgeable(
    campaign: Campaign, candidate_set: CandidateSet, tasks: dict[int, Task], judged: set[int]
) -> None:
    if candidate_set.state == CandidateSet.State.FAILED:
        raise Refused(
            _(
                "The candidates of set %(pk)s could not be made, so there is nothing to "
                "show. Generate them again, or leave the set out."
            )
            % {"pk": candidate_set.pk}
        )
    if candidate_set.source.project_id != campaign.project_id:
        raise Refused(
            _(
                "Set %(set)s belongs to another project than “%(campaign)s”, whose people may not "
                "see it. Make a campaign in that project, or leave the set out."
            )
            % {"set": candidate_set.pk, "campaign": campaign}
        )
    if candidate_set.size < 2 and campaign.purpose != Campaign.Purpose.RATING:
        raise Refused(
            _(
                "Set %(set)s holds a single picture, with nothing to choose from. Rate it, or "
                "compare its policy with another one."
            )
            % {"set": candidate_set.pk}
        )
    task = tasks.get(candidate_set.source.task_id)
    if task is None:
        raise Refused(
            _(
                "Set %(pk)s belongs to the task “%(task)s”, which this campaign does not ask "
                "about. Add the task to the campaign, or leave the set out."
            )
            % {"pk": candidate_set.pk, "task": candidate_set.source.task}
        )
    if task.pk not in judged:
        if not criteria_for(campaign, task):
            raise Refused(
                _(
                    "Nothing is asked about the task “%(task)s” in this campaign. Give the task "
                    "an active dimension (Admin, Criteria) or choose one of its own."
                )
                % {"task": task}
            )
        judged.add(task.pk)


def ready_sets(
    tasks: Iterable[Task],
    *,
    run: GenerationRun | None = None,
    project: Project | int | None = None,
) -> QuerySet[CandidateSet]:
    """The sets of a project that can be judged, of these tasks and, where given, of one run.

    Pairs that were put together for a comparison are left out: their pictures are in other sets.
    So is what somebody only wanted edited; a manager adds such a set by itself.
    """
    copies = Candidate.objects.filter(set=OuterRef("pk"), versions__has_key=COPY)
    sets = CandidateSet.objects.ready().filter(
        ~Exists(copies),
        source__origin=Source.Origin.LIBRARY,
        source__task__in=tasks,
        source__project=project or default_project(),
    )
    if run is not None:
        sets = sets.filter(run=run)
    return sets.select_related("source__task").order_by("pk")


def askable(campaign: Campaign, run: GenerationRun | None = None) -> QuerySet[CandidateSet]:
    """The ready sets that the campaign can ask about: a best and a worst need two pictures."""
    sets = ready_sets(tasks_of(campaign), run=run, project=campaign.project)
    return sets if campaign.purpose == Campaign.Purpose.RATING else sets.filter(size__gte=2)


def draw_order(item: Item) -> list[int]:
    """The candidates to show, by index, in a random order from left to right."""
    indexes = shown_indexes(item)
    return random.SystemRandom().sample(indexes, len(indexes))


def shown_indexes(item: Item) -> list[int]:
    """The candidates to show, by index, as they were drawn."""
    return sorted(item.shown) or sorted(c.index for c in item.set.candidates.all())


def tasks_of(campaign: Campaign) -> list[Task]:
    return list(campaign.tasks.all()) or list(Task.objects.active())


def criteria_for(campaign: Campaign, task: Task) -> list[Criterion]:
    """What is asked about a set of this task, in the order in which it is asked."""
    chosen = Campaign.dimensions.through.objects.filter(campaign_id=campaign.pk)
    return list(
        Criterion.objects.filter(task=task, dimension__active=True)
        # A dimension nobody has worded yet cannot be asked; a system check names it.
        .filter(Exists(Wording.objects.filter(dimension=OuterRef("dimension"))))
        .filter(~Exists(chosen) | Exists(chosen.filter(dimension_id=OuterRef("dimension_id"))))
        .select_related("dimension")
        .prefetch_related("dimension__wordings")
        .order_by("order", "pk")
    )


def dimensions_for(campaign: Campaign, task: Task) -> list[Dimension]:
    return [criterion.dimension for criterion in criteria_for(campaign, task)]


def for_annotator(user: User) -> QuerySet[Campaign]:
    """The open campaigns that this person may work on."""
    return admitting(user).filter(state=Campaign.State.OPEN, simulated=False)


def admits(campaign: Campaign, user: User) -> bool:
    """Whether the person may judge here: a member of the project and, where named, of the list."""
    return admitting(user).filter(pk=campaign.pk).exists()


def admitting(user: User) -> QuerySet[Campaign]:
    """The campaigns, in whatever state, that this person may judge in."""
    mine = Campaign.objects.filter(pk=OuterRef("pk"))
    listed = Exists(mine.filter(Q(members__isnull=False) | Q(groups__isnull=False)))
    named = Exists(mine.filter(Q(members=user) | Q(groups__user=user)))
    return Campaign.objects.filter(project__in=projects_of(user, Role.ANNOTATOR)).filter(
        ~Q(listed) | Q(named)
    )


@transaction.atomic
def change_state(campaign: Campaign, state: str, *, actor: User | None = None) -> None:
    """Open, pause or close; judgments that were made stay. Without an actor a round does it."""
    if campaign.origin == Campaign.Origin.IMPORTED and state != Campaign.State.CLOSED:
        raise Refused(
            _("“%(campaign)s” was imported and stays closed. Clone it to ask about its sets here.")
            % {"campaign": campaign}
        )
    before = [old for old, new in MOVES.items() if state in new]
    if state not in Campaign.State.values:
        raise Refused(
            _("A campaign cannot be “%(state)s”. Choose open, paused or closed.") % {"state": state}
        )
    if Campaign.objects.filter(pk=campaign.pk, state__in=before).update(state=state) != 1:
        campaign.refresh_from_db(fields=["state"])
        if campaign.state != state:
            raise Refused(
                _("“%(campaign)s” is %(state)s and cannot become %(wished)s from there.")
                % {
                    "campaign": campaign,
                    "state": campaign.get_state_display().lower(),
                    "wished": state,
                }
            )
    else:
        was, now = {"state": campaign.state}, {"state": state}
        audit.record(actor=actor, verb=Verb.CAMPAIGN_STATE, thing=campaign, before=was, after=now)
        campaign.state = state
        tell("opened" if state == Campaign.State.OPEN else state, campaign)
    campaign.state = state
