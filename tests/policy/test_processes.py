"""One run on one and on two real processes (gloo): the same global batch, the same losses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from modeling.policy.processes import Processes
from modeling.policy.train import train
from modeling.rundir import RunDirectory, RunError
from tests.policy.tiny import make_run, trainer

LORA = "adapter/pytorch_lora_weights.safetensors"
VALUES: dict[str, Any] = {"steps": 4, "batch_size": 4, "lr": 1e-3, "warmup_steps": 0}


def _start(run: Path) -> subprocess.Popen[bytes]:
    """torchrun, since `accelerate launch --cpu` starts several processes through MPI alone."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*command, "--nproc-per-node", "2", "-m", "--", *trainer(run)[2:]],
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _finish(run: Path) -> None:
    process = _start(run)
    try:
        assert process.wait(timeout=240) == 0, (run / "log.txt").read_text()[-3000:]
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _assert_alike(first: Path, second: Path) -> None:
    rows = [RunDirectory(run).metrics() for run in (first, second)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for one, two in zip(*rows, strict=True):
        for key in ("loss", "grad_norm", "reward", "references_made"):
            if key in one:
                assert two[key] == pytest.approx(one[key], rel=2e-3, abs=1e-4), (one["step"], key)
        assert _counts(one) == _counts(two)


def _counts(row: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        task: {name: cell["n"] for name, cell in cells.items()}
        for task, cells in row.get("tasks", {}).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"algorithm": "frozen", "order": "both", "monitor": {"every": 2, "sources": 2}},
        pytest.param(
            {"algorithm": "dynamic", "reference_staleness": 2, "micro_batch_size": 1},
            marks=pytest.mark.long,
        ),
        pytest.param({"algorithm": "diffusion_nft", "group_size": 2}, marks=pytest.mark.long),
    ],
)
def test_two_processes_take_the_steps_of_one(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, values: dict[str, Any]
) -> None:
    one = make_run(tmp_path / "one", policy_dir, reward_dir, **VALUES, **values)
    two = make_run(tmp_path / "two", policy_dir, reward_dir, **VALUES, **values)
    train(one)
    _finish(two)
    _assert_alike(one, two)
    weights = [load_file(run / LORA) for run in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0.05, atol=2e-4)
    made = {path.name.split("-rank-")[1] for path in (two / "references").glob("step-*")}
    assert made == {"0-of-2.safetensors", "1-of-2.safetensors"}


@pytest.mark.long
def test_two_processes_go_on_exactly_after_a_kill(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    values = {**VALUES, "steps": 7, "checkpoint_every": 3, "algorithm": "dynamic"}
    values["reference_staleness"] = 2
    whole = make_run(tmp_path / "whole", policy_dir, reward_dir, **values)
    killed = make_run(tmp_path / "killed", policy_dir, reward_dir, **values)
    _finish(whole)
    process = _start(killed)
    metrics = killed / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= 4:
            break
        time.sleep(0.01)
    _end(process)
    assert 4 <= metrics.read_text().count("\n") < 7, (killed / "log.txt").read_text()[-3000:]
    _finish(killed)
    assert (killed / LORA).read_bytes() == (whole / LORA).read_bytes()
    rows = [RunDirectory(run).metrics() for run in (killed, whole)]
    for first, second in zip(*rows, strict=True):
        for key in ("step", "loss", "grad_norm", "tasks"):
            assert first[key] == second[key]


class _Third(Processes):
    """What the first of three would see."""

    def __init__(self) -> None:
        super().__init__(Accelerator(cpu=True))
        self.count, self.rank = 3, 2


def test_it_refuses_a_batch_that_does_not_divide() -> None:
    assert _Third().part(12) == slice(8, 12)
    assert _Third().part(12, groups_of=2) == slice(8, 12)
    with pytest.raises(RunError, match="16 cannot be divided equally among 3 processes"):
        _Third().part(16)
    with pytest.raises(RunError, match="groups of 4: batch_size.*must be a multiple of 12"):
        _Third().part(18, groups_of=4)


def test_it_refuses_other_ways_to_divide_weights() -> None:
    accelerator: Any = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED)
    with pytest.raises(RunError, match="cannot run under DEEPSPEED: choose MULTI_GPU or FSDP"):
        Processes(accelerator)
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, is_fsdp2=False)
    with pytest.raises(RunError, match="set fsdp_version to 2"):
        Processes(accelerator)
