from typing import Any

import pytest

from modeling.policy.config import PolicyConfig, gradient_steps
from modeling.rundir import RunError, load_config

REQUIRED = {"policy": {"location": "base"}, "reward": {"location": "judge"}}


def _load(**values: Any) -> PolicyConfig:
    return load_config(PolicyConfig, {**REQUIRED, **values})


def test_it_reads_nested_values() -> None:
    config = _load(policy={"location": "base", "adapter": "lora"}, monitor={"every": 5})
    assert config.policy.adapter == "lora"
    assert config.monitor.every == 5
    assert config.algorithm == "frozen"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 1.0}, "Unknown configuration key 'learning_rate'"),
        ({"anchor_wieght": 1.0}, "Did you mean 'anchor_weight'"),
        ({"monitor": {"max_drfit": 1.0}}, "Did you mean 'max_drift'"),
        ({"policy": {}}, "'location' is missing"),
        ({"algorithm": "ppo"}, "algorithm must be one of frozen, dynamic, refl.*got 'ppo'"),
        ({"rewards": {"clip": 1.0}}, "rewards must be one of reward_vlm, ocr, got 'clip'"),
        ({"rewards": {"ocr": 0}}, "rewards.ocr must be above 0"),
        ({"rewards": {}}, "at least one reward"),
        ({"algorithm": "diffusion_nft", "group_size": 3}, "divide batch_size"),
        ({"dpo_beta": 0}, "dpo_beta must be above 0"),
        ({"cfg_free": True}, "cfg_free leaves true CFG out .* true_cfg_scale is 1"),
        ({"cap": 1.0}, "cap must be at least 0.5 and below 1, got 1.0"),
        ({"lr": 0}, "lr must be above 0"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"t_range": [0.9, 0.2]}, "t_range must be two rising numbers"),
        ({"t_range": [0.95, 0.96], "num_inference_steps": 2}, None),
        ({"gradients_per_rollout": 6}, "gradients_per_rollout must be at most 5, the steps that"),
        ({"gradients_per_rollout": 2, "algorithm": "sft"}, "must be 1 with sft: only frozen"),
        ({"rollout_steps": 1, "t_range": [0.0, 1.0], "gradients_per_rollout": 2}, "at most 1"),
        ({"rollout_steps": -1}, "rollout_steps must be 0 or more"),
        ({"order": "second"}, "order must be one of random, both, policy_first"),
        (
            {"full_finetune": True, "anchor": "base", "policy": {"location": "b", "adapter": "a"}},
            "use 'parent'",
        ),
    ],
)
def test_it_names_the_wrong_key_or_value(values: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert gradient_steps(2, _load(**values).t_range) == [1]
        return
    with pytest.raises(RunError, match=message):
        _load(**values)


def test_it_takes_the_gradient_in_the_last_part_of_the_steps() -> None:
    assert gradient_steps(6, (0.55, 1.0)) == [3, 4, 5]
    # The last 11 or 12 of 25 steps, as in the public ReFL recipe that the default follows.
    assert gradient_steps(25, (0.55, 1.0)) == list(range(13, 25))
    assert gradient_steps(4, (0.0, 1.0)) == [0, 1, 2, 3]
    assert gradient_steps(4, (0.0, 0.5)) == [0, 1]
