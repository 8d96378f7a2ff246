"""Algorithm 1 as the paper writes it, and ours with every change switched off: one loss.

Both get the same sources, noise, steps and references. What is left of ours then is how it
computes: references once, all questions in one reading, the gradient in two halves, and the roles
as adapters or copies.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from generation.diffusion.loading import load_models
from modeling.policy.config import PolicyConfig
from modeling.policy.literal import LiteralConfig, LiteralStep, probability_of_yes
from modeling.policy.trainer import Trainer, prepare
from modeling.policy.watch import seed_of
from modeling.reward.scoring import margins
from modeling.reward.view_config import ViewConfig
from modeling.reward.vlm import load_reward_vlm
from modeling.rundir import RunDirectory
from tests.policy.tiny import make_run

AS_PAPER: dict[str, Any] = {
    "algorithm": "frozen",
    "reward_form": "probability",
    "order": "policy_first",
    "anchor_weight": 0.0,
    "tone_weight": 0.0,
    "references_per_source": 1,
    "batch_size": 4,
    "num_inference_steps": 3,
    "cap": 0.95,
}


def make_trainer(directory: Path, policy_dir: Path, reward_dir: Path, **values: Any) -> Trainer:
    run = RunDirectory(make_run(directory, policy_dir, reward_dir, **AS_PAPER, **values))
    trainer = prepare(run, run.config(PolicyConfig), Accelerator(cpu=True))
    # The paper shows the reward model whole pictures.
    trainer.vlm.view = ViewConfig(composite=False)
    return trainer


def make_literal(trainer: Trainer, policy_dir: Path, reward_dir: Path) -> LiteralStep:
    config = trainer.config
    models = load_models(config.policy)
    literal = LiteralConfig(
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        cap=config.cap,
        lr=config.lr,
    )
    return LiteralStep(models, load_reward_vlm(reward_dir), literal)


@pytest.fixture(params=["full", "adapters"])
def full_finetune(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "full")


def test_its_loss_and_gradient_are_ours_with_all_changes_off(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, full_finetune: bool
) -> None:
    trainer = make_trainer(tmp_path / "run", policy_dir, reward_dir, full_finetune=full_finetune)
    literal = make_literal(trainer, policy_dir, reward_dir)
    for step in (1, 2):
        material: Any = trainer.objective.prepare(step, np.random.default_rng(step))
        seeds = [seed_of("reference", 0, 0, 0, row.id, 0) for row in material.batch.rows]
        references = literal.sample_references(material.batch, seeds)
        # Ours sampled a source that was drawn twice once: in another batch, whose last bits differ.
        apart = (references - material.references).abs() * 255
        assert apart.max() < 1.5
        assert (apart > 0.5).float().mean() < 0.001

        trainer.optimizer.zero_grad()
        outcome = trainer.objective.forward_backward(material, 1.0)
        literal.optimizer.zero_grad()
        loss = literal.loss(material.batch, material.seeds, material.references, material.at[0])
        loss.backward()
        loss = loss.detach()
        assert float(loss) == pytest.approx(outcome.loss, rel=1e-5)
        assert float(loss) > 0.01
        if full_finetune:
            ours = [p.grad for p in trainer.roles.parameters()]
            theirs = [p.grad for p in literal.policy.parameters()]
            assert sum(float(g.abs().sum()) for g in theirs if g is not None) > 0
            for mine, other in zip(ours, theirs, strict=True):
                assert (mine is None) == (other is None)
                if mine is not None and other is not None:
                    torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)


def test_a_whole_step_moves_the_weights_alike(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    from modeling.policy.train import train_step

    trainer = make_trainer(
        tmp_path / "run", policy_dir, reward_dir, full_finetune=True, warmup_steps=0, lr=1e-3
    )
    literal = make_literal(trainer, policy_dir, reward_dir)
    before = [p.detach().clone() for p in literal.policy.parameters()]
    material: Any = trainer.objective.prepare(1, np.random.default_rng([0, 1, 0]))
    seeds = [seed_of("reference", 0, 0, 0, row.id, 0) for row in material.batch.rows]
    loss = literal.take(material.batch, material.seeds, seeds, material.at[0])
    assert train_step(trainer, 1)["loss"] == pytest.approx(loss, rel=1e-4)
    moved, alike, count = 0.0, 0, 0
    for mine, other, start in zip(
        trainer.roles.parameters(), literal.policy.parameters(), before, strict=True
    ):
        # Adam's first step is lr times the gradient's sign: where the gradient is all but zero
        # rounding decides it.
        alike += int(((mine - other).abs() < 1e-5).sum())
        count += mine.numel()
        moved += float((other - start).detach().abs().sum())
    assert alike > 0.99 * count
    assert moved > 0


def test_it_reads_each_question_as_the_packed_form_does(reward_dir: Path) -> None:
    vlm = load_reward_vlm(reward_dir)
    first, second = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    queries = [["Is it red?", "Is the first image better in structure?"], ["Is it?", "Better?"]]
    packed = margins(vlm, first, second, queries).sigmoid()
    for number in range(2):
        alone = probability_of_yes(vlm, first, second, [row[number] for row in queries])
        torch.testing.assert_close(alone, packed[:, number], rtol=1e-5, atol=1e-6)
