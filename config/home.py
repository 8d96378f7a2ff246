"""What the start page says: first what needs this person now, then the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext

from annotation import counts
from annotation.campaigns import for_annotator
from annotation.models import ASKED_HERE, Assignment, Campaign, Item, Judgment
from config import status
from generation.access import looks_on, may_anywhere, projects_of
from generation.models import CandidateSet, GenerationRun, Policy, Role, Source
from generation.ownership import Job, JobState
from modeling import governance_review
from modeling.models import RewardModel, Round, RoundStep, TrainingRun

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# A worker that is free claims its job within a second or two.
UNHEARD = timedelta(minutes=2)


WAITS = {
    RoundStep.Name.LABEL: (
        lazy("Round %(number)s waits for labels"),
        lazy("Its page shows how many are there and how many it needs."),
    ),
    RoundStep.Name.HUMAN_CHECK: (
        lazy("Round %(number)s waits for people to compare its policy"),
        lazy("They see it beside its parent without knowing which is which."),
    ),
    RoundStep.Name.PROMOTE: (
        lazy("Round %(number)s waits for your approval"),
        lazy("Its gates are open; its page has the figures and the button."),
    ),
}


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


# More sets than this are not counted for a person.
MANY = 1000


def todos(user: User) -> list[Todo]:
    found = list(_labels(user))
    if may_anywhere(user, Role.MANAGER):
        alarms = [*_parts(user), *_round(), *_unheard(), *_failed_jobs(user)]
        found = [*alarms, *found, *_review(), *_next_round(), *_beginnings()]
    return sorted(found, key=lambda todo: not todo.is_alarm)


def _labels(user: User) -> Iterator[Todo]:
    for campaign in for_annotator(user):
        waiting = sets_waiting_for(user, campaign)
        if waiting:
            yield Todo(
                ngettext(
                    "%(n)s set waits for your judgment",
                    "%(n)s sets wait for your judgment",
                    waiting,
                )
                % {"n": waiting if waiting <= MANY else f"{MANY:,}+"},
                _("in “%(campaign)s”") % {"campaign": campaign},
                f"{reverse('annotation:label')}?campaign={campaign.pk}",
                _("Label"),
            )


def sets_waiting_for(user: User, campaign: Campaign) -> int:
    """Sets that lie free for this person, and those they hold; counted up to MANY and one more."""
    mine = Assignment.objects.filter(annotator=user, item__campaign=campaign)
    ready = Item.objects.filter(campaign=campaign, set__state=CandidateSet.State.READY)
    seen = mine.filter(item=OuterRef("pk")).exclude(state=Assignment.State.EXPIRED)
    free = ready.filter(~Exists(seen), full=False).order_by("position").values("pk")[: MANY + 1]
    held = ready.filter(pk__in=mine.filter(state=Assignment.State.OPEN).values("item"))
    return min(free.count() + held.count(), MANY + 1)


def _round() -> Iterator[Todo]:
    round_ = Round.objects.filter(finished_at__isnull=True).first()
    if round_ is None:
        return
    url = reverse("modeling:round", kwargs={"number": round_.number})
    for step in round_.steps.all():
        if step.state == JobState.FAILED:
            yield Todo(
                _("Round %(number)s stopped at “%(step)s”")
                % {"number": round_.number, "step": step.get_name_display()},
                step.error,
                url,
                _("Look at it"),
                is_alarm=True,
            )
        elif step.is_waiting and (
            step.name != RoundStep.Name.LABEL or round_.annotators == Round.Annotators.HUMAN
        ):
            title, detail = WAITS[RoundStep.Name(step.name)]
            yield Todo(title % {"number": round_.number}, str(detail), url, _("Open the round"))


def _parts(user: User) -> Iterator[Todo]:
    url, action = (reverse("status"), _("See what to do")) if user.is_staff else ("", "")
    for found in status.alarms():
        detail = f"{found.what} {found.remedy}".strip()
        yield Todo(str(found.name), detail, url, action, is_alarm=True)


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
            _("Work is waiting and no worker takes it"),
            _("%(work)s: is the worker of the gpu queue running?")
            % {"work": ", ".join(str(row) for row in rows)},
            reverse("readyz"),
            _("Check the parts"),
            is_alarm=True,
        )


def _failed_jobs(user: User) -> Iterator[Todo]:
    if not user.is_staff:
        return  # the page that helps is in the admin
    since = timezone.now() - timedelta(days=1)
    for run in GenerationRun.objects.filter(state=JobState.FAILED, finished_at__gte=since)[:3]:
        yield Todo(
            _("Generation %(number)s failed") % {"number": run.pk},
            run.error,
            reverse("admin:generation_generationrun_change", args=[run.pk]),
            _("Look at it"),
            is_alarm=True,
        )


def _next_round() -> Iterator[Todo]:
    if Round.objects.filter(finished_at__isnull=True).exists():
        return
    active = Policy.objects.filter(state=Policy.State.ACTIVE).first()
    if active is not None:
        last = Round.objects.first()
        before = (
            _("Round %(number)s: %(outcome)s") % {"number": last.number, "outcome": last.outcome}
            if last
            else _("No round was run yet.")
        )
        yield Todo(
            _("The loop is free for its next round"),
            _("%(before)s It would start from “%(policy)s”.")
            % {"before": before, "policy": active},
            reverse("modeling:loop"),
            _("Start a round"),
        )


def _review() -> Iterator[Todo]:
    status = governance_review.status()
    if status.is_due and status.due_at is not None:
        yield Todo(
            _("A governance review is due since %(day)s")
            % {"day": timezone.localtime(status.due_at).strftime("%Y-%m-%d")},
            _("Look at groups, wordings and limits, and write down what you found."),
            reverse("modeling:governance"),
            _("Review"),
        )


def _beginnings() -> Iterator[Todo]:
    if not Source.objects.exists():
        yield Todo(
            _("There are no sources yet"),
            _("Upload pictures with masks, or load the starter project: manage.py load_starter"),
            "/sources/",
            _("Add sources"),
        )
    elif not Policy.objects.exclude(kind=Policy.Kind.EXTERNAL).exists():
        yield Todo(
            _("There is no policy yet"),
            _("Register weights that make candidates: manage.py register_policy"),
            reverse("modeling:policies"),
            _("Policies"),
        )


@dataclass(frozen=True)
class Counted:
    sources: int
    held_out: int
    sets: int
    judgments: int
    simulated: int


def _counted(user: User) -> Counted:
    projects = sorted(projects_of(user).values_list("pk", flat=True))

    def count() -> Counted:
        judgments = Judgment.objects.current().filter(
            set__source__project__in=projects, **ASKED_HERE
        )
        sources = Source.objects.filter(project__in=projects)
        return Counted(
            sources=sources.count(),
            held_out=sources.holdout().count(),
            sets=CandidateSet.objects.ready().filter(source__project__in=projects).count(),
            judgments=judgments.count(),
            simulated=judgments.filter(assignment__item__campaign__simulated=True).count(),
        )

    key = f"home-{'-'.join(map(str, projects))}"
    return counts.recent(key, count, kept_from=counts.SLOW_SECONDS)


def numbers(user: User) -> list[Number]:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    mine = Assignment.objects.filter(annotator=user, state=Assignment.State.SUBMITTED)
    found = [
        Number(
            _("sets judged by you"),
            mine.count(),
            _("%(n)s today") % {"n": mine.filter(submitted_at__gte=midnight).count()},
        )
    ]
    if not looks_on(user):
        return found
    whole = _counted(user)
    return [
        Number(_("sources"), whole.sources, _("%(n)s held out") % {"n": whole.held_out}),
        Number(_("candidate sets"), whole.sets, _("ready")),
        Number(
            _("judgments by people"),
            whole.judgments - whole.simulated,
            _("%(n)s simulated") % {"n": whole.simulated},
        ),
        Number(_("reward models"), RewardModel.objects.count(), _active(RewardModel)),
        Number(_("policies"), Policy.objects.count(), _active(Policy)),
        *found,
    ]


def _active(model: type[Policy] | type[RewardModel]) -> str:
    row = model.objects.filter(state="active").first()
    return _("active: %(name)s") % {"name": row} if row else _("none is active")


def newest_round() -> Round | None:
    return Round.objects.prefetch_related("steps").first()
