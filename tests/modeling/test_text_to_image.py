"""Text to image as a task of its own: prompts in, judged candidates, both trainings, comparison."""

from pathlib import Path

import pytest

from annotation.campaigns import open_campaign
from annotation.judgments import Answer, record
from annotation.models import Judgment
from annotation.queue import claim
from generation import candidates, policies
from generation.models import Source, Split, Task
from generation.ownership import JobState
from generation.sources import add_source
from modeling import evaluation, policy_inputs, runs, snapshots
from modeling.models import RewardModel
from tests.annotation.factories import slugs
from tests.diffusion.test_text_to_image import save_tiny_flux_dev
from tests.factories import make_plan, make_source, make_user
from tests.modeling.project import CONFIG

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def task() -> Task:
    """The seeded task, switched on, with prompts in both splits; nothing else is active."""
    from modeling.taxonomy import seed

    seed()
    Task.objects.update(active=False)
    Task.objects.filter(slug="text_to_image").update(active=True)
    task = Task.objects.get(slug="text_to_image")
    make_plan(task)
    for number in range(24):
        add_source(task=task, image=None, mask=None, prompt=f"picture {number}", size=(64, 64))
    assert set(task.sources.values_list("split", flat=True)) == set(Split.values)
    return task


def test_the_seeded_task_is_asked_what_a_whole_picture_can_be(task: Task) -> None:
    asked = [one.dimension.slug for one in task.criteria.order_by("order")]
    assert asked == ["text_alignment", "structure", "aesthetics"]


def test_a_policy_that_reads_no_picture_trains_on_prompts_alone(
    task: Task, tiny_reward: Path, tmp_path: Path
) -> None:
    fill = Task.objects.get(slug="fill")
    Task.objects.filter(pk=fill.pk).update(active=True)
    make_source(fill)
    reward = RewardModel.objects.create(name="tiny", location=str(tiny_reward))
    both = policy_inputs.collect(reward=reward)
    assert {row["task"] for row in both.rows} == {"fill", "text_to_image"}
    alone = policy_inputs.collect(reward=reward, text_alone=True)
    assert {row["task"] for row in alone.rows} == {"text_to_image"}
    assert 'prompt "picture' in alone.rows[0]["queries"]["text_alignment"]
    Source.objects.filter(task=task).delete()
    with pytest.raises(policy_inputs.InputError, match="starts from the prompt alone"):
        policy_inputs.collect(reward=reward, text_alone=True)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fill", "flux-dev"])
def test_it_goes_round(
    kind: str, task: Task, tiny_policy: Path, tiny_reward: Path, tmp_path: Path
) -> None:
    place = tiny_policy if kind == "fill" else save_tiny_flux_dev(tmp_path / "dev")
    policy = policies.register(name=kind, location=str(place), max_pixels=32 * 32)
    assert policies.makes_from_text_alone(policy) == (kind == "flux-dev")
    reward = RewardModel.objects.create(name="tiny", location=str(tiny_reward))

    run = candidates.order_sets(policy=policy, sources=list(task.sources.all()), seed=0)
    assert candidates.make(run)
    run.refresh_from_db()
    assert run.error == ""
    campaign = open_campaign(name="Dreams", sets=list(run.sets.all()), tasks=[task])
    user = make_user()
    while (turn := claim(user=user, campaign=campaign)) is not None:
        answers = {slug: Answer("picked", 0, 3) for slug in slugs(turn)}
        record(assignment=turn, user=user, answers=answers)
    snapshot = snapshots.take(Judgment.objects.all())

    training = runs.start_reward(snapshot=snapshot, parent=reward, config=CONFIG["reward"])
    assert runs.execute(training)
    training.refresh_from_db()
    assert (training.error, training.state) == ("", JobState.SUCCEEDED)
    assert set(training.result["reward_accuracy"]) == {"text_to_image"}

    # Three steps prove nothing about a reward model: the base judges.
    training = runs.start_policy(parent=policy, reward=reward, config=CONFIG["policy"])
    assert runs.execute(training)
    training.refresh_from_db()
    assert (training.error, training.state) == ("", JobState.SUCCEEDED)
    assert training.policy is not None

    found = evaluation.evaluate_policy(
        training.policy,
        policy,
        sources=list(task.sources.filter(split=Split.HOLDOUT)),
        judge=reward,
        sampling=evaluation.Sampling(num_inference_steps=2),
    )
    assert found.figures["margin"]["text_to_image"]["n"] == found.pairs.count() > 0
    assert found.figures["outside_psnr"]["n"] == 0  # everything was made anew
