from typing import Any

import pytest
from django.contrib.auth.models import User

from annotation import judgments, queue
from annotation.campaigns import dimensions_for
from annotation.judgments import Answer
from annotation.models import Campaign, Judgment
from generation.models import CandidateSet, GenerationRun, Policy, Source, Split
from generation.ownership import JobState
from modeling import policy_inputs, round_decisions, round_report, round_work, rounds, runs
from modeling.models import RewardModel, Round, RoundStep, TrainingRun
from modeling.round_steps import Name
from tests.factories import make_run, make_set, make_user
from tests.modeling.project import CONFIG, Project


def create(annotators: str = "simulated", **changes: Any) -> Round:
    return rounds.create(annotators=annotators, config={**CONFIG, **changes})


def finish(round_: Round, *names: str, **result: Any) -> None:
    """Record steps as done with this result."""
    steps = RoundStep.objects.filter(round=round_, name__in=names)
    steps.update(state=JobState.SUCCEEDED, result=result)


def with_sets(round_: Round, project: Project, *, sets: int = 2) -> GenerationRun:
    """The round's sets, as its first step would have made them."""
    run = make_run(project.policy)
    for split in Split.values:
        for source in Source.objects.filter(split=split, task__active=True):
            if CandidateSet.objects.filter(run=run, source__split=split).count() < sets:
                make_set(source, policy=project.policy, run=run)
    finish(round_, Name.GENERATE, generation_run=run.pk)
    return run


def step_of(round_: Round, name: str) -> RoundStep:
    return RoundStep.objects.select_related("round").get(round=round_, name=name)


def label_one(user: User, campaign: Campaign) -> None:
    turn = queue.claim(user=user, campaign=campaign)
    assert turn is not None
    dimensions = dimensions_for(campaign, turn.set.source.task)
    answers = {one.slug: Answer(outcome="picked", best=0, worst=3) for one in dimensions}
    judgments.record(assignment=turn, user=user, answers=answers)


# --- starting ---


def test_it_opens_a_round_from_the_active_models(project: Project) -> None:
    user = make_user()

    round_ = rounds.create(annotators="human", seed=7, config=CONFIG, user=user)

    assert (round_.number, round_.seed, round_.started_by) == (1, 7, user)
    assert (round_.parent_policy, round_.parent_reward) == (project.policy, project.reward)
    assert [step.name for step in round_.steps.all()] == list(Name)
    assert round_.config["sets_per_task"] == 4
    assert round_.config["noise"] == 0.05


def test_it_keeps_one_round_open_at_a_time(project: Project) -> None:
    create()

    with pytest.raises(rounds.RoundError, match="Round 1 is still open. Finish or cancel it"):
        create()

    assert Round.objects.count() == 1
    assert RoundStep.objects.count() == len(Name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sets_per_taks": 4}, "Did you mean 'sets_per_task'"),
        ({"sets_per_task": 0}, "sets_per_task must be a whole number from 1 on"),
        ({"other_policies": {"base": 1}}, "leave a share for the round's own"),
        ({"noise": 3}, "noise must lie between 0 and 1"),
        ({"sampling": {"num_inference_steps": 0}}, "num_inference_steps must be at least 1"),
    ],
)
def test_it_names_a_wrong_setting(project: Project, config: dict[str, Any], message: str) -> None:
    with pytest.raises(rounds.RoundError, match=message):
        rounds.create(annotators="simulated", config=config)

    assert not Round.objects.exists()


def test_it_says_what_is_missing_to_start(project: Project) -> None:
    with pytest.raises(rounds.RoundError, match="'robots' is not a kind of annotators"):
        create("robots")
    Source.objects.update(scene=None)
    with pytest.raises(rounds.RoundError, match="judge starter scenes only"):
        create()
    Source.objects.update(split=Split.TRAIN)
    with pytest.raises(rounds.RoundError, match="no held-out sources"):
        create("human")
    RewardModel.objects.update(location="/gone")
    with pytest.raises(rounds.RoundError, match="no directory '/gone'"):
        create("human")
    RewardModel.objects.update(state=RewardModel.State.RETIRED)
    with pytest.raises(rounds.RoundError, match="No reward model is active"):
        create("human")
    Policy.objects.update(state=Policy.State.RETIRED)
    with pytest.raises(rounds.RoundError, match="No policy is active"):
        create("human")
    assert not Round.objects.exists()


# --- people ---


def test_it_waits_for_people_and_goes_on_with_the_labels_so_far(project: Project) -> None:
    round_ = create("human", min_judgments=1)
    with_sets(round_, project)
    label = step_of(round_, Name.LABEL)

    assert not rounds.execute(label)

    label = step_of(round_, Name.LABEL)
    assert label.state == JobState.QUEUED
    assert label.message == "Waiting for people: 0 of 4 sets labelled"
    assert rounds.waits_for_people(label)
    round_.refresh_from_db()
    campaign = round_.campaign
    assert campaign is not None
    assert campaign.state == Campaign.State.OPEN
    with pytest.raises(rounds.RoundError, match="1 more labels"):
        round_decisions.finish_labelling(round_)

    user = make_user()
    # Two of the four sets are held out: three turns bring at least one that teaches.
    for _ in range(3):
        label_one(user, campaign)
    progress = round_decisions.labelling_progress(round_)
    assert (progress.done, progress.total, progress.missing) == (3, 4, 0)
    assert progress.waiting
    round_decisions.finish_labelling(round_)

    assert rounds.execute(step_of(round_, Name.LABEL))
    label = step_of(round_, Name.LABEL)
    assert label.state == JobState.SUCCEEDED
    assert label.result["sets"] == 3
    assert Campaign.objects.get().state == Campaign.State.CLOSED
    now = rounds.current_step(round_)
    assert now is not None
    assert now.name == Name.TRAIN_REWARD


def test_it_goes_on_by_itself_when_every_set_is_labelled(project: Project) -> None:
    round_ = create("human")
    with_sets(round_, project, sets=1)
    rounds.execute(step_of(round_, Name.LABEL))
    campaign = Campaign.objects.get()
    user = make_user()
    label_one(user, campaign)
    label_one(user, campaign)

    assert rounds.execute(step_of(round_, Name.LABEL))

    assert step_of(round_, Name.LABEL).state == JobState.SUCCEEDED


def test_it_simulates_annotators(project: Project) -> None:
    round_ = create()
    with_sets(round_, project)

    assert rounds.execute(step_of(round_, Name.LABEL))

    label = step_of(round_, Name.LABEL)
    assert (label.state, label.error) == (JobState.SUCCEEDED, "")
    assert Campaign.objects.get().simulated
    assert label.result["judgments"] == Judgment.objects.count() > 0


# --- order, failure, retry ---


def test_it_does_one_step_after_the_other(project: Project) -> None:
    round_ = create()

    assert not rounds.execute(step_of(round_, Name.LABEL))
    assert step_of(round_, Name.LABEL).state == JobState.QUEUED


def test_it_keeps_a_failures_reason_and_runs_the_step_again(project: Project) -> None:
    round_ = create()
    with_sets(round_, project)
    rounds.execute(step_of(round_, Name.LABEL))
    Judgment.objects.update(outcome="no_difference", best=None, worst=None)

    assert rounds.execute(step_of(round_, Name.TRAIN_REWARD))

    failed = step_of(round_, Name.TRAIN_REWARD)
    assert failed.state == JobState.FAILED
    assert "Label some sets first" in failed.error
    round_.refresh_from_db()
    assert round_.finished_at is None
    with pytest.raises(rounds.RoundError, match="only a failed step"):
        round_decisions.retry(step_of(round_, Name.LABEL))
    round_decisions.retry(failed)
    again = step_of(round_, Name.TRAIN_REWARD)
    assert (again.state, again.error) == (JobState.QUEUED, "")
    assert Campaign.objects.count() == 1


def test_it_names_a_wrong_training_setting_when_the_step_fails(project: Project) -> None:
    round_ = create(reward={"batch_sise": 3})
    with_sets(round_, project)
    rounds.execute(step_of(round_, Name.LABEL))

    rounds.execute(step_of(round_, Name.TRAIN_REWARD))

    assert "Did you mean 'batch_size'" in step_of(round_, Name.TRAIN_REWARD).error
    assert not TrainingRun.objects.exists()


def test_it_makes_its_sets_once(project: Project) -> None:
    round_ = create()
    rounds.execute(step_of(round_, Name.GENERATE))
    step = step_of(round_, Name.GENERATE)
    assert (step.state, step.error) == (JobState.SUCCEEDED, "")
    made = CandidateSet.objects.count()
    assert made == 2 * (4 + 3)
    # As if the worker had died before it could say that it was done.
    RoundStep.objects.filter(pk=step.pk).update(state=JobState.QUEUED)

    assert rounds.execute(step_of(round_, Name.GENERATE))

    assert CandidateSet.objects.count() == made
    assert step_of(round_, Name.GENERATE).result["sets"] == made


# --- the end ---


def trained(round_: Round, project: Project, *, reward_gate: bool, policy_gate: bool) -> None:
    """A round that has come as far as its last step."""
    reward = RewardModel.objects.create(
        name="new reward", location=project.reward.location, parent=project.reward
    )
    policy = Policy.objects.create(
        name="new policy",
        kind=Policy.Kind.TRAINED,
        location=project.policy.location,
        parent=project.policy,
    )
    Round.objects.filter(pk=round_.pk).update(reward_model=reward, policy=policy)
    finish(round_, *list(Name)[:-1])
    finish(round_, Name.GATE_REWARD, passed=reward_gate, reason="…")
    finish(round_, Name.GATE_POLICY, passed=policy_gate, reason="…", figure="usable 60 → 70 %")


def test_it_promotes_what_passed_both_gates(project: Project) -> None:
    round_ = create()
    trained(round_, project, reward_gate=True, policy_gate=True)

    assert rounds.execute(step_of(round_, Name.PROMOTE))

    round_.refresh_from_db()
    assert round_.outcome == "Promoted 'new policy': usable 60 → 70 %."
    assert round_.finished_at is not None
    assert Policy.objects.get(state=Policy.State.ACTIVE).name == "new policy"
    assert RewardModel.objects.get(state=RewardModel.State.ACTIVE).name == "new reward"
    assert round_report.report(round_)["promoted"]
    assert create().parent_policy.name == "new policy"


def test_it_goes_on_with_the_last_reward_model_where_the_new_one_is_no_better(
    project: Project,
) -> None:
    round_ = create()
    trained(round_, project, reward_gate=False, policy_gate=True)
    finish(round_, Name.GATE_REWARD, passed=False, put_aside=True, reason="not better")
    new = RewardModel.objects.get(name="new reward")

    rounds.follow(step_of(round_, Name.GATE_REWARD))

    round_.refresh_from_db()
    new.refresh_from_db()
    assert round_.finished_at is None
    assert new.state == RewardModel.State.RETIRED
    assert round_work.rewarding(round_) == project.reward
    assert rounds.execute(step_of(round_, Name.PROMOTE))
    assert Policy.objects.get(state=Policy.State.ACTIVE).name == "new policy"
    assert RewardModel.objects.get(state=RewardModel.State.ACTIVE) == project.reward


def test_it_ends_at_a_shut_reward_gate_where_it_is_told_to(project: Project) -> None:
    round_ = create(keep_last_reward=False)
    trained(round_, project, reward_gate=False, policy_gate=True)

    rounds.follow(step_of(round_, Name.GATE_REWARD))

    round_.refresh_from_db()
    assert round_.outcome == "The reward gate stayed shut. …"


@pytest.mark.parametrize("changes", [{"promote": False}, {"keep_going": True}])
def test_it_measures_without_promoting(project: Project, changes: dict[str, Any]) -> None:
    round_ = create(**changes)
    trained(round_, project, reward_gate=True, policy_gate="promote" in changes)

    assert rounds.execute(step_of(round_, Name.PROMOTE))

    round_.refresh_from_db()
    assert round_.outcome.startswith("Measured, not promoted.")
    assert Policy.objects.get(state=Policy.State.ACTIVE) == project.policy
    assert RewardModel.objects.get(state=RewardModel.State.ACTIVE) == project.reward


def test_it_ends_at_the_alarm_and_keeps_the_better_reward_model(project: Project) -> None:
    round_ = create()
    trained(round_, project, reward_gate=True, policy_gate=False)
    run = runs.start_policy(parent=project.policy, reward=project.reward, config=CONFIG["policy"])
    TrainingRun.objects.filter(pk=run.pk).update(state=JobState.SUCCEEDED)
    Round.objects.filter(pk=round_.pk).update(policy=None)
    step = step_of(round_, Name.TRAIN_POLICY)
    step.result = {"alarm": "the policy games its reward"}

    rounds.follow(step)

    round_.refresh_from_db()
    assert "The policy was not promoted; the new reward model is kept." in round_.outcome
    assert "games its reward" in round_.outcome
    gate = round_report.report(round_)["gates"]["policy"]
    assert gate == {"passed": False, "reason": "the policy games its reward"}
    assert Policy.objects.get(state=Policy.State.ACTIVE) == project.policy
    assert RewardModel.objects.get(state=RewardModel.State.ACTIVE).name == "new reward"


def test_it_cancels_a_round_and_what_it_runs(project: Project) -> None:
    round_ = create("human")
    with_sets(round_, project)
    rounds.execute(step_of(round_, Name.LABEL))

    round_decisions.cancel(round_)

    round_.refresh_from_db()
    assert round_.outcome == "Cancelled."
    assert step_of(round_, Name.LABEL).state == JobState.CANCELLED
    assert Campaign.objects.get().state == Campaign.State.CLOSED
    assert not rounds.execute(step_of(round_, Name.LABEL))
    with pytest.raises(rounds.RoundError, match="finished already"):
        round_decisions.cancel(round_)
    with pytest.raises(rounds.RoundError, match="is finished; start a new one"):
        round_decisions.retry(step_of(round_, Name.LABEL))


def test_it_asks_a_policy_training_only_what_the_reward_model_judges(project: Project) -> None:
    project.reward.excluded = [["fill", "structure", "at chance"]]
    source = Source.objects.filter(task__slug="fill").first()
    assert source is not None

    criteria, notes = policy_inputs.questions(source.task, project.reward)

    asked = policy_inputs.ask(source, criteria)
    assert set(asked) == {"text_alignment", "consistency", "aesthetics"}
    assert notes == ["Image fill × Structure is left out: at chance."]
