"""Recording ratings of a single candidate: usable or not, and 1 to 5 per dimension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation import turns
from annotation.errors import Refused
from annotation.judgments import finish, require_own, require_stands, require_takes_answers
from annotation.models import Assignment, Rating
from annotation.one_commit import part
from annotation.turns import Turn

if TYPE_CHECKING:
    from django.contrib.auth.models import User

SCORES = range(1, 6)


@dataclass(frozen=True)
class Scores:
    """`usable` and a score per dimension's slug; None where nothing was said."""

    usable: bool | None = None
    of: Mapping[str, int] = field(default_factory=dict)


def rate(
    *,
    assignment: Assignment | int,
    user: User,
    scores: Scores,
    submission: UUID | None = None,
    seconds_spent: float | None = None,
    correction: bool = True,
) -> list[Rating]:
    """Store what one person says of the turn's one candidate, or nothing and raise Refused.

    The same submission sent twice is stored once; a turn that was submitted before is corrected.
    """
    with part():
        pk = assignment if isinstance(assignment, int) else assignment.pk
        turn = turns.load(pk, lock=True)
        require_own(turn, user)
        if submission is not None and turn.assignment.submission == submission:
            return _same_again(turn, scores)
        require_takes_answers(turn, correction=correction)
        _check(turn, scores)
        made = _store(turn, scores)
        finish(turn, submission=submission, seconds_spent=seconds_spent)
    return made


def last_scores(turn: Assignment) -> Scores:
    """What was said most recently in this turn, withdrawn or not; what a form starts from."""
    usable, of = None, {}
    for row in turn.ratings.select_related("dimension").order_by("revision"):
        if row.dimension is None:
            usable = bool(row.value)
        else:
            of[row.dimension.slug] = row.value
    return Scores(usable, of)


def _check(turn: Turn, scores: Scores) -> None:
    names = {asked.slug: asked.name for asked in turn.asked}
    if len(turn.shown) != 1:
        raise Refused(
            _("A rating is about one candidate, and this set shows %(n)s.") % {"n": len(turn.shown)}
        )
    for slug, score in scores.of.items():
        if slug not in names:
            raise Refused(
                _("“%(slug)s” is not asked about this candidate. It is asked: %(names)s.")
                % {"slug": slug, "names": ", ".join(names.values())}
            )
        if score not in SCORES:
            raise Refused(
                _("%(dimension)s: %(score)s is no score. Choose 1 to 5.")
                % {"dimension": names[slug], "score": score}
            )
    missing = [] if scores.usable is not None else [_("Usable")]
    missing += [
        asked.name for asked in turn.asked if asked.required and asked.slug not in scores.of
    ]
    if missing:
        raise Refused(
            ngettext(
                "%(names)s still needs an answer.",
                "%(names)s still need an answer.",
                len(missing),
            )
            % {"names": get_text_list(missing, _("and"))}
        )


def _store(turn: Turn, scores: Scores) -> list[Rating]:
    if turn.revisions:
        turn.assignment.ratings.filter(current=True).update(current=False)

    def row(value: int, dimension: int | None, wording: int | None) -> Rating:
        return Rating(
            assignment=turn.assignment,
            set_id=turn.assignment.set_id,
            candidate_id=turn.shown[0].pk,
            dimension_id=dimension,
            wording_id=wording,
            value=value,
            revision=turn.revisions.get(dimension or 0, 0) + 1,
        )

    rows = [row(int(bool(scores.usable)), None, None)]
    rows += [
        row(scores.of[asked.slug], asked.dimension, asked.wording)
        for asked in turn.asked
        if asked.slug in scores.of
    ]
    return Rating.objects.bulk_create(rows)


def _same_again(turn: Turn, scores: Scores) -> list[Rating]:
    require_stands(turn)
    stored = list(turn.assignment.ratings.current())
    if last_scores(turn.assignment) != scores:
        raise Refused(
            _(
                "This candidate was rated already, differently, and that is kept. Submit once more "
                "to replace it."
            ),
            "stale",
        )
    return stored
