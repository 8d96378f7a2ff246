"""Every change of state is written down with its reason, and a death in between undoes no rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.models.signals import post_save
from django.utils import timezone

from annotation.models import Campaign
from generation.models import Policy
from generation.ownership import JobState
from modeling import round_decisions, rounds, runs
from modeling.models import (
    Evaluation,
    RewardModel,
    Round,
    RoundStep,
    RoundTransition,
    TrainingRun,
)
from modeling.round_steps import Name
from tests.factories import make_user
from tests.modeling.project import CONFIG, Project
from tests.modeling.test_gates import policy_figures
from tests.modeling.test_rounds import create, finish, step_of, trained, with_sets


@pytest.fixture
def project(quick_project: Project) -> Project:
    return quick_project


class Killed(BaseException):
    """As good as `kill -9`: nothing in the code catches it, and nothing was committed."""


@contextmanager
def dying(step: str, *states: str) -> Iterator[None]:
    """Die at the moment in which this step's change to one of the states is written."""

    def die(sender: Any, instance: RoundTransition, **kwargs: Any) -> None:
        if instance.step == step and instance.to_state in states:
            raise Killed

    post_save.connect(die, sender=RoundTransition)
    try:
        yield
    finally:
        post_save.disconnect(die, sender=RoundTransition)


def lease_ends(round_: Round) -> None:
    RoundStep.objects.filter(round=round_).update(lease_until=timezone.now())
    RoundStep.objects.filter(round=round_).exclude(state="running").update(lease_until=None)


def course(round_: Round) -> list[tuple[str, str, str]]:
    rows = RoundTransition.objects.filter(round=round_)
    return list(rows.values_list("step", "from_state", "to_state"))


def at_the_policy_gate(project: Project, **changes: Any) -> Round:
    """A round whose policy is trained and measured; `changes` are of the measured figures."""
    round_ = create()
    trained(round_, project, reward_gate=True, policy_gate=True)
    round_.refresh_from_db()
    run = runs.start_policy(parent=project.policy, reward=project.reward, config=CONFIG["policy"])
    TrainingRun.objects.filter(pk=run.pk).update(state=JobState.SUCCEEDED)
    finish(round_, Name.TRAIN_POLICY, run=run.pk)
    made = Evaluation.objects.create(
        kind="policy", policy=round_.policy, figures=policy_figures(**changes)
    )
    finish(round_, Name.EVALUATE, evaluation=made.pk)
    RoundStep.objects.filter(round=round_, name__in=[Name.GATE_POLICY, Name.HUMAN_CHECK]).update(
        state=JobState.QUEUED, result={}
    )
    return round_


def go_on(round_: Round) -> None:
    step = rounds.current_step(round_)
    assert step is not None
    rounds.execute(step)


# --- what is written down ---


def test_it_writes_down_each_change_and_why(project: Project) -> None:
    anna = make_user()
    round_ = rounds.create(annotators="simulated", config=CONFIG, user=anna)
    with_sets(round_, project)
    rounds.execute(step_of(round_, Name.LABEL))
    RoundStep.objects.filter(round=round_, name=Name.TRAIN_REWARD).update(result={"run": 0})
    round_decisions.cancel(round_, actor=anna)

    assert course(round_) == [
        ("", "", "open"),
        ("label", "queued", "running"),
        ("label", "running", "done"),
        ("", "open", "cancelled"),
    ]
    opened, _, done, cancelled = round_.transitions.all()
    assert (opened.actor, opened.reason) == (anna, "Started by hand.")
    assert (done.actor, done.reason) == (None, step_of(round_, Name.LABEL).result["figure"])
    assert (cancelled.actor, cancelled.reason) == (anna, "Cancelled.")


def test_it_writes_down_a_gate_that_stayed_shut_and_a_failure(project: Project) -> None:
    round_ = at_the_policy_gate(project, p_worse={"fill": 0.0001})
    go_on(round_)

    assert course(round_)[-3:] == [
        ("gate_policy", "queued", "running"),
        ("gate_policy", "running", "shut"),
        ("", "open", "ended"),
    ]
    shut, ended = list(round_.transitions.all())[-2:]
    assert "Significantly worse: fill" in shut.reason
    assert "Significantly worse: fill" in ended.reason
    again = create()
    finish(again, Name.GENERATE, Name.LABEL)
    go_on(again)
    failed = again.transitions.order_by("-pk")[0]
    assert (failed.step, failed.to_state) == ("train_reward", "failed")
    assert failed.reason == step_of(again, Name.TRAIN_REWARD).error != ""


# --- death in between ---


@pytest.mark.parametrize("states", [("running",), ("shut",), ("passed",)])
def test_a_death_at_a_gate_lets_nothing_through(project: Project, states: tuple[str]) -> None:
    opens = states != ("shut",)
    round_ = at_the_policy_gate(project, **({} if opens else {"p_worse": {"fill": 0.0001}}))
    with dying(Name.GATE_POLICY, *states), pytest.raises(Killed):
        go_on(round_)

    # Nobody else takes the step while the dead one's lease lasts, and nothing after it.
    now = rounds.current_step(round_)
    assert now is not None
    assert now.name == Name.GATE_POLICY
    assert "passed" not in now.result
    lease_ends(round_)
    go_on(round_)
    round_.refresh_from_db()
    gate = step_of(round_, Name.GATE_POLICY)
    assert gate.result["passed"] is opens
    assert (round_.finished_at is None) is opens
    if states != ("running",):
        assert ("gate_policy", "running", "running") in course(round_)
        taken = round_.transitions.get(step="gate_policy", from_state="running", to_state="running")
        assert "stopped answering" in taken.reason


def test_a_death_while_promoting_promotes_once(project: Project) -> None:
    round_ = at_the_policy_gate(project)
    go_on(round_)
    go_on(round_)
    for step, state in ((Name.PROMOTE, "running"), (Name.PROMOTE, "done"), ("", "promoted")):
        with dying(step, state), pytest.raises(Killed):
            go_on(round_)
        lease_ends(round_)
        round_.refresh_from_db()
        assert round_.finished_at is None
    go_on(round_)

    round_.refresh_from_db()
    assert round_.outcome.startswith("Promoted 'new policy'")
    assert Policy.objects.get(state="active").name == "new policy"
    assert [row for row in course(round_) if row[2] == "promoted"] == [("", "open", "promoted")]


# --- what people decide ---


def test_it_skips_the_current_step_for_a_reason(project: Project) -> None:
    anna = make_user()
    round_ = at_the_policy_gate(project, p_worse={"fill": 0.0001})
    gate = step_of(round_, Name.GATE_POLICY)
    with pytest.raises(rounds.RoundError, match="Say why"):
        round_decisions.skip(gate, reason="  ", actor=anna)
    with pytest.raises(rounds.RoundError, match="not the step that the round is at"):
        round_decisions.skip(step_of(round_, Name.PROMOTE), reason="no", actor=anna)
    assert gate.claim()

    round_decisions.skip(gate, reason="The sources were wrong.", actor=anna)

    # Whoever worked on it lost it.
    with pytest.raises(Exception, match="no longer owned"):
        gate.renew()
    row = round_.transitions.order_by("-pk")[0]
    assert (row.step, row.to_state, row.actor) == ("gate_policy", "skipped", anna)
    assert row.reason == "The sources were wrong."
    now = rounds.current_step(round_)
    assert now is not None
    assert now.name == Name.HUMAN_CHECK


def test_it_goes_on_with_the_models_it_has_when_trainings_are_skipped(project: Project) -> None:
    round_ = create()
    with_sets(round_, project)
    finish(round_, Name.LABEL)
    round_decisions.skip(step_of(round_, Name.TRAIN_REWARD), reason="keep the judge")
    go_on(round_)
    assert step_of(round_, Name.GATE_REWARD).result["skipped"] == "There is no new reward model."
    round_decisions.skip(step_of(round_, Name.TRAIN_POLICY), reason="only a rehearsal")
    for _ in range(4):
        go_on(round_)

    round_.refresh_from_db()
    assert round_.outcome == "Measured, not promoted. Nothing new was trained."
    assert Policy.objects.get(state="active") == project.policy


def test_it_ends_without_promotion_when_that_is_skipped(project: Project) -> None:
    round_ = at_the_policy_gate(project)
    go_on(round_)
    go_on(round_)
    round_decisions.skip(step_of(round_, Name.PROMOTE), reason="after the fair")
    round_.refresh_from_db()
    assert round_.outcome == "Measured, not promoted. after the fair"
    assert Policy.objects.get(state="active") == project.policy


def test_it_rolls_back_to_a_step_and_opens_again(project: Project) -> None:
    round_ = at_the_policy_gate(project, p_worse={"fill": 0.0001})
    RoundStep.objects.filter(round=round_, state="succeeded").update(started_at=timezone.now())
    go_on(round_)
    round_.refresh_from_db()
    assert round_.finished_at is not None
    policy = round_.policy

    round_decisions.roll_back(step_of(round_, Name.TRAIN_POLICY), reason="more steps")

    round_.refresh_from_db()
    assert (round_.outcome, round_.policy) == ("", None)
    assert round_.finished_at is None
    assert round_.reward_model is not None
    assert policy is not None
    assert Policy.objects.filter(pk=policy.pk).exists()
    step = step_of(round_, Name.TRAIN_POLICY)
    assert (step.state, step.result, step.attempt) == (JobState.QUEUED, {}, 0)
    assert ("", "ended", "open") in course(round_)
    assert ("gate_policy", "shut", "queued") in course(round_)
    now = rounds.current_step(round_)
    assert now == step


def test_it_does_not_open_a_second_round_by_rolling_back(project: Project) -> None:
    round_ = at_the_policy_gate(project, p_worse={"fill": 0.0001})
    go_on(round_)
    create()
    with pytest.raises(rounds.RoundError, match="Round 2 is open"):
        round_decisions.roll_back(step_of(round_, Name.GATE_POLICY), reason="again")
    with pytest.raises(rounds.RoundError, match="was not begun yet"):
        round_decisions.roll_back(step_of(round_, Name.PROMOTE), reason="again")


def test_it_rolls_back_to_the_labels_and_keeps_them(project: Project) -> None:
    round_ = create("human", min_judgments=1)
    with_sets(round_, project)
    rounds.execute(step_of(round_, Name.LABEL))
    round_.refresh_from_db()
    campaign = round_.campaign
    round_decisions.skip(step_of(round_, Name.LABEL), reason="enough")
    round_decisions.roll_back(step_of(round_, Name.LABEL), reason="not enough after all")
    rounds.execute(step_of(round_, Name.LABEL))
    round_.refresh_from_db()
    assert round_.campaign == campaign
    assert Campaign.objects.get().state == Campaign.State.OPEN
    assert step_of(round_, Name.LABEL).is_waiting
    RoundStep.objects.filter(round=round_, name=Name.GENERATE).update(started_at=timezone.now())
    round_decisions.roll_back(step_of(round_, Name.GENERATE), reason="other sources")
    round_.refresh_from_db()
    assert round_.campaign is None
    assert Campaign.objects.get().state == Campaign.State.CLOSED


def test_it_waits_for_an_approval(project: Project) -> None:
    anna = make_user()
    round_ = at_the_policy_gate(project)
    Round.objects.filter(pk=round_.pk).update(config=round_.config | {"approval": True})
    round_.refresh_from_db()
    for _ in range(3):
        go_on(round_)
    step = step_of(round_, Name.PROMOTE)
    assert step.is_waiting
    assert rounds.waits_for_people(step)
    assert not rounds.execute(step)
    assert Policy.objects.get(state="active") == project.policy

    round_decisions.approve(round_, actor=anna)
    go_on(round_)

    assert Policy.objects.get(state="active").name == "new policy"
    approved = round_.transitions.get(reason="The promotion was approved.")
    assert approved.actor == anna
    with pytest.raises(rounds.RoundError, match="not waiting for an approval"):
        round_decisions.approve(round_, actor=anna)


def test_it_undoes_a_promotion_at_once(project: Project) -> None:
    anna = make_user()
    round_ = at_the_policy_gate(project)
    for _ in range(3):
        go_on(round_)
    round_.refresh_from_db()
    gate = step_of(round_, Name.GATE_POLICY)
    RoundStep.objects.filter(pk=gate.pk).update(started_at=timezone.now())
    with pytest.raises(rounds.RoundError, match="Undo its promotion first"):
        round_decisions.roll_back(step_of(round_, Name.GATE_POLICY), reason="again")

    round_decisions.undo_promotion(round_, reason="Skies are green.", actor=anna)

    assert Policy.objects.get(state="active") == project.policy
    assert RewardModel.objects.get(state="active") == project.reward
    round_.refresh_from_db()
    assert round_.outcome.startswith("Promotion undone: Skies are green.")
    row = round_.transitions.order_by("-pk")[0]
    assert (row.from_state, row.to_state, row.actor) == ("promoted", "undone", anna)
    with pytest.raises(rounds.RoundError, match="nothing to undo"):
        round_decisions.undo_promotion(round_, reason="twice", actor=anna)
    round_decisions.roll_back(step_of(round_, Name.GATE_POLICY), reason="look again")
    assert rounds.current_step(round_) is not None


def test_it_does_not_replace_what_was_made_active_meanwhile(project: Project) -> None:
    round_ = at_the_policy_gate(project)
    go_on(round_)
    go_on(round_)
    Policy.objects.filter(pk=project.policy.pk).update(state="retired")
    Policy.objects.create(name="by hand", kind="base", location="x", state="active")
    go_on(round_)
    step = step_of(round_, Name.PROMOTE)
    assert step.state == JobState.FAILED
    assert "'by hand' was made active while the round ran" in step.error


@pytest.mark.parametrize(
    "act",
    [
        lambda step: round_decisions.retry(step),
        lambda step: round_decisions.skip(step, reason="x"),
        lambda step: round_decisions.roll_back(step, reason="x"),
    ],
)
def test_an_act_that_dies_changed_nothing(
    project: Project, act: Callable[[RoundStep], None]
) -> None:
    round_ = create()
    RoundStep.objects.filter(round=round_, name=Name.GENERATE).update(
        state=JobState.FAILED, error="disk", started_at=timezone.now()
    )
    with dying(Name.GENERATE, "queued", "skipped"), pytest.raises(Killed):
        act(step_of(round_, Name.GENERATE))
    step = step_of(round_, Name.GENERATE)
    assert (step.state, step.error) == (JobState.FAILED, "disk")
