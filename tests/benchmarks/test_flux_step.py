"""The benchmark at full size, on a GPU, and the same script on a CPU."""

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks import flux_step


def test_the_script_measures_tiny_models_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "step.json"
    arguments = ["--size", "tiny", "--dtype", "float32", "--steps", "2", "--literal"]
    found = flux_step.main([*arguments, "--json", str(into)])
    assert json.loads(into.read_text()) == found
    phases = found["phases"]
    assert set(phases) == {label for *_, label in flux_step.PHASES} - {"references"}
    assert 0 < sum(phases.values()) <= found["seconds"]
    assert found["references_seconds"] > 0
    assert found["tflop"] > 0
    # An evaluation reads 64 image tokens and 12 of the prompt; a step has up to 3 of the rollout,
    # the anchor's and the policy's own.
    assert 76 * 3 <= found["tokens_per_second"] * found["seconds"] <= 76 * 5
    # Three transformers, a gradient and two moments.
    assert found["literal_peak_gib"] * 2**30 > 6 * 4 * found["transformer_parameters"]
    assert found["memory_ratio"] < 1
    assert found["step_speedup"] > 0
    said = capsys.readouterr().out
    assert "reward backward" in said
    assert "step_speedup" in said


def test_its_configurations_are_the_real_ones() -> None:
    from diffusers import FluxTransformer2DModel
    from transformers import AutoConfig, AutoModelForImageTextToText

    for size, billions in (("full", (11.9, 8.3)), ("half", (6.1, 5.0))):
        fill, qwen, side = flux_step.sizes(size)
        with torch.device("meta"):
            transformer = FluxTransformer2DModel(**fill)
            vlm = AutoModelForImageTextToText.from_config(
                AutoConfig.for_model("qwen2_5_vl", **qwen)
            )
        counted = [sum(p.numel() for p in one.parameters()) / 1e9 for one in (transformer, vlm)]
        assert counted == pytest.approx(billions, abs=0.1)
        assert side == 512


@pytest.mark.gpu
@pytest.mark.timeout(3600)
def test_a_step_at_full_size(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints its figures: pytest -m gpu tests/benchmarks -s"""
    found = flux_step.main(["--size", "full"])
    assert found["transformer_parameters"] > 11e9
    assert found["peak_gib"] < 80
    assert 0 < found["share_of_bf16_limit"] < 1


@pytest.mark.gpu
@pytest.mark.timeout(3600)
def test_a_step_beside_the_literal_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = flux_step.main(["--size", "half", "--literal"])
    assert found.get("literal") or found["step_speedup"] > 1
