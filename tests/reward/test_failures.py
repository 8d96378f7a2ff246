"""What goes wrong on machines: each failure ends in one sentence and a run that goes on."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling.reward.train import train
from modeling.rundir import RunDirectory, RunError
from tests.machines import start, train_on_a_small_disk, train_with_little_memory
from tests.reward.tiny import save_tiny
from tests.reward.worlds import snapshot

MODULE = "modeling.reward.train"
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("labels"), sources=12, holdout=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), True)


def new_run(directory: Path, labels: Path, base: Path, **config: Any) -> Path:
    directory.mkdir(parents=True)
    values: dict[str, Any] = {"snapshot": str(labels), "base": str(base), "batch_size": 4}
    values |= {"steps": 6, "checkpoint_every": 2, "lora_rank": 4, "swap_share": 0.0, **config}
    (directory / "config.json").write_text(json.dumps(values))
    return directory


def reason(run: Path) -> str:
    return str(json.loads((run / "error.json").read_text())["message"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, labels: Path, base: Path) -> Path:
    """A run that nothing happened to, in a process of its own as those that it is compared with."""
    run = new_run(tmp_path_factory.mktemp("whole") / "run", labels, base)
    assert start(MODULE, run).wait(120) == 0
    return run


def losses(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


@pytest.mark.slow
def test_it_goes_on_after_a_full_disk(
    tmp_path: Path, labels: Path, base: Path, whole: Path
) -> None:
    inputs = new_run(tmp_path / "inputs", labels, base)
    size = sum(f.stat().st_size for f in (whole / "checkpoints" / "step-6").iterdir())
    out = tmp_path / "out"
    # Room for one checkpoint and a half.
    train_on_a_small_disk(MODULE, inputs, out, size=f"{size * 3 // 2 // 1024 + 160}k")
    assert "could not be written: " in reason(out)
    assert "Make room on that disk" in reason(out)
    assert reason(out).endswith("it goes on from step 2.")
    assert (out / "checkpoints.txt").read_text().split() == ["step-2"]
    assert losses(out) == losses(whole)
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.long
def test_it_goes_on_after_a_file_that_could_not_grow(
    tmp_path: Path, labels: Path, base: Path, whole: Path
) -> None:
    run = new_run(tmp_path / "run", labels, base)
    process = start(MODULE, run)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (80_000, resource.RLIM_INFINITY))
    assert process.wait(120) == 1
    assert "could not be written: " in reason(run)
    assert reason(run).endswith("it goes on from its start.")
    assert not list((run / "checkpoints").iterdir())
    assert start(MODULE, run).wait(120) == 0
    assert not (run / "error.json").exists()
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_it_names_the_remedy_when_memory_runs_out(tmp_path: Path, labels: Path, base: Path) -> None:
    run = new_run(tmp_path / "run", labels, base, batch_size=4096, calibration_share=0.0)
    done = train_with_little_memory(MODULE, run, room=160 * 2**20)
    assert done.returncode == 1
    assert reason(run).startswith("The memory ran out")
    assert "batch_size" in reason(run)
    assert done.stderr.strip().splitlines()[-1] == reason(run)
    config = json.loads((run / "config.json").read_text()) | {"batch_size": 4}
    (run / "config.json").write_text(json.dumps(config))
    assert train(run)["steps"] == 6


def test_it_stops_at_a_loss_that_is_no_number(tmp_path: Path, labels: Path, base: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(n for n in weights if n.endswith("layers.1.mlp.down_proj.weight"))
    save_file(weights | {name: weights[name] * torch.inf}, broken / "model.safetensors")
    run = new_run(tmp_path / "run", labels, broken)
    with pytest.raises(RunError, match=r"The loss of step 1 is not a number\. Lower lr"):
        train(run)
    assert "mixed_precision" in reason(run)
    assert not RunDirectory(run).checkpoints()


@pytest.mark.slow
def test_it_names_a_wrong_key(tmp_path: Path, labels: Path, base: Path) -> None:
    run = new_run(tmp_path / "run", labels, base, lernrate=1.0)
    assert start(MODULE, run).wait(120) == 1
    assert "Unknown configuration key 'lernrate'" in reason(run)
    assert (run / "log.txt").read_text().strip().endswith(reason(run))


@pytest.mark.slow
def test_it_goes_back_to_an_intact_checkpoint(
    tmp_path: Path, labels: Path, base: Path, whole: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "adapter")
    (run / "result.json").unlink()
    weights = run / "checkpoints" / "step-6" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (run / "log.txt").write_text("")
    assert start(MODULE, run).wait(120) == 0
    assert "weights.safetensors is damaged" in (run / "log.txt").read_text()
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert losses(run) == losses(whole)
    assert (run / "checkpoints" / "step-6" / "weights.safetensors").read_bytes() == (
        whole / "checkpoints" / "step-6" / "weights.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_it_says_when_no_checkpoint_is_intact(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "adapter")
    (run / "result.json").unlink()
    for step in (4, 6):
        (run / "checkpoints" / f"step-{step}" / "state.pt").unlink()
    assert start(MODULE, run).wait(120) == 1
    assert "state.pt is missing" in reason(run)
    assert reason(run).endswith("or delete it to train from the start.")


def test_it_names_a_base_that_is_cut_short(tmp_path: Path, labels: Path, base: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    run = new_run(tmp_path / "run", labels, broken)
    with pytest.raises(RunError, match="damaged or cut short"):
        train(run)
