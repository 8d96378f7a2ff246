from pathlib import Path

import pytest
from diffusers import FluxFillPipeline

from generation.diffusion.loading import FillModels, PolicySpec, load_models
from tests.diffusion.tiny import save_tiny_policy


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy(tmp_path_factory.mktemp("tiny") / "policy")


@pytest.fixture(scope="session")
def models(tiny_policy: Path) -> FillModels:
    return load_models(PolicySpec(location=str(tiny_policy)))


@pytest.fixture(scope="session")
def pipeline(tiny_policy: Path) -> FluxFillPipeline:
    """diffusers' own pipeline over the same checkpoint."""
    pipe = FluxFillPipeline.from_pretrained(tiny_policy)
    pipe.set_progress_bar_config(disable=True)
    return pipe
