"""Recording what people say: whole turns, atomically, with their history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone
from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation import prepared, quality, queue, turns
from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Flag, Judgment, Seat
from annotation.one_commit import again_after_deadlock, part
from annotation.turns import Turn

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Outcome = Judgment.Outcome
State = Assignment.State
Kind = Assignment.Kind
DAY_SECONDS = 24 * 3600.0
ENDED = ["state", "submission", "seconds_spent", "submitted_at", "comment"]


@dataclass(frozen=True)
class Answer:
    """One dimension's answer; `best` and `worst` are candidate indexes of the set."""

    outcome: str
    best: int | None = None
    worst: int | None = None


@again_after_deadlock
def record(
    *,
    assignment: Assignment | int,
    user: User,
    answers: Mapping[str, Answer],
    submission: UUID | None = None,
    seconds_spent: float | None = None,
    by_place: bool = False,
    correction: bool = True,
    comment: str = "",
) -> list[Judgment]:
    """Store one judgment per dimension of a turn, or nothing and raise Refused.

    The same submission sent twice is stored once. A turn that was submitted before is corrected:
    its judgments stay as earlier revisions; without `correction` it is refused instead. With
    `by_place`, best and worst count from the left, 1 to N, as they were shown.
    """
    with part():
        turn = turns.load(_pk(assignment), lock=True)
        require_own(turn, user)
        if by_place:
            answers = _by_index(turn, answers)
        if _is_pair(turn):
            answers = {slug: _both(turn, answer) for slug, answer in answers.items()}
        if submission is not None and turn.assignment.submission == submission:
            return _same_again(turn, answers)
        require_takes_answers(turn, correction=correction)
        for slug, answer in answers.items():
            _check(slug, answer, turn)
        _require_complete(turn, answers)
        made = _judged(turn, answers)
        end(turn, submission=submission, seconds_spent=seconds_spent, comment=comment)
        _store(turn.assignment, made)
        if turn.assignment.kind == Kind.GOLD:
            quality.after_gold(assignment=turn.assignment)
    return made


def finish(
    turn: Turn, *, submission: UUID | None, seconds_spent: float | None, comment: str = ""
) -> None:
    """Mark the turn as submitted; as late where its slot was taken away or has gone."""
    end(turn, submission=submission, seconds_spent=seconds_spent, comment=comment)
    turn.assignment.save(update_fields=ENDED)


def end(
    turn: Turn, *, submission: UUID | None, seconds_spent: float | None, comment: str = ""
) -> None:
    """What `finish` says of the turn, for others to save: the fields ENDED."""
    row = turn.assignment
    given_back = row.state in {State.EXPIRED, State.LATE}
    taken = (
        given_back
        and row.kind == Kind.WORK
        and (_is_paused(row, turn.campaign) or not queue.reopen(row, turn.campaign))
    )
    row.state = State.LATE if taken else State.SUBMITTED
    row.submission = submission
    row.seconds_spent = _seconds(seconds_spent)
    row.submitted_at = timezone.now()
    row.comment = comment


def _is_paused(row: Assignment, campaign: Campaign) -> bool:
    return Seat.objects.filter(
        campaign=campaign, user=row.annotator_id, paused_at__isnull=False
    ).exists()


@again_after_deadlock
def skip(*, assignment: Assignment | int, user: User, reason: str = "") -> Assignment:
    """Give the turn back for somebody else; this person is not offered the set again."""
    with transaction.atomic():
        turn = turns.load(_pk(assignment), lock=True)
        require_own(turn, user)
        row = turn.assignment
        if row.state in {State.SUBMITTED, State.LATE}:
            raise Refused(
                _("You have submitted this set already. Undo that first if you want to skip it."),
                "stale",
            )
        if row.state != State.SKIPPED:  # sent twice, it is done once
            require_takes_answers(turn)
            row.state = State.SKIPPED
            row.skip_reason = reason.strip()[:300]
            row.submitted_at = timezone.now()
            row.save(update_fields=["state", "skip_reason", "submitted_at"])
            if row.kind == Kind.WORK:
                queue.to_the_front([row.item_id])
    return row


def flag(*, assignment: Assignment | int, user: User, reason: str) -> Flag:
    """Report a problem with a set; the turn goes on. The same report twice is stored once."""
    with transaction.atomic():
        turn = turns.load(_pk(assignment), lock=True)
        require_own(turn, user)
        said = reason.strip()[:300]
        if not said:
            raise Refused(_("Say what is wrong with this set, so that somebody can mend it."))
        made, _created = Flag.objects.get_or_create(assignment=turn.assignment, reason=said)
    return made


@again_after_deadlock
def undo(*, user: User, campaign: Campaign) -> Assignment:
    """Reopen the person's last finished turn; its judgments are withdrawn, not deleted."""
    if campaign.state != Campaign.State.OPEN:
        raise Refused(_not_open(campaign), "closed")
    with transaction.atomic():
        turn = (
            Assignment.objects.filter(
                annotator=user,
                item__campaign=campaign,
                state__in=[State.SUBMITTED, State.SKIPPED, State.LATE],
                submitted_at__isnull=False,
            )
            # A decision is withdrawn on the review page, where its history stands.
            .exclude(kind__in=[Kind.PRACTICE, Kind.REVIEW])
            .select_for_update(of=("self",))
            .order_by("-submitted_at", "-pk")
            .first()
        )
        if turn is None:
            raise Refused(
                _("There is nothing of yours to undo in “%(campaign)s”.") % {"campaign": campaign},
                "stale",
            )
        if turn.state == State.LATE:
            # Its slot went to somebody else: it is once more a turn that ran out.
            turn.state, turn.submitted_at = State.EXPIRED, None
            turn.save(update_fields=["state", "submitted_at"])
        elif not queue.reopen(turn, campaign):
            raise Refused(
                _(
                    "The set you skipped has gone to other people since, so there is nothing to "
                    "undo. Go on with the next one."
                ),
                "stale",
            )
        withdrawn = {"current": False, "withdrawn_at": timezone.now()}
        turn.judgments.filter(current=True).update(**withdrawn)
        turn.ratings.filter(current=True).update(**withdrawn)
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


def _pk(assignment: Assignment | int) -> int:
    return assignment if isinstance(assignment, int) else assignment.pk


def require_own(turn: Turn, user: User) -> None:
    if turn.assignment.annotator_id != user.pk:
        raise Refused(
            _("This turn belongs to somebody else. Open the queue to get one of your own."),
            "foreign",
        )


def require_takes_answers(turn: Turn, *, correction: bool = True) -> None:
    campaign, row = turn.campaign, turn.assignment
    if row.kind != Kind.REVIEW and campaign.state != Campaign.State.OPEN:
        raise Refused(_not_open(campaign), "closed")
    if row.state == State.SKIPPED:
        raise Refused(
            _(
                "You skipped this set; these answers were not stored. Undo the skip or go on with "
                "the next set."
            ),
            "stale",
        )
    if row.state == State.EXPIRED and row.submitted_at is not None:
        raise Refused(
            _("This set was given to other people; your earlier answers are kept in its history."),
            "stale",
        )
    if row.kind == Kind.PRACTICE and row.state == State.SUBMITTED:
        raise Refused(_("You have seen the answers of this practice set already."), "stale")
    if row.state in {State.SUBMITTED, State.LATE} and row.kind != Kind.REVIEW:
        if not campaign.editable:
            raise Refused(
                _("“%(campaign)s” takes no corrections; your first answers stand.")
                % {"campaign": campaign},
                "stale",
            )
        if not correction:
            raise Refused(
                _(
                    "You have submitted this set already, in another window perhaps. Those answers "
                    "are kept; submit once more to replace them."
                ),
                "stale",
            )


def _not_open(campaign: Campaign) -> str:
    named = {"campaign": campaign, "state": campaign.get_state_display().lower()}
    if campaign.state == Campaign.State.PAUSED:
        return (
            _(
                "“%(campaign)s” was paused; these answers were not stored. They are kept here: "
                "submit them again when it is open."
            )
            % named
        )
    return _("“%(campaign)s” is %(state)s and takes no judgments. Take another campaign.") % named


# Answers ----------------------------------------------------------------------------------------


def _by_index(turn: Turn, placed: Mapping[str, Answer]) -> dict[str, Answer]:
    names = {asked.slug: asked.name for asked in turn.asked}

    def index(slug: str, place: int | None) -> int | None:
        if place is None:
            return None
        if not 1 <= place <= len(turn.shown):
            raise Refused(
                _("%(dimension)s: there is no candidate “%(place)s”. Choose among 1 to %(n)s.")
                % {"dimension": names.get(slug, slug), "place": place, "n": len(turn.shown)}
            )
        return turn.shown[place - 1].index

    return {
        slug: Answer(answer.outcome, index(slug, answer.best), index(slug, answer.worst))
        for slug, answer in placed.items()
    }


def _is_pair(turn: Turn) -> bool:
    return len(turn.shown) == 2


def _both(turn: Turn, answer: Answer) -> Answer:
    """Of two candidates, the one that is not the best is the worst, and the other way round."""
    if answer.outcome != Outcome.PICKED or (answer.best is None) == (answer.worst is None):
        return answer
    one = answer.worst if answer.best is None else answer.best
    other = next((shown.index for shown in turn.shown if shown.index != one), None)
    if answer.best is None:
        return Answer(answer.outcome, other, answer.worst)
    return Answer(answer.outcome, answer.best, other)


def _check(slug: str, answer: Answer, turn: Turn) -> None:
    names = {asked.slug: asked.name for asked in turn.asked}
    if slug not in names:
        raise Refused(
            _(
                "“%(slug)s” is not asked about this set. It is asked: %(names)s. Reload the page "
                "if the campaign was changed."
            )
            % {"slug": slug, "names": ", ".join(names.values())}
        )
    named = {"dimension": names[slug], "n": len(turn.shown)}
    if answer.outcome not in Outcome.values:
        raise Refused(
            _(
                "%(dimension)s: “%(outcome)s” is no answer. Choose a best and a worst, no "
                "difference, or can’t judge."
            )
            % (named | {"outcome": answer.outcome})
        )
    if answer.outcome != Outcome.PICKED:
        if answer.best is not None or answer.worst is not None:
            raise Refused(
                _(
                    "%(dimension)s: “%(outcome)s” names no best or worst. Clear them, or choose a "
                    "best and a worst instead."
                )
                % (named | {"outcome": Outcome(answer.outcome).label.lower()})
            )
        return
    there = {shown.index for shown in turn.shown}
    if any(index is not None and index not in there for index in (answer.best, answer.worst)):
        raise Refused(
            _("%(dimension)s: there is no such candidate. Choose among the %(n)s shown.") % named
        )
    if answer.best is None:
        raise Refused(_("%(dimension)s: the best is missing. Choose it, or no difference.") % named)
    if answer.worst is None:
        raise Refused(
            _("%(dimension)s: the worst is missing. Choose it, or no difference.") % named
        )
    if answer.best == answer.worst:
        raise Refused(
            _(
                "%(dimension)s: the same candidate is best and worst. Choose two different ones, "
                "or no difference."
            )
            % named
        )


def _require_complete(turn: Turn, answers: Mapping[str, Answer]) -> None:
    if not turn.asked:
        raise Refused(
            _("Nothing is asked about this set any more, so there is nothing to store. Skip it."),
            "stale",
        )
    missing = [one.name for one in turn.asked if one.required and one.slug not in answers]
    # What a reviewer leaves out stays as the annotators said it.
    if missing and turn.assignment.kind != Kind.REVIEW:
        raise Refused(
            ngettext(
                "%(names)s still needs an answer: choose a best and a worst, no difference, or "
                "can’t judge.",
                "%(names)s still need an answer: choose a best and a worst, no difference, or "
                "can’t judge.",
                len(missing),
            )
            % {"names": get_text_list(missing, _("and"))}
        )
    if not answers:
        raise Refused(_("No dimension has an answer. Answer one, or skip the set."))


def _judged(turn: Turn, answers: Mapping[str, Answer]) -> list[Judgment]:
    """The answers as rows to be stored; the turn's earlier ones stand no more."""
    if turn.revisions:
        turn.assignment.judgments.filter(current=True).update(current=False)
    keys = {shown.index: shown.pk for shown in turn.shown}
    return [
        Judgment(
            assignment=turn.assignment,
            set_id=turn.assignment.set_id,
            dimension_id=asked.dimension,
            wording_id=asked.wording,
            outcome=answer.outcome,
            best_id=None if answer.best is None else keys[answer.best],
            worst_id=None if answer.worst is None else keys[answer.worst],
            revision=turn.revisions.get(asked.dimension, 0) + 1,
        )
        for asked in turn.asked
        if (answer := answers.get(asked.slug)) is not None
    ]


# One statement in place of `bulk_create` and `save`, which took longer to build than to run.
_STORE = """
WITH ended AS (
  UPDATE annotation_assignment
  SET state = %(state)s, submission = %(submission)s::uuid, seconds_spent = %(seconds)s::float8,
      submitted_at = %(now)s::timestamptz, comment = %(comment)s
  WHERE id = %(turn)s::bigint
)
INSERT INTO annotation_judgment
  (assignment_id, set_id, dimension_id, wording_id, outcome, best_id, worst_id, revision, current,
   created_at)
SELECT %(turn)s::bigint, %(set)s::bigint, said.*, true, %(now)s::timestamptz
FROM unnest(
  %(dimensions)s::bigint[], %(wordings)s::bigint[], %(outcomes)s::text[],
  %(bests)s::bigint[], %(worsts)s::bigint[], %(revisions)s::int[]
) said
RETURNING id
"""


def _store(turn: Assignment, made: list[Judgment]) -> None:
    """Save the judgments, and the turn as `end` left it."""
    now = turn.submitted_at
    assert now is not None  # as `end` left it
    values = {
        "state": turn.state,
        "submission": turn.submission,
        "seconds": turn.seconds_spent,
        "now": now,
        "comment": turn.comment,
        "turn": turn.pk,
        "set": turn.set_id,
        "dimensions": prepared.array(row.dimension_id for row in made),
        "wordings": prepared.array(row.wording_id for row in made),
        "outcomes": prepared.array(row.outcome for row in made),
        "bests": prepared.array(row.best_id for row in made),
        "worsts": prepared.array(row.worst_id for row in made),
        "revisions": prepared.array(row.revision for row in made),
    }
    with connection.cursor() as cursor:
        prepared.execute(cursor, _STORE, values)
        for row, (pk,) in zip(made, cursor.fetchall(), strict=True):
            row.pk, row.created_at = pk, now
            row._state.adding, row._state.db = False, connection.alias


def _same_again(turn: Turn, answers: Mapping[str, Answer]) -> list[Judgment]:
    rows = turn.assignment.judgments.current().select_related("dimension", "best", "worst")
    stored = list(rows)
    require_stands(turn)
    if {row.dimension.slug: _answer(row) for row in stored} != dict(answers):
        raise Refused(
            _(
                "This set was submitted already, with other answers, and those are kept. Submit "
                "once more to replace them."
            ),
            "stale",
        )
    return stored


def require_stands(turn: Turn) -> None:
    if turn.assignment.state not in {State.SUBMITTED, State.LATE}:
        raise Refused(
            _(
                "This submission was undone; these answers were not stored. Submit once more to "
                "store them."
            ),
            "stale",
        )


def _seconds(value: float | None) -> float | None:
    # A clock that jumped or a tab left open over the weekend says nothing about the work.
    if value is None or not math.isfinite(value) or not 0 <= value <= DAY_SECONDS:
        return None
    return round(value, 1)
