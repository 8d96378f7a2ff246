"""Full fine-tuning with weights divided between two real processes (FSDP2 on gloo)."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file

from modeling.policy.config import PolicyConfig
from modeling.policy.train import train
from modeling.policy.trainer import _processes
from modeling.rundir import RunDirectory, RunError
from tests.policy.test_processes import VALUES, _assert_alike, _end
from tests.policy.tiny import make_run, trainer

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
FULL: dict[str, Any] = {**VALUES, "full_finetune": True, "divide_weights": True, "lr": 1e-4}


def _finish(run: Path) -> None:
    """By two processes, started without a launcher, which takes as long as one of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    place |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with (run / "log.txt").open("ab") as log:
        both = [
            subprocess.Popen(
                trainer(run),
                env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for rank in "01"
        ]
    try:
        for process in both:
            assert process.wait(timeout=240) == 0, (run / "log.txt").read_text()[-3000:]
    finally:
        for process in both:
            _end(process)


def _assert_near(first: Path, second: Path) -> None:
    weights = [load_file(run / WEIGHTS) for run in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        # Adam divides by the root of tiny second moments: where a gradient is all but zero,
        # rounding decides the direction of a step of lr.
        torch.testing.assert_close(weights[1][name], tensor, rtol=0.01, atol=4e-4)
        assert ((weights[1][name] - tensor).abs() < 1e-6).float().mean() > 0.9, name


@pytest.mark.slow
@pytest.mark.long
def test_divided_weights_take_the_steps_of_one_process(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    """The parts draw endpoints at other steps and make references at other times."""
    values = {**FULL, "monitor": {"every": 2, "sources": 2}, "keep": "best"}
    one = make_run(tmp_path / "one", policy_dir, reward_dir, **values)
    two = make_run(tmp_path / "two", policy_dir, reward_dir, **values)
    train(one)
    _finish(two)
    _assert_alike(one, two)
    _assert_near(one, two)
    config = json.loads((two / "transformer" / "config.json").read_text())
    assert config == json.loads((one / "transformer" / "config.json").read_text())
    FluxTransformer2DModel.from_pretrained(two / "transformer")
    # Two processes' checkpoint is whole: one process goes on from it.
    shutil.rmtree(two / "checkpoints" / "step-4")
    shutil.rmtree(two / "transformer")
    train(two)
    ends = [RunDirectory(run).metrics()[-1] for run in (one, two)]
    assert ends[1]["loss"] == pytest.approx(ends[0]["loss"], rel=2e-3)
    _assert_near(one, two)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "values",
    [
        {"algorithm": "dynamic", "gradient_checkpointing": True, "micro_batch_size": 1},
        {"algorithm": "dynamic", "reference_staleness": 2, "dtype": "bfloat16"},
        {"algorithm": "diffusion_nft", "group_size": 2},
        {"algorithm": "diffusion_dpo"},
        {"gradients_per_rollout": 2, "recompute_endpoint": True},
    ],
)
def test_every_objective_trains_with_divided_weights(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, values: dict[str, Any]
) -> None:
    one = make_run(tmp_path / "one", policy_dir, reward_dir, **FULL, **values)
    two = make_run(tmp_path / "two", policy_dir, reward_dir, **FULL, **values)
    train(one)
    _finish(two)
    if "dtype" in values:
        rows = [RunDirectory(run).metrics() for run in (one, two)]
        for first, second in zip(*rows, strict=True):
            assert second["loss"] == pytest.approx(first["loss"], rel=0.05, abs=0.02)
    else:
        _assert_alike(one, two)
        _assert_near(one, two)


@pytest.mark.slow
@pytest.mark.long
def test_divided_weights_go_on_exactly(tmp_path: Path, policy_dir: Path, reward_dir: Path) -> None:
    values = {**FULL, "steps": 5}
    whole = make_run(tmp_path / "whole", policy_dir, reward_dir, **values)
    again = make_run(tmp_path / "again", policy_dir, reward_dir, **values)
    for run in (whole, again):
        _finish(run)
    shutil.rmtree(again / "checkpoints" / "step-5")
    shutil.rmtree(again / "transformer")
    _finish(again)
    assert (again / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "full fine-tuning alone: set full_finetune, or train the LoRA under MULTI_GPU"),
        ({"full_finetune": True, "compile": ["transformer"]}, "'transformer' needs whole weights"),
    ],
)
def test_it_refuses_what_cannot_be_divided(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, values: dict[str, Any], message: str
) -> None:
    run = RunDirectory(make_run(tmp_path / "run", policy_dir, reward_dir, **values))
    one = Accelerator(cpu=True)
    eight: Any = SimpleNamespace(
        distributed_type="FSDP",
        is_fsdp2=True,
        num_processes=8,
        process_index=0,
        is_main_process=True,
        device=one.device,
    )
    with pytest.raises(RunError, match=message):
        _processes(run.config(PolicyConfig), eight)
    # One process has nothing to divide.
    assert not _processes(run.config(PolicyConfig), one).divides
