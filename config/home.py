"""What the start page says: first what needs this person now, then the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Count, F, Q
from django.urls import reverse
from django.utils import timezone

from annotation.campaigns import for_annotator
from annotation.models import Assignment, Campaign, Item, Judgment
from generation.access import looks_on, may_anywhere, projects_of
from generation.models import CandidateSet, GenerationRun, Policy, Role, Source
from generation.ownership import Job, JobState
from modeling.models import RewardModel, Round, RoundStep, TrainingRun

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# A worker that is free claims its job within a second or two.
UNHEARD = timedelta(minutes=2)


@dataclass(frozen=True)
class Todo:
    title: str
    detail: str
    url: str
    action: str
    is_alarm: bool = False


@dataclass(frozen=True)
class Number:
    name: str
    value: int
    detail: str = ""


def todos(user: User) -> list[Todo]:
    found = list(_labels(user))
    if may_anywhere(user, Role.MANAGER):
        alarms = [*_round(), *_unheard(), *_failed_jobs(user)]
        found = [*alarms, *found, *_next_round(), *_beginnings()]
    return sorted(found, key=lambda todo: not todo.is_alarm)


def _labels(user: User) -> Iterator[Todo]:
    for campaign in for_annotator(user):
        waiting = sets_waiting_for(user, campaign)
        if waiting:
            sets = "set waits" if waiting == 1 else "sets wait"
            yield Todo(
                f"{waiting} {sets} for your judgment",
                f"in “{campaign}”",
                f"{reverse('annotation:label')}?campaign={campaign.pk}",
                "Label",
            )


def sets_waiting_for(user: User, campaign: Campaign) -> int:
    seen = Assignment.objects.filter(annotator=user, item__campaign=campaign)
    finished = seen.exclude(state__in=[Assignment.State.EXPIRED, Assignment.State.OPEN])
    submitted = Count("assignments", filter=Q(assignments__state=Assignment.State.SUBMITTED))
    return (
        Item.objects.filter(campaign=campaign, set__state=CandidateSet.State.READY)
        .exclude(pk__in=finished.values("item"))
        .alias(submitted=submitted)
        .filter(submitted__lt=F("campaign__overlap"))
        .count()
    )


def _round() -> Iterator[Todo]:
    round_ = Round.objects.filter(finished_at__isnull=True).first()
    if round_ is None:
        return
    url = reverse("modeling:round", kwargs={"number": round_.number})
    for step in round_.steps.all():
        if step.state == JobState.FAILED:
            yield Todo(
                f"Round {round_.number} stopped at “{step.get_name_display()}”",
                step.error,
                url,
                "Look at it",
                is_alarm=True,
            )
        elif (
            step.name == RoundStep.Name.LABEL
            and step.state == JobState.RUNNING
            and round_.annotators == Round.Annotators.HUMAN
        ):
            yield Todo(
                f"Round {round_.number} waits for labels",
                "Its page shows how many are there and how many it needs.",
                url,
                "Open the round",
            )


def _unheard() -> Iterator[Todo]:
    kinds: list[type[Job]] = [GenerationRun, TrainingRun]
    rows = [
        row
        for kind in kinds
        for row in kind.objects.filter(
            state=JobState.QUEUED, created_at__lt=timezone.now() - UNHEARD
        )[:3]
    ]
    is_busy = any(kind.objects.filter(state=JobState.RUNNING).exists() for kind in kinds)
    if rows and not is_busy:
        yield Todo(
            "Work is waiting and no worker takes it",
            f"{', '.join(str(row) for row in rows)}: is the worker of the gpu queue running?",
            reverse("readyz"),
            "Check the parts",
            is_alarm=True,
        )


def _failed_jobs(user: User) -> Iterator[Todo]:
    if not user.is_staff:
        return  # the page that helps is in the admin
    since = timezone.now() - timedelta(days=1)
    for run in GenerationRun.objects.filter(state=JobState.FAILED, finished_at__gte=since)[:3]:
        yield Todo(
            f"Generation {run.pk} failed",
            run.error,
            reverse("admin:generation_generationrun_change", args=[run.pk]),
            "Look at it",
            is_alarm=True,
        )


def _next_round() -> Iterator[Todo]:
    if Round.objects.filter(finished_at__isnull=True).exists():
        return
    active = Policy.objects.filter(state=Policy.State.ACTIVE).first()
    if active is not None:
        last = Round.objects.first()
        before = f"Round {last.number}: {last.outcome}" if last else "No round was run yet."
        yield Todo(
            "The loop is free for its next round",
            f"{before} It would start from “{active}”.",
            reverse("modeling:loop"),
            "Start a round",
        )


def _beginnings() -> Iterator[Todo]:
    if not Source.objects.exists():
        yield Todo(
            "There are no sources yet",
            "Upload pictures with masks, or load the starter project: manage.py load_starter",
            "/sources/",
            "Add sources",
        )
    elif not Policy.objects.exclude(kind=Policy.Kind.EXTERNAL).exists():
        yield Todo(
            "There is no policy yet",
            "Register weights that make candidates: manage.py register_policy",
            reverse("modeling:policies"),
            "Policies",
        )


def numbers(user: User) -> list[Number]:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    mine = Assignment.objects.filter(annotator=user, state=Assignment.State.SUBMITTED)
    found = [
        Number(
            "sets judged by you",
            mine.count(),
            f"{mine.filter(submitted_at__gte=midnight).count()} today",
        )
    ]
    if not looks_on(user):
        return found
    seen = projects_of(user)
    judgments = Judgment.objects.current().filter(set__source__project__in=seen)
    simulated = judgments.filter(assignment__item__campaign__simulated=True).count()
    sources = Source.objects.filter(project__in=seen)
    sets = CandidateSet.objects.ready().filter(source__project__in=seen)
    return [
        Number("sources", sources.count(), f"{sources.holdout().count()} held out"),
        Number("candidate sets", sets.count(), "ready"),
        Number("judgments by people", judgments.count() - simulated, f"{simulated} simulated"),
        Number("reward models", RewardModel.objects.count(), _active(RewardModel)),
        Number("policies", Policy.objects.count(), _active(Policy)),
        *found,
    ]


def _active(model: type[Policy] | type[RewardModel]) -> str:
    row = model.objects.filter(state="active").first()
    return f"active: {row}" if row else "none is active"


def newest_round() -> Round | None:
    return Round.objects.prefetch_related("steps").first()
