"""Doorbells: they take a row's id, are safe to ring twice, and call one function."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from modeling import edits, rankings, round_rules, rounds, runs
from modeling.models import Edit, Ranking, RoundRule, RoundStep, TrainingRun

EXPIRES_SECONDS = 60


@shared_task
def execute_run(run_id: int) -> None:
    run = TrainingRun.objects.filter(pk=run_id).first()
    if run is not None:
        runs.execute(run)


@shared_task
def execute_step(step_id: int) -> None:
    step = RoundStep.objects.filter(pk=step_id).select_related("round").first()
    if step is not None and rounds.execute(step):
        rounds.ring(step.round)


@shared_task
def ring() -> None:
    """Ring for open rounds and for trainings that nobody heard or whose worker died."""
    owned = set()
    for round_ in rounds.open_rounds():
        owned |= {(step.result or {}).get("run") for step in round_.steps.all()}
        rounds.ring(round_)
    for pk in TrainingRun.objects.claimable().values_list("pk", flat=True):
        if pk not in owned:  # a round's training is its step's work
            execute_run.apply_async((pk,), expires=EXPIRES_SECONDS)


@shared_task
def make_edit(edit_id: int) -> None:
    edit = Edit.objects.filter(pk=edit_id).select_related("set__run__policy").first()
    if edit is not None:
        edits.work(edit)


@shared_task
def rank_waiting() -> None:
    rankings.work()


@shared_task
def ring_serving() -> None:
    """Ring again for orders that nobody heard, and for those whose worker died."""
    for pk in edits.unranked().values_list("pk", flat=True):
        make_edit.delay(pk)
    if Ranking.objects.claimable().exists():
        rankings.ring()


@shared_task(bind=True)
def start_round(
    self: Any, annotators: str = "human", seed: int = 0, config: dict[str, Any] | None = None
) -> None:
    """Start a round by the schedule: a row of the admin's periodic tasks with these arguments."""
    name = (self.request.properties or {}).get("periodic_task_name") or "the schedule"
    round_rules.start_by_schedule(name, annotators=annotators, seed=seed, config=config or {})


@shared_task
def check_rules() -> None:
    """Look at every active rule; what needs the reward model goes to the worker that has it."""
    for rule in RoundRule.objects.filter(active=True):
        if rule.kind == RoundRule.Kind.NEW_JUDGMENTS:
            round_rules.check(rule)
        elif round_rules.may_measure(rule):
            check_rule.apply_async((rule.pk,), expires=EXPIRES_SECONDS)


@shared_task
def check_rule(rule_id: int) -> None:
    rule = RoundRule.objects.filter(pk=rule_id, active=True).first()
    if rule is not None:
        round_rules.check(rule)
