"""Trainings on machines that have a database, a broker and an object store in common, no disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.test.utils import override_settings

from generation import loaded
from generation.models import Policy
from generation.ownership import JobState, LeaseLost
from modeling import evaluation, judging, pages, reward_pages, run_store, runs
from modeling.models import RewardModel, TrainingRun
from modeling.rundir import RunDirectory
from tests.modeling.project import CONFIG, Project, make_snapshot


@pytest.fixture
def ordered(bucket: None, quick_project: Project) -> TrainingRun:
    """A reward training that one machine has ordered."""
    snapshot = make_snapshot(quick_project)
    return runs.start_reward(
        snapshot=snapshot, parent=quick_project.reward, config=CONFIG["reward"]
    )


def machine(tmp_path: Path, name: str) -> Any:
    return override_settings(DATA_DIR=tmp_path / name)


def make_checkpoint(directory: Path, step: int) -> None:
    def write(place: Path) -> None:
        (place / "state.txt").write_text(f"{step}")

    run = RunDirectory(directory)
    run.log(step, loss=1.0 / step)
    run.save_checkpoint(step, write)


def test_another_machine_goes_on_from_the_newest_checkpoint(
    ordered: TrainingRun, tmp_path: Path
) -> None:
    assert ordered.directory.startswith("store:runs/reward-")
    with machine(tmp_path, "first"):
        directory = run_store.on_this_machine(ordered)
        keep = run_store.Keeper(ordered, directory)
        for step in (1, 2, 3):
            make_checkpoint(directory, step)
            keep(now=True)
        make_checkpoint(directory, 4)  # the machine is lost before anybody heard of it
    with machine(tmp_path, "second"):
        directory = run_store.on_this_machine(ordered)
        assert directory.is_relative_to(tmp_path / "second")
        found = RunDirectory(directory).checkpoints()
        assert [step for step, _ in found] == [2, 3]
        assert RunDirectory(directory).intact_checkpoint() == found[-1]
        assert [row["step"] for row in RunDirectory(directory).metrics()] == [1, 2, 3]
        config = json.loads((directory / "config.json").read_text())
        assert Path(config["snapshot"]).is_relative_to(tmp_path / "second")
        assert (Path(config["snapshot"]) / "card.json").is_file()
    with machine(tmp_path, "web"):
        assert [row["step"] for row in pages.metrics(ordered)] == [1, 2, 3]
        assert run_store.has_checkpoint(ordered)
    # What nobody goes on from is not kept.
    folders, _files = default_storage.listdir(
        f"shared/{ordered.directory.removeprefix('store:')}/checkpoints"
    )
    assert sorted(folders) == ["step-2", "step-3"]


def test_a_training_outlives_a_store_that_is_away(
    ordered: TrainingRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tests import object_store

    with machine(tmp_path, "first"):
        directory = run_store.on_this_machine(ordered)
        keep = run_store.Keeper(ordered, directory)
        make_checkpoint(directory, 1)
        with object_store.media("http://127.0.0.1:9", timeout_seconds=1):
            keep(now=True)
        assert "could not be published" in caplog.text
        keep(now=True)
    assert run_store._steps(ordered) == [1]


@pytest.mark.long
def test_three_machines_make_one_reward_model_and_a_policy(
    bucket: None, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one orders, the second is lost in the middle, the third ends it."""
    monkeypatch.setattr(run_store, "KEEP_SECONDS", 0.0)
    with machine(tmp_path, "first"):
        snapshot = make_snapshot(project)
        run = runs.start_reward(snapshot=snapshot, parent=project.reward, config=CONFIG["reward"])

    def lost_after_a_step(step: int, total: int, message: str) -> None:
        if run_store._steps(run):
            raise LeaseLost("this machine is gone")

    with machine(tmp_path, "second"):
        assert not runs.execute(run, progress=lost_after_a_step)
    went_before = run_store._steps(run)
    assert went_before
    TrainingRun.objects.filter(pk=run.pk).update(state=JobState.QUEUED)
    with machine(tmp_path, "third"):
        run.refresh_from_db()
        assert runs.execute(run)
        run.refresh_from_db()
        assert (run.state, run.error) == (JobState.SUCCEEDED, "")
        steps = [row["step"] for row in pages.metrics(run) if "loss" in row]
        assert steps == [1, 2, 3]
        judging.release()
    with machine(tmp_path, "fourth"):
        model = RewardModel.objects.get(run=run)
        assert model.adapter == f"{run.directory}/adapter"
        assert reward_pages.questions(model)
        measured = evaluation.compare_rewards(model, project.reward, snapshot, run)
        assert measured.overall["n"] > 0
        again = evaluation.evaluate_reward(model, snapshot)
        assert again.figures["reward_accuracy"] == measured.new.figures["reward_accuracy"]
        trained = runs.start_policy(parent=project.policy, reward=model, config=CONFIG["policy"])
        judging.release()
    with machine(tmp_path, "fifth"):
        assert runs.execute(trained)
        trained.refresh_from_db()
        assert (trained.state, trained.error) == (JobState.SUCCEEDED, "")
    with machine(tmp_path, "sixth"):
        policy = Policy.objects.get(run=trained)
        assert policy.adapter == f"{trained.directory}/adapter"
        assert loaded.generator(policy)
        loaded.release()
        assert (Path(settings.DATA_DIR) / "runs").is_dir()
