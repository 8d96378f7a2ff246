"""The gradient in two halves: the joint gradient, with less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from modeling.policy.bench import _with, joint_backward, role_memory, two_half_memory
from modeling.policy.config import PolicyConfig
from modeling.policy.objectives.protocol import step_rng
from modeling.policy.trainer import Trainer, prepare
from modeling.rundir import RunDirectory
from tests.policy.tiny import make_run


@pytest.fixture
def run(tmp_path: Path, policy_dir: Path, reward_dir: Path) -> RunDirectory:
    values: dict[str, Any] = {"batch_size": 4, "order": "both"}
    return RunDirectory(make_run(tmp_path / "run", policy_dir, reward_dir, **values))


def _prepared(run: RunDirectory) -> Trainer:
    trainer = prepare(run, run.config(PolicyConfig), Accelerator(cpu=True))
    with torch.no_grad():  # B of a new LoRA is 0, and with it the gradient of every A
        for parameter in trainer.roles.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return trainer


def _gradients(trainer: Trainer) -> list[Tensor]:
    found = []
    for parameter in trainer.roles.parameters():
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
        parameter.grad = None
    return found


def test_its_halves_add_up_to_the_joint_gradient(run: RunDirectory) -> None:
    trainer = _prepared(run)
    objective: Any = trainer.objective
    material = objective.prepare(1, step_rng(trainer.config, 1))
    objective.forward_backward(material, 1.0)
    halves = _gradients(trainer)
    assert min(float(one.abs().max()) for one in halves) > 0
    joint_backward(objective, material)
    for half, joint in zip(halves, _gradients(trainer), strict=True):
        torch.testing.assert_close(half, joint, rtol=1e-4, atol=1e-6 * float(joint.abs().max()))
    # Sampled again, the second half starts from the same bits.
    _with(objective, recompute_endpoint=True).forward_backward(material, 1.0)
    for half, again in zip(halves, _gradients(trainer), strict=True):
        assert torch.equal(half, again)


def test_its_halves_take_less_memory_than_one_graph(run: RunDirectory) -> None:
    found = two_half_memory(run)
    assert found["recompute_bytes"] < 0.9 * found["joint_bytes"]
    assert found["two_halves_bytes"] <= 1.02 * found["joint_bytes"]
    ratio = found["recompute_bytes"] / found["joint_bytes"]
    assert found["recompute_memory_ratio"] == pytest.approx(ratio)


def test_its_adapters_take_less_memory_than_copies(run: RunDirectory) -> None:
    found = role_memory(run)
    assert 0 < found["adapters_bytes"] < found["copies_bytes"]
