from collections.abc import Iterator
from pathlib import Path

import pytest

from generation import loaded
from generation.models import Policy
from tests.factories import make_policy


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the real classes, in the layout of FLUX.1-Fill-dev."""
    from tests.diffusion.tiny import save_tiny_policy

    return save_tiny_policy(tmp_path_factory.mktemp("weights") / "policy")


@pytest.fixture
def policy(tiny_weights: Path) -> Iterator[Policy]:
    """A policy that can really generate, at 32 × 32 pixels at most."""
    yield make_policy("tiny", location=tiny_weights, max_pixels=32 * 32)
    loaded.release()
