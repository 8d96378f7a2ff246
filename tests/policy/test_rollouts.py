"""Cheaper rollouts: fewer steps of second order, and several gradients from one of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from modeling.policy import step_bench
from modeling.policy.adapters import POLICY
from modeling.policy.config import PolicyConfig
from modeling.policy.objectives.onereward import _spread
from modeling.policy.objectives.protocol import step_rng
from modeling.policy.rollouts import Sampler
from modeling.policy.train import train, train_step
from modeling.policy.trainer import Trainer, prepare
from modeling.rundir import RunDirectory
from tests.policy.tiny import make_run


def _prepared(run: Path) -> Trainer:
    directory = RunDirectory(run)
    torch.manual_seed(0)
    return prepare(directory, directory.config(PolicyConfig), Accelerator(cpu=True))


def _gradient(trainer: Trainer, material: Any, share: float = 1.0) -> tuple[float, Tensor]:
    trainer.optimizer.zero_grad()
    loss = trainer.objective.forward_backward(material, share).loss
    found = [p.grad.flatten() for p in trainer.roles.parameters() if p.grad is not None]
    return loss, torch.cat(found)


@pytest.mark.parametrize("values", [{"order": "both"}, {"straight_through": True}])
def test_several_endpoints_of_a_rollout_are_the_mean_of_each(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, values: dict[str, Any]
) -> None:
    values = {"gradients_per_rollout": 2, "num_inference_steps": 6, **values}
    trainer = _prepared(make_run(tmp_path / "run", policy_dir, reward_dir, **values))
    material: Any = trainer.objective.prepare(1, step_rng(trainer.config, 1))
    assert material.at.shape == (2, 3)
    assert not (material.at[0] == material.at[1]).any()
    loss, gradient = _gradient(trainer, material)
    apart = []
    for number in range(2):
        one = {"at": material.at[[number]], "policy_first": material.policy_first[[number]]}
        apart.append(_gradient(trainer, replace(material, **one)))
    assert apart[0][0] != apart[1][0]
    assert loss == pytest.approx((apart[0][0] + apart[1][0]) / 2, rel=1e-5)
    mean = (apart[0][1] + apart[1][1]) / 2
    torch.testing.assert_close(gradient, mean, rtol=1e-4, atol=1e-6 * float(mean.abs().max()))


@pytest.mark.parametrize(("steps", "endpoints"), [(20, 1), (20, 2), (5, 3), (3, 3)])
def test_each_endpoint_is_at_every_step_equally_often(steps: int, endpoints: int) -> None:
    """The first is drawn evenly; the others lie at fixed distances around the circle of steps."""
    choices = [*range(8, 8 + steps)]
    drawn = _spread(np.random.default_rng(0), choices, endpoints, 4000)
    assert all(len(set(rollout)) == endpoints for rollout in drawn.T)
    for row in drawn:
        counts = np.bincount(row, minlength=8 + steps)[8:]
        # Five standard deviations of a count.
        assert abs(counts - 4000 / steps).max() < 5 * (4000 / steps) ** 0.5
    # One endpoint is what was drawn before there were several.
    alone = np.random.default_rng(0).choice(choices, size=4000)
    assert (drawn[0] == alone).all()


def test_micro_batches_of_several_endpoints_are_the_same_step(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    rows = []
    for size in (0, 2):
        values = {"gradients_per_rollout": 2, "micro_batch_size": size, "rollout_steps": 4}
        run = make_run(tmp_path / str(size), policy_dir, reward_dir, steps=2, **values)
        train(run)
        rows.append(RunDirectory(run).metrics())
    for whole, parts in zip(*rows, strict=True):
        assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-3)
        assert whole["grad_norm"] == pytest.approx(parts["grad_norm"], rel=1e-2)
        # Six samples were judged, in one or two dimensions each.
        judged = [cell["n"] for task in whole["tasks"].values() for cell in task.values()]
        assert 6 <= sum(judged) <= 12
        assert sum(judged) % 2 == 0


def test_it_rolls_out_in_fewer_steps_and_watches_in_all(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    values = {"rollout_steps": 2, "num_inference_steps": 6, "references_per_source": 1}
    trainer = _prepared(make_run(tmp_path / "run", policy_dir, reward_dir, **values))
    evaluated: list[float] = []
    trainer.models.transformer.register_forward_pre_hook(
        lambda _module, _given, named: evaluated.append(float(named["timestep"].max())),
        with_kwargs=True,
    )
    train_step(trainer, 1)
    # The references' two, one or two of the rollout, the anchor's and the policy's own.
    assert len(evaluated) in (4, 5)
    evaluated.clear()
    trainer.watch.look(trainer.watch_sampler, trainer.roles, trainer.vlm)
    assert len(evaluated) == 6 + 1


@pytest.mark.long
def test_half_the_steps_of_second_order_are_nearer_the_flows_end(tmp_path: Path) -> None:
    """On the starter policy, whose velocities are those of a trained model."""
    run = step_bench.starter_run(tmp_path, batch_size=1)
    trainer = _prepared(run.path)
    batch = trainer.sources.batch([*range(0, 40, 5)])
    noise = trainer.sampler.noise(batch, range(8))

    def ends(**values: Any) -> Tensor:
        sampler = Sampler(trainer.models, replace(trainer.config, **values), training=True)
        with torch.no_grad(), trainer.roles.acting(POLICY) as transformer:
            seen = sampler.trajectory(transformer, noise, batch)
            return sampler.decode(seen[-1], batch)

    exact = ends(rollout_steps=60)
    euler, half = ends(num_inference_steps=28), ends(rollout_steps=14)
    errors = [(one - exact).square().mean((1, 2, 3)).sqrt().mean() for one in (euler, half)]
    assert 0 < errors[1] < errors[0]
