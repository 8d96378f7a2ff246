from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling.reward.vlm import RewardVLM, load_reward_vlm
from tests.reward.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny-vlm"))


@pytest.fixture
def vlm(tiny_dir: Path) -> RewardVLM:
    """In float64, so that comparisons of two computations show mistakes and not rounding."""
    return load_reward_vlm(tiny_dir, dtype=torch.float64)
