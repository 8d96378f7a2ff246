"""Every change of state of a round and of its steps is written down here, with its reason."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser, User

from generation import webhooks
from modeling.models import Round, RoundTransition

State = RoundTransition.State


def record(
    round_: Round,
    *,
    to: RoundTransition.State,
    step: str = "",
    reason: str = "",
    actor: User | AnonymousUser | None = None,
) -> RoundTransition:
    """Write one change down; it stands or falls with the caller's transaction.

    Without a step it is the round's own. Where it came from is what was written last.
    """
    before = RoundTransition.objects.filter(round=round_, step=step).order_by("-pk").first()
    row = RoundTransition.objects.create(
        round=round_,
        step=step,
        from_state=before.to_state if before else (State.QUEUED if step else ""),
        to_state=to,
        reason=reason,
        actor=actor if isinstance(actor, User) else None,
    )
    _tell(row)
    return row


def _tell(row: RoundTransition) -> None:
    """Tell whoever listens outside: "round.open", "round.step" or "gate.shut" among others."""
    event = "round.step" if row.step else f"round.{row.to_state}"
    if row.to_state in (State.PASSED, State.SHUT):  # the human check is a gate, too
        event = f"gate.{row.to_state}"
    payload = {
        "round": row.round.number,
        "step": row.step or None,
        "from": row.from_state or None,
        "to": row.to_state,
        "reason": row.reason,
    }
    webhooks.send(event, payload)
