"""Recording what people say: whole turns, atomically, with their history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.formats import date_format

from annotation import queue
from annotation.campaigns import criteria_for
from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Criterion, Judgment
from generation.models import Candidate

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Outcome = Judgment.Outcome
State = Assignment.State
DAY_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Answer:
    """One dimension's answer; `best` and `worst` are candidate indexes of the set."""

    outcome: str
    best: int | None = None
    worst: int | None = None


def record(
    *,
    assignment: Assignment,
    user: User,
    answers: Mapping[str, Answer],
    submission: UUID | None = None,
    seconds_spent: float | None = None,
) -> list[Judgment]:
    """Store one judgment per dimension of a turn, or nothing and raise Refused.

    The same submission sent twice is stored once. A turn that was submitted before is corrected:
    its judgments stay as earlier revisions.
    """
    with transaction.atomic():
        turn = _lock(assignment)
        _require_own(turn, user)
        campaign = turn.item.campaign
        criteria = criteria_for(campaign, turn.set.source.task)
        names = {criterion.dimension.slug: criterion.dimension.name for criterion in criteria}
        candidates = {c.index: c for c in Candidate.objects.filter(set_id=turn.set_id)}
        if submission is not None and turn.submission == submission:
            return _same_again(turn, answers)
        _require_takes_answers(turn, campaign)
        for slug, answer in answers.items():
            _check(slug, answer, names, candidates, len(turn.order))
        _require_complete(criteria, answers, turn.kind)
        made = _store(turn, answers, criteria, candidates)
        turn.state = State.SUBMITTED
        turn.submission = submission
        turn.seconds_spent = _seconds(seconds_spent)
        turn.submitted_at = timezone.now()
        turn.save(update_fields=["state", "submission", "seconds_spent", "submitted_at"])
    return made


def skip(*, assignment: Assignment, user: User, reason: str = "") -> Assignment:
    """Give the turn back for somebody else; this person is not offered the set again."""
    with transaction.atomic():
        turn = _lock(assignment)
        _require_own(turn, user)
        if turn.state == State.SUBMITTED:
            raise Refused(
                "You have submitted this set already. Undo that first if you want to skip it.",
                "stale",
            )
        _require_takes_answers(turn, turn.item.campaign)
        turn.state = State.SKIPPED
        turn.skip_reason = reason.strip()[:300]
        turn.submitted_at = timezone.now()
        turn.save(update_fields=["state", "skip_reason", "submitted_at"])
    return turn


def undo(*, user: User, campaign: Campaign) -> Assignment:
    """Reopen the person's last finished turn; its judgments are withdrawn, not deleted."""
    if campaign.state != Campaign.State.OPEN:
        raise Refused(_not_open(campaign), "closed")
    with transaction.atomic():
        turn = (
            Assignment.objects.filter(
                annotator=user,
                item__campaign=campaign,
                state__in=[State.SUBMITTED, State.SKIPPED],
                submitted_at__isnull=False,
            )
            # A decision is withdrawn on the review page, where its history stands.
            .exclude(kind=Assignment.Kind.REVIEW)
            .select_for_update(of=("self",))
            .order_by("-submitted_at", "-pk")
            .first()
        )
        if turn is None:
            raise Refused(f"There is nothing of yours to undo in “{campaign}”.", "stale")
        if not queue.reopen(turn, campaign):
            raise Refused(
                "The set you skipped has gone to other people since, so there is nothing to undo. "
                "Go on with the next one.",
                "stale",
            )
        turn.judgments.filter(current=True).update(current=False, withdrawn_at=timezone.now())
    return turn


def last_answers(turn: Assignment) -> dict[str, Answer]:
    """What was answered most recently in this turn, withdrawn or not; what a form starts from."""
    latest: dict[str, Answer] = {}
    rows = turn.judgments.select_related("dimension", "best", "worst").order_by("revision")
    for row in rows:
        latest[row.dimension.slug] = _answer(row)
    return latest


def _answer(row: Judgment) -> Answer:
    return Answer(
        row.outcome,
        row.best.index if row.best else None,
        row.worst.index if row.worst else None,
    )


def _lock(assignment: Assignment) -> Assignment:
    return (
        Assignment.objects.select_for_update(of=("self",))
        .select_related("item__campaign", "set__source__task")
        .get(pk=assignment.pk)
    )


def _require_own(turn: Assignment, user: User) -> None:
    if turn.annotator_id != user.pk:
        raise Refused(
            "This turn belongs to somebody else. Open the queue to get one of your own.", "foreign"
        )


def _require_takes_answers(turn: Assignment, campaign: Campaign) -> None:
    if turn.kind == Assignment.Kind.REVIEW:
        return  # decisions hold no lease, and are made after a campaign was closed too
    if campaign.state != Campaign.State.OPEN:
        raise Refused(_not_open(campaign), "closed")
    if turn.state == State.EXPIRED:
        until = date_format(timezone.localtime(turn.lease_until), "H:i")
        raise Refused(
            f"Your turn at this set ran out at {until} and somebody else took it; these answers "
            "were not stored. Go on with the next set.",
            "stale",
        )
    if turn.state == State.SKIPPED:
        raise Refused(
            "You skipped this set; these answers were not stored. Undo the skip or go on with the "
            "next set.",
            "stale",
        )


def _not_open(campaign: Campaign) -> str:
    if campaign.state == Campaign.State.PAUSED:
        return (
            f"“{campaign}” was paused; these answers were not stored. They stay on this page: "
            "submit them when it is opened again."
        )
    state = campaign.get_state_display().lower()
    return f"“{campaign}” is {state} and takes no judgments. Take another campaign."


def _check(
    slug: str,
    answer: Answer,
    names: Mapping[str, str],
    candidates: Mapping[int, Candidate],
    shown: int,
) -> None:
    name = names.get(slug)
    if name is None:
        raise Refused(
            f"“{slug}” is not asked about this set. It is asked: {', '.join(names.values())}. "
            "Reload the page if the campaign was changed."
        )
    if answer.outcome not in Outcome.values:
        raise Refused(
            f"{name}: “{answer.outcome}” is no answer. Choose a best and a worst, no difference, "
            "or can’t judge."
        )
    if answer.outcome != Outcome.PICKED:
        if answer.best is not None or answer.worst is not None:
            raise Refused(
                f"{name}: “{Outcome(answer.outcome).label.lower()}” names no best or worst. Clear "
                "them, or choose a best and a worst instead."
            )
        return
    for index in (answer.best, answer.worst):
        if index is not None and index not in candidates:
            raise Refused(f"{name}: there is no such candidate. Choose among the {shown} shown.")
    if answer.best is None or answer.worst is None:
        missing = "best" if answer.best is None else "worst"
        raise Refused(f"{name}: the {missing} is missing. Choose it, or no difference.")
    if answer.best == answer.worst:
        raise Refused(
            f"{name}: the same candidate is best and worst. Choose two different ones, or no "
            "difference."
        )


def _require_complete(
    criteria: Sequence[Criterion], answers: Mapping[str, Answer], kind: str
) -> None:
    if not criteria:
        raise Refused(
            "Nothing is asked about this set any more, so there is nothing to store. Skip it.",
            "stale",
        )
    missing = [
        criterion.dimension.name
        for criterion in criteria
        if criterion.required and criterion.dimension.slug not in answers
    ]
    # What a reviewer leaves out stays as the annotators said it.
    if missing and kind != Assignment.Kind.REVIEW:
        verb = "needs" if len(missing) == 1 else "need"
        raise Refused(
            f"{_join(missing)} still {verb} an answer: choose a best and a worst, no difference, "
            "or can’t judge."
        )
    if not answers:
        raise Refused("No dimension has an answer. Answer one, or skip the set.")


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _store(
    turn: Assignment,
    answers: Mapping[str, Answer],
    criteria: Sequence[Criterion],
    candidates: Mapping[int, Candidate],
) -> list[Judgment]:
    revisions = dict(turn.judgments.order_by("revision").values_list("dimension_id", "revision"))
    if revisions:
        turn.judgments.filter(current=True).update(current=False)
    return Judgment.objects.bulk_create(
        Judgment(
            assignment=turn,
            set_id=turn.set_id,
            dimension=criterion.dimension,
            wording=criterion.dimension.wording,
            outcome=answer.outcome,
            best=None if answer.best is None else candidates[answer.best],
            worst=None if answer.worst is None else candidates[answer.worst],
            revision=revisions.get(criterion.dimension_id, 0) + 1,
        )
        for criterion in criteria
        if (answer := answers.get(criterion.dimension.slug)) is not None
    )


def _same_again(turn: Assignment, answers: Mapping[str, Answer]) -> list[Judgment]:
    stored = list(turn.judgments.current().select_related("dimension", "best", "worst"))
    if turn.state != State.SUBMITTED:
        raise Refused(
            "This submission was undone; these answers were not stored. Submit once more to "
            "store them.",
            "stale",
        )
    if {row.dimension.slug: _answer(row) for row in stored} != dict(answers):
        raise Refused(
            "This set was submitted already, with other answers, and those are kept. Submit "
            "once more to replace them.",
            "stale",
        )
    return stored


def _seconds(value: float | None) -> float | None:
    # A clock that jumped or a tab left open over the weekend says nothing about the work.
    if value is None or not math.isfinite(value) or not 0 <= value <= DAY_SECONDS:
        return None
    return round(value, 1)
