"""Campaigns: what is asked, of whom, about which candidate sets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from annotation.errors import Refused
from annotation.models import Campaign, Criterion, Dimension, Item, Wording
from generation import audit
from generation.access import projects_of
from generation.models import (
    CandidateSet,
    GenerationRun,
    Project,
    Role,
    Task,
    Verb,
    default_project,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User

BATCH = 2000

# Which state a campaign may go to from which.
MOVES: dict[str, tuple[str, ...]] = {
    Campaign.State.DRAFT: (Campaign.State.OPEN, Campaign.State.CLOSED),
    Campaign.State.OPEN: (Campaign.State.PAUSED, Campaign.State.CLOSED),
    Campaign.State.PAUSED: (Campaign.State.OPEN, Campaign.State.CLOSED),
    Campaign.State.CLOSED: (Campaign.State.OPEN,),
}


def open_campaign(
    *,
    name: str,
    sets: Iterable[CandidateSet],
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
    **settings: Any,
) -> Campaign:
    """Make a campaign about these sets; `seed` fixes the order in which they are handed out.

    `settings` are further fields of the campaign, e.g. `gold_rate=0.1`.

    Sets that are still being made may be among them: the queue hands out those that are ready.
    """
    if not 1 <= overlap <= 50:
        raise Refused(f"An overlap of {overlap} is not possible: choose 1 to 50 people per set.")
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
                f"There is already a campaign called “{name}”: choose another name."
            ) from error
        campaign.tasks.set(tasks or [])
        campaign.dimensions.set(dimensions or [])
        campaign.members.set(members or [])
        if not add_sets(campaign, sets, seed=seed):
            raise Refused(
                "There are no candidate sets to judge here. Generate candidates first, or choose "
                "other tasks."
            )
        audit.record(
            actor=created_by,
            verb=Verb.CAMPAIGN_MADE,
            thing=campaign,
            after={"state": state, "overlap": overlap, "sets": campaign.items.count()},
        )
    return campaign


def add_sets(campaign: Campaign, sets: Iterable[CandidateSet], *, seed: int | None = None) -> int:
    """Put sets into the campaign's queue; those already in it stay where they are."""
    draw: random.Random = random.SystemRandom() if seed is None else random.Random(seed)
    tasks = {task.pk: task for task in tasks_of(campaign)}
    judged: set[int] = set()
    before = campaign.items.count()
    batch: list[Item] = []
    with transaction.atomic():
        for candidate_set in sets:
            _require_judgeable(campaign, candidate_set, tasks, judged)
            batch.append(Item(campaign=campaign, set=candidate_set, position=draw.random()))
            if len(batch) == BATCH:
                Item.objects.bulk_create(batch, ignore_conflicts=True)
                batch.clear()
        Item.objects.bulk_create(batch, ignore_conflicts=True)
        return campaign.items.count() - before


def _require_judgeable(
    campaign: Campaign, candidate_set: CandidateSet, tasks: dict[int, Task], judged: set[int]
) -> None:
    if candidate_set.state == CandidateSet.State.FAILED:
        raise Refused(
            f"The candidates of set {candidate_set.pk} could not be made, so there is nothing to "
            "show. Generate them again, or leave the set out."
        )
    if candidate_set.source.project_id != campaign.project_id:
        raise Refused(
            f"Set {candidate_set.pk} belongs to another project, whose pictures this campaign's "
            "people may not see. Leave it out, or make a campaign in its project."
        )
    task = tasks.get(candidate_set.source.task_id)
    if task is None:
        raise Refused(
            f"Set {candidate_set.pk} belongs to the task “{candidate_set.source.task}”, which this "
            "campaign does not ask about. Add the task to the campaign, or leave the set out."
        )
    if task.pk not in judged:
        if not criteria_for(campaign, task):
            raise Refused(
                f"Nothing is asked about the task “{task}” in this campaign. Give the task an "
                "active dimension (Admin, Criteria) or choose one of its own."
            )
        judged.add(task.pk)


def ready_sets(
    tasks: Iterable[Task],
    *,
    run: GenerationRun | None = None,
    project: Project | int | None = None,
) -> QuerySet[CandidateSet]:
    """The sets of a project that can be judged, of these tasks and, where given, of one run."""
    sets = CandidateSet.objects.ready().filter(
        source__task__in=tasks, source__project=project or default_project()
    )
    if run is not None:
        sets = sets.filter(run=run)
    return sets.select_related("source__task").order_by("pk")


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
    before = [old for old, new in MOVES.items() if state in new]
    if state not in Campaign.State.values:
        raise Refused(f"A campaign cannot be “{state}”. Choose open, paused or closed.")
    if Campaign.objects.filter(pk=campaign.pk, state__in=before).update(state=state) != 1:
        campaign.refresh_from_db(fields=["state"])
        if campaign.state != state:
            raise Refused(
                f"“{campaign}” is {campaign.get_state_display().lower()} and cannot become "
                f"{state} from there."
            )
    else:
        was, now = {"state": campaign.state}, {"state": state}
        audit.record(actor=actor, verb=Verb.CAMPAIGN_STATE, thing=campaign, before=was, after=now)
    campaign.state = state
