"""Rounds that nobody starts by hand: by the schedule, and by rules about labels and accuracy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Now
from django.utils import timezone

from annotation.errors import DatasetError
from annotation.models import Judgment
from generation import audit
from generation.models import Verb
from modeling import newest, rounds
from modeling.evaluation import EvaluationError
from modeling.models import RewardModel, Round, RoundRule

log = logging.getLogger(__name__)
# Fewer labels than this say nothing about an accuracy, whatever the rule asks for.
FEWEST = 20


@dataclass(frozen=True)
class Finding:
    value: float | None
    fires: bool
    said: str
    judgment: int | None = None  # the newest one it was measured on


def start_by_schedule(
    name: str, *, annotators: str, seed: int, config: Mapping[str, Any]
) -> Round | None:
    """Start a round; where one is open or something is missing, say so in the log and go."""
    try:
        return _start(f"Schedule '{name}'.", annotators=annotators, seed=seed, config=config)
    except rounds.RoundError as error:
        log.warning("The schedule '%s' started no round: %s", name, error)
        return None


def _start(
    reason: str,
    *,
    annotators: str,
    config: Mapping[str, Any],
    seed: int = 0,
    rule: RoundRule | None = None,
) -> Round:
    # Rounds of one seed would draw the same sources again.
    seed = seed or 1 + (Round.objects.aggregate(newest=Max("number"))["newest"] or 0)
    with transaction.atomic():
        round_ = rounds.create(
            annotators=annotators, seed=seed, config=config, rule=rule, reason=reason
        )
        audit.record(actor=None, verb=Verb.ROUND_STARTED, thing=round_, after={"reason": reason})
        rounds.ring(round_)
    return round_


# --- rules ---


def check(rule: RoundRule) -> Round | None:
    """Look at one rule, start its round if it says so, and keep what it said either way."""
    if (said := _rests(rule)) is not None:
        _keep(rule, last_said=said)
        return None
    finding = FINDERS[rule.kind](rule)
    if finding is None:
        return None
    _keep(
        rule,
        last_value=finding.value,
        last_said=finding.said,
        last_judgment=finding.judgment or rule.last_judgment,
    )
    return _fire(rule, finding) if finding.fires else None


def _rests(rule: RoundRule) -> str | None:
    """Why it is not looked at now; None when it is."""
    if open_round := Round.objects.filter(finished_at__isnull=True).first():
        return f"Round {open_round.number} is open."
    if rule.last_fired_at is not None:
        until = rule.last_fired_at + timedelta(hours=rule.cooldown_hours)
        if until > timezone.now():
            return f"It rests until {until:%Y-%m-%d %H:%M} UTC."
    return None


def _fire(rule: RoundRule, finding: Finding) -> Round | None:
    reason = f"Rule '{rule}': {finding.said}"
    try:
        with transaction.atomic():
            round_ = _start(reason, annotators=rule.annotators, config=rule.config, rule=rule)
            _keep(rule, last_fired_at=Now(), last_said=f"{finding.said} Started {round_}."[:500])
    except rounds.RoundError as error:
        _keep(rule, last_said=f"{finding.said} No round was started: {error}"[:500])
        return None
    return round_


def _keep(rule: RoundRule, **values: Any) -> None:
    RoundRule.objects.filter(pk=rule.pk).update(last_checked_at=Now(), **values)
    rule.refresh_from_db()


def _new_judgments(rule: RoundRule) -> Finding:
    """Labels since the newest snapshot that a reward model learnt from."""
    judgments = Judgment.objects.counted().filter(
        assignment__item__campaign__simulated=rule.annotators == Round.Annotators.SIMULATED
    )
    learnt = RewardModel.objects.filter(snapshot__isnull=False).aggregate(
        at=Max("snapshot__created_at")
    )["at"]
    if learnt is not None:
        judgments = judgments.filter(created_at__gt=learnt)
    count = judgments.count()
    since = f"since {learnt:%Y-%m-%d %H:%M} UTC" if learnt else "so far"
    said = f"{count} new judgments {since}; it asks for {rule.threshold:.0f}."
    return Finding(value=count, fires=count >= rule.threshold, said=said)


def may_measure(rule: RoundRule) -> bool:
    """Whether enough labels came since the last measurement to make another one worth its time."""
    model = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first()
    if model is None or _rests(rule) is not None:
        return False
    labels = newest.unseen(model, simulated=rule.annotators == Round.Annotators.SIMULATED)
    if rule.last_judgment is not None:
        labels = labels.filter(pk__gt=rule.last_judgment)
    return labels.order_by().count() >= max(1, rule.newest // 10)


def _newest_accuracy(rule: RoundRule) -> Finding | None:
    model = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first()
    if model is None or not may_measure(rule):
        return None
    labels = newest.unseen(model, simulated=rule.annotators == Round.Annotators.SIMULATED)
    ids = list(labels.values_list("pk", flat=True)[: rule.newest])
    if len(ids) < FEWEST:
        said = f"Only {len(ids)} labels that '{model}' has not learnt from; {FEWEST} are needed."
        return Finding(value=None, fires=False, said=said)
    try:
        found = newest.accuracy([model], ids)[0]
    except (EvaluationError, DatasetError) as error:
        return Finding(value=None, fires=False, said=str(error)[:500])
    said = (
        f"'{model}' is right on {found.value:.0%} of the newest {found.n} pairs (95 % "
        f"{found.low:.0%}–{found.high:.0%}); the rule asks for {rule.threshold:.0%}."
    )
    return Finding(
        value=found.value,
        fires=found.n >= FEWEST and found.value < rule.threshold,
        said=said,
        judgment=ids[0],
    )


FINDERS: dict[str, Callable[[RoundRule], Finding | None]] = {
    RoundRule.Kind.NEW_JUDGMENTS: _new_judgments,
    RoundRule.Kind.NEWEST_ACCURACY: _newest_accuracy,
}
