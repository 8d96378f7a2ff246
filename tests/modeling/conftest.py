from pathlib import Path

import pytest

from tests.diffusion.tiny import save_tiny_policy
from tests.modeling.project import Project, make_project
from tests.reward.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def tiny_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("reward"))


@pytest.fixture
def project(transactional_db: None, tiny_policy: Path, tiny_reward: Path) -> Project:
    """Two tasks of the starter world with few sources, a tiny active policy and reward model."""
    return make_project(tiny_policy, tiny_reward)


@pytest.fixture
def quick_project(db: None, tiny_policy: Path, tiny_reward: Path) -> Project:
    """The same inside the test's transaction: much faster, where no other process takes part."""
    return make_project(tiny_policy, tiny_reward)
