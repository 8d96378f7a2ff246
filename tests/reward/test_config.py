from __future__ import annotations

from typing import Any

import pytest

from modeling.reward.config import RewardConfig
from modeling.rundir import RunError, load_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rte": 1}, "Unknown configuration key 'learning_rte'"),
        ({"lora_rnk": 4}, "Did you mean 'lora_rank'"),
        ({"output": "adapter"}, "output must be one of lora, full, not 'adapter'"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 on, not 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"lr": -1.0}, "lr must be a number from 0 on"),
        ({"swap_share": 2.0}, "swap_share must be a number between 0 and 0.9"),
        ({"steps": 0, "epochs": 0}, "give steps or epochs"),
        ({"view": {"zooom": 2.0}}, "Unknown configuration key 'zooom'. Did you mean 'zoom'"),
        ({"view": {"zoom": 0.5}}, "view.zoom must be 0"),
        ({"quantisation": "nf5"}, "quantisation must be one of , nf4, int8, not 'nf5'"),
        ({"quantisation": "nf4", "output": "full"}, "quantised weights cannot be trained"),
        ({"base": ""}, "base must not be empty"),
        ({"ties": "on"}, "ties must be one of off, fixed, trained, not 'on'"),
        ({"order": "first"}, "order must be one of both, random"),
        ({"implied_weight": -1}, "implied_weight must be a number from 0 on"),
        ({"reliability": 0.5}, "reliability must be true or false, not 0.5"),
        ({"trackers": ["tensorboard"]}, "trackers may name wandb, mlflow, trackio"),
    ],
)
def test_it_refuses_wrong_settings_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_config(RewardConfig, {"snapshot": "s", "base": "b", **values})


def test_it_needs_a_snapshot_and_a_base() -> None:
    with pytest.raises(RunError, match="'base' is missing"):
        load_config(RewardConfig, {"snapshot": "s"})
