from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

from modeling.reward.train import train
from modeling.rundir import RunDirectory, RunError
from tests.reward.test_failures import new_run
from tests.reward.tiny import save_tiny
from tests.reward.worlds import snapshot


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("labels"), sources=12, holdout=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), True)


def scalars(run: Path) -> list[tuple[str, int, float]]:
    """Every number in every event file, none of them hidden as TensorBoard hides repetitions."""
    found = []
    for path in sorted((run / "tensorboard").rglob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tensor_util.make_ndarray(value.tensor))
                    found.append((value.tag, event.step, number))
    return found


def lose_the_end(run: Path, again: Path) -> Path:
    """As after a kill between the checkpoint of step 4 and the next."""
    shutil.copytree(run, again)
    shutil.rmtree(again / "adapter")
    shutil.rmtree(again / "checkpoints" / "step-6")
    (again / "result.json").unlink()
    return again


def test_tensorboard_shows_every_step_once_after_a_resume(
    tmp_path: Path, labels: Path, base: Path
) -> None:
    run = new_run(tmp_path / "run", labels, base)
    train(run)
    again = lose_the_end(run, tmp_path / "again")
    train(again)
    for directory in (run, again):
        shown = scalars(directory)
        assert [step for tag, step, _ in shown if tag == "loss"] == [1, 2, 3, 4, 5, 6]
        assert max(Counter((tag, step) for tag, step, _ in shown).values()) == 1
        logged = {
            (key, row["step"]): row[key]
            for row in RunDirectory(directory).metrics()
            for key in row
            if key != "step" and row[key] is not None
        }
        assert {(tag, step): value for tag, step, value in shown} == pytest.approx(logged)
    assert {"eval_accuracy", "lr", "grad_norm"} <= {tag for tag, _, _ in shown}


def test_it_names_a_tracker_that_is_unknown_or_missing(
    tmp_path: Path, labels: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "unknown", labels, base, trackers=["wandbb"])
    with pytest.raises(RunError, match="trackers may name wandb, mlflow, trackio, not 'wandbb'"):
        train(run)
    run = new_run(tmp_path / "missing", labels, base, trackers=["trackio"])
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(RunError, match="'trackio', which is not installed here"):
        train(run)


def test_mlflow_gets_every_step_once_after_a_resume(
    tmp_path: Path, labels: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = new_run(tmp_path / "run", labels, base, trackers=["mlflow"])
    train(run)
    again = lose_the_end(run, tmp_path / "again")
    train(again)
    number = json.loads((again / "trackers.json").read_text())["mlflow"]["id"]
    history = mlflow.MlflowClient().get_metric_history(number, "loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]
    found = mlflow.get_run(number).data
    assert found.params["lora_rank"] == "4"


def test_wandb_goes_on_in_the_same_run(
    tmp_path: Path,
    labels: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = new_run(tmp_path / "run", labels, base, trackers=["wandb"])
    train(run)
    again = lose_the_end(run, tmp_path / "again")
    train(again)
    state = json.loads((again / "trackers.json").read_text())["wandb"]
    assert state == {"id": "run", "step": 6}
    assert "left out" not in capfd.readouterr().err
    assert len(list((again / "wandb").glob("offline-run-*"))) == 2
