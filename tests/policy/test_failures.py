"""What goes wrong on machines: each failure ends in one sentence and a run that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from modeling.policy.train import train
from modeling.rundir import RunDirectory, RunError
from tests.machines import start, train_on_a_small_disk, train_with_little_memory
from tests.policy.tiny import make_run

MODULE = "modeling.policy.train"
LORA = "adapter/pytorch_lora_weights.safetensors"


def reason(run: Path) -> str:
    return str(json.loads((run / "error.json").read_text())["message"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, policy_dir: Path, reward_dir: Path) -> Path:
    run = make_run(tmp_path_factory.mktemp("whole") / "run", policy_dir, reward_dir)
    assert start(MODULE, run).wait(120) == 0
    return run


@pytest.mark.long
def test_it_goes_on_after_a_full_disk(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, whole: Path
) -> None:
    inputs = make_run(tmp_path / "inputs", policy_dir, reward_dir)
    used = sum(f.stat().st_size for f in inputs.rglob("*") if f.is_file())
    used += sum(f.stat().st_size for f in (whole / "references").iterdir())
    size = sum(f.stat().st_size for f in (whole / "checkpoints" / "step-4").iterdir())
    out = tmp_path / "out"
    train_on_a_small_disk(MODULE, inputs, out, size=f"{(used + size * 3 // 2) // 1024 + 200}k")
    assert "could not be written: " in reason(out)
    assert "Make room on that disk" in reason(out)
    assert "it goes on from step " in reason(out)
    assert not [name for name in (out / "checkpoints.txt").read_text().split() if name[0] == "."]
    assert (out / LORA).read_bytes() == (whole / LORA).read_bytes()


@pytest.mark.slow
def test_it_names_the_remedy_when_memory_runs_out(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, batch_size=2048)
    done = train_with_little_memory(MODULE, run, room=96 * 2**20)
    assert done.returncode == 1
    assert reason(run).startswith("The memory ran out")
    assert reason(run) in done.stderr.strip().splitlines()[-1]


def test_it_stops_at_a_loss_that_is_no_number(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(reward_dir, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(n for n in weights if n.endswith("layers.1.mlp.down_proj.weight"))
    save_file(weights | {name: weights[name] * float("inf")}, broken / "model.safetensors")
    run = make_run(tmp_path / "run", policy_dir, broken)
    with pytest.raises(RunError, match="is not a number. Lower lr"):
        train(run)
    assert not RunDirectory(run).checkpoints()


@pytest.mark.long
def test_it_goes_back_to_an_intact_checkpoint(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "adapter")
    roles = run / "checkpoints" / "step-4" / "roles.safetensors"
    roles.write_bytes(roles.read_bytes()[:-100])
    (run / "log.txt").write_text("")
    assert start(MODULE, run).wait(120) == 0
    assert "roles.safetensors is damaged" in (run / "log.txt").read_text()
    assert (run / LORA).read_bytes() == (whole / LORA).read_bytes()
    for path in (run / "checkpoints").iterdir():
        (path / "optimizer.pt").write_bytes(b"nothing")
    shutil.rmtree(run / "adapter")
    assert start(MODULE, run).wait(120) == 1
    assert "optimizer.pt is damaged" in reason(run)
