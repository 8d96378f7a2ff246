"""Withdrawing a source or a person, and lifting that again; see `generation.withdrawals`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import Refused
from annotation.models import Assignment, Judgment
from generation import audit
from generation.models import CandidateSet, Source, Verb, Withdrawal

SetState = CandidateSet.State


@dataclass(frozen=True)
class Reach:
    """What a withdrawal takes out."""

    judgments: int
    sets: int = 0
    turns: int = 0  # open ones, which end


def reach(*, source: Source | None = None, person: User | None = None) -> Reach:
    if source is not None:
        return Reach(
            judgments=Judgment.objects.current().filter(set__source=source).count(),
            sets=source.sets.exclude(state__in=[SetState.WITHDRAWN, SetState.FAILED]).count(),
            turns=_open_turns(source).count(),
        )
    return Reach(Judgment.objects.current().filter(assignment__annotator=person).count())


def standing(*, source: Source | None = None, person: User | None = None) -> Withdrawal | None:
    return Withdrawal.objects.standing().filter(**_thing(source, person)).first()


def withdraw(
    *, user: User, reason: str, source: Source | None = None, person: User | None = None
) -> Withdrawal:
    """Take the source's pictures out of all work, or the person's judgments out of all counting."""
    reason = reason.strip()
    if not reason:
        raise Refused(_("Say why: the reason stands beside everything that learnt from it."))
    with transaction.atomic():
        found = reach(source=source, person=person)
        row, made = Withdrawal.objects.get_or_create(
            **_thing(source, person),
            lifted_at=None,
            defaults={"reason": reason[:300], "made_by": user},
        )
        if not made:
            raise Refused(_("This was withdrawn already: %(reason)s") % {"reason": row.reason})
        if source is not None:
            _open_turns(source).update(state=Assignment.State.EXPIRED)
            source.sets.filter(state__in=[SetState.READY, SetState.DRAWN]).update(
                state=SetState.WITHDRAWN
            )
        after = {"reason": row.reason, "judgments": found.judgments}
        audit.record(actor=user, verb=Verb.WITHDRAWN, thing=source or person, after=after)
    return row


def lift(*, user: User, source: Source | None = None, person: User | None = None) -> None:
    """Let the source or the person count again."""
    with transaction.atomic():
        changed = (
            Withdrawal.objects.standing()
            .filter(**_thing(source, person))
            .update(lifted_at=timezone.now(), lifted_by=user)
        )
        if not changed:
            raise Refused(_("This is not withdrawn."))
        if source is not None:
            out = source.sets.filter(state=SetState.WITHDRAWN)
            # What was never made stays unmade: whoever ordered it is long gone.
            unmade = out.filter(candidates__image__isnull=True).distinct().values("pk")
            CandidateSet.objects.filter(pk__in=list(unmade.values_list("pk", flat=True))).update(
                state=SetState.FAILED, error=_("Its source was withdrawn before it was made.")
            )
            out.update(state=SetState.READY)
        audit.record(actor=user, verb=Verb.WITHDRAWAL_LIFTED, thing=source or person)


def _thing(source: Source | None, person: User | None) -> dict[str, Any]:
    assert (source is None) != (person is None)
    return {"source": source} if source is not None else {"person": person}


def _open_turns(source: Source) -> Any:
    return Assignment.objects.filter(set__source=source, state=Assignment.State.OPEN)
