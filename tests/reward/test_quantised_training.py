from __future__ import annotations

import json
from pathlib import Path

import pytest

from modeling.reward.train import train
from modeling.reward.vlm import load_reward_vlm
from tests.reward.test_train import new_run
from tests.reward.tiny import save_tiny
from tests.reward.worlds import snapshot


def test_a_run_trains_a_lora_on_an_nf4_base(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    labels = snapshot(tmp_path / "labels", sources=8, holdout=4)
    base = save_tiny(tmp_path / "base", True)
    run = new_run(
        tmp_path / "run", labels, base, quantisation="nf4", steps=4, checkpoint_every=2, min_pairs=4
    )
    train(run)
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 4
    assert result["output"]["adapter"] == str(run / "adapter")
    vlm = load_reward_vlm(base, adapter=run / "adapter", quantisation="nf4")
    weights = {n: p for n, p in vlm.model.named_parameters() if "lora_B" in n}
    assert all(p.abs().max() > 0 for p in weights.values())
