import json
import os
import resource
import signal
from pathlib import Path

import pytest
from django.conf import settings

from annotation.models import Judgment
from generation import shared
from generation.models import Policy, Source, Split, Task
from generation.ownership import JobState
from modeling import evaluation, launch, runs, snapshots
from modeling.models import Evaluation, RewardModel, TrainingRun
from tests.modeling.project import CONFIG, Project, make_judged_campaign, make_snapshot


@pytest.mark.slow
def test_it_trains_and_registers_a_reward_model_once(project: Project) -> None:
    snapshot = make_snapshot(project)
    run = runs.start_reward(snapshot=snapshot, parent=project.reward, config=CONFIG["reward"])
    seen: list[tuple[int, int]] = []

    assert runs.execute(run, progress=lambda done, total, message: seen.append((done, total)))

    run.refresh_from_db()
    assert (run.state, run.error) == (JobState.SUCCEEDED, "")
    assert seen[-1] == (3, 3)
    model = run.reward_model
    assert model is not None
    assert model.parent == project.reward
    assert model.snapshot == snapshot
    assert (shared.place(model.adapter) / "adapter_config.json").is_file()
    assert model.location == project.reward.location
    assert model.card["snapshot"] == snapshot.content_hash
    assert model.card["config"]["steps"] == 3
    assert model.state == RewardModel.State.READY
    assert not runs.execute(run)
    assert RewardModel.objects.count() == 2

    found = evaluation.compare_rewards(model, project.reward, snapshot, run)
    measured = evaluation.compare_rewards(model, project.reward, snapshot)
    assert found.overall == measured.overall
    assert found.overall["n"] > 0
    assert Evaluation.objects.filter(reward_model=model).count() == 1
    assert set(found.new.figures["reward_accuracy"]) == {"fill", "removal"}


@pytest.mark.slow
def test_it_trains_and_registers_a_policy(project: Project) -> None:
    run = runs.start_policy(parent=project.policy, reward=project.reward, config=CONFIG["policy"])

    assert runs.execute(run)

    run.refresh_from_db()
    assert (run.state, run.error) == (JobState.SUCCEEDED, "")
    policy = run.policy
    assert policy is not None
    assert (policy.parent, policy.kind) == (project.policy, Policy.Kind.TRAINED)
    assert (policy.state, policy.max_pixels) == (Policy.State.READY, 64 * 64)
    assert (shared.place(policy.adapter) / "pytorch_lora_weights.safetensors").is_file()
    assert policy.card["size_multiple"] == project.policy.card["size_multiple"]
    # Without being asked it keeps what it encoded, for the runs after it.
    assert run.config["condition_cache"] == "../conditions"
    assert any((runs.root() / "conditions").glob("??/*.safetensors"))

    sources = list(Source.objects.holdout().select_related("task", "image", "mask"))
    made = evaluation.evaluate_policy(
        policy,
        project.policy,
        sources=sources,
        judge=project.reward,
        sampling=evaluation.Sampling(num_inference_steps=2),
    )
    assert made.pairs.count() == len(sources) == 8
    usable = made.figures["usable"]
    assert set(usable) == {"fill", "removal", "all"}
    assert set(usable["all"]) >= {"parent", "new", "difference", "low", "high", "n"}
    assert usable["all"]["n"] == 8
    assert set(made.figures["dimensions"]["removal"]) == {"removal_quality"}
    assert sum(made.figures["win_tie_lose"]) == pytest.approx(1.0)
    pair = made.pairs.get(source=sources[0])
    assert set(pair.scores) == {"parent", "new", "margin"}
    assert set(pair.scores["margin"]) == set(pair.scores["new"])


def test_it_compares_a_policy_with_itself_and_finds_nothing(project: Project) -> None:
    sources = list(Source.objects.holdout().select_related("task", "image", "mask"))

    made = evaluation.evaluate_policy(
        project.policy,
        project.policy,
        sources=sources,
        judge=project.reward,
        sampling=evaluation.Sampling(num_inference_steps=2),
    )

    assert all(pair.image_id == pair.parent_image_id for pair in made.pairs.all())
    overall = made.figures["usable"]["all"]
    assert (overall["difference"], overall["low"], overall["high"]) == (0, 0, 0)
    assert made.figures["win_tie_lose"] == [0.0, 1.0, 0.0]
    assert made.figures["margin"]["all"]["mean"] == pytest.approx(0.0, abs=1e-5)
    assert set(made.figures["p_worse"].values()) == {1.0}


def test_it_says_how_many_labels_are_needed(project: Project) -> None:
    snapshot = make_snapshot(project, sets=1)
    picked = snapshot.judgments.filter(set__source__split=Split.TRAIN, outcome="picked").count()

    with pytest.raises(runs.RunFailed, match=f"has {picked} judgments .* 100 are needed"):
        runs.start_reward(snapshot=snapshot, parent=project.reward, config={}, min_judgments=100)

    assert not TrainingRun.objects.exists()
    assert not runs.root().exists()


def test_it_refuses_a_snapshot_of_no_labels(project: Project) -> None:
    with pytest.raises(snapshots.SnapshotError, match="Label some sets first"):
        snapshots.take(Judgment.objects.all())

    assert not list(snapshots.root().glob("*")) if snapshots.root().exists() else True


def test_it_names_a_wrong_setting_before_anything_is_made(project: Project) -> None:
    snapshot = make_snapshot(project)
    wrong = {"batch_sise": 4}

    with pytest.raises(runs.RunFailed, match="Did you mean 'batch_size'"):
        runs.start_reward(snapshot=snapshot, parent=project.reward, config=wrong)
    with pytest.raises(runs.RunFailed, match="Did you mean 'batch_size'"):
        runs.start_policy(parent=project.policy, reward=project.reward, config=wrong)

    assert not TrainingRun.objects.exists()
    assert not runs.root().exists()


def test_it_refuses_settings_that_the_run_fills_in(project: Project) -> None:
    with pytest.raises(runs.RunFailed, match="'sources' is filled in by the run"):
        runs.start_policy(
            parent=project.policy, reward=project.reward, config={"sources": "mine.jsonl"}
        )


def test_it_names_a_missing_checkpoint(project: Project) -> None:
    RewardModel.objects.update(location="/gone/reward")
    Policy.objects.update(location="/gone/policy")
    project.reward.refresh_from_db()
    project.policy.refresh_from_db()
    snapshot = make_snapshot(project)

    with pytest.raises(runs.RunFailed, match="no directory '/gone/reward'"):
        runs.start_reward(snapshot=snapshot, parent=project.reward, config={})
    with pytest.raises(runs.RunFailed, match="no directory '/gone/policy'"):
        runs.start_policy(parent=project.policy, reward=project.reward, config={})
    assert not TrainingRun.objects.exists()


def test_it_leaves_out_what_the_reward_model_cannot_judge(project: Project) -> None:
    project.reward.excluded = [
        ["fill", "consistency", "it is at chance"],
        ["removal", "removal_quality", "it is at chance"],
    ]
    project.reward.save()

    run = runs.start_policy(parent=project.policy, reward=project.reward, config=CONFIG["policy"])

    lines = (shared.place(run.directory) / "sources.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["task"] for row in rows} == {"fill"}
    assert all("consistency" not in row["queries"] for row in rows)
    assert rows[0]["prompt"] in rows[0]["queries"]["text_alignment"]
    assert (shared.place(run.directory) / rows[0]["image"]).is_file()
    assert {row["split"] for row in rows} == {"train", "holdout"}
    assert "The task Object removal is left out" in run.message


def test_it_refuses_to_train_a_policy_on_nothing(project: Project) -> None:
    dimensions = ["text_alignment", "consistency", "structure", "aesthetics"]
    project.reward.excluded = [
        *(["fill", name, "it is at chance"] for name in dimensions),
        ["removal", "removal_quality", "it is at chance"],
    ]
    project.reward.save()

    with pytest.raises(runs.RunFailed, match="There is nothing to train on"):
        runs.start_policy(parent=project.policy, reward=project.reward, config={})

    assert not TrainingRun.objects.exists()


def test_it_asks_nothing_of_an_inactive_dimension(project: Project) -> None:
    task = Task.objects.get(slug="fill")
    task.dimensions.filter(slug="aesthetics").update(active=False)

    run = runs.start_policy(parent=project.policy, reward=project.reward, config=CONFIG["policy"])

    assert "aesthetics" not in (shared.place(run.directory) / "sources.jsonl").read_text()


@pytest.mark.slow
def test_it_keeps_the_trainers_reason_for_a_failure(project: Project) -> None:
    snapshot = make_snapshot(project)
    run = runs.start_reward(
        snapshot=snapshot, parent=project.reward, config={**CONFIG["reward"], "min_pairs": 10_000}
    )

    assert runs.execute(run)

    run.refresh_from_db()
    assert run.state == JobState.FAILED
    assert "10000" in run.error
    assert "Traceback" not in run.error
    assert run.reward_model is None


def trainers(run: TrainingRun, module: str) -> list[int]:
    """The processes that train, without the launcher that waits for them."""
    found = launch.leftovers(module, shared.place(run.directory))
    return [pid for pid in found if b"accelerate" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def start_run(project: Project, kind: str) -> TrainingRun:
    config = {**CONFIG[kind], "steps": 40}
    if kind == "policy":
        return runs.start_policy(parent=project.policy, reward=project.reward, config=config)
    snapshot = make_snapshot(project)
    return runs.start_reward(snapshot=snapshot, parent=project.reward, config=config)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_a_full_disk_fails_the_row_and_a_retry_finishes_it(project: Project, kind: str) -> None:
    run = start_run(project, kind)
    module = f"modeling.{kind}.train"
    limited: list[int] = []

    def fill(done: int, total: int, message: str) -> None:
        if done >= 1 and not limited:
            limited.extend(trainers(run, module))
            for pid in limited:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (16_000, resource.RLIM_INFINITY))

    assert runs.execute(run, progress=fill)
    run.refresh_from_db()
    assert run.state == JobState.FAILED
    assert "could not be written: " in run.error
    assert runs.has_checkpoint(run)

    assert run.retry()
    assert runs.execute(run)
    run.refresh_from_db()
    assert (run.state, run.error, run.attempt) == (JobState.SUCCEEDED, "", 2)
    rows = (shared.place(run.directory) / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows if "loss" in json.loads(row)]
    assert steps == list(range(1, 41))


@pytest.mark.long
def test_it_says_that_a_trainer_was_killed_and_goes_on(project: Project) -> None:
    run = start_run(project, "reward")
    killed: list[int] = []

    def kill(done: int, total: int, message: str) -> None:
        if done >= 1 and not killed:
            killed.extend(trainers(run, "modeling.reward.train"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    assert runs.execute(run, progress=kill)
    run.refresh_from_db()
    assert run.state == JobState.FAILED
    assert "killed, most likely by the system when the machine's memory ran out" in run.error
    assert run.retry()
    assert runs.execute(run)
    run.refresh_from_db()
    assert run.state == JobState.SUCCEEDED


@pytest.mark.slow
def test_it_stops_the_trainer_of_a_cancelled_run(project: Project) -> None:
    config = {**CONFIG["policy"], "steps": 100_000}
    run = runs.start_policy(parent=project.policy, reward=project.reward, config=config)

    def cancel(done: int, total: int, message: str) -> None:
        TrainingRun.objects.get(pk=run.pk).cancel()

    assert not runs.execute(run, progress=cancel)

    run.refresh_from_db()
    assert run.state == JobState.CANCELLED
    assert launch.leftovers("modeling.policy.train", shared.place(run.directory)) == []
    assert Policy.objects.count() == 1


def test_it_takes_the_same_labels_as_the_same_snapshot(project: Project) -> None:
    campaign = make_judged_campaign(project)
    judgments = Judgment.objects.filter(assignment__item__campaign=campaign)

    first, second = snapshots.take(judgments), snapshots.take(judgments)

    assert first == second
    assert first.judgments.count() == judgments.count()
    assert shared.place(first.directory).parent == Path(settings.DATA_DIR) / "snapshots"
    assert [path.name for path in snapshots.root().iterdir()] == [first.content_hash]


def test_it_says_that_a_snapshots_files_are_gone(project: Project) -> None:
    snapshot = make_snapshot(project)
    snapshot.directory = "/gone"
    snapshot.save()

    with pytest.raises(snapshots.SnapshotError, match="missing from '/gone'"):
        runs.start_reward(snapshot=snapshot, parent=project.reward, config={})
