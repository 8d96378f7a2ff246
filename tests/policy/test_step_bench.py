"""The benchmark of a step: its models have FLUX's proportions, its figures are measured."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from generation.diffusion.loading import load_models
from generation.diffusion.sampling import decode, velocity
from modeling.policy import step_bench
from modeling.policy.config import PolicyConfig
from modeling.policy.literal import probability_of_yes
from modeling.policy.sources import Batch
from modeling.policy.trainer import prepare
from modeling.reward.vlm import load_reward_vlm

# Of FLUX.1-Fill-dev and Qwen2.5-VL-7B at 512 x 512 and 60 tokens of question, by FlopCounterMode on
# the meta device (the vision tower by its parameters): TFLOP.
FLUX_STEP, QUESTION, DECODE = 21.5, 12.8, 2.5


def flops(mode: FlopCounterMode) -> int:
    return mode.get_total_flops()


def test_its_models_have_fluxs_proportions(tmp_path: Path) -> None:
    run = step_bench.flux_like_run(tmp_path)
    config = run.config(PolicyConfig)
    trainer = prepare(run, config, Accelerator(cpu=True))
    material = step_bench._material(trainer, 1)
    batch: Batch = material.batch[:1]
    models, vlm = load_models(config.policy), load_reward_vlm(config.reward.location)
    noise = trainer.sampler.noise(batch, [0])
    query = next(iter(batch.rows[0].queries.values()))
    assert len(batch.rows[0].queries) == 4
    counted = []
    for work in (
        lambda: velocity(
            models.transformer, noise, torch.ones(()), batch.conditions, guidance_scale=30.0
        ),
        lambda: probability_of_yes(vlm, batch.images, batch.images, [query]),
        lambda: decode(models, noise, 128, 128),
    ):
        with FlopCounterMode(display=False) as mode, torch.no_grad():
            work()
        counted.append(flops(mode))
    step, question, picture = counted
    # Smaller than FLUX's, so that what is saved there counts less here.
    assert 0.6 < (question / step) / (QUESTION / FLUX_STEP) < 1.0
    assert 0.6 < (picture / step) / (DECODE / FLUX_STEP) < 1.0


def test_it_measures_both_steps(tmp_path: Path) -> None:
    run = step_bench.starter_run(tmp_path, batch_size=2, num_inference_steps=2)
    found = step_bench.measure(run, repeats=1)
    assert 0 < found.ours_bytes < found.literal_bytes
    assert min(found.literal_seconds, found.ours_seconds, found.fresh_seconds) > 0
    ratios = found.ratios()
    assert ratios["rl_step_speedup_whole_run"] <= ratios["rl_step_speedup"]
    # The weights alone: three transformers, a gradient and two moments against one and a LoRA.
    transformer = 4 * 2_108_752
    assert found.literal_bytes > 6 * transformer
    assert found.ours_bytes > transformer


def test_loading_is_a_share_of_the_steps(tmp_path: Path) -> None:
    run = step_bench.starter_run(tmp_path, batch_size=2, num_inference_steps=2)
    assert 0 < step_bench.loader_share(run, steps=2) < 0.5


@pytest.mark.parametrize(("steps", "low", "high"), [(1, 0.99, 1.0), (2000, 0.12, 0.13)])
def test_it_knows_how_many_references_a_run_makes(steps: int, low: float, high: float) -> None:
    """16,000 draws of 2,000 references find nearly all of them: an eighth."""
    assert low <= step_bench.made_share(steps=steps) <= high
